//! Refills: what is to be read from disk for which lane, and what came of it.

use super::types::{Refill, RefillPlan};
use super::{BUDGET_BYTES, LEAST_REFILL, Lanes, REFILL, REFILL_RETRY};
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

impl Lanes {
    /// Whether a lane's refill should be read now. With the budget spent, only when no other lane has anything to give.
    pub fn may_refill(&self) -> bool {
        !self.refills.is_empty() && (self.window_bytes < BUDGET_BYTES || self.tenants.is_empty())
    }

    /// The next refill to be read.
    pub fn next_refill(&mut self, now: Timestamp) -> Option<(ConnectionId, RefillPlan)> {
        while self.may_refill() {
            let connection = self.refills.pop_front()?;
            if let Some(plan) = self.plan(connection) {
                return Some((connection, plan));
            }
            self.wake(connection, now);
        }
        None
    }

    fn plan(&mut self, connection: ConnectionId) -> Option<RefillPlan> {
        let lane = self.all.get_mut(&connection)?;
        lane.spoiled = false;
        if lane.keeps_nothing() {
            lane.refilling = false;
            return None;
        }
        let (limit, held) = (lane.window_limit(), lane.window.len());
        let most = if self.window_bytes < BUDGET_BYTES { REFILL.min(limit / 2) } else { LEAST_REFILL };
        Some(RefillPlan {
            want_due: (limit / 2).saturating_sub(lane.window.retries()).min(most),
            want_fresh: limit.saturating_sub(held).min(most),
            want_bytes: BUDGET_BYTES.saturating_sub(self.window_bytes),
            known: held + lane.leased as usize,
            strict: lane.is_strict(),
        })
    }

    /// Takes in what a refill read.
    pub fn refilled(&mut self, connection: ConnectionId, plan: RefillPlan, refill: Refill, now: Timestamp) {
        let Some(lane) = self.all.get_mut(&connection) else { return };
        lane.refilling = false;
        let stale = lane.spoiled || lane.keeps_nothing() || lane.is_strict() != plan.strict;
        if !stale {
            lane.next_due = refill.next_due;
            lane.fresh_on_disk = refill.more_fresh;
            if refill.next_due.is_none() && !refill.more_fresh {
                lane.disk_oldest = None;
            }
            for slot in refill.due.into_iter().chain(refill.fresh) {
                self.known.insert(slot.job.id);
                self.window_bytes += slot.bytes();
                lane.window.insert(slot);
            }
        }
        self.wake(connection, now);
    }

    /// A refill failed; the lane asks again a little later.
    pub fn refill_failed(&mut self, connection: ConnectionId, now: Timestamp) {
        if let Some(lane) = self.all.get_mut(&connection) {
            lane.refilling = false;
            lane.wait_until = lane.wait_until.max(now.plus(REFILL_RETRY));
            self.wake(connection, now);
        }
    }
}
