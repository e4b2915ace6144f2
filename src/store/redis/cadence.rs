//! When this process sweeps: when there may be something to sweep and no other process is at it.
//!
//! # Theory of operation
//!
//! Scripts that leave something behind for upkeep (a lane to cancel, an effect to write down) say so on the partition's
//! channel, and every process that sweeps remembers it. What nobody says is when events pass their retention: each sweep
//! learns when the next one will. So an idle process sweeps only once in [`FALLBACK`], for messages that were lost.
//!
//! Of several processes that find it time, the one that puts its name into a key for [`TURN`] sweeps, and the others look
//! again afterwards. Two that sweep at once do no harm.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Core, REPLY, codec};
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Between two sweeps that messages asked for.
const SPACING: Duration = Duration::from_secs(1);
/// Between two sweeps of a store in which events pass their retention all the time.
const STEADY: Duration = Duration::from_secs(10);
/// How long a store is not swept at the most, of which nothing was heard.
const FALLBACK: Duration = Duration::from_mins(10);
/// How long one process sweeps before another may.
const TURN: Duration = Duration::from_secs(10);
/// How long whoever writes a record has time to tell its lane, before a sweep does it.
pub(super) const UNFINISHED: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Plan {
    /// When to sweep because something was left behind.
    asked: Option<Instant>,
    /// When the next event passes its retention.
    due: Option<Timestamp>,
    swept: Instant,
}

impl Plan {
    /// When to sweep whatever passes its retention.
    fn next(&self) -> Instant {
        let latest = self.swept + FALLBACK;
        self.asked.map_or(latest, |asked| asked.max(self.swept + SPACING).min(latest))
    }
}

/// What this process knows of upkeep that is to be done.
#[derive(Debug)]
pub(super) struct Cadence {
    plan: Mutex<Plan>,
    told: Notify,
}

impl Cadence {
    /// Nothing is known: there may be something to do.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { plan: Mutex::new(Plan { asked: Some(now), due: None, swept: now }), told: Notify::new() }
    }

    /// Something will be left to do after `delay`.
    pub fn ask(&self, delay: Duration) {
        let at = Instant::now() + delay;
        let mut plan = self.plan.lock();
        plan.asked = Some(plan.asked.map_or(at, |asked| asked.min(at)));
        drop(plan);
        self.told.notify_one();
    }

    /// A sweep begins; what is asked for from here on is another one's.
    pub fn begin(&self) {
        let mut plan = self.plan.lock();
        plan.asked = None;
        plan.swept = Instant::now();
    }

    /// A sweep ended; `due` is when the next event passes its retention.
    pub fn end(&self, due: Option<Timestamp>) {
        self.plan.lock().due = due;
    }

    /// A sweep failed.
    pub fn failed(&self) {
        self.ask(STEADY);
    }

    /// Returns when a sweep may find something, and at once if it is `closed`.
    async fn wait(&self, clock: &Clock, closed: impl Fn() -> bool) {
        while !closed() {
            let (next, due, swept) = {
                let plan = self.plan.lock();
                (plan.next(), plan.due, plan.swept)
            };
            tokio::select! {
                () = self.told.notified() => {}
                () = sleep_until(next) => return,
                () = async {
                    match due {
                        Some(due) => clock.sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                    sleep_until(swept + STEADY).await;
                } => return,
            }
        }
    }

    /// Nobody waits any more.
    pub fn close(&self) {
        self.told.notify_one();
    }
}

impl Core {
    /// Returns when this process should sweep; see [`Store::wait_for_upkeep`](crate::store::Store::wait_for_upkeep).
    pub(super) async fn wait_for_upkeep(&self) {
        loop {
            self.cadence.wait(&self.clock, || self.wake.is_closed()).await;
            if self.wake.is_closed() {
                return;
            }
            match self.takes_turn().await {
                Ok(false) => sleep(TURN).await,
                // What is wrong with the server the sweep will tell.
                Ok(true) | Err(_) => return,
            }
        }
    }

    /// Whether it is this process that sweeps now.
    async fn takes_turn(&self) -> Result<bool, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.sweeper()).arg(&self.owner).arg("NX").arg("GET").arg("PX").arg(TURN.as_millis());
        let sweeper = codec::bytes(self.link.plain(set, REPLY).await?)?;
        Ok(sweeper.is_none_or(|sweeper| sweeper == self.owner.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_upkeep_give_a_staged_request_the_same_time() {
        let line = format!("local UNFINISHED = {}\n", UNFINISHED.as_millis());
        assert!(include_str!("lua/dedupe.lua").contains(&line));
    }

    #[test]
    fn an_idle_store_is_swept_rarely_and_an_asked_one_soon() {
        let cadence = Cadence::new();
        let next = || {
            let plan = cadence.plan.lock();
            plan.next() - plan.swept
        };
        assert_eq!(next(), SPACING, "at first everything is unknown");
        cadence.begin();
        cadence.end(Some(Timestamp::from_millis(1)));
        assert_eq!(next(), FALLBACK);
        cadence.ask(UNFINISHED);
        cadence.ask(FALLBACK * 2);
        assert!(next() >= UNFINISHED && next() < STEADY, "{:?}", next());
        cadence.begin();
        cadence.ask(FALLBACK * 2);
        assert_eq!(next(), FALLBACK);
    }
}
