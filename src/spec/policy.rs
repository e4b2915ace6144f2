//! The delivery policy as people write it: the same bounds in a connector file and in a connection.

use std::time::Duration;

use crate::domain::document::{Kind, TableReader};
use crate::domain::fault::{Fault, Faults};
use crate::domain::policy::{DeliveryPolicy, PolicyOverrides, RateLimit, RetriesEnd, RetrySchedule};

const TIMEOUT_SECS: (i64, i64) = (1, 60);
const CONCURRENCY: (i64, i64) = (1, 256);
const MAX_BATCH: i64 = 500;
const BREAKER_FAILURES: (i64, i64) = (1, 1_000);
const PAUSE_FAILURES: (i64, i64) = (1, 100_000);
/// A minute to 30 days.
const PAUSE_SECS: (i64, i64) = (60, 2_592_000);
const PER_SECOND: (i64, i64) = (1, 10_000);
const BURST: (i64, i64) = (1, 10_000);
const MAX_RETRIES: usize = 20;
/// Seven days.
const MAX_DELAY_SECS: i64 = 604_800;

const FACTOR: (i64, i64) = (1, 10);

pub(super) const RETRIES_ENDS: &[(&str, RetriesEnd)] = &[
    ("dead", RetriesEnd::Dead),
    ("drop_and_log", RetriesEnd::DropAndLog),
    ("deactivate", RetriesEnd::Deactivate),
];

/// Reads `[policy]`; what is left out is as in [`DeliveryPolicy::default`].
pub(super) fn parse(mut table: TableReader<'_>) -> DeliveryPolicy {
    let mut policy = DeliveryPolicy::default();
    if let Some(secs) = table.integer_within("timeout_secs", TIMEOUT_SECS.0, TIMEOUT_SECS.1) {
        policy.timeout = Duration::from_secs(secs.unsigned_abs());
    }
    if let Some(percent) = table.integer_within("jitter_percent", 0, 100) {
        policy.retry.jitter_percent = u8::try_from(percent).unwrap_or_default();
    }
    if let Some(delays_ms) = parse_delays(&mut table) {
        policy.retry.delays_ms = delays_ms;
    }
    if table.has("retry_exponential") && table.has("retry_delays_secs") {
        let hint = "keep the one that the system's document states".to_owned();
        table.fault("retry_exponential", "stands beside \"retry_delays_secs\"", Some(hint));
    }
    let jitter_percent = policy.retry.jitter_percent;
    if let Some(schedule) =
        table.table("retry_exponential").and_then(|table| parse_growth(table, jitter_percent))
    {
        policy.retry = schedule;
    }
    if let Some(end) = table.choice("when_retries_end", RETRIES_ENDS) {
        policy.when_retries_end = end;
    }
    if let Some(concurrency) = table.integer_within("concurrency", CONCURRENCY.0, CONCURRENCY.1) {
        policy.concurrency = u32::try_from(concurrency).unwrap_or(1);
    }
    if let Some(batch) = table.integer_within("batch", 1, MAX_BATCH) {
        policy.batch = u32::try_from(batch).unwrap_or(1);
        if policy.batch > 1 && table.has("concurrency") && policy.concurrency > 1 {
            let hint = "one batch at a time keeps the order; set it to 1 or leave it out".to_owned();
            table.fault("concurrency", "is above 1 beside \"batch\"", Some(hint));
        } else if policy.batch > 1 {
            policy.concurrency = 1;
        }
    }
    let mut whole = |key, (least, most)| {
        table.integer_within(key, least, most).and_then(|number| u32::try_from(number).ok())
    };
    let overrides = PolicyOverrides {
        breaker_failures: whole("breaker_failures", BREAKER_FAILURES),
        pause_failures: whole("pause_failures", PAUSE_FAILURES),
        pause_secs: whole("pause_secs", PAUSE_SECS),
        per_second: whole("per_second", PER_SECOND),
        burst: whole("burst", BURST),
        ..PolicyOverrides::default()
    };
    if let Some(message) = wrong_burst(&overrides) {
        table.fault("burst", message, None);
    }
    policy = overrides.over(&policy);
    table.finish();
    policy
}

