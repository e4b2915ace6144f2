//! The scheduler of the embedded store: which lane gives out which job next. Memory only, no I/O, time passed in.
//!
//! # Theory of operation
//!
//! The database holds every open job; this holds a *window* of the first ones of each busy lane. A lane stands in the
//! *ring* while it may give something. [`Lanes::lease`] goes round: the next tenant, that tenant's next lane, a few
//! jobs, and both go to the back. So a lane with a million jobs and a tenant with a thousand lanes wait their turn like
//! everybody else. A lane that must wait (for a time, a settlement, a refill) leaves the ring and is put back by the
//! thing it waits for: a timer, [`Lanes::apply`], [`Lanes::refilled`]. All of them end in `wake`, which also forgets a
//! lane that is empty and lists a closed one whose jobs are to be cancelled.
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
//!   writer after its commit. What others do meanwhile (a pause, a lease that ran out) can only move a job from memory to
//!   disk, which spoils a refill under way: its rows are dropped and it is asked for again.
//! - No call takes more than a bounded number of steps: [`TURNS`] lanes and [`TIMERS`] timers, and what it was asked for.

mod apply;
mod lane;
mod leases;
mod refills;
#[cfg(test)]
mod tests;
mod types;
mod window;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::BATCH_BYTES;
use crate::store::types::{Lease, Stats};
use lane::Lane;
use leases::LeaseEntry;
pub(super) use types::{Closing, Effect, LaneRule, Place, Refill, RefillPlan, Restored, Slot};

/// Jobs that one lane gives before the next one has its turn.
const QUANTUM: usize = 8;
/// Jobs beyond what was asked for that batches may bring before the call ends.
const BATCHED: usize = 1_024;
/// Jobs of one lane held in memory at the most, but for due retries.
const WINDOW: usize = 4_096;
/// Jobs in a window for each attempt that may be under way.
const WINDOW_PER_WIDTH: usize = 64;
/// Jobs that a refill brings of each kind at the most: the writer reads them, and what is accepted waits for it meanwhile.
const REFILL: usize = 128;
/// Jobs that a refill may bring even when the budget is spent, so that no lane starves.
pub(super) const LEAST_REFILL: usize = 8;
/// Bytes of event documents and rendered bodies that all windows may hold together.
const BUDGET_BYTES: usize = 16 << 20;
/// Lanes that one call of [`Lanes::lease`] may visit in vain.
const TURNS: usize = 1_024;
/// Timers that one call lets fire.
const TIMERS: usize = 4_096;
/// How long a lane waits after a refill that failed.
const REFILL_RETRY: Duration = Duration::from_secs(1);

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    rules: HashMap<ConnectionId, LaneRule>,
    all: HashMap<ConnectionId, Lane>,
    tenants: VecDeque<TenantId>,
    rings: HashMap<TenantId, VecDeque<ConnectionId>>,
    timers: BTreeSet<(Timestamp, ConnectionId)>,
    leases: HashMap<JobId, LeaseEntry>,
    deadlines: BTreeSet<(Timestamp, JobId)>,
    known: HashSet<JobId>,
    /// Lanes that wait for a refill; each is marked `refilling`.
    refills: VecDeque<ConnectionId>,
    /// Lanes with jobs to be cancelled that nobody holds; each is marked `closing`.
    closing: VecDeque<ConnectionId>,
    window_bytes: usize,
    open: u64,
    token: u64,
    /// Jobs made until then may have had a lease that was lost.
    doubtful_until: Timestamp,
}

impl Lanes {
    /// Makes the tokens begin where no earlier life of the store ended.
    pub fn begin_tokens(&mut self, token: u64) {
        self.token = token;
    }

    /// Remembers that leases of jobs made until then were lost.
    pub fn doubt(&mut self, until: Timestamp) {
        self.doubtful_until = self.doubtful_until.max(until);
    }

