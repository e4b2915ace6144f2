//! How much each of many may send: events of a tenant, deliveries of a source, requests of a visitor. A token bucket each, and
//! no more than [`MOST_BUCKETS`] of them: those that are full again go first, then those that were not used for longest.
//!
//! Where several processes share a store they share the limits, in arrears: what a process lets through it owes ([`Rates::dues`]),
//! pays a moment later out of the bucket in the store ([`quotas`](super::quotas)), and lets nothing more through
//! while that is empty ([`Rates::bar`]). So no request waits for the store, and in the long run all processes together let
//! through what one would; for a moment each may let through a bucket of its own.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::time::Timestamp;
use crate::store::Spend;

/// The most buckets that are kept.
pub const MOST_BUCKETS: usize = 100_000;

/// The buckets of all that sent something.
#[derive(Debug)]
pub struct Rates<K> {
    /// Tokens a second; 0 means no limit.
    rate: f64,
    /// The same as a whole number in a span.
    steady: (u32, Duration),
    /// What a full bucket holds.
    burst: u32,
    most: usize,
    /// Whether what passes is owed to other processes.
    is_shared: bool,
    buckets: Mutex<HashMap<K, Bucket>>,
    /// Who owes something, or asked in vain, each once.
    owing: Mutex<Vec<K>>,
    owed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
    /// What was let through and is not paid yet.
    owed: u32,
    /// Whether it stands among those that owe.
    noted: bool,
    /// Until then nothing passes.
    barred_until: Timestamp,
}

