//! The scheduler of the embedded store: which lane gives out which job next. Memory only, no I/O, time passed in.
//!
//! # Theory of operation
//!
//! The database holds every open job; this holds a *window* of the first ones of each busy lane. A lane stands in the
//! *ring* while it may give something. [`Lanes::lease`] goes round: the next tenant, that tenant's next lane, a few
//! jobs, and both go to the back. So a lane with a million jobs and a tenant with a thousand lanes wait their turn like
//! everybody else. A lane that must wait (for a time, a settlement, a refill) leaves the ring and is put back by the
//! thing it waits for: a timer, [`Lanes::apply`], [`Lanes::refilled`].
//!
//! Leases live in memory: the process that holds the database is the only one that leases, so after a crash every open
//! job simply stands in its lane again.
//!
//! # Invariants
//!
//! - Every open job is in exactly one of: a window, the leases, or "on disk" as told by its lane's `fresh_on_disk` or
//!   `next_due`. `known` names those of the first two.
//! - A lane that could give or needs a refill is in the ring, is being refilled, or has a timer.
//! - All changes of what the database holds come through [`Lanes::apply`] and [`Lanes::refilled`], called by the one
//!   writer after its commit; so a refill's rows are never older than this state.

mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::types::{Lease, LeaseRef, Revision, Stats};
use lane::Lane;

/// Jobs that one lane gives before the next one has its turn.
const QUANTUM: usize = 8;
/// Jobs of one lane held in memory at the most.
pub(super) const WINDOW: usize = 1_024;
/// Jobs in a window for each attempt that may be under way.
const WINDOW_PER_WIDTH: usize = 64;
/// Jobs that a refill may bring even when the budget is spent, so that no lane starves.
const LEAST_REFILL: usize = 8;
/// Bytes of event documents that all windows may hold together; parsed, they take about four times that.
const BUDGET_BYTES: usize = 16 << 20;

/// A job in memory, ready to be tried.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub job: Job,
    pub event: Arc<Event>,
    /// Length of the event's document.
    pub document_bytes: usize,
    pub rendered: Option<Bytes>,
    /// When a retry is due; `None` for a job that never failed.
    pub due: Option<Timestamp>,
}

/// What a connection's record says about its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneRule {
    /// Of the record it was read from; an older rule never replaces a newer one.
    pub revision: Revision,
    pub tenant: TenantId,
    pub concurrency: u32,
    pub paused: bool,
    pub closed: bool,
}

/// A committed change that the scheduler must know of.
#[derive(Debug)]
pub(super) enum Effect {
    /// A new job.
    Made(Slot),
    /// A lease ended and the job left its lane.
    Ended(JobId),
    /// A lease ended and the job is due again; the slot carries its new counts.
    Again { job: Job, due: Timestamp, rendered: Option<Bytes> },
    /// A lease ended without an attempt being spent; the job goes back to its place.
    Back { job: Job, rendered: Option<Bytes> },
    /// A job that had ended is open again, or a waiting one became due: on disk, due at `due`.
    Reopened { connection: ConnectionId, due: Timestamp, was_open: bool },
    /// The endpoint works, or does not.
    Health { connection: ConnectionId, works: bool },
    /// The lane gives nothing before this time.
    Wait { connection: ConnectionId, until: Timestamp },
    /// The connection was written.
    Rule { connection: ConnectionId, rule: LaneRule },
    /// The connection was deleted.
    Deleted { connection: ConnectionId, revision: Revision },
    /// Jobs of a closed lane were cancelled on disk.
    Cancelled { connection: ConnectionId, count: u64, done: bool },
}

/// A lane's rows, read by the writer for [`Lanes::refilled`].
#[derive(Debug, Default)]
pub(super) struct Refill {
    /// Retries that are due (in a strict lane: all that wait), not yet known, oldest first.
    pub due: Vec<Slot>,
    /// The earliest retry still on disk only.
    pub next_due: Option<Timestamp>,
    /// Jobs that never failed, not yet known, oldest first.
    pub fresh: Vec<Slot>,
    /// Whether there are more of those.
    pub more_fresh: bool,
}

