//! Connections come, change and go, as the model sees it.

use proptest::prelude::*;

use super::{CONCURRENCIES, Model, ModelLane, Op, Standing, TENANTS, picked};
use crate::domain::breaker::Failing;
use crate::domain::time::Timestamp;
use crate::store::RecordId;

impl Model {
    pub(super) async fn change(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Connect { tenant, concurrency } => {
                let concurrency = CONCURRENCIES[concurrency];
                let id = self.world().connect(TENANTS[tenant], concurrency).await;
                self.lanes.push(ModelLane {
                    id,
                    tenant,
                    concurrency,
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
            Op::Cap { pick, concurrency } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    let concurrency = CONCURRENCIES[concurrency];
                    self.world()
                        .change(self.lanes[lane].id, |connection| connection.concurrency = concurrency)
                        .await;
                    self.lanes[lane].concurrency = concurrency;
                    self.lanes[lane].always_strict &= concurrency == 1;
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
