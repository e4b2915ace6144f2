//! What must hold: counts after every step, and at the end that nothing was lost or forgotten.

use std::time::Duration;

use proptest::prelude::*;

use super::{Model, ModelJob, Standing, end};
use crate::domain::breaker::Failing;
use crate::domain::id::JobId;
use crate::domain::job::{JobState, Outcome};
use crate::store::conformance::world::RETENTION;

impl Model {
    /// After a sweep to the end, closed lanes hold only what may still be under way.
    pub(super) async fn swept(&mut self) -> Result<(), TestCaseError> {
        let now = self.now();
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            let job = &self.jobs[&id];
            if !job.state.is_open() || self.lanes[job.lane].takes_jobs() {
                continue;
            }
            let delivery = self.world().delivery(id).await;
            let job = self.jobs.get_mut(&id).unwrap();
            if delivery.state == JobState::Cancelled {
                end(job, JobState::Cancelled, now);
                job.lease = None;
            } else {
                // A lease that may have been lost may also have lived on.
                prop_assert!(job.lease.is_some(), "{} was not cancelled", id);
            }
        }
        Ok(())
    }

    pub(super) async fn check_counts(&self) -> Result<(), TestCaseError> {
        let stats = self.world().stats().await;
        let open: Vec<&ModelJob> = self.jobs.values().filter(|job| job.state.is_open()).collect();
        prop_assert_eq!(stats.open, open.len() as u64);
        let held = open.iter().filter(|job| job.lease.is_some()).count() as u64;
        let sure = open
            .iter()
            .filter(|job| !job.shaken && job.lease.as_ref().is_some_and(|held| held.deadline > self.latest));
        let sure = sure.count() as u64;
        prop_assert!(
            (sure..=held).contains(&stats.leased),
            "{} leased, not {}..={}",
            stats.leased,
            sure,
            held
        );
        let mut lanes: Vec<usize> = open.iter().map(|job| job.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let counts = stats.lanes;
        let counted = counts.ready + counts.waiting + counts.full + counts.paused;
        prop_assert_eq!(counted, lanes.len() as u64);
        prop_assert_eq!(stats.oldest.is_some(), stats.open > 0);
        let oldest = self.jobs.iter().find(|(_, job)| job.state.is_open()).map(|(id, _)| id.time());
        prop_assert!(stats.oldest <= oldest, "{:?} is older than {:?}", oldest, stats.oldest);
        Ok(())
    }

    /// Opens every lane, lets all time pass, and takes all that is left; then the log must agree.
    pub(super) async fn finish(mut self) -> Result<(), TestCaseError> {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].standing == Standing::Paused {
                self.world().resume(self.lanes[lane].id).await;
                self.lanes[lane].failing = Failing::default();
                self.lanes[lane].standing = Standing::Active;
            }
        }
        self.world().clock.advance(Duration::from_hours(48));
        self.latest = self.latest.max(self.now());
        let open = self.jobs.values().filter(|job| job.state.is_open()).count();
        for _ in 0..=open {
            let span = Duration::from_mins(1);
            let leases = self.world().lease_for(50, span).await;
            if leases.is_empty() {
                break;
            }
            self.leased(leases.clone(), span)?;
            self.settle(leases, Outcome::Delivered, None).await?;
        }
        self.world().sweep().await;
        self.swept().await?;
        for (id, job) in &self.jobs {
            prop_assert!(!job.state.is_open(), "{} is forgotten: {:?}", id, job);
            let delivery = self.world().store.delivery(*id).await.unwrap();
            let Some(delivery) = delivery else {
                let old = job.finished.is_some_and(|finished| finished.plus(RETENTION) < self.latest);
                prop_assert!(old, "{} was removed early", id);
                continue;
            };
            prop_assert_eq!(delivery.state, job.state, "{}", id);
            prop_assert_eq!((delivery.job.attempts, delivery.job.tries), (job.attempts, job.tries), "{}", id);
            prop_assert_eq!(delivery.attempts.len(), job.tries as usize, "{}", id);
            prop_assert_eq!(delivery.finished, job.finished, "{}", id);
        }
        let stats = self.world().stats().await;
        prop_assert_eq!((stats.open, stats.leased), (0, 0));
        Ok(())
    }
}
