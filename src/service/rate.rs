//! How many events a tenant may send: a token bucket each.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;

/// The buckets of all tenants that sent something.
#[derive(Debug)]
pub struct Rates {
    /// Events a second; 0 means no limit.
    rate: u32,
    /// What a full bucket holds.
    burst: u32,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
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
    /// Events that may be sent now.
    pub remaining: u32,
    /// Seconds until the bucket is full.
    pub reset_secs: u64,
    /// How long to wait when it was not enough; zero when it was.
    pub wait: Duration,
}

impl Rates {
    /// `rate` events a second for each tenant, with a bucket for two seconds and at least one whole batch of `batch`;
    /// no limit when `rate` is 0.
    pub fn new(rate: u32, batch: u32) -> Self {
        Self { rate, burst: rate.saturating_mul(2).max(batch), buckets: Mutex::default() }
    }

    /// Takes what each tenant sends out of its bucket, all or nothing: when one has too little, nothing is taken. The
    /// answer is the standing of the one that has the least, or `None` without a limit.
    pub fn take(&self, wanted: &[(TenantId, u32)], now: Timestamp) -> Option<Standing> {
        if self.rate == 0 {
            return None;
        }
        let mut buckets = self.buckets.lock();
        let mut worst: Option<Standing> = None;
        for (tenant, count) in wanted {
            let bucket = self.filled(buckets.get(tenant), now);
            let missing = f64::from(*count) - bucket.tokens;
            let standing = self.standing(if missing > 0.0 { bucket.tokens } else { -missing }, missing);
            if worst.is_none_or(|worst| (worst.wait, standing.remaining) < (standing.wait, worst.remaining)) {
                worst = Some(standing);
            }
        }
        if worst.is_some_and(|worst| worst.wait.is_zero()) {
            // Whoever takes nothing only looks, and leaves nothing behind.
            for (tenant, count) in wanted.iter().filter(|(_, count)| *count > 0) {
                let mut bucket = self.filled(buckets.get(tenant), now);
                bucket.tokens -= f64::from(*count);
                buckets.insert(tenant.clone(), bucket);
            }
        }
        worst
    }

    fn filled(&self, bucket: Option<&Bucket>, now: Timestamp) -> Bucket {
        let full = f64::from(self.burst);
        let tokens = bucket.map_or(full, |bucket| {
            (bucket.tokens + now.since(bucket.at).as_secs_f64() * f64::from(self.rate)).min(full)
        });
        Bucket { tokens, at: now }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both lie in 0..=burst")]
    fn standing(&self, tokens: f64, missing: f64) -> Standing {
        let rate = f64::from(self.rate);
        Standing {
            quota: self.burst,
            window_secs: (f64::from(self.burst) / rate).ceil() as u64,
            remaining: tokens as u32,
            reset_secs: ((f64::from(self.burst) - tokens) / rate).ceil() as u64,
            wait: Duration::from_secs_f64((missing / rate).max(0.0)),
        }
    }

    /// Forgets a tenant's bucket.
    pub fn forget(&self, tenant: &TenantId) {
        self.buckets.lock().remove(tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn zero_is_no_limit() {
        assert_eq!(Rates::new(0, 1).take(&[(tenant("a"), u32::MAX)], Timestamp::from_millis(0)), None);
    }
}
