//! What this process has room for: the steps that accept jobs and that write outcomes may lease as many to it at once.
//!
//! # Theory of operation
//!
//! As in a flow control by credits, whoever takes leased jobs says how many more it would take. A process that asked for work
//! and got less than it has room for keeps the rest as credit; a step that accepts events spends it (`ingest`), or one that
//! writes outcomes (`settle`), where nothing else would be leased before those jobs. What it leased waits here until the
//! process asks again, which it is told to. So an event at a quiet time takes one round trip: there is nothing to
//! wake, to lease or to read.
//!
//! Only a process that waits for work has credit, and soon after it stopped asking it has none: what waits here unasked
//! for goes back to its lanes.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::types::Lease;

/// How long a process has credit after it waited or asked for work.
const LIVELY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    /// Jobs that there is room for, with those that calls under way may lease and those that wait here.
    room: usize,
    /// How long their leases last.
    span: Duration,
    /// Jobs that calls under way may lease.
    under_way: usize,
    /// Leases that nobody took yet, with when they came.
    leases: Vec<(Instant, Lease)>,
    /// Tasks that wait for work.
    waiting: usize,
    /// When one of them last waited or asked.
    seen: Option<Instant>,
}

impl State {
    fn left(&self) -> usize {
        self.room.saturating_sub(self.under_way + self.leases.len())
    }

    fn is_lively(&self, now: Instant) -> bool {
        self.waiting > 0 || self.seen.is_some_and(|seen| now < seen + LIVELY)
    }
}

/// What this process has room for.
#[derive(Debug, Default)]
pub(super) struct Credit(Mutex<State>);

/// Credit that a call under way may use. What it leased is handed in with [`Credit::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    pub room: usize,
    pub span: Duration,
}

/// Somebody waits for work.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Credit);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.waiting -= 1;
        state.seen = Some(Instant::now());
    }
}

impl Credit {
    /// Somebody waits for work until the answer is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.0.lock().waiting += 1;
        Waiting(self)
    }

    /// Somebody asks for work: takes at most `room` of the leases that wait here, and ends what credit there was. Gives also
    /// whether there is to be credit.
    pub fn ask(&self, room: usize) -> (Vec<Lease>, bool) {
        let mut state = self.0.lock();
        state.room = 0;
        let now = Instant::now();
        let is_lively = state.is_lively(now);
        if is_lively {
            state.seen = Some(now);
        }
        let count = room.min(state.leases.len());
        (state.leases.drain(..count).map(|(_, lease)| lease).collect(), is_lively)
    }

    /// There is room for so many jobs, with those that calls under way may lease and those that wait here.
    pub fn open(&self, room: usize, span: Duration) {
        let mut state = self.0.lock();
        (state.room, state.span) = (room, span);
    }

    /// Whether somebody takes jobs.
    pub fn is_lively(&self) -> bool {
        self.0.lock().is_lively(Instant::now())
    }

    /// Spends credit for a call that may lease at most `most` jobs.
    pub fn spend(&self, most: usize, now: Instant) -> Spent {
        let mut state = self.0.lock();
        let room = if state.is_lively(now) { state.left().min(most) } else { 0 };
        state.under_way += room;
        Spent { room, span: state.span }
    }

    /// A call ended that leased these.
    pub fn settle(&self, spent: Spent, leases: Vec<Lease>) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.under_way -= spent.room;
        state.leases.extend(leases.into_iter().map(|lease| (now, lease)));
    }

    /// Whether leases wait here.
    pub fn has_leases(&self) -> bool {
        !self.0.lock().leases.is_empty()
    }

    /// Takes the leases that waited for so long, and ends what credit there is if there are any.
    pub fn unwanted(&self, after: Duration) -> Vec<Lease> {
        let mut state = self.0.lock();
        let unwanted: Vec<Lease> = state
            .leases
            .extract_if(.., |(since, _)| since.elapsed() >= after)
            .map(|(_, lease)| lease)
            .collect();
        if !unwanted.is_empty() {
            state.room = 0;
        }
        unwanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(90);

    #[test]
    fn only_who_waits_for_work_has_credit_and_not_for_long() {
        let credit = Credit::default();
        credit.open(8, SPAN);
        let room = |later: Duration| credit.spend(2, Instant::now() + later).room;
        assert_eq!(room(Duration::ZERO), 0, "nobody ever waited");
        let waiting = credit.wait();
        assert_eq!(credit.spend(2, Instant::now() + LIVELY), Spent { room: 2, span: SPAN });
        drop(waiting);
        assert_eq!(room(LIVELY / 2), 2, "whoever waited asks soon");
        assert_eq!(room(LIVELY), 0, "it does not come back");
    }

    #[test]
    fn no_more_is_spent_than_there_is_room_for() {
        let credit = Credit::default();
        let _waiting = credit.wait();
        let spend = |most: usize| credit.spend(most, Instant::now());
        credit.open(5, SPAN);
        let (first, second) = (spend(3), spend(3));
        assert_eq!((first.room, second.room, spend(3).room), (3, 2, 0));
        assert!(credit.ask(9).0.is_empty());
        credit.open(6, SPAN);
        assert_eq!(spend(9).room, 1, "five are still under way");
        credit.settle(first, Vec::new());
        assert_eq!(spend(9).room, 3, "what was not used comes back");
    }
}