/// What is wrong with a burst beside its rate.
fn wrong_burst(overrides: &PolicyOverrides) -> Option<String> {
    let burst = overrides.burst?;
    let Some(per_second) = overrides.per_second else {
        return Some("says nothing without \"per_second\" beside it".to_owned());
    };
    let least = RateLimit::least_burst(per_second);
    (burst < least).then(|| format!("{burst} is less than a fifth of \"per_second\", {least}"))
}

/// Reads `{ first_secs, factor, longest_secs, within_secs }`.
fn parse_growth(mut table: TableReader<'_>, jitter_percent: u8) -> Option<RetrySchedule> {
    table.need("first_secs");
    table.need("within_secs");
    let mut secs = |key| {
        table.integer_within(key, 1, MAX_DELAY_SECS).map(|secs| Duration::from_secs(secs.unsigned_abs()))
    };
    let (first, longest, within) = (secs("first_secs"), secs("longest_secs"), secs("within_secs"));
    let factor = table.integer_within("factor", FACTOR.0, FACTOR.1).unwrap_or(2);
    let factor = u32::try_from(factor).unwrap_or(2);
    let (first, within) = first.zip(within)?;
    let schedule =
        RetrySchedule::exponential(first, factor, longest.unwrap_or(within), within, jitter_percent);
    if schedule.delays_ms.is_empty() {
        table.fault("within_secs", "ends before the first retry", None);
    }
    table.finish();
    Some(schedule)
}

/// The delays in milliseconds; an empty list means no retry.
fn parse_delays(table: &mut TableReader<'_>) -> Option<Vec<u64>> {
    let items = table.list("retry_delays_secs")?;
    let path = table.path("retry_delays_secs");
    if items.len() > MAX_RETRIES {
        table.fault("retry_delays_secs", format!("more than {MAX_RETRIES} retries"), None);
    }
    let faults = table.faults();
    let mut delays = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = format!("{path}[{index}]");
        match &item.kind {
            Kind::Integer(secs) if (1..=MAX_DELAY_SECS).contains(secs) => {
                delays.push(secs.unsigned_abs() * 1_000);
            }
            Kind::Integer(secs) => {
                let message = format!("{secs} is outside 1 to {MAX_DELAY_SECS}");
                faults.push(item.fault(&field, message, Some("seconds, at most 7 days".to_owned())));
            }
            other => {
                let message = format!("expected a whole number of seconds, found {}", other.name());
                faults.push(item.fault(&field, message, None));
            }
        }
    }
    Some(delays)
}

