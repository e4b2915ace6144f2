//! What is shared over processes, where there is one process: buckets of tokens and holds, in memory.
//!
//! A bucket is the time at which it is full again (the "theoretical arrival time" of GCRA): spending moves it on by the
//! price, and it may not lie further ahead than the burst. A full bucket needs no entry, nor does a hold that has ended, so
//! both are forgotten when the map has doubled.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::store::types::{Spend, Spent};

/// Entries below which nothing is tidied.
const FEW: usize = 256;

/// Buckets and holds.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// When each bucket is full again, in microseconds.
    full_at: HashMap<(String, String), u64>,
    holds: HashMap<String, (u128, Timestamp)>,
    /// Full buckets and ended holds are forgotten when there are so many entries.
    tidy_at: usize,
}

impl Shares {
    pub fn spend(&mut self, scope: &str, spends: &[Spend], now: Timestamp) -> Spent {
        let now_micros = micros(now);
        self.tidy(now);
        let mut wait = 0;
        let mut after: HashMap<(String, String), u64> = HashMap::new();
        for spend in spends {
            let key = (scope.to_owned(), spend.bucket.clone());
            let (reach, price) = spend.reach_and_price();
            let latest = now_micros.saturating_add(reach);
            let known = after.get(&key).or_else(|| self.full_at.get(&key)).copied();
            let full_at = known.filter(|full_at| *full_at <= latest.saturating_add(Spend::SKEW_MICROS));
            let spent = full_at.unwrap_or(0).max(now_micros).saturating_add(price);
            wait = wait.max(spent.saturating_sub(latest));
            after.insert(key, spent);
        }
        if wait > 0 {
            return Spent::Wait(Duration::from_micros(wait));
        }
        self.full_at.extend(after);
        Spent::Granted
    }

    pub fn hold(&mut self, name: &str, owner: u128, until: Timestamp, now: Timestamp) -> bool {
        self.tidy(now);
        if self.holds.get(name).is_some_and(|(holder, end)| *holder != owner && *end > now) {
            return false;
        }
        self.holds.insert(name.to_owned(), (owner, until));
        true
    }

    pub fn let_go(&mut self, name: &str, owner: u128) {
        if self.holds.get(name).is_some_and(|(holder, _)| *holder == owner) {
            self.holds.remove(name);
        }
    }

    fn tidy(&mut self, now: Timestamp) {
        if self.full_at.len() + self.holds.len() < self.tidy_at.max(FEW) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > micros(now));
        self.holds.retain(|_, (_, end)| *end > now);
        self.tidy_at = (self.full_at.len() + self.holds.len()) * 2;
    }
}

fn micros(time: Timestamp) -> u64 {
    u64::try_from(time.millis()).unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_any_more_is_forgotten() {
        let mut shares = Shares::default();
        let mut now = Timestamp::from_millis(1_000_000);
        for n in 0..10_000 {
            let bucket = format!("b{n}");
            let spend = Spend { bucket, cost: 1, rate: 60, per: Duration::from_mins(1), burst: 2 };
            assert_eq!(shares.spend("s", &[spend], now), Spent::Granted);
            let hold = now.plus(Duration::from_secs(1));
            assert!(shares.hold(&format!("h{n}"), 1, hold, now));
            now = now.plus(Duration::from_millis(100));
        }
        assert!(shares.full_at.len() + shares.holds.len() <= FEW, "{shares:?}");
    }
}