    /// Takes in what the database holds of a lane at start.
    pub fn restore(&mut self, connection: ConnectionId, restored: Restored, now: Timestamp) {
        let lane = self.lane(connection);
        lane.open = restored.open;
        lane.fresh_on_disk = restored.fresh;
        lane.next_due = restored.next_due;
        lane.disk_oldest = Some(restored.oldest);
        self.open += restored.open;
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

    /// The next lane with jobs on disk that are to be cancelled.
    pub fn closing(&mut self) -> Option<Closing> {
        loop {
            let connection = *self.closing.front()?;
            if let Some(lane) = self.all.get_mut(&connection).filter(|lane| lane.closing) {
                if lane.is_to_be_cleared() {
                    let before = lane.unwanted_before.filter(|_| !lane.closed);
                    return Some(Closing { connection, leased: lane.leased, before, seen: lane.seen });
                }
                lane.closing = false;
            }
            self.closing.pop_front();
        }
    }

    /// Whether there may be lanes with jobs that are to be cancelled.
    pub fn has_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Whether other lanes wait behind that one.
    pub fn more_closing(&self) -> bool {
        self.closing.len() > 1
    }

    fn lane(&mut self, connection: ConnectionId) -> &mut Lane {
        let rule = self.rules.get(&connection);
        self.all.entry(connection).or_insert_with(|| Lane::new(rule))
    }

    /// Sees to it that a lane is where it belongs: forgotten when it is idle, among the closing ones, in the ring when it
    /// may give something or needs a refill, else under its timer.
    fn wake(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(lane) = self.all.get_mut(&connection) else { return };
        if lane.is_idle(now) {
            if let Some(time) = lane.timer {
                self.timers.remove(&(time, connection));
            }
            self.all.remove(&connection);
            return;
        }
        if lane.is_to_be_cleared() && !lane.closing {
            lane.closing = true;
            self.closing.push_back(connection);
        }
        if lane.in_ring {
            return;
        }
        if let Some(tenant) = &lane.tenant
            && (lane.may_give(now) || lane.wants_refill(now))
        {
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

    /// Lets happen what is due: timers fire, lost leases return.
    fn tick(&mut self, now: Timestamp) {
        for _ in 0..TIMERS {
            let Some((time, connection)) = self.timers.first().copied().filter(|(time, _)| *time <= now)
            else {
                break;
            };
            self.timers.remove(&(time, connection));
            if let Some(lane) = self.all.get_mut(&connection) {
                lane.timer = None;
            }
            self.wake(connection, now);
        }
        for _ in 0..TIMERS {
            let Some((_, job)) = self.deadlines.first().copied().filter(|(time, _)| *time <= now) else {
                break;
            };
            if let Some(slot) = self.end_lease(job) {
                self.doubt(slot.job.created.max(now));
                self.put_back(slot, now);
            }
        }
    }

    /// Leases at most `room` jobs until `deadline`; a batch counts as one.
    pub fn lease(&mut self, room: usize, deadline: Timestamp, now: Timestamp) -> Vec<Lease> {
        self.tick(now);
        let mut leases = Vec::new();
        let mut given = 0;
        for _ in 0..room.saturating_add(TURNS) {
            if given >= room || leases.len() >= room.saturating_add(BATCHED) {
                break;
            }
            let Some(tenant) = self.tenants.pop_front() else { break };
            let Some(ring) = self.rings.get_mut(&tenant) else { continue };
            let Some(connection) = ring.pop_front() else { continue };
            let others_wait = !ring.is_empty();
            given += self.turn(connection, room - given, deadline, now, &mut leases);
            // A lane that goes back into an empty ring brings its tenant along; see `wake`.
            if others_wait {
                self.tenants.push_back(tenant);
            } else if self.rings.get(&tenant).is_some_and(VecDeque::is_empty) {
                self.rings.remove(&tenant);
            }
        }
        leases
    }

    /// One lane's turn: a few jobs or a batch, then to the back of the ring or out of it. Answers how much room that took.
    fn turn(
        &mut self,
        connection: ConnectionId,
        room: usize,
        deadline: Timestamp,
        now: Timestamp,
        leases: &mut Vec<Lease>,
    ) -> usize {
        let Some(lane) = self.all.get_mut(&connection) else { return 0 };
        lane.in_ring = false;
        let batch = lane.batch > 1;
        let most = if batch { lane.batch as usize } else { QUANTUM.min(room) };
        let (mut given, mut bytes) = (0, 0);
        while given < most {
            let ready = if batch && given > 0 { lane.may_give_first(now) } else { lane.may_give(now) };
            let Some(first) = lane.window.front().filter(|_| ready) else { break };
            bytes += first.bytes();
            if batch && given > 0 && bytes > BATCH_BYTES {
                break;
            }
            let Some(slot) = lane.window.pop() else { break };
            given += 1;
            lane.leased += 1;
            self.window_bytes -= slot.bytes();
            self.token = self.token.wrapping_add(1);
            leases.push(Lease {
                job: slot.job.clone(),
                event: Arc::clone(&slot.event),
                rendered: slot.rendered.clone(),
                token: self.token,
                deadline,
                batch,
                doubtful: slot.job.created <= self.doubtful_until,
                failing: lane.failing,
            });
            let job = slot.job.id;
            self.leases.insert(job, LeaseEntry::new(slot, self.token, deadline));
            self.deadlines.insert((deadline, job));
        }
        if lane.wants_refill(now) {
            lane.refilling = true;
            self.refills.push_back(connection);
        }
        self.wake(connection, now);
        if batch { given.min(1) } else { given }
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

    /// Whether there is news for whoever knows that something happens by itself at `known`: a lane may give something, or
    /// something happens sooner.
    pub fn has_news(&self, known: Option<Timestamp>) -> bool {
        self.has_work() || self.next_time().is_some_and(|next| known.is_none_or(|known| next < known))
    }

    /// Jobs that wait in these lanes.
    pub fn waiting_in(&self, connections: &[ConnectionId]) -> u64 {
        let lanes = connections.iter().filter_map(|id| self.all.get(id));
        lanes.map(|lane| lane.open.saturating_sub(lane.leased.into())).sum()
    }

    /// Counts of what is here.
    pub fn stats(&self, now: Timestamp) -> Stats {
        let mut stats = Stats { open: self.open, leased: self.leases.len() as u64, ..Stats::default() };
        let leased = self.leases.values().map(LeaseEntry::created);
        let waiting = self.all.values().filter(|lane| lane.open > u64::from(lane.leased));
        stats.oldest = waiting.filter_map(Lane::oldest).chain(leased).min();
        for lane in self.all.values().filter(|lane| lane.open > 0) {
            lane.count(&mut stats.lanes, now);
        }
        stats
    }
}
