//! What committed changes do to the lanes.

use bytes::Bytes;

use super::types::{Effect, LaneRule, Place, Slot};
use super::{BUDGET_BYTES, Lanes};
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::types::Revision;

impl Lanes {
    /// Applies a committed change.
    pub fn apply(&mut self, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Made(slot) => self.made(slot, now),
            Effect::Ended(job) => self.ended(job, now),
            Effect::Again { job, due, rendered } => self.again(job, due, rendered, now),
            Effect::Back { job, rendered } => {
                if let Some(slot) = self.end_lease(job.id) {
                    let rendered = rendered.or_else(|| slot.rendered.clone());
                    self.put_back(Slot { job, rendered, ..slot }, now);
                }
            }
            Effect::Reopened { connection, job, due, was_open } => {
                self.reopened(connection, job, due, was_open, now);
            }
            Effect::Dropped { connection, job } => self.dropped(connection, job, now),
            Effect::Worked { connection } => {
                // An idle lane that works is an ordinary one; there is nothing to remember.
                if let Some(lane) = self.all.get_mut(&connection) {
                    lane.widen();
                    self.wake(connection, now);
                }
            }
            Effect::Failed { connection, failing } => {
                if !self.is_closed(connection) {
                    self.lane(connection).narrow(failing);
                    self.wake(connection, now);
                }
            }
            Effect::Wait { connection, until } => self.wait(connection, until, now),
            Effect::Rule { connection, rule } => self.set_rule(connection, rule, now),
            Effect::Deleted { connection, revision } => self.deleted(connection, revision, now),
            Effect::Cancelled { connection, count, seen } => {
                let Some(lane) = self.all.get_mut(&connection) else { return };
                lane.closing = false;
                lane.seen = seen;
                let count = count.min(lane.open);
                lane.open -= count;
                self.open -= count;
                if self.closing.front() == Some(&connection) {
                    self.closing.pop_front();
                }
                self.wake(connection, now);
            }
        }
    }

    fn made(&mut self, slot: Slot, now: Timestamp) {
        let (connection, job, bytes) = (slot.job.connection, slot.job.id, slot.bytes());
        let fits = self.window_bytes + bytes <= BUDGET_BYTES;
        self.open += 1;
        let lane = self.lane(connection);
        lane.open += 1;
        let has_room = lane.window.len() < lane.window_limit();
        if fits && has_room && !lane.fresh_on_disk && !lane.keeps_nothing() {
            lane.window.insert(slot);
            self.known.insert(job);
            self.window_bytes += bytes;
        } else {
            lane.fresh_on_disk = true;
            lane.seen_on_disk(slot.job.created);
        }
        self.wake(connection, now);
    }

    fn ended(&mut self, job: JobId, now: Timestamp) {
        let Some(slot) = self.end_lease(job) else { return };
        let connection = slot.job.connection;
        self.known.remove(&job);
        let lane = self.lane(connection);
        lane.open = lane.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
        self.wake(connection, now);
    }

    fn again(&mut self, job: Job, due: Timestamp, rendered: Option<Bytes>, now: Timestamp) {
        let Some(slot) = self.end_lease(job.id) else { return };
        let rendered = rendered.or_else(|| slot.rendered.clone());
        let slot = Slot { job, due: Some(due), rendered, ..slot };
        let connection = slot.job.connection;
        let lane = self.lane(connection);
        if lane.is_strict() {
            self.put_back(slot, now);
        } else {
            lane.leave_on_disk(&slot);
            self.known.remove(&slot.job.id);
            self.wake(connection, now);
        }
    }

    fn reopened(
        &mut self,
        connection: ConnectionId,
        job: JobId,
        due: Timestamp,
        was_open: bool,
        now: Timestamp,
    ) {
        // What a window holds of it has old counts and an old time.
        if self.lane(connection).is_strict() {
            self.evict(connection);
        } else if let Some(slot) = self.lane(connection).window.remove(job) {
            self.known.remove(&job);
            self.window_bytes -= slot.bytes();
        }
        let lane = self.lane(connection);
        lane.retry_on_disk(due);
        lane.seen_on_disk(job.time());
        if !was_open {
            lane.open += 1;
            self.open += 1;
        }
        self.wake(connection, now);
    }

    fn dropped(&mut self, connection: ConnectionId, job: JobId, now: Timestamp) {
        if self.is_leased(job) {
            return self.ended(job, now);
        }
        if let Some(slot) = self.lane(connection).window.remove(job) {
            self.known.remove(&job);
            self.window_bytes -= slot.bytes();
        }
        let lane = self.lane(connection);
        lane.open = lane.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
        self.wake(connection, now);
    }

    fn wait(&mut self, connection: ConnectionId, until: Timestamp, now: Timestamp) {
        if self.is_closed(connection) || (until <= now && !self.all.contains_key(&connection)) {
            return;
        }
        // One that has passed too: a clock may be set back.
        let lane = self.lane(connection);
        lane.wait_until = lane.wait_until.max(until);
        if self.window_bytes > BUDGET_BYTES / 2 {
            // Others need the memory meanwhile.
            self.evict(connection);
        }
        self.wake(connection, now);
    }

    fn set_rule(&mut self, connection: ConnectionId, rule: LaneRule, now: Timestamp) {
        if self.rules.get(&connection).is_some_and(|known| known.revision >= rule.revision) {
            return;
        }
        if let Some(lane) = self.all.get_mut(&connection) {
            let was_strict = lane.is_strict();
            lane.tenant = Some(rule.tenant.clone());
            lane.concurrency = rule.concurrency.max(1);
            lane.width = lane.width.clamp(1, lane.concurrency);
            lane.batch = rule.batch.max(1);
            if (lane.paused || lane.closed) && !rule.paused && !rule.closed {
                lane.trust();
            }
            lane.paused = rule.paused;
            lane.closed = rule.closed;
            if lane.unwanted_before != rule.unwanted_before {
                (lane.unwanted_before, lane.seen) = (rule.unwanted_before, Place::default());
            }
            if lane.keeps_nothing() || lane.is_strict() != was_strict {
                self.evict(connection);
            }
        }
        let clears = rule.unwanted_before.is_some();
        self.rules.insert(connection, rule);
        if clears {
            // Even an empty one is looked at once: whoever looks takes the mark away.
            self.lane(connection);
        }
        self.wake(connection, now);
    }

    fn deleted(&mut self, connection: ConnectionId, revision: Revision, now: Timestamp) {
        let Some(rule) = self.rules.get_mut(&connection).filter(|rule| rule.revision < revision) else {
            return;
        };
        rule.revision = revision;
        rule.closed = true;
        if let Some(lane) = self.all.get_mut(&connection) {
            lane.closed = true;
            self.evict(connection);
            self.wake(connection, now);
        }
    }

    /// Drops a lane's window: the database has it all.
    fn evict(&mut self, connection: ConnectionId) {
        let Some(lane) = self.all.get_mut(&connection) else { return };
        self.window_bytes -= lane.window.bytes();
        for slot in lane.window.take() {
            lane.leave_on_disk(&slot);
            self.known.remove(&slot.job.id);
        }
    }
}
