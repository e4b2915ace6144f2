//! One lane: whether it may give a job now, and if not, what it waits for.

use super::types::{LaneRule, Place, Slot};
use super::window::Window;
use super::{WINDOW, WINDOW_PER_WIDTH};
use crate::domain::breaker::Failing;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::store::types::LaneCounts;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they change independently of each other")]
pub(super) struct Lane {
    /// `None` when its connection is gone; such a lane is closed.
    pub tenant: Option<TenantId>,
    pub concurrency: u32,
    /// How many attempts may be under way now: the concurrency, halved by each failure, regained one by one.
    pub width: u32,
    /// How many jobs it gives at once, when it is strict.
    pub batch: u32,
    pub failing: Failing,
    pub paused: bool,
    pub closed: bool,
    /// Jobs made before are to be cancelled before it gives any.
    pub unwanted_before: Option<Timestamp>,
    /// How far its jobs were looked at for that.
    pub seen: Place,
    /// Gives nothing before this (`Retry-After`, a rate limit).
    pub wait_until: Timestamp,
    pub window: Window,
    pub leased: u32,
    /// Of those leased, the ones whose endpoint has taken them, which is being written: the endpoint has fewer under way.
    pub freed: u32,
    /// Whether jobs that never failed lie on disk beyond the window.
    pub fresh_on_disk: bool,
    /// The earliest retry that lies on disk only.
    pub next_due: Option<Timestamp>,
    pub refilling: bool,
    /// A job went from memory to disk since the refill was planned: what it read may lack that job.
    pub spoiled: bool,
    pub in_ring: bool,
    /// Stands among the closed lanes whose jobs are to be cancelled.
    pub closing: bool,
    pub timer: Option<Timestamp>,
    /// Open jobs, wherever they are.
    pub open: u64,
    /// When the oldest job on disk was made, or earlier; `None` while none is there.
    pub disk_oldest: Option<Timestamp>,
}

impl Lane {
    /// An empty lane; without a rule (its connection is gone) a closed one.
    pub fn new(rule: Option<&LaneRule>) -> Self {
        let concurrency = rule.map_or(1, |rule| rule.concurrency.max(1));
        Self {
            tenant: rule.map(|rule| rule.tenant.clone()),
            concurrency,
            width: concurrency,
            batch: rule.map_or(1, |rule| rule.batch.max(1)),
            failing: Failing::default(),
            paused: rule.is_some_and(|rule| rule.paused),
            closed: rule.is_none_or(|rule| rule.closed),
            unwanted_before: rule.and_then(|rule| rule.unwanted_before),
            seen: Place::default(),
            wait_until: Timestamp::default(),
            window: Window::default(),
            leased: 0,
            freed: 0,
            fresh_on_disk: false,
            next_due: None,
            refilling: false,
            spoiled: false,
            in_ring: false,
            closing: false,
            timer: None,
            open: 0,
            disk_oldest: None,
        }
    }

    /// One attempt at a time, in order.
    pub fn is_strict(&self) -> bool {
        self.concurrency == 1
    }