/// What a refill has to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefillPlan {
    /// How many slots are wanted of each kind.
    pub want: usize,
    /// How many of the lane's rows may be known already and will be skipped.
    pub known: usize,
    /// Whether waiting retries are wanted whatever their time.
    pub strict: bool,
}

#[derive(Debug)]
struct LeaseEntry {
    slot: Slot,
    token: u64,
    deadline: Timestamp,
    /// Its settlement is being written: it can't expire.
    settling: bool,
}

/// What [`Lanes::lease`] gives.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub leases: Vec<Lease>,
    /// Lanes whose windows are to be refilled.
    pub refills: Vec<ConnectionId>,
}

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    rules: HashMap<ConnectionId, LaneRule>,
    lanes: HashMap<ConnectionId, Lane>,
    tenants: VecDeque<TenantId>,
    rings: HashMap<TenantId, VecDeque<ConnectionId>>,
    timers: BTreeSet<(Timestamp, ConnectionId)>,
    leases: HashMap<JobId, LeaseEntry>,
    deadlines: BTreeSet<(Timestamp, JobId)>,
    known: HashSet<JobId>,
    closing: VecDeque<ConnectionId>,
    window_bytes: usize,
    open: u64,
    token: u64,
}

impl Lanes {
    /// Takes in what the database holds of a lane at start.
    pub fn restore(
        &mut self,
        connection: ConnectionId,
        open: u64,
        fresh: bool,
        next_due: Option<Timestamp>,
        oldest: Timestamp,
        now: Timestamp,
    ) {
        let lane = self.lane(connection);
        lane.open = open;
        lane.oldest = Some(oldest);
        lane.fresh_on_disk = fresh;
        lane.next_due = next_due;
        self.open += open;
        if self.lanes.get(&connection).is_some_and(|lane| lane.closed) {
            self.closing.push_back(connection);
        }
        self.wake(connection, now);
    }

    /// Whether a job for this connection would never be sent.
    pub fn is_closed(&self, connection: ConnectionId) -> bool {
        self.rules.get(&connection).is_none_or(|rule| rule.closed)
    }

    /// Whether a job is in a window or leased.
    pub fn knows(&self, job: JobId) -> bool {
        self.known.contains(&job)
    }

    /// Whether a job is leased.
    pub fn is_leased(&self, job: JobId) -> bool {
        self.leases.contains_key(&job)
    }

    /// The next closed lane with open jobs on disk.
    pub fn closing(&self) -> Option<ConnectionId> {
        self.closing.front().copied()
    }

    fn lane(&mut self, connection: ConnectionId) -> &mut Lane {
        let rule = self.rules.get(&connection);
        self.lanes.entry(connection).or_insert_with(|| Lane::new(rule))
    }

