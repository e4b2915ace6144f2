//! What follows from an attempt: the one place that turns an outcome into a job's next state and an effect on its lane.
//!
//! Pure: the time and the jitter's share come in. `Retry-After` holds back the whole lane, because it speaks of the
//! endpoint and not of the one job; being told to come later spends no attempt.

use std::time::Duration;

use super::breaker::Opening;
use super::job::{JobState, Outcome};
use super::policy::{DeliveryPolicy, RETRY_AFTER_CAP, RetriesEnd};
use super::time::Timestamp;

/// Who paused a connection whose connector deactivates it when the retries of a job ended.
pub const RETRIES_ENDED: &str = "retries_ended";

/// What becomes of a job after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Leaves its lane in this state.
    Done(JobState),
    /// Comes again at a time; the attempt is spent.
    Due(Timestamp),
    /// Goes back to where it stood in its lane; no attempt is spent.
    Requeue,
}

impl Next {
    /// Whether a try that leads here counts in the retry schedule. Where the mapping failed nothing was sent.
    pub fn spends_attempt(&self) -> bool {
        !matches!(self, Self::Requeue | Self::Done(JobState::MappingFailed))
    }
}

/// What an attempt does to its lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneEffect {
    /// Gives out nothing before this time.
    pub wait_until: Option<Timestamp>,
    /// Stops until a person resumes it: who did it (`auth_failed`, `retries_ended`, `breaker`) and why.
    pub pause: Option<(&'static str, String)>,
    /// Ends, and its other jobs are cancelled, for this reason.
    pub close: Option<String>,
    /// Whether the endpoint works: widens the lane on success, narrows it on failure; `None` says nothing.
    pub healthy: Option<bool>,
    /// With a failure: when the lane's breaker opens and for how long; see [`weigh`](super::breaker::weigh).
    pub opening: Option<Opening>,
}

impl LaneEffect {
    /// Whether the endpoint took what it was sent and holds nothing back: it may have the next.
    pub fn is_welcome(&self) -> bool {
        let Self { wait_until, pause, close, healthy, opening: _ } = self;
        *healthy == Some(true) && wait_until.is_none() && pause.is_none() && close.is_none()
    }
}

