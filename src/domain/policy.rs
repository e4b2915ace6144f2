//! How a connection's jobs are delivered: retries, time limits, concurrency. Stated by a connector file, overridden
//! by a connection.

use std::time::Duration;

use super::breaker::BreakerPolicy;
use serde::{Deserialize, Serialize};

/// The longest that a `Retry-After` is obeyed.
pub const RETRY_AFTER_CAP: Duration = Duration::from_hours(24);

/// The longest time that one attempt may be given.
pub const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The delays between attempts, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySchedule {
    /// Delay before the second attempt, the third, and so on; when it ends, so do the retries.
    pub delays_ms: Vec<u64>,
    /// Up to this share is added to each delay at random, so that failures of one moment don't come back as one.
    pub jitter_percent: u8,
}

impl RetrySchedule {
    /// No retry at all.
    pub fn none() -> Self {
        Self { delays_ms: Vec::new(), jitter_percent: 0 }
    }

    /// Delays that begin with `first` and grow `factor`-fold each, none above `longest`, as many as surely end `within`
    /// that time: the jitter is counted at its most.
    pub fn exponential(
        first: Duration,
        factor: u32,
        longest: Duration,
        within: Duration,
        jitter_percent: u8,
    ) -> Self {
        /// More than anyone waits for.
        const MOST: usize = 1_000;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (longest, within) = (millis(longest).max(1), millis(within));
        let mut next = millis(first).max(1);
        let mut delays_ms = Vec::new();
        let mut spent = 0_u64;
        while delays_ms.len() < MOST {
            let delay = next.min(longest);
            let most = delay.saturating_add(delay.saturating_mul(jitter_percent.into()) / 100);
            spent = spent.saturating_add(most);
            if spent > within {
                break;
            }
            delays_ms.push(delay);
            next = next.saturating_mul(factor.into());
        }
        Self { delays_ms, jitter_percent }
    }

    /// The delay after `attempts` attempts were spent, or `None` when no more are due. `fraction` (`0.0..1.0`) is the
    /// share of the jitter to add.
    pub fn delay(&self, attempts: u32, fraction: f64) -> Option<Duration> {
        let index = usize::try_from(attempts.checked_sub(1)?).ok()?;
        let delay = Duration::from_millis(*self.delays_ms.get(index)?);
        Some(delay + delay.mul_f64(f64::from(self.jitter_percent) / 100.0 * fraction.clamp(0.0, 1.0)))
    }
}

impl Default for RetrySchedule {
    /// 5 s, 30 s, 2 m, 10 m, 30 m, 2 h, 5 h, 10 h, 24 h, with up to 20% of jitter.
    fn default() -> Self {
        let delays_secs = [5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 86_400];
        Self { delays_ms: delays_secs.map(|secs: u64| secs * 1_000).to_vec(), jitter_percent: 20 }
    }
}

/// What becomes of a job when its last retry failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RetriesEnd {
    /// It is dead: kept as something to look at, and can be retried by hand.
    #[default]
    Dead,
    /// It is dropped: it stands in the log as cancelled and calls for nobody.
    DropAndLog,
    /// It is dead, and its connection is paused until a person or a new subscription resumes it.
    Deactivate,
}

/// How often a connection is tried, over all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that are sent in each second in the long run.
    pub per_second: u32,
    /// Requests that may be sent at once after a rest.
    pub burst: u32,
}

impl RateLimit {
    /// The least burst beside a rate: a fifth of a second's requests. With less a lane would have to come back for each
    /// request alone.
    pub fn least_burst(per_second: u32) -> u32 {
        per_second.div_ceil(5)
    }
}

/// The delivery policy in force for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// One deadline over the whole exchange, the answer's body included.
    pub timeout: Duration,
    /// When to try again.
    pub retry: RetrySchedule,
    /// What becomes of a job when there is no retry left.
    pub when_retries_end: RetriesEnd,
    /// How many attempts of one lane may be under way at once; 1 means strict order.
    pub concurrency: u32,
    /// How many jobs one attempt may take; above 1 only with a concurrency of 1. A connection can't change it.
    pub batch: u32,
    /// What a run of failures does.
    pub breaker: BreakerPolicy,
    /// How often it may be tried; `None` is as often as there are jobs.
    pub rate: Option<RateLimit>,
    /// Whether the delivery log keeps what the other side said, and the bytes that were sent once the job has ended. Only a
    /// connection says so.
    pub log_bodies: bool,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            retry: RetrySchedule::default(),
            when_retries_end: RetriesEnd::default(),
            concurrency: 16,
            batch: 1,
            breaker: BreakerPolicy::default(),
            rate: None,
            log_bodies: true,
        }
    }
}

