//! The keys of `[policy]`.

use super::keys::{Keys, Takes, WEEK, names};
use crate::spec::policy::RETRIES_ENDS;

pub(super) const POLICY: Keys = &[
    ("timeout_secs", Takes::Whole(1, 60), false, "One deadline over a whole try."),
    ("retry_delays_secs", Takes::Numbers, false, "The delays between attempts."),
    ("retry_exponential", Takes::Table(GROWTH), false, "Delays that grow, as many as end in time."),
    (
        "when_retries_end",
        Takes::Choice(|| names(RETRIES_ENDS)),
        false,
        "What becomes of a job without a retry left.",
    ),
    ("jitter_percent", Takes::Whole(0, 100), false, "Up to this share is added to each delay at random."),
    (
        "concurrency",
        Takes::Whole(1, 256),
        false,
        "Requests to one endpoint under way at once; 1 means strict order.",
    ),
    (
        "breaker_failures",
        Takes::Whole(1, 1_000),
        false,
        "Failures in a row that open the breaker; 5 where left out.",
    ),
    (
        "pause_failures",
        Takes::Whole(1, 100_000),
        false,
        "Failures in a row that pause the connection, if they took pause_secs; 20 where left out.",
    ),
    (
        "pause_secs",
        Takes::Whole(60, 2_592_000),
        false,
        "How long failures in a row must have lasted to pause the connection; a day where left out.",
    ),
    (
        "per_second",
        Takes::Whole(1, 10_000),
        false,
        "Requests that a connection sends in a second in the long run; as many as there are where left out.",
    ),
    (
        "burst",
        Takes::Whole(1, 10_000),
        false,
        "Requests that may go at once after a rest, a fifth of per_second at the least; per_second where left out.",
    ),
    (
        "batch",
        Takes::Whole(1, 500),
        false,
        "Events that one request may take, where the system's kind takes several; one request at a time, in order.",
    ),
];
pub(super) const GROWTH: Keys = &[
    ("first_secs", Takes::Whole(1, WEEK), true, "The first delay."),
    (
        "factor",
        Takes::Whole(1, 10),
        false,
        "How much each delay is longer than the one before; 2 where left out.",
    ),
    ("longest_secs", Takes::Whole(1, WEEK), false, "No delay is longer."),
    ("within_secs", Takes::Whole(1, WEEK), true, "All delays with their jitter end within this time."),
];
