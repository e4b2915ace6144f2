//! Connections come, change and go, as the model sees it.

use proptest::prelude::*;

use super::{Model, ModelLane, Op, Standing, TENANTS, WIDTHS, picked};
use crate::domain::breaker::Failing;
use crate::domain::time::Timestamp;
use crate::store::RecordId;

impl Model {
    pub(super) async fn change(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Connect { tenant, width } => {
                let (concurrency, batch) = WIDTHS[width];
                let id = match batch {
                    1 => self.world().connect(TENANTS[tenant], concurrency).await,
                    _ => self.world().connect_batched(TENANTS[tenant], batch).await,
                };
                self.lanes.push(ModelLane {
                    id,
                    tenant,
                    concurrency,
                    batch,
                    standing: Standing::Active,
                    wait_until: Timestamp::default(),
                    failing: Failing::default(),
                    always_strict: concurrency == 1,
                });
            }
            Op::Pause { pick } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    self.world().pause(self.lanes[lane].id).await;
                    self.lanes[lane].standing = Standing::Paused;
                }
            }
            Op::Resume { pick } => {
                if let Some(lane) = self.pick_lane(pick, |lane| lane.standing == Standing::Paused) {
                    self.world().resume(self.lanes[lane].id).await;
                    self.lanes[lane].failing = Failing::default();
                    self.lanes[lane].standing = Standing::Active;
                }
            }
            Op::Close { pick } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    self.world().close_connection(self.lanes[lane].id).await;
                    self.lanes[lane].standing = Standing::Closed;
                }
            }
            Op::Delete { pick } => {
                if let Some(lane) = self.pick_lane(pick, |lane| lane.standing != Standing::Deleted) {
                    let id = RecordId::Connection(self.lanes[lane].id);
                    prop_assert_eq!(self.world().store.delete(id).await, Ok(true));
                    self.lanes[lane].standing = Standing::Deleted;
                }
            }
            Op::Cap { pick, width } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    let (concurrency, batch) = WIDTHS[width];
                    self.world()
                        .change(self.lanes[lane].id, |connection| {
                            (connection.concurrency, connection.batch) = (concurrency, batch);
                        })
                        .await;
                    let before = std::mem::replace(&mut self.lanes[lane].batch, batch);
                    self.lanes[lane].concurrency = concurrency;
                    // Jobs of a batch may wait for different times, and what gives one at a time goes by them.
                    self.lanes[lane].always_strict &= concurrency == 1 && batch == before;
                }
            }
            other => unreachable!("{other:?} changes no connection"),
        }
        Ok(())
    }

    fn pick_lane(&self, pick: usize, fits: impl Fn(&ModelLane) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.lanes.len()).filter(|at| fits(&self.lanes[*at])).collect();
        picked(&fitting, pick).copied()
    }
}