/// Where a tenant stands, for the `RateLimit` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What a full bucket holds.
    pub quota: u32,
    /// Seconds in which an empty bucket fills.
    pub window_secs: u64,
    /// What may be sent now.
    pub remaining: u32,
    /// Seconds until the bucket is full.
    pub reset_secs: u64,
    /// How long to wait when it was not enough; zero when it was.
    pub wait: Duration,
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// `rate` a second for each, with a bucket for two seconds and at least one whole batch of `batch`; no limit when `rate`
    /// is 0.
    pub fn new(rate: u32, batch: u32) -> Self {
        Self::with((rate, Duration::from_secs(1)), rate.saturating_mul(2).max(batch), MOST_BUCKETS)
    }

    /// `count` a minute for each, all of which may come at once; no limit when `count` is 0.
    pub fn a_minute(count: u32) -> Self {
        Self::with((count, Duration::from_mins(1)), count, MOST_BUCKETS)
    }

    fn with(steady: (u32, Duration), burst: u32, most: usize) -> Self {
        Self {
            rate: f64::from(steady.0) / steady.1.as_secs_f64(),
            steady,
            burst,
            most,
            is_shared: false,
            buckets: Mutex::default(),
            owing: Mutex::default(),
            owed: Notify::new(),
        }
    }

    /// The same, which owes what it lets through, where `shared`.
    #[must_use]
    pub fn shared(self, shared: bool) -> Self {
        Self { is_shared: shared && self.rate > 0.0, ..self }
    }

    /// Takes what each sends out of its bucket, all or nothing: when one has too little, nothing is taken. The
    /// answer is the standing of the one that has the least, or `None` without a limit.
    pub fn take(&self, wanted: &[(K, u32)], now: Timestamp) -> Option<Standing> {
        if self.rate <= 0.0 {
            return None;
        }
        let mut buckets = self.buckets.lock();
        let mut worst: Option<Standing> = None;
        for (key, count) in wanted {
            let bucket = self.filled(buckets.get(key), now);
            let missing = f64::from(*count) - bucket.tokens;
            let mut standing = self.standing(if missing > 0.0 { bucket.tokens } else { -missing }, missing);
            if bucket.barred_until > now {
                standing.remaining = 0;
                standing.wait = standing.wait.max(bucket.barred_until.since(now));
            }
            if worst.is_none_or(|worst| (worst.wait, standing.remaining) < (standing.wait, worst.remaining)) {
                worst = Some(standing);
            }
        }
        if worst.is_some_and(|worst| worst.wait.is_zero()) {
            // Whoever takes nothing only looks, and leaves nothing behind.
            for (key, count) in wanted.iter().filter(|(_, count)| *count > 0) {
                let mut bucket = self.filled(buckets.get(key), now);
                bucket.tokens -= f64::from(*count);
                if self.is_shared {
                    bucket.owed = bucket.owed.saturating_add(*count);
                    self.note(key, &mut bucket);
                }
                if buckets.len() >= self.most && !buckets.contains_key(key) {
                    self.make_room(&mut buckets, now);
                }
                buckets.insert(key.clone(), bucket);
            }
        }
        worst
    }

    fn note(&self, key: &K, bucket: &mut Bucket) {
        if !std::mem::replace(&mut bucket.noted, true) {
            self.owing.lock().push(key.clone());
            self.owed.notify_one();
        }
    }

    /// Returns when somebody owes something; never where nothing is shared.
    pub async fn wait_for_dues(&self) {
        while self.owing.lock().is_empty() {
            self.owed.notified().await;
        }
    }

    /// Takes what at most `most` of them owe.
    pub fn dues(&self, most: usize) -> Vec<(K, u32)> {
        let keys: Vec<K> = {
            let mut owing = self.owing.lock();
            let rest = owing.len().saturating_sub(most);
            owing.drain(rest..).collect()
        };
        let mut buckets = self.buckets.lock();
        keys.into_iter()
            .filter_map(|key| {
                let bucket = buckets.get_mut(&key)?;
                bucket.noted = false;
                let owed = std::mem::take(&mut bucket.owed);
                (owed > 0).then_some((key, owed))
            })
            .collect()
    }

    /// What somebody owes could not be paid: nothing of him passes for so long, and he owes it again.
    pub fn bar(&self, key: &K, owed: u32, wait: Duration, now: Timestamp) {
        let mut buckets = self.buckets.lock();
        let mut bucket = self.filled(buckets.get(key), now);
        bucket.owed = bucket.owed.saturating_add(owed);
        bucket.barred_until = now.plus(wait);
        bucket.tokens = 0.0;
        self.note(key, &mut bucket);
        buckets.insert(key.clone(), bucket);
    }

    /// Forgets full buckets; where that is not enough, those of the older half.
    fn make_room(&self, buckets: &mut HashMap<K, Bucket>, now: Timestamp) {
        let full = f64::from(self.burst);
        buckets.retain(|_, bucket| self.filled(Some(bucket), now).tokens < full);
        if buckets.len() > self.most / 2 {
            let mut times: Vec<Timestamp> = buckets.values().map(|bucket| bucket.at).collect();
            let middle = times.len() / 2;
            let (_, middle, _) = times.select_nth_unstable(middle);
            let middle = *middle;
            buckets.retain(|_, bucket| bucket.at > middle);
        }
    }

    fn filled(&self, bucket: Option<&Bucket>, now: Timestamp) -> Bucket {
        let full = f64::from(self.burst);
        let Some(bucket) = bucket else {
            let barred_until = Timestamp::default();
            return Bucket { tokens: full, at: now, owed: 0, noted: false, barred_until };
        };
        let tokens = (bucket.tokens + now.since(bucket.at).as_secs_f64() * self.rate).min(full);
        Bucket { tokens, at: now, ..*bucket }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both lie in 0..=burst")]
    fn standing(&self, tokens: f64, missing: f64) -> Standing {
        let rate = self.rate;
        Standing {
            quota: self.burst,
            window_secs: (f64::from(self.burst) / rate).ceil() as u64,
            remaining: tokens as u32,
            reset_secs: ((f64::from(self.burst) - tokens) / rate).ceil() as u64,
            wait: Duration::from_secs_f64((missing / rate).max(0.0)),
        }
    }

    /// What the bucket of all processes is asked for `owed`, as far as it can hold so much.
    pub fn spend(&self, name: &str, key: &K, owed: u32) -> Spend
    where
        K: Display,
    {
        let (rate, per) = self.steady;
        // The numbers are part of the name: all processes must mean the same by a bucket.
        let bucket = format!("{name}:{key}:{rate}");
        Spend { bucket, cost: owed.min(self.burst), rate, per, burst: self.burst }
    }

    /// Forgets a bucket.
    pub fn forget(&self, key: &K) {
        self.buckets.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::TenantId;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let rates = Rates::new(10, 1);
        let now = Timestamp::from_millis(0);
        let full = rates.take(&[(tenant("a"), 15)], now).unwrap();
        assert_eq!((full.quota, full.remaining, full.reset_secs, full.window_secs), (20, 5, 2, 2));
        let over = rates.take(&[(tenant("a"), 10)], now).unwrap();
        assert_eq!((over.wait, over.remaining), (Duration::from_millis(500), 5));
        assert!(rates.take(&[(tenant("b"), 20)], now).unwrap().wait.is_zero(), "another tenant is untouched");
        let later = now.plus(Duration::from_millis(500));
        assert!(rates.take(&[(tenant("a"), 10)], later).unwrap().wait.is_zero());
    }

    #[test]
    fn nothing_is_taken_when_one_of_several_has_too_little() {
        let rates = Rates::new(10, 1);
        let now = Timestamp::from_millis(0);
        let both = [(tenant("a"), 5), (tenant("b"), 21)];
        assert!(!rates.take(&both, now).unwrap().wait.is_zero());
        assert_eq!(rates.take(&[(tenant("a"), 20)], now).unwrap().remaining, 0);
    }

    #[test]
    fn a_minute_s_worth_may_come_at_once_and_then_no_faster_than_it_fills() {
        let rates = Rates::a_minute(6);
        let now = Timestamp::from_millis(0);
        for _ in 0..6 {
            assert!(rates.take(&[("a", 1)], now).unwrap().wait.is_zero());
        }
        assert_eq!(rates.take(&[("a", 1)], now).unwrap().wait, Duration::from_secs(10));
        assert!(rates.take(&[("a", 1)], now.plus(Duration::from_secs(10))).unwrap().wait.is_zero());
    }

    #[test]
    fn there_are_never_more_buckets_than_allowed() {
        let rates = Rates::with((1, Duration::from_secs(1)), 10, 100);
        let at = |number: i64| Timestamp::from_millis(number);
        for number in 0..1_000 {
            rates.take(&[(number, 5)], at(number));
            assert!(rates.buckets.lock().len() <= 100);
        }
        // Whoever was there last is still remembered.
        assert_eq!(rates.take(&[(999, 0)], at(999)).unwrap().remaining, 5);
        // Those that are full again are forgotten without loss.
        for number in 1_000..1_080 {
            rates.take(&[(number, 5)], at(1_000_000));
        }
        assert!(rates.buckets.lock().len() <= 100);
        assert_eq!(rates.take(&[(1_000, 0)], at(1_000_000)).unwrap().remaining, 5);
    }

    #[test]
    fn what_passes_is_owed_once_and_what_cannot_be_paid_bars() {
        let rates = Rates::new(10, 1).shared(true);
        let now = Timestamp::from_millis(1_000);
        rates.take(&[("a", 3), ("b", 1)], now);
        rates.take(&[("a", 4)], now);
        rates.take(&[("a", 0)], now);
        let mut dues = rates.dues(9);
        dues.sort_unstable();
        assert_eq!(dues, [("a", 7), ("b", 1)]);
        assert!(rates.dues(9).is_empty());
        rates.bar(&"a", 7, Duration::from_secs(2), now);
        let barred = rates.take(&[("a", 1)], now).unwrap();
        assert_eq!((barred.remaining, barred.wait), (0, Duration::from_secs(2)));
        assert!(rates.take(&[("b", 1)], now).unwrap().wait.is_zero());
        assert_eq!(rates.dues(1).len() + rates.dues(1).len(), 2, "what is left is for the next time");
        let later = now.plus(Duration::from_secs(2));
        assert!(rates.take(&[("a", 1)], later).unwrap().wait.is_zero());
        let spend = rates.spend("events", &"a", 27);
        assert_eq!((spend.cost, spend.rate, spend.burst), (20, 10, 20));
        assert!(Rates::new(10, 1).take(&[("a", 3)], now).is_some_and(|standing| standing.wait.is_zero()));
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(Rates::new(0, 1).take(&[(tenant("a"), u32::MAX)], Timestamp::from_millis(0)), None);
    }
}
