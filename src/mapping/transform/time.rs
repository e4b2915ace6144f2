//! Transforms of moments in time.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Run, Transform, fails, gives, optional, value_run};
use crate::domain::document::TableReader;
use crate::domain::time::Timestamp;
use crate::mapping::value::kind;

/// From this number on (the year 5138 in seconds, 1973 in milliseconds) an epoch is taken as milliseconds.
const MILLIS_FROM: i64 = 100_000_000_000;

pub(super) const TRANSFORMS: &[Transform] = &[Transform {
    name: "time",
    summary: "Turns a time into another form, in UTC. Reads ISO 8601 (RFC 3339, a date, or a time without a zone, \
              which is UTC) and epoch seconds or milliseconds; a number of 12 digits or more is milliseconds.",
    settings: &[optional("format", "\"iso\" (default), \"date\", \"epoch\" (seconds) or \"epoch_ms\"")],
    examples: &[
        gives(r#""time""#, r#""2026-05-03T17:22:08.250+03:00""#, r#""2026-05-03T14:22:08.25Z""#),
        gives(r#""time""#, "1777818128", r#""2026-05-03T14:22:08Z""#),
        gives(r#""time""#, r#""1777818128000""#, r#""2026-05-03T14:22:08Z""#),
        gives(r#"{"time": "epoch"}"#, r#""2026-05-03T14:22:08Z""#, "1777818128"),
        gives(r#"{"time": "epoch_ms"}"#, r#""2026-05-03""#, "1777766400000"),
        gives(r#"{"time": {"format": "date"}}"#, r#""2026-05-03 23:30:00""#, r#""2026-05-03""#),
        fails(r#""time""#, r#""yesterday""#),
    ],
    whole: false,
    build: time,
}];

#[derive(Clone, Copy)]
enum Format {
    Iso,
    Date,
    Epoch,
    EpochMs,
}

fn time(settings: &mut TableReader<'_>) -> Option<Run> {
    let formats = [
        ("iso", Format::Iso),
        ("date", Format::Date),
        ("epoch", Format::Epoch),
        ("epoch_ms", Format::EpochMs),
    ];
    let format = if settings.has("format") { settings.choice("format", &formats)? } else { Format::Iso };
    value_run(move |value| {
        let moment = read(value)?;
        Ok(Some(match format {
            Format::Iso => moment.to_string().into(),
            Format::Epoch => Timestamp::from_millis(moment.as_millisecond()).seconds().into(),
            Format::EpochMs => moment.as_millisecond().into(),
            Format::Date => moment.to_zoned(TimeZone::UTC).date().to_string().into(),
        }))
    })
}

fn read(value: &Value) -> Result<jiff::Timestamp, String> {
    match value {
        Value::Number(number) => {
            number.as_i64().and_then(epoch).ok_or_else(|| "no epoch within the years 1 to 9999".into())
        }
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix('-').unwrap_or(text);
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                // Eight digits are a date without dashes in ISO 8601 and an epoch in 1970: neither is guessed.
                return text
                    .parse()
                    .ok()
                    .filter(|_| digits.len() >= 9)
                    .and_then(epoch)
                    .ok_or_else(|| "digits that are no epoch".into());
            }
            let moment = text.parse::<jiff::Timestamp>().ok();
            let moment = moment.or_else(|| {
                let plain = text.parse::<DateTime>().ok()?;
                plain.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
            });
            let moment = moment.ok_or("no time such as 2026-05-03T14:22:08Z")?;
            // The platform counts in milliseconds.
            jiff::Timestamp::from_millisecond(moment.as_millisecond()).map_err(|error| error.to_string())
        }
        other => Err(format!("expected a time, found {}", kind(other))),
    }
}

fn epoch(number: i64) -> Option<jiff::Timestamp> {
    let millis = if number.unsigned_abs() >= MILLIS_FROM.unsigned_abs() {
        number
    } else {
        number.checked_mul(1_000)?
    };
    jiff::Timestamp::from_millisecond(millis).ok()
}
