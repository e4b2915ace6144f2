//! What a run of failures does to a lane: its breaker opens, and after long it is paused.
//!
//! # Theory of operation
//!
//! A lane counts its failures in a row. Each failure halves how many attempts it may have under way, each success adds one
//! again. From [`BreakerPolicy::opens_after`] failures on its *breaker is open*: it gives one job, the *probe*, and after
//! another failure nothing before [`probe_delay`] is over. A success ends the run, and the lane widens one by one. Jobs
//! behind an open breaker stand where they stood and spend no attempt. A connection whose lane failed
//! [`BreakerPolicy::pauses_after`] times in a row, and for [`BreakerPolicy::pauses_after_span`], is paused.
//!
//! The store counts; what it counted comes with each lease, and this decides. Pure: the time and the jitter's share come in.

use std::time::Duration;

use super::settle::LaneEffect;
use super::time::Timestamp;

/// Who paused a connection that failed for too long.
pub const BREAKER: &str = "breaker";

/// How long an open breaker waits for its first probe; each further wait is twice as long.
pub const FIRST_PROBE: Duration = Duration::from_secs(10);

/// No probe waits longer, but for the jitter.
pub const LONGEST_PROBE: Duration = Duration::from_mins(10);

/// Up to this share is added to each wait, so that the lanes of one dead host don't probe as one.
const JITTER: f64 = 0.2;

/// When a run of failures has consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// From so many failures in a row on the breaker is open; at least 1.
    pub opens_after: u32,
    /// So many failures in a row pause the connection, if they also took [`Self::pauses_after_span`].
    pub pauses_after: u32,
    /// How long a run of failures must have lasted to pause the connection.
    pub pauses_after_span: Duration,
}

impl Default for BreakerPolicy {
    /// Opens after 5, pauses after 20 within no less than a day.
    fn default() -> Self {
        Self { opens_after: 5, pauses_after: 20, pauses_after_span: Duration::from_hours(24) }
    }
}

/// A lane's failures in a row, as its store counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failing {
    /// How many. While the breaker is open only probes count, not what was under way when it opened.
    pub count: u32,
    /// When the first of them was written; of no meaning while there is none.
    pub since: Timestamp,
}

/// What a store needs to know to open a lane's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// From so many failures in a row on.
    pub after: u32,
    /// The lane then gives nothing before this time.
    pub probe_at: Timestamp,
}

/// How long an open breaker waits after `failures` in a row; `fraction` (`0.0..1.0`) is the jitter's share.
pub fn probe_delay(policy: &BreakerPolicy, failures: u32, fraction: f64) -> Duration {
    /// More doublings change nothing.
    const MOST: u32 = 16;
    let doublings = failures.saturating_sub(policy.opens_after).min(MOST);
    let delay = (FIRST_PROBE * 2_u32.pow(doublings)).min(LONGEST_PROBE);
    delay + delay.mul_f64(JITTER * fraction.clamp(0.0, 1.0))
}

/// How far a run of failures has come on its way to a pause, in percent: by its count or its time, whichever is behind.
pub fn progress(policy: &BreakerPolicy, failing: Failing, now: Timestamp) -> u32 {
    let part = |done: u128, all: u128| done.saturating_mul(100).checked_div(all).unwrap_or(100).min(100);
    let by_count = part(failing.count.into(), policy.pauses_after.into());
    let by_time = part(now.since(failing.since).as_millis(), policy.pauses_after_span.as_millis());
    u32::try_from(by_count.min(by_time)).unwrap_or(100)
}

/// Adds to the effect of a failure what the run of failures before it, `failing`, makes of it. `reason` is the failure's.
pub fn weigh(
    effect: &mut LaneEffect,
    reason: &str,
    policy: &BreakerPolicy,
    failing: Failing,
    now: Timestamp,
    fraction: f64,
) {
    if effect.healthy != Some(false) {
        return;
    }
    let count = failing.count.saturating_add(1);
    effect.opening = Some(Opening {
        after: policy.opens_after.max(1),
        probe_at: now.plus(probe_delay(policy, count, fraction)),
    });
    let lasted = failing.count > 0 && failing.since.plus(policy.pauses_after_span) <= now;
    if effect.pause.is_none() && effect.close.is_none() && count >= policy.pauses_after && lasted {
        let since = failing.since;
        let reason = format!("{count} attempts in a row failed since {since}; the last one: {reason}");
        effect.pause = Some((BREAKER, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);

    fn weighed(count: u32, hours: u64) -> LaneEffect {
        let mut effect = LaneEffect { healthy: Some(false), ..LaneEffect::default() };
        let since = NOW.minus(Duration::from_hours(hours));
        weigh(&mut effect, "no answer", &BreakerPolicy::default(), Failing { count, since }, NOW, 0.0);
        effect
    }

    #[test]
    fn probes_come_at_growing_intervals_up_to_ten_minutes() {
        let policy = BreakerPolicy::default();
        let secs: Vec<u64> = (1..14).map(|count| probe_delay(&policy, count, 0.0).as_secs()).collect();
        assert_eq!(secs, [10, 10, 10, 10, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(probe_delay(&policy, u32::MAX, 1.0), Duration::from_mins(12), "20% of jitter at the most");
    }

    #[test]
    fn only_many_failures_over_a_day_pause() {
        assert_eq!(weighed(0, 100).pause, None, "the first failure has no run before it");
        assert_eq!(weighed(18, 24).pause, None);
        assert_eq!(weighed(19, 23).pause, None);
        let (by, reason) = weighed(19, 24).pause.unwrap();
        assert_eq!(by, BREAKER);
        assert!(reason.starts_with("20 attempts in a row failed since 20"), "{reason}");
        assert!(reason.ends_with("the last one: no answer"), "{reason}");
    }

    #[test]
    fn progress_is_the_lesser_of_count_and_time() {
        let cases =
            [(0, 48, 0), (10, 48, 50), (20, 12, 50), (14, 24, 70), (19, 48, 95), (20, 23, 95), (20, 24, 100)];
        for (count, hours, percent) in cases {
            let failing = Failing { count, since: NOW.minus(Duration::from_hours(hours)) };
            assert_eq!(progress(&BreakerPolicy::default(), failing, NOW), percent, "{count} in {hours} h");
        }
        let at_once = BreakerPolicy { pauses_after_span: Duration::ZERO, ..BreakerPolicy::default() };
        assert_eq!(progress(&at_once, Failing { count: 10, since: NOW }, NOW), 50, "the count alone");
    }

    #[test]
    fn what_is_no_failure_opens_nothing() {
        for healthy in [None, Some(true)] {
            let mut effect = LaneEffect { healthy, ..LaneEffect::default() };
            let before = effect.clone();
            let failing = Failing { count: 99, since: Timestamp::default() };
            weigh(&mut effect, "", &BreakerPolicy::default(), failing, NOW, 0.5);
            assert_eq!(effect, before);
        }
        let mut closes =
            LaneEffect { healthy: Some(false), close: Some("gone".into()), ..LaneEffect::default() };
        let failing = Failing { count: 99, since: Timestamp::default() };
        weigh(&mut closes, "", &BreakerPolicy::default(), failing, NOW, 0.5);
        assert_eq!(closes.pause, None, "a connection is not both closed and paused");
    }
}
