//! The delivery log as a store gives it: which deliveries are wanted, a page of them, and a connection's totals.
//!
//! A page costs a bounded walk whatever the filter: what no index finds is looked at row by row, at most [`LOOKS`] rows,
//! and a page that ends early says where to go on. Totals are counted as outcomes are written, by connection and day, so
//! that reading them costs the same however many deliveries there are.

use std::time::Duration;

use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::{Attempt, Job, JobState, Outcome};
use crate::domain::time::Timestamp;

/// Rows that a query looks at and does not want, before it gives its page and a place to go on.
pub const LOOKS: usize = 10_000;

/// Days for which a connection's totals are kept, today included.
pub const TALLY_DAYS: i64 = 7;

/// Open jobs that are counted at the most where counting is a walk.
pub const COUNTED_OPEN: u64 = 10_000;

const DAY: Duration = Duration::from_hours(24);

/// Which deliveries are wanted.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Of one tenant; `None` is for the operator alone.
    pub tenant: Option<TenantId>,
    /// Of one connection.
    pub connection: Option<ConnectionId>,
    /// Of the events with this public id.
    pub event: Option<String>,
    /// Of events of this type.
    pub kind: Option<String>,
    /// In this state.
    pub state: Option<JobState>,
    /// Whose newest attempt came to this.
    pub outcome: Option<Outcome>,
    /// Whose newest attempt was answered with this HTTP status.
    pub status: Option<u16>,
    /// Whose reason has this in it; ASCII letters in any case.
    pub text: Option<String>,
    /// Made at or after.
    pub since: Option<Timestamp>,
    /// Made before.
    pub until: Option<Timestamp>,
    /// Older than this one: the cursor.
    pub before: Option<JobId>,
    /// How many at the most.
    pub limit: usize,
}

impl DeliveryQuery {
    /// Whether what a job's own row tells is wanted.
    pub(in crate::store) fn admits(&self, delivery: &Delivery) -> bool {
        let job = &delivery.job;
        self.tenant.as_ref().is_none_or(|tenant| *tenant == job.tenant)
            && self.connection.is_none_or(|connection| connection == job.connection)
            && self.event.as_ref().is_none_or(|event| *event == delivery.event_id)
            && self.kind.as_ref().is_none_or(|kind| *kind == delivery.kind)
            && self.state.is_none_or(|state| state == delivery.state)
            && self.since.is_none_or(|since| job.id.time() >= since)
            && self.until.is_none_or(|until| job.id.time() < until)
            && self.before.is_none_or(|before| job.id < before)
            && self.text.as_ref().is_none_or(|text| contains(&delivery.reason, text))
    }

    /// Whether what the newest attempt came to is wanted.
    pub(in crate::store) fn admits_last(&self, last: Option<&Tried>) -> bool {
        self.outcome.is_none_or(|outcome| last.is_some_and(|last| last.outcome == outcome))
            && self.status.is_none_or(|status| last.is_some_and(|last| last.status == Some(status)))
    }
}

fn contains(text: &str, wanted: &str) -> bool {
    wanted.is_empty()
        || text.as_bytes().windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// What the log's lists tell of a job's newest attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Tried {
    /// What it came to.
    pub outcome: Outcome,
    /// The answer's HTTP status, when there was one.
    #[serde(default)]
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: u64,
}

impl From<&Attempt> for Tried {
    fn from(attempt: &Attempt) -> Self {
        Self { outcome: attempt.outcome, status: attempt.status, duration_ms: attempt.duration_ms }
    }
}

/// A job as the delivery log shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The job.
    pub job: Job,
    /// Its event's public id.
    pub event_id: String,
    /// Its event's type.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// When it is due again, while it waits.
    pub due: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Why it stands where it stands, in plain words; empty before the first try.
    pub reason: String,
    /// What its newest try came to.
    pub last: Option<Tried>,
    /// Its tries, oldest first; only where one delivery was asked for.
    pub attempts: Vec<Attempt>,
}

/// Deliveries, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// At most as many as were wanted; fewer, or none, where the walk was long.
    pub items: Vec<Delivery>,
    /// What [`DeliveryQuery::before`] is for the next page; `None` when there is no more.
    pub next: Option<JobId>,
}

impl DeliveryPage {
    /// Cuts what was found, newest first, to `limit`; `stopped` is where the walk ended early.
    pub(in crate::store) fn of(mut items: Vec<Delivery>, limit: usize, stopped: Option<JobId>) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|last| last.job.id) } else { stopped };
        Self { items, next }
    }
}

/// Upper bounds of the latency buckets, in milliseconds; what is longer is in one more.
const LATENCY_MS: [u64; 24] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000,
    10_000, 30_000,
];
/// Where attempts that did not deliver are counted; jobs that ended are counted under their state's number.
const FAILED: u8 = 8;
/// Where the first latency bucket is counted.
const FIRST_LATENCY: u8 = 16;
const SLOTS: usize = FIRST_LATENCY as usize + LATENCY_MS.len() + 1;