/// Whether a connection's changes keep within the bounds of a connector file; `field` is their own path.
pub fn check_overrides(overrides: &PolicyOverrides, field: &str) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut within = |key: String, number: u32, (least, most): (i64, i64)| {
        if !(least..=most).contains(&i64::from(number)) {
            let message = format!("{number} is outside {least} to {most}");
            faults.push(Fault::at_field(format!("{field}.{key}"), message, None));
        }
    };
    if let Some(secs) = overrides.timeout_secs {
        within("timeout_secs".to_owned(), secs, TIMEOUT_SECS);
    }
    if let Some(concurrency) = overrides.concurrency {
        within("concurrency".to_owned(), concurrency, CONCURRENCY);
    }
    let numbers = [
        ("breaker_failures", overrides.breaker_failures, BREAKER_FAILURES),
        ("pause_failures", overrides.pause_failures, PAUSE_FAILURES),
        ("pause_secs", overrides.pause_secs, PAUSE_SECS),
        ("per_second", overrides.per_second, PER_SECOND),
        ("burst", overrides.burst, BURST),
    ];
    for (key, number, bounds) in numbers {
        if let Some(number) = number {
            within(key.to_owned(), number, bounds);
        }
    }
    let delays = overrides.retry_delays_secs.as_deref().unwrap_or_default();
    for (index, secs) in delays.iter().enumerate().take(MAX_RETRIES) {
        within(format!("retry_delays_secs[{index}]"), *secs, (1, MAX_DELAY_SECS));
    }
    if let Some(message) = wrong_burst(overrides) {
        faults.push(Fault::at_field(format!("{field}.burst"), message, None));
    }
    if delays.len() > MAX_RETRIES {
        let message = format!("more than {MAX_RETRIES} retries");
        faults.push(Fault::at_field(format!("{field}.retry_delays_secs"), message, None));
    }
    faults.into_result(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Node;

    fn read(text: &str) -> Result<DeliveryPolicy, Faults> {
        let node = Node::from_toml("c.toml", text).unwrap();
        let mut faults = Faults::default();
        let policy = parse(node.table("policy", &mut faults).unwrap());
        faults.into_result(policy)
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        assert_eq!(read("").unwrap(), DeliveryPolicy::default());
        let policy = read(
            "timeout_secs = 10\nretry_delays_secs = [60, 300]\njitter_percent = 0\nconcurrency = 1\n\
                  breaker_failures = 2\npause_failures = 9\npause_secs = 60",
        )
        .unwrap();
        assert_eq!((policy.breaker.opens_after, policy.breaker.pauses_after), (2, 9));
        assert_eq!(policy.breaker.pauses_after_span, Duration::from_mins(1));
        assert_eq!(policy.timeout, Duration::from_secs(10));
        assert_eq!(policy.retry.delays_ms, [60_000, 300_000]);
        assert_eq!((policy.retry.jitter_percent, policy.concurrency), (0, 1));
        assert!(read("retry_delays_secs = []").unwrap().retry.delays_ms.is_empty(), "no retry is a choice");
    }

    #[test]
    fn delays_may_grow_within_a_time() {
        let policy = read(
            "retry_exponential = { first_secs = 60, factor = 3, within_secs = 1000 }\njitter_percent = 0\n\
             when_retries_end = 'drop_and_log'",
        )
        .unwrap();
        assert_eq!(policy.retry.delays_ms, [60_000, 180_000, 540_000]);
        assert_eq!(policy.when_retries_end, RetriesEnd::DropAndLog);
        let faults = read(
            "retry_exponential = { first_secs = 60, factor = 11, within_secs = 10, x = 1 }\nretry_delays_secs = []\n\
             when_retries_end = 'forget'",
        )
        .unwrap_err();
        assert_eq!(faults.len(), 5, "{faults}");
    }

    #[test]
    fn a_file_and_a_connection_have_the_same_bounds() {
        let text = "timeout_secs = 61\nconcurrency = 0\nretry_delays_secs = [0, 604801, 5]\nbreaker_failures = 0\n\
                    pause_failures = 0\npause_secs = 59\nper_second = 20000";
        let overrides: PolicyOverrides = toml::from_str(text).unwrap();
        let messages = |faults: Faults| -> Vec<(String, String)> {
            let mut told: Vec<_> = faults
                .list()
                .iter()
                .map(|fault| (fault.place.field.clone(), fault.message.clone()))
                .collect();
            told.sort();
            told
        };
        let of_file = messages(read(text).unwrap_err());
        assert_eq!(of_file.len(), 8, "{of_file:?}");
        assert_eq!(messages(check_overrides(&overrides, "policy").unwrap_err()), of_file);
        let many = PolicyOverrides { retry_delays_secs: Some(vec![1; 21]), ..PolicyOverrides::default() };
        assert_eq!(check_overrides(&many, "policy").unwrap_err().len(), 1);
        assert!(check_overrides(&PolicyOverrides::default(), "policy").is_ok());
        for (text, wrong) in
            [("per_second = 50\nburst = 10", 0), ("per_second = 50\nburst = 9", 1), ("burst = 9", 1)]
        {
            let overrides: PolicyOverrides = toml::from_str(text).unwrap();
            let told = check_overrides(&overrides, "policy").err().map_or(0, |faults| faults.len());
            assert_eq!((told, read(text).err().map_or(0, |faults| faults.len())), (wrong, wrong), "{text}");
        }
        assert_eq!(read("per_second = 7").unwrap().rate, Some(RateLimit { per_second: 7, burst: 7 }));
    }
}