/// Decides what follows from `outcome`. `attempts` counts this one; `retry_after` is what the other side asked for;
/// `fraction` (`0.0..1.0`) is the jitter's share.
pub fn decide(
    outcome: Outcome,
    reason: &str,
    policy: &DeliveryPolicy,
    attempts: u32,
    retry_after: Option<Duration>,
    now: Timestamp,
    fraction: f64,
) -> (Next, LaneEffect) {
    let floor = retry_after.map(|after| now.plus(after.min(RETRY_AFTER_CAP)));
    let mut effect = LaneEffect { wait_until: floor, ..LaneEffect::default() };
    let next = match outcome {
        Outcome::Delivered | Outcome::Duplicate => {
            effect.healthy = Some(true);
            Next::Done(JobState::Delivered)
        }
        Outcome::Retry | Outcome::Ambiguous => {
            effect.healthy = Some(false);
            match policy.retry.delay(attempts, fraction) {
                Some(delay) => {
                    let due = now.plus(delay.max(Duration::from_millis(1)));
                    Next::Due(floor.map_or(due, |floor| floor.max(due)))
                }
                None => Next::Done(match policy.when_retries_end {
                    RetriesEnd::Dead => JobState::Dead,
                    RetriesEnd::DropAndLog => JobState::Cancelled,
                    RetriesEnd::Deactivate => {
                        effect.pause = Some((RETRIES_ENDED, format!("the retries of a job ended: {reason}")));
                        JobState::Dead
                    }
                }),
            }
        }
        Outcome::Throttled => {
            effect.wait_until = Some(floor.unwrap_or_else(|| now.plus(Duration::from_secs(1))));
            Next::Requeue
        }
        Outcome::AuthFailed => {
            effect.pause = Some(("auth_failed", reason.to_owned()));
            Next::Requeue
        }
        Outcome::Rejected => Next::Done(JobState::Rejected),
        Outcome::Gone => {
            effect.close = Some(reason.to_owned());
            Next::Done(JobState::Gone)
        }
        Outcome::MappingFailed => Next::Done(JobState::MappingFailed),
    };
    (next, effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn decide_plainly(outcome: Outcome, attempts: u32, retry_after: Option<u64>) -> (Next, LaneEffect) {
        let retry_after = retry_after.map(Duration::from_secs);
        decide(outcome, "because", &DeliveryPolicy::default(), attempts, retry_after, NOW, 0.0)
    }

    fn later(secs: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(secs))
    }

    #[test]
    fn every_outcome_has_its_end() {
        let cases = [
            (Outcome::Delivered, 1, None, Next::Done(JobState::Delivered)),
            (Outcome::Duplicate, 1, None, Next::Done(JobState::Delivered)),
            (Outcome::Retry, 1, None, Next::Due(later(5))),
            (Outcome::Ambiguous, 2, None, Next::Due(later(30))),
            (Outcome::Retry, 10, None, Next::Done(JobState::Dead)),
            (Outcome::Retry, 1, Some(60), Next::Due(later(60))),
            (Outcome::Retry, 3, Some(60), Next::Due(later(120))),
            (Outcome::Throttled, 1, Some(60), Next::Requeue),
            (Outcome::AuthFailed, 1, None, Next::Requeue),
            (Outcome::Rejected, 1, None, Next::Done(JobState::Rejected)),
            (Outcome::Gone, 1, None, Next::Done(JobState::Gone)),
            (Outcome::MappingFailed, 0, None, Next::Done(JobState::MappingFailed)),
        ];
        for (outcome, attempts, retry_after, wanted) in cases {
            assert_eq!(decide_plainly(outcome, attempts, retry_after).0, wanted, "{outcome:?} {attempts}");
        }
    }

    #[test]
    fn retry_after_holds_back_the_lane_whatever_the_outcome_up_to_a_day() {
        for outcome in Outcome::ALL {
            assert_eq!(decide_plainly(outcome, 1, Some(60)).1.wait_until, Some(later(60)), "{outcome:?}");
        }
        assert_eq!(decide_plainly(Outcome::Retry, 1, Some(u64::MAX / 2)).1.wait_until, Some(later(86_400)));
    }

    #[test]
    fn only_an_endpoint_that_took_its_event_and_asks_for_no_time_may_have_the_next_at_once() {
        for outcome in Outcome::ALL {
            let took = matches!(outcome, Outcome::Delivered | Outcome::Duplicate);
            assert_eq!(decide_plainly(outcome, 1, None).1.is_welcome(), took, "{outcome:?}");
            assert!(!decide_plainly(outcome, 1, Some(60)).1.is_welcome(), "{outcome:?}");
        }
    }

    #[test]
    fn when_retries_end_the_connector_says_what_follows() {
        let end = |when_retries_end| {
            let policy = DeliveryPolicy { when_retries_end, ..DeliveryPolicy::default() };
            decide(Outcome::Retry, "no answer", &policy, 10, None, NOW, 0.0)
        };
        let (next, effect) = end(RetriesEnd::Dead);
        assert_eq!((next, effect.pause), (Next::Done(JobState::Dead), None));
        let (next, effect) = end(RetriesEnd::DropAndLog);
        assert_eq!((next, effect.pause), (Next::Done(JobState::Cancelled), None));
        let (next, effect) = end(RetriesEnd::Deactivate);
        let pause = ("retries_ended", "the retries of a job ended: no answer".to_owned());
        assert_eq!((next, effect.pause), (Next::Done(JobState::Dead), Some(pause)));
    }

    #[test]
    fn refused_credentials_pause_and_gone_closes() {
        let (_, paused) = decide_plainly(Outcome::AuthFailed, 1, None);
        assert_eq!(paused.pause, Some(("auth_failed", "because".to_owned())));
        let (_, closed) = decide_plainly(Outcome::Gone, 1, None);
        assert_eq!(closed.close, Some("because".to_owned()));
    }
}