/// Where an attempt is counted: its latency, and whether it failed.
pub(in crate::store) fn slots_of(attempt: &Attempt) -> (u8, bool) {
    let bucket = LATENCY_MS.partition_point(|bound| *bound < attempt.duration_ms);
    let failed = !matches!(attempt.outcome, Outcome::Delivered | Outcome::Duplicate);
    (FIRST_LATENCY + u8::try_from(bucket).unwrap_or(0), failed)
}

/// Every slot that a settlement counts in.
pub(in crate::store) fn slots(
    attempt: Option<&Attempt>,
    ended: Option<JobState>,
) -> impl Iterator<Item = u8> {
    let (latency, failed) = attempt.map(slots_of).unzip();
    let ended = ended
        .and_then(|state| JobState::ALL.iter().position(|other| *other == state))
        .and_then(|slot| u8::try_from(slot).ok());
    latency.into_iter().chain(failed.filter(|failed| *failed).map(|_| FAILED)).chain(ended)
}

/// The day of a time, counted from 1970, in UTC.
pub(in crate::store) fn day_of(time: Timestamp) -> i64 {
    time.millis().div_euclid(i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX))
}

/// What came of a connection's jobs in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals([u64; SLOTS]);

impl Default for Totals {
    fn default() -> Self {
        Self([0; SLOTS])
    }
}

impl Totals {
    /// Adds what was counted in a slot; one that another version wrote counts nowhere.
    pub(in crate::store) fn add(&mut self, slot: u8, count: u64) {
        if let Some(total) = self.0.get_mut(usize::from(slot)) {
            *total += count;
        }
    }

    /// Adds another span's.
    pub fn join(&mut self, other: &Self) {
        for (total, count) in self.0.iter_mut().zip(other.0) {
            *total += count;
        }
    }

    /// Jobs that ended so.
    pub fn ended(&self, state: JobState) -> u64 {
        JobState::ALL.iter().position(|other| *other == state).map_or(0, |slot| self.0[slot])
    }

    /// Attempts.
    pub fn attempts(&self) -> u64 {
        self.latencies().iter().sum()
    }

    /// Attempts that did not deliver.
    pub fn failed_attempts(&self) -> u64 {
        self.0[usize::from(FAILED)]
    }

    fn latencies(&self) -> &[u64] {
        &self.0[usize::from(FIRST_LATENCY)..]
    }

    /// So many percent of the attempts took at most this many milliseconds, rounded up to a bucket; longer than the last
    /// bucket is told as that. `None` where there were none.
    pub fn latency_ms(&self, percent: u64) -> Option<u64> {
        let wanted = (self.attempts() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.latencies().iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(LATENCY_MS[bucket.min(LATENCY_MS.len() - 1)])
    }
}

/// A connection's totals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The days that have some, oldest first: the day's beginning (UTC) and what was counted.
    pub days: Vec<(Timestamp, Totals)>,
    /// Jobs that wait for their first try, at most [`COUNTED_OPEN`]. Those under way may be missing.
    pub queued: u64,
    /// Jobs that failed and wait for their retry, at most [`COUNTED_OPEN`].
    pub waiting: u64,
    /// When the oldest of them was made; of those that failed, [`COUNTED_OPEN`] are looked at.
    pub oldest: Option<Timestamp>,
}

impl Tally {
    /// All days together.
    pub fn totals(&self) -> Totals {
        self.days.iter().fold(Totals::default(), |mut all, (_, day)| {
            all.join(day);
            all
        })
    }

    /// Adds what was counted on a day in a slot; days come in order.
    pub(in crate::store) fn add(&mut self, day: i64, slot: u8, count: u64) {
        let start = Timestamp::from_millis(day * i64::try_from(DAY.as_millis()).unwrap_or(0));
        if self.days.last().is_none_or(|(last, _)| *last != start) {
            self.days.push((start, Totals::default()));
        }
        if let Some((_, totals)) = self.days.last_mut() {
            totals.add(slot, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let mut totals = Totals::default();
        assert_eq!(totals.latency_ms(50), None);
        let attempt = |duration_ms, outcome| Attempt {
            number: 1,
            at: Timestamp::from_millis(0),
            duration_ms,
            status: None,
            outcome,
            reason: String::new(),
            remote_id: None,
            headers: Vec::new(),
            body: String::new(),
        };
        for (duration_ms, outcome) in
            [(4, Outcome::Delivered), (5, Outcome::Duplicate), (40, Outcome::Retry), (90_000, Outcome::Retry)]
        {
            for slot in slots(Some(&attempt(duration_ms, outcome)), Some(JobState::Delivered)) {
                totals.add(slot, 1);
            }
        }
        assert_eq!((totals.latency_ms(50), totals.latency_ms(75)), (Some(5), Some(50)));
        assert_eq!(totals.latency_ms(100), Some(30_000));
        assert_eq!((totals.attempts(), totals.failed_attempts()), (4, 2));
        assert_eq!((totals.ended(JobState::Delivered), totals.ended(JobState::Dead)), (4, 0));
    }

    #[test]
    fn free_text_is_found_in_any_case() {
        assert!(contains("503 Service Unavailable", "service un"));
        assert!(contains("x", ""));
        assert!(!contains("ab", "abc"));
    }
}