    /// Whether nothing would be lost by forgetting this lane.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        let plain = self.closed || (self.works() && self.wait_until <= now && self.unwanted_before.is_none());
        plain && self.open == 0 && self.leased == 0 && !self.refilling && !self.in_ring
    }

    /// Whether what comes back to it goes to disk only.
    pub fn keeps_nothing(&self) -> bool {
        self.paused || self.closed || self.unwanted_before.is_some()
    }

    /// Whether jobs of it are to be cancelled, and nothing stands in the way: what is leased of a closed lane ends by its
    /// settlement, and what is leased of another may come back.
    pub fn is_to_be_cleared(&self) -> bool {
        if self.closed {
            self.open > u64::from(self.leased)
        } else {
            self.unwanted_before.is_some() && self.leased == 0
        }
    }

    /// How many jobs its window may hold: fewer while the endpoint fails, so that dead lanes hold little memory. Due
    /// retries may take half as much again.
    pub fn window_limit(&self) -> usize {
        (self.width as usize * WINDOW_PER_WIDTH).max(2 * self.batch as usize).min(WINDOW)
    }

    fn is_held(&self, now: Timestamp) -> bool {
        self.keeps_nothing() || self.wait_until > now
    }

    /// Whether retries on disk must come before what the window would give: those that are due; in a strict lane also
    /// those that wait, because they hold back what stands behind them.
    fn misses_retries(&self, now: Timestamp) -> bool {
        // Enough of them are here; the rest is read when these are few.
        if self.window.retries() >= self.window_limit() / 8 {
            return false;
        }
        if self.is_strict() {
            self.next_due.is_some() && self.window.front().is_none_or(|first| first.due.is_none())
        } else {
            self.next_due.is_some_and(|due| due <= now)
        }
    }

    /// Whether as many jobs are under way as may be. A strict lane keeps its place until the outcome is written, so that
    /// the order of its jobs is also that of what is known of them.
    fn is_full(&self) -> bool {
        let under_way = if self.is_strict() { self.leased } else { self.leased - self.freed };
        under_way >= self.width
    }

    /// Whether the window's first job may be leased now.
    pub fn may_give(&self, now: Timestamp) -> bool {
        !self.is_held(now) && !self.is_full() && self.may_give_first(now)
    }

    /// Whether the window's first job is one that may come next.
    pub fn may_give_first(&self, now: Timestamp) -> bool {
        let Some(first) = self.window.front() else { return false };
        if !self.is_strict() {
            return true;
        }
        first.due.map_or_else(|| !self.misses_retries(now), |due| due <= now)
    }

    /// Whether jobs that could be given lie on disk only.
    pub fn wants_refill(&self, now: Timestamp) -> bool {
        let few = (self.window_limit() / 4).max(if self.batch > 1 { self.batch as usize } else { 0 });
        let misses_fresh = self.fresh_on_disk && self.window.len() < few;
        !self.refilling && !self.is_held(now) && (misses_fresh || self.misses_retries(now))
    }

    /// When time alone changes something for it; `None` when it waits for something else.
    pub fn next_time(&self, now: Timestamp) -> Option<Timestamp> {
        if self.wait_until > now {
            let of_use = self.open == 0 || (!self.keeps_nothing() && self.open > u64::from(self.leased));
            return (!self.closed && of_use).then_some(self.wait_until);
        }
        if self.keeps_nothing() {
            return None;
        }
        let head = self.window.front().and_then(|slot| slot.due).filter(|_| self.is_strict());
        head.into_iter().chain(self.next_due).filter(|due| *due > now).min()
    }

    /// Whether nothing is known against its endpoint.
    fn works(&self) -> bool {
        self.width == self.concurrency && self.failing.count == 0
    }

    /// Learns from an attempt that succeeded.
    pub fn widen(&mut self) {
        self.failing = Failing::default();
        self.width = (self.width + 1).min(self.concurrency);
    }

    /// Learns from failures: as many as there are more of than it knew of.
    pub fn narrow(&mut self, failing: Failing) {
        let more = failing.count.saturating_sub(self.failing.count).max(1);
        self.failing = failing;
        self.width = self.width.checked_shr(more).unwrap_or(0).max(1);
    }

    /// Forgets what is known against its endpoint.
    pub fn trust(&mut self) {
        self.failing = Failing::default();
        self.width = self.concurrency;
    }

    /// Remembers that a job that was in memory is now on disk only.
    pub fn leave_on_disk(&mut self, slot: &Slot) {
        match slot.due {
            Some(due) => self.retry_on_disk(due),
            None => self.fresh_on_disk = true,
        }
        self.spoiled = true;
        self.seen_on_disk(slot.job.created);
    }

    /// Remembers that a retry is on disk only.
    pub fn retry_on_disk(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// Remembers when a job that is on disk only was made.
    pub fn seen_on_disk(&mut self, created: Timestamp) {
        self.disk_oldest = Some(self.disk_oldest.map_or(created, |oldest| oldest.min(created)));
    }

    /// When its oldest unleased job was made, or earlier.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.window.front().map(|slot| slot.job.created).into_iter().chain(self.disk_oldest).min()
    }

    /// Counts it under its state.
    pub fn count(&self, counts: &mut LaneCounts, now: Timestamp) {
        if self.keeps_nothing() {
            counts.paused += 1;
        } else if self.is_full() {
            counts.full += 1;
        } else if self.may_give(now) || self.wants_refill(now) || (self.refilling && !self.is_held(now)) {
            counts.ready += 1;
        } else {
            counts.waiting += 1;
        }
    }
}