    /// Applies a committed change.
    pub fn apply(&mut self, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Made(slot) => self.made(slot, now),
            Effect::Ended(job) => {
                if let Some(slot) = self.end_lease(job) {
                    self.leave(slot.job.connection, slot.job.id, now);
                    self.wake(slot.job.connection, now);
                }
            }
            Effect::Again { job, due, rendered } => self.again(job, due, rendered, now),
            Effect::Back { job, rendered } => {
                if let Some(slot) = self.end_lease(job.id) {
                    let rendered = rendered.or(slot.rendered.clone());
                    self.put_back(Slot { job, rendered, ..slot }, now);
                }
            }
            Effect::Reopened { connection, due, was_open } => {
                if self.lane(connection).is_strict() {
                    // It may stand in the window under its old time.
                    self.evict(connection);
                }
                let lane = self.lane(connection);
                lane.next_due = Some(lane.next_due.map_or(due, |next| next.min(due)));
                if !was_open {
                    lane.open += 1;
                    self.open += 1;
                }
                self.wake(connection, now);
            }
            Effect::Health { connection, works } => {
                self.lane(connection).adapt(works);
                self.wake(connection, now);
            }
            Effect::Wait { connection, until } => {
                let lane = self.lane(connection);
                lane.wait_until = lane.wait_until.max(until);
                self.wake(connection, now);
            }
            Effect::Rule { connection, rule } => self.set_rule(connection, rule, now),
            Effect::Deleted { connection, revision } => {
                if let Some(rule) = self.rules.get_mut(&connection) {
                    rule.revision = revision;
                    rule.closed = true;
                }
                self.close(connection);
            }
            Effect::Cancelled { connection, count, done } => {
                let lane = self.lane(connection);
                let count = count.min(lane.open);
                lane.open -= count;
                let empty = lane.open == 0;
                self.open -= count;
                if done {
                    self.closing.retain(|closing| *closing != connection);
                    if empty {
                        self.lanes.remove(&connection);
                    }
                }
            }
        }
    }

    fn made(&mut self, slot: Slot, now: Timestamp) {
        let (connection, job, bytes) = (slot.job.connection, slot.job.id, slot.document_bytes);
        let fits = self.window_bytes + bytes <= BUDGET_BYTES;
        let created = slot.job.created;
        let lane = self.lane(connection);
        lane.open += 1;
        lane.oldest.get_or_insert(created);
        let held = !lane.fresh_on_disk && !lane.paused && fits && lane.window.len() < lane.window_limit();
        if held {
            lane.window.push_back(slot);
            self.known.insert(job);
            self.window_bytes += bytes;
        } else {
            lane.fresh_on_disk = true;
        }
        self.open += 1;
        self.wake(connection, now);
    }

    fn again(&mut self, job: Job, due: Timestamp, rendered: Option<Bytes>, now: Timestamp) {
        let Some(slot) = self.end_lease(job.id) else { return };
        let connection = job.connection;
        let lane = self.lane(connection);
        if lane.is_strict() && !lane.paused && !lane.closed {
            let rendered = rendered.or(slot.rendered.clone());
            self.put_back(Slot { job, due: Some(due), rendered, ..slot }, now);
            return;
        }
        lane.next_due = Some(lane.next_due.map_or(due, |next| next.min(due)));
        self.known.remove(&job.id);
        self.wake(connection, now);
    }

    /// Puts a known job back to where it stood.
    fn put_back(&mut self, slot: Slot, now: Timestamp) {
        let connection = slot.job.connection;
        let lane = self.lane(connection);
        if lane.paused || lane.closed {
            lane.to_disk(&slot);
            self.known.remove(&slot.job.id);
        } else {
            let place = lane.window.partition_point(|other| other.job.id < slot.job.id);
            self.window_bytes += slot.document_bytes;
            self.lane(connection).window.insert(place, slot);
        }
        self.wake(connection, now);
    }

    fn end_lease(&mut self, job: JobId) -> Option<Slot> {
        let entry = self.leases.remove(&job)?;
        self.deadlines.remove(&(entry.deadline, job));
        let lane = self.lane(entry.slot.job.connection);
        lane.leased = lane.leased.saturating_sub(1);
        Some(entry.slot)
    }

    fn leave(&mut self, connection: ConnectionId, job: JobId, now: Timestamp) {
        self.known.remove(&job);
        let lane = self.lane(connection);
        lane.open = lane.open.saturating_sub(1);
        let forget = lane.open == 0 && lane.is_plain(now);
        self.open = self.open.saturating_sub(1);
        if forget {
            self.drop_timer(connection);
            if self.lanes.get(&connection).is_some_and(|lane| !lane.in_ring) {
                self.lanes.remove(&connection);
            }
        }
    }

    fn set_rule(&mut self, connection: ConnectionId, rule: LaneRule, now: Timestamp) {
        if self.rules.get(&connection).is_some_and(|known| known.revision >= rule.revision) {
            return;
        }
        let closed = rule.closed;
        if let Some(lane) = self.lanes.get_mut(&connection) {
            lane.tenant = Some(rule.tenant.clone());
            lane.concurrency = rule.concurrency.max(1);
            lane.width = lane.width.clamp(1, lane.concurrency);
            if rule.paused && !lane.paused {
                lane.paused = true;
                self.evict(connection);
            } else if !rule.paused {
                lane.paused = false;
            }
            if !closed {
                self.lane(connection).closed = false;
            }
        }
        self.rules.insert(connection, rule);
        if closed {
            self.close(connection);
            return;
        }
        self.wake(connection, now);
    }

    fn close(&mut self, connection: ConnectionId) {
        let Some(lane) = self.lanes.get_mut(&connection) else { return };
        if !lane.closed {
            lane.closed = true;
            if !self.closing.contains(&connection) {
                self.closing.push_back(connection);
            }
            self.evict(connection);
        }
    }

    /// Drops a lane's window: the database has it all.
    fn evict(&mut self, connection: ConnectionId) {
        let Some(lane) = self.lanes.get_mut(&connection) else { return };
        for slot in std::mem::take(&mut lane.window) {
            lane.to_disk(&slot);
            self.known.remove(&slot.job.id);
            self.window_bytes -= slot.document_bytes;
        }
    }

    /// Puts a lane into the ring when it may give something or needs a refill, else sets its timer.
    fn wake(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&connection) else { return };
        let Some(tenant) = &lane.tenant else { return };
        if lane.in_ring {
            return;
        }
        if lane.may_give(now) || lane.wants_refill(now) {
            lane.in_ring = true;
            let ring = self.rings.entry(tenant.clone()).or_default();
            if ring.is_empty() {
                self.tenants.push_back(tenant.clone());
            }
            ring.push_back(connection);
            return;
        }
        let timer = lane.next_time(now);
        if timer != lane.timer {
            if let Some(old) = lane.timer {
                self.timers.remove(&(old, connection));
            }
            lane.timer = timer;
            if let Some(time) = timer {
                self.timers.insert((time, connection));
            }
        }
    }

    fn drop_timer(&mut self, connection: ConnectionId) {
        if let Some(time) = self.lanes.get_mut(&connection).and_then(|lane| lane.timer.take()) {
            self.timers.remove(&(time, connection));
        }
    }

    /// Lets everything happen whose time has come: timers fire, lost leases return.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((time, connection)) = self.timers.first().copied()
            && time <= now
        {
            self.timers.pop_first();
            if let Some(lane) = self.lanes.get_mut(&connection) {
                lane.timer = None;
            }
            self.wake(connection, now);
        }
        while let Some((deadline, job)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(slot) = self.end_lease(job) {
                self.put_back(slot, now);
            }
        }
    }

    /// Leases at most `room` jobs until `deadline`.
    pub fn lease(&mut self, room: usize, deadline: Timestamp, now: Timestamp) -> Given {
        self.tick(now);
        let mut given = Given::default();
        while given.leases.len() < room {
            let Some(tenant) = self.tenants.pop_front() else { break };
            let Some(ring) = self.rings.get_mut(&tenant) else { continue };
            let Some(connection) = ring.pop_front() else { continue };
            let others_wait = !ring.is_empty();
            self.turn(connection, room, deadline, now, &mut given);
            // A lane that goes back into an empty ring brings its tenant along; see `wake`.
            if others_wait {
                self.tenants.push_back(tenant);
            } else if self.rings.get(&tenant).is_some_and(VecDeque::is_empty) {
                self.rings.remove(&tenant);
            }
        }
        given
    }

    /// One lane's turn: a few jobs, then to the back of the ring or out of it.
    fn turn(
        &mut self,
        connection: ConnectionId,
        room: usize,
        deadline: Timestamp,
        now: Timestamp,
        given: &mut Given,
    ) {
        let Some(lane) = self.lanes.get_mut(&connection) else { return };
        lane.in_ring = false;
        for _ in 0..QUANTUM.min(room - given.leases.len()) {
            if !lane.may_give(now) {
                break;
            }
            let Some(slot) = lane.window.pop_front() else { break };
            lane.leased += 1;
            self.window_bytes -= slot.document_bytes;
            self.token += 1;
            given.leases.push(Lease {
                job: slot.job.clone(),
                event: Arc::clone(&slot.event),
                rendered: slot.rendered.clone(),
                token: self.token,
                deadline,
            });
            let job = slot.job.id;
            self.leases.insert(job, LeaseEntry { slot, token: self.token, deadline, settling: false });
            self.deadlines.insert((deadline, job));
        }
        if lane.wants_refill(now) {
            lane.refilling = true;
            given.refills.push(connection);
        }
        if lane.open == 0 && lane.is_plain(now) {
            self.drop_timer(connection);
            self.lanes.remove(&connection);
        } else {
            self.wake(connection, now);
        }
    }

    /// What a refill of this lane is to read; `None` when it is no longer wanted.
    pub fn plan(&mut self, connection: ConnectionId) -> Option<RefillPlan> {
        let lane = self.lanes.get_mut(&connection)?;
        if lane.paused || lane.closed {
            lane.refilling = false;
            return None;
        }
        let limit = lane.window_limit();
        let room = limit.saturating_sub(lane.window.len());
        let want =
            if self.window_bytes < BUDGET_BYTES { room.clamp(LEAST_REFILL, limit / 2) } else { LEAST_REFILL };
        Some(RefillPlan { want, known: lane.window.len() + lane.leased as usize, strict: lane.is_strict() })
    }

    /// Takes in what a refill read.
    pub fn refilled(&mut self, connection: ConnectionId, refill: Refill, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&connection) else { return };
        lane.refilling = false;
        lane.next_due = refill.next_due;
        lane.fresh_on_disk = refill.more_fresh;
        for slot in refill.due {
            self.known.insert(slot.job.id);
            self.window_bytes += slot.document_bytes;
            let place = lane.window.partition_point(|other| other.job.id < slot.job.id);
            lane.window.insert(place, slot);
        }
        for slot in refill.fresh {
            self.known.insert(slot.job.id);
            self.window_bytes += slot.document_bytes;
            lane.window.push_back(slot);
        }
        self.wake(connection, now);
    }

    /// A refill failed; the lane asks again at `retry`.
    pub fn refill_failed(&mut self, connection: ConnectionId, retry: Timestamp, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&connection) {
            lane.refilling = false;
            lane.wait_until = lane.wait_until.max(retry);
            self.wake(connection, now);
        }
    }

    /// Claims a lease for its settlement; `None` when it was lost. A claimed lease can't expire.
    pub fn claim(&mut self, lease: &LeaseRef) -> Option<Job> {
        let entry = self.leases.get_mut(&lease.job)?;
        if entry.token != lease.token || entry.settling {
            return None;
        }
        entry.settling = true;
        self.deadlines.remove(&(entry.deadline, lease.job));
        Some(entry.slot.job.clone())
    }

    /// The settlement could not be written: the lease runs on.
    pub fn unclaim(&mut self, job: JobId) {
        if let Some(entry) = self.leases.get_mut(&job) {
            entry.settling = false;
            self.deadlines.insert((entry.deadline, job));
        }
    }

    /// Moves a lease's deadline.
    pub fn renew(&mut self, lease: &LeaseRef, deadline: Timestamp) {
        if let Some(entry) = self.leases.get_mut(&lease.job)
            && entry.token == lease.token
            && !entry.settling
        {
            self.deadlines.remove(&(entry.deadline, lease.job));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, lease.job));
        }
    }

    /// Takes a lease back untried.
    pub fn release(&mut self, lease: &LeaseRef, now: Timestamp) {
        let held =
            self.leases.get(&lease.job).is_some_and(|entry| entry.token == lease.token && !entry.settling);
        if let Some(slot) = held.then(|| self.end_lease(lease.job)).flatten() {
            self.put_back(slot, now);
        }
    }

    /// Whether a lane may give something now.
    pub fn has_work(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// When something happens by itself next.
    pub fn next_time(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(time, _)| *time);
        let deadline = self.deadlines.first().map(|(time, _)| *time);
        timer.into_iter().chain(deadline).min()
    }

    /// Counts of what is here.
    pub fn stats(&self, now: Timestamp) -> Stats {
        let mut stats = Stats { open: self.open, leased: self.leases.len() as u64, ..Stats::default() };
        for lane in self.lanes.values().filter(|lane| lane.open > 0) {
            lane.count(&mut stats.lanes, now);
            if lane.leased == 0
                && let Some(oldest) = lane.oldest()
            {
                stats.oldest = Some(stats.oldest.map_or(oldest, |other| other.min(oldest)));
            }
        }
        for entry in self.leases.values() {
            let created = entry.slot.job.created;
            stats.oldest = Some(stats.oldest.map_or(created, |other| other.min(created)));
        }
        stats
    }
}

/// How long a lane waits after a refill that failed.
pub(super) const REFILL_RETRY: Duration = Duration::from_secs(1);
