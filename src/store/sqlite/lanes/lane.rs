//! One lane: whether it may give a job now, and if not, what it waits for.

use std::collections::VecDeque;

use super::{LaneRule, Slot, WINDOW, WINDOW_PER_WIDTH};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::store::types::LaneCounts;

#[derive(Debug)]
pub(super) struct Lane {
    /// `None` when its connection is gone; such a lane is closed.
    pub tenant: Option<TenantId>,
    pub concurrency: u32,
    /// How many attempts may be under way now: the concurrency, halved by each failure, regained one by one.
    pub width: u32,
    pub paused: bool,
    pub closed: bool,
    /// Gives nothing before this (`Retry-After`, a rate limit).
    pub wait_until: Timestamp,
    pub window: VecDeque<Slot>,
    pub leased: u32,
    /// Whether jobs that never failed lie on disk beyond the window.
    pub fresh_on_disk: bool,
    /// The earliest retry that lies on disk only.
    pub next_due: Option<Timestamp>,
    pub refilling: bool,
    pub in_ring: bool,
    pub timer: Option<Timestamp>,
    /// Open jobs, wherever they are.
    pub open: u64,
    /// When the oldest job on disk was made, as far as known.
    pub oldest: Option<Timestamp>,
}

impl Lane {
    /// An empty lane; without a rule (its connection is gone) a closed one.
    pub fn new(rule: Option<&LaneRule>) -> Self {
        let concurrency = rule.map_or(1, |rule| rule.concurrency.max(1));
        Self {
            tenant: rule.map(|rule| rule.tenant.clone()),
            concurrency,
            width: concurrency,
            paused: rule.is_some_and(|rule| rule.paused),
            closed: rule.is_none_or(|rule| rule.closed),
            wait_until: Timestamp::default(),
            window: VecDeque::new(),
            leased: 0,
            fresh_on_disk: false,
            next_due: None,
            refilling: false,
            in_ring: false,
            timer: None,
            open: 0,
            oldest: None,
        }
    }

    /// One attempt at a time, in order.
    pub fn is_strict(&self) -> bool {
        self.concurrency == 1
    }

    /// Whether nothing would be lost by forgetting this lane once it is empty.
    pub fn is_plain(&self, now: Timestamp) -> bool {
        self.width == self.concurrency && self.wait_until <= now && !self.refilling && self.leased == 0
    }

    /// How many jobs its window may hold: fewer while the endpoint fails, so that dead lanes hold little memory.
    pub fn window_limit(&self) -> usize {
        (self.width as usize * WINDOW_PER_WIDTH).min(WINDOW)
    }

    fn is_held(&self, now: Timestamp) -> bool {
        self.paused || self.closed || self.wait_until > now
    }

    /// Retries on disk that must come before anything else: those that are due; in a strict lane also those that wait,
    /// because they hold back what stands behind them.
    fn has_due_on_disk(&self, now: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due <= now || (self.is_strict() && self.window.is_empty()))
    }

    /// Whether the window's first job may be leased now.
    pub fn may_give(&self, now: Timestamp) -> bool {
        if self.is_held(now) || self.leased >= self.width {
            return false;
        }
        let Some(first) = self.window.front() else { return false };
        !self.is_strict() || (!self.has_due_on_disk(now) && first.due.is_none_or(|due| due <= now))
    }

    /// Whether jobs that could be given lie on disk only.
    pub fn wants_refill(&self, now: Timestamp) -> bool {
        !self.refilling
            && !self.is_held(now)
            && (self.has_due_on_disk(now)
                || (self.fresh_on_disk && self.window.len() < self.window_limit() / 4))
    }

    /// When time alone lets it give something; `None` when it waits for something else.
    pub fn next_time(&self, now: Timestamp) -> Option<Timestamp> {
        if self.paused || self.closed {
            return None;
        }
        if self.wait_until > now && self.open > u64::from(self.leased) {
            return Some(self.wait_until);
        }
        let head = self.window.front().and_then(|slot| slot.due).filter(|_| self.is_strict());
        head.into_iter().chain(self.next_due).filter(|due| *due > now).min()
    }

    /// Learns from an attempt.
    pub fn adapt(&mut self, works: bool) {
        self.width = if works { (self.width + 1).min(self.concurrency) } else { (self.width / 2).max(1) };
    }

    /// Remembers that a job of its window is now on disk only.
    pub fn to_disk(&mut self, slot: &Slot) {
        match slot.due {
            Some(due) => self.next_due = Some(self.next_due.map_or(due, |next| next.min(due))),
            None => self.fresh_on_disk = true,
        }
        let created = slot.job.created;
        self.oldest = Some(self.oldest.map_or(created, |oldest| oldest.min(created)));
    }

    /// When its oldest unleased job was made, as far as known.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.window.front().map(|slot| slot.job.created).or(self.oldest)
    }

    /// Counts it under its state.
    pub fn count(&self, counts: &mut LaneCounts, now: Timestamp) {
        if self.paused || self.closed {
            counts.paused += 1;
        } else if self.leased >= self.width {
            counts.full += 1;
        } else if self.may_give(now) || self.wants_refill(now) || self.refilling {
            counts.ready += 1;
        } else {
            counts.waiting += 1;
        }
    }
}