/// What a connection changes of its connector's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyOverrides {
    /// Seconds for the whole exchange, 1 to 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
    /// Delays in seconds, at most 20 of at most 7 days each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_delays_secs: Option<Vec<u32>>,
    /// 1 to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Failures in a row that open the breaker, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker_failures: Option<u32>,
    /// Failures in a row that pause the connection, 1 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_failures: Option<u32>,
    /// Seconds that they must have taken at the least, 60 to 2592000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_secs: Option<u32>,
    /// Requests a second in the long run, 1 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Requests that may go at once, 1 to 10000 and a fifth of `per_second` at the least; as many as `per_second` where
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Whether the delivery log keeps bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bodies: Option<bool>,
}

impl PolicyOverrides {
    /// `base` with these changes.
    pub fn over(&self, base: &DeliveryPolicy) -> DeliveryPolicy {
        let mut policy = base.clone();
        if let Some(secs) = self.timeout_secs {
            policy.timeout = Duration::from_secs(u64::from(secs));
        }
        if let Some(delays) = &self.retry_delays_secs {
            policy.retry.delays_ms = delays.iter().map(|secs| u64::from(*secs) * 1_000).collect();
        }
        if let Some(concurrency) = self.concurrency {
            policy.concurrency = if policy.batch > 1 { 1 } else { concurrency };
        }
        policy.log_bodies = self.log_bodies.unwrap_or(policy.log_bodies);
        if let Some(failures) = self.breaker_failures {
            policy.breaker.opens_after = failures;
        }
        if let Some(failures) = self.pause_failures {
            policy.breaker.pauses_after = failures;
        }
        if let Some(secs) = self.pause_secs {
            policy.breaker.pauses_after_span = Duration::from_secs(u64::from(secs));
        }
        if let Some(per_second) = self.per_second {
            policy.rate = Some(RateLimit { per_second, burst: self.burst.unwrap_or(per_second) });
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_schedule_is_the_documented_one() {
        let schedule = RetrySchedule::default();
        let secs: Vec<u64> =
            (1..).map_while(|n| schedule.delay(n, 0.0)).map(|delay| delay.as_secs()).collect();
        assert_eq!(secs, [5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 86_400]);
        assert_eq!(schedule.delay(1, 1.0), Some(Duration::from_secs(6)), "20% of jitter at the most");
        assert_eq!(schedule.delay(0, 0.0), None);
        assert_eq!(schedule.delay(10, 0.0), None);
        assert_eq!(RetrySchedule::none().delay(1, 0.0), None);
    }

    #[test]
    fn an_exponential_schedule_ends_in_time_whatever_the_jitter() {
        let secs = Duration::from_secs;
        let day = secs(86_400);
        let schedule = RetrySchedule::exponential(secs(10), 2, day, day, 20);
        assert_eq!(schedule.delays_ms.len(), 12, "{schedule:?}");
        assert_eq!(schedule.delays_ms[..3], [10_000, 20_000, 40_000]);
        let latest: Duration = (1..).map_while(|n| schedule.delay(n, 1.0)).sum();
        assert!(latest <= day, "{latest:?}");
        let capped = RetrySchedule::exponential(secs(10), 3, secs(60), secs(250), 0);
        assert_eq!(capped.delays_ms, [10_000, 30_000, 60_000, 60_000, 60_000]);
        assert!(RetrySchedule::exponential(secs(10), 2, day, secs(9), 0).delays_ms.is_empty());
        assert_eq!(RetrySchedule::exponential(secs(1), 1, day, Duration::MAX, 0).delays_ms.len(), 1_000);
    }

    #[test]
    fn overrides_change_only_what_they_name() {
        let base = DeliveryPolicy::default();
        assert_eq!(PolicyOverrides::default().over(&base), base);
        let overrides = PolicyOverrides { concurrency: Some(1), ..PolicyOverrides::default() };
        assert_eq!(overrides.over(&base), DeliveryPolicy { concurrency: 1, ..base });
    }
}
