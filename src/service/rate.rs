//! How much each of many may send: events of a tenant, deliveries of a source, requests of a visitor. A token bucket each, and
//! no more than [`MOST_BUCKETS`] of them: those that are full again go first, then those that were not used for longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::time::Timestamp;

/// The most buckets that are kept.
pub const MOST_BUCKETS: usize = 100_000;

/// The buckets of all that sent something.
#[derive(Debug)]
pub struct Rates<K> {
    /// Tokens a second; 0 means no limit.
    rate: f64,
    /// What a full bucket holds.
    burst: u32,
    most: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
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
        Self::with(f64::from(rate), rate.saturating_mul(2).max(batch), MOST_BUCKETS)
    }

    /// `count` a minute for each, all of which may come at once; no limit when `count` is 0.
    pub fn a_minute(count: u32) -> Self {
        Self::with(f64::from(count) / 60.0, count, MOST_BUCKETS)
    }

    fn with(rate: f64, burst: u32, most: usize) -> Self {
        Self { rate, burst, most, buckets: Mutex::default() }
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
            let standing = self.standing(if missing > 0.0 { bucket.tokens } else { -missing }, missing);
            if worst.is_none_or(|worst| (worst.wait, standing.remaining) < (standing.wait, worst.remaining)) {
                worst = Some(standing);
            }
        }
        if worst.is_some_and(|worst| worst.wait.is_zero()) {
            // Whoever takes nothing only looks, and leaves nothing behind.
            for (key, count) in wanted.iter().filter(|(_, count)| *count > 0) {
                let mut bucket = self.filled(buckets.get(key), now);
                bucket.tokens -= f64::from(*count);
                if buckets.len() >= self.most && !buckets.contains_key(key) {
                    self.make_room(&mut buckets, now);
                }
                buckets.insert(key.clone(), bucket);
            }
        }
        worst
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
        let tokens = bucket.map_or(full, |bucket| {
            (bucket.tokens + now.since(bucket.at).as_secs_f64() * self.rate).min(full)
        });
        Bucket { tokens, at: now }
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
        let rates = Rates::with(1.0, 10, 100);
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
    fn zero_is_no_limit() {
        assert_eq!(Rates::new(0, 1).take(&[(tenant("a"), u32::MAX)], Timestamp::from_millis(0)), None);
    }
}
