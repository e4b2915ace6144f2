//! Transforms of moments in time. Zones come from the tz database in the binary, never from the machine.

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Unit, Zoned};
use serde_json::Value;

use super::{Build, Run, Setting, Transform, fails, gives, optional, value_run};
use crate::domain::document::TableReader;
use crate::domain::time::Timestamp;
use crate::mapping::value::{Shape, kind};

/// A text of fewer digits is no epoch.
const EPOCH_DIGITS: usize = 9;
/// From this number on (the year 5138 in seconds, 1973 in milliseconds) an epoch is taken as milliseconds.
const MILLIS_FROM: i64 = 100_000_000_000;
/// Characters of a time, and of a format.
const FORMAT_CHARS: usize = 100;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const FORMAT: Setting = optional(
    "format",
    "\"iso\" (default, RFC 3339), \"date\", \"epoch\" (seconds), \"epoch_ms\", or a pattern such as \"%d/%m/%Y %H:%M\"",
);
const ZONE: Setting = optional("zone", "the zone to write it in, by its IANA name; UTC by default");

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "time",
        makes: None,
        summary: "Turns a time into another form. Reads ISO 8601 (RFC 3339, a date, or a time without a zone, which \
                  is UTC) and epoch seconds, with a fraction or without, or milliseconds; a number of 12 digits or more is \
                  milliseconds.",
        settings: &[
            FORMAT,
            ZONE,
            optional("from", "the pattern in which the time is written, such as \"%d.%m.%Y\""),
            optional("from_zone", "the zone of a time that tells none; UTC by default"),
        ],
        examples: &[
            gives(r#""time""#, r#""2026-05-03T17:22:08.250+03:00""#, r#""2026-05-03T14:22:08.25Z""#),
            gives(r#""time""#, "1777818128", r#""2026-05-03T14:22:08Z""#),
            gives(r#""time""#, r#""1777818128000""#, r#""2026-05-03T14:22:08Z""#),
            gives(r#""time""#, "1777818128.25", r#""2026-05-03T14:22:08.25Z""#),
            gives(r#"{"time": "epoch"}"#, r#""2026-05-03T14:22:08Z""#, "1777818128"),
            gives(r#"{"time": "epoch_ms"}"#, r#""2026-05-03""#, "1777766400000"),
            gives(r#"{"time": {"format": "date"}}"#, r#""2026-05-03 23:30:00""#, r#""2026-05-03""#),
            gives(
                r#"{"time": {"format": "%d/%m/%Y %H:%M", "zone": "Africa/Nairobi"}}"#,
                r#""2026-05-03T14:22:08Z""#,
                r#""03/05/2026 17:22""#,
            ),
            gives(
                r#"{"time": {"zone": "America/New_York"}}"#,
                r#""2026-05-03T14:22:08Z""#,
                r#""2026-05-03T10:22:08-04:00""#,
            ),
            gives(
                r#"{"time": {"from": "%d.%m.%Y %H:%M", "from_zone": "Europe/Berlin"}}"#,
                r#""03.05.2026 16:22""#,
                r#""2026-05-03T14:22:00Z""#,
            ),
            fails(r#""time""#, r#""yesterday""#),
        ],
        whole: false,
        build: Build::Plain(time),
    },
    Transform {
        name: "age",
        makes: Some(Shape::Integer),
        summary: "The whole time from a moment to when the mapping runs; below zero when it lies ahead.",
        settings: &[optional(
            "unit",
            "\"years\", \"months\", \"weeks\", \"days\" (default), \"hours\", \"minutes\" or \"seconds\"",
        )],
        // The examples run at 2026-05-03T14:22:08Z.
        examples: &[
            gives(r#""age""#, r#""2026-05-01T00:00:00Z""#, "2"),
            gives(r#"{"age": "years"}"#, r#""1990-05-04""#, "35"),
            gives(r#"{"age": "minutes"}"#, r#""2026-05-03T15:22:08Z""#, "-60"),
        ],
        whole: false,
        build: Build::Plain(age),
    },
    Transform {
        name: "now",
        makes: None,
        summary: "Replaces any value by the moment at which the mapping runs, which is kept with the job: a row with \
                  `value = \"\"` gives it always.",
        settings: &[FORMAT, ZONE],
        examples: &[
            gives(r#""now""#, r#""""#, r#""2026-05-03T14:22:08Z""#),
            gives(r#"{"now": {"format": "%A, %d %B", "zone": "Asia/Tokyo"}}"#, "true", r#""Sunday, 03 May""#),
        ],
        whole: false,
        build: Build::Plain(now),
    },
];

/// How a time is written.
#[derive(Clone)]
pub struct Form {
    format: Format,
    zone: TimeZone,
}

#[derive(Clone)]
enum Format {
    Iso,
    Date,
    Epoch,
    EpochMs,
    /// A pattern, and its parts when it is nothing but texts and numbers of fixed width: those are written without
    /// the library, which reads the pattern anew each time.
    Pattern(Box<str>, Option<Box<[Part]>>),
}

/// A part of a plain pattern.
#[derive(Clone)]
enum Part {
    Text(Box<str>),
    /// The number and its digits.
    Number(fn(DateTime) -> i16, usize),
}

/// The parts of a pattern that has only `%Y %m %d %H %M %S`; `None` for any other.
fn plain(pattern: &str) -> Option<Box<[Part]>> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((text, after)) = rest.split_once('%') {
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        let (number, digits): (fn(DateTime) -> i16, usize) = match after.bytes().next()? {
            b'Y' => (DateTime::year, 4),
            b'm' => (|time| time.month().into(), 2),
            b'd' => (|time| time.day().into(), 2),
            b'H' => (|time| time.hour().into(), 2),
            b'M' => (|time| time.minute().into(), 2),
            b'S' => (|time| time.second().into(), 2),
            _ => return None,
        };
        parts.push(Part::Number(number, digits));
        rest = &after[1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Some(parts.into())
}

/// Answers false, and writes nothing, for a year that needs a sign.
fn write_plain(out: &mut String, parts: &[Part], time: DateTime) -> bool {
    if time.year() < 0 {
        return false;
    }
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Number(number, digits) => {
                let number = number(time);
                for place in (0..*digits).rev() {
                    let digit = number / 10_i16.pow(u32::try_from(place).unwrap_or(0)) % 10;
                    out.push(char::from(b'0' + u8::try_from(digit).unwrap_or(0)));
                }
            }
        }
    }
    true
}

const FORMATS: &[(&str, Format)] =
    &[("iso", Format::Iso), ("date", Format::Date), ("epoch", Format::Epoch), ("epoch_ms", Format::EpochMs)];

impl Form {
    /// Reads a format and a zone; `None` when there is a fault.
    pub fn read(settings: &mut TableReader<'_>, format: &'static str, zone: &'static str) -> Option<Self> {
        let format = read_format(settings, format);
        let zone = read_zone(settings, zone);
        Some(Self { format: format?, zone: zone? })
    }

    /// This form with a pattern in place of its format.
    #[must_use]
    pub fn with_pattern(self, pattern: &str) -> Self {
        Self { format: Format::Pattern(pattern.into(), plain(pattern)), ..self }
    }

    /// Appends the moment in this form.
    pub fn write_into(&self, out: &mut String, moment: jiff::Timestamp) {
        if let Format::Pattern(_, Some(parts)) = &self.format
            && write_plain(out, parts, self.zone.to_datetime(moment))
        {
            return;
        }
        match self.write(moment) {
            Value::String(text) => out.push_str(&text),
            other => out.push_str(&other.to_string()),
        }
    }

    /// The moment in this form.
    pub fn write(&self, moment: jiff::Timestamp) -> Value {
        let zoned = || moment.to_zoned(self.zone.clone());
        match &self.format {
            Format::Iso if self.zone == TimeZone::UTC => moment.to_string().into(),
            Format::Iso => strtime::format("%Y-%m-%dT%H:%M:%S%.f%:z", &zoned()).unwrap_or_default().into(),
            Format::Epoch => Timestamp::from_millis(moment.as_millisecond()).seconds().into(),
            Format::EpochMs => moment.as_millisecond().into(),
            Format::Date => zoned().date().to_string().into(),
            // Every pattern was tried when it was read.
            Format::Pattern(pattern, _) => strtime::format(&**pattern, &zoned()).unwrap_or_default().into(),
        }
    }
}

fn read_format(settings: &mut TableReader<'_>, name: &'static str) -> Option<Format> {
    if !settings.has(name) {
        return Some(Format::Iso);
    }
    let text = settings.text(name)?;
    if !text.contains('%') {
        let indexes: Vec<(&str, usize)> =
            FORMATS.iter().enumerate().map(|(index, (known, _))| (*known, index)).collect();
        return settings
            .choice(name, &indexes)
            .and_then(|index| FORMATS.get(index))
            .map(|(_, format)| format.clone());
    }
    let tried = strtime::format(text, &Zoned::new(jiff::Timestamp::UNIX_EPOCH, TimeZone::UTC));
    let wrong = match tried {
        Ok(_) if text.chars().count() <= FORMAT_CHARS => {
            return Some(Format::Pattern(text.into(), plain(text)));
        }
        Ok(_) => format!("above {FORMAT_CHARS} characters"),
        Err(error) => format!("no time pattern: {error}"),
    };
    let hint =
        "%Y year, %m month, %d day, %H hour, %M minute, %S second, %B month's name, %A day's name, %z offset";
    settings.fault(name, wrong, Some(hint.to_owned()));
    None
}

/// A zone, UTC when it is left out; `None` when there is a fault.
fn read_zone(settings: &mut TableReader<'_>, name: &'static str) -> Option<TimeZone> {
    if !settings.has(name) {
        return Some(TimeZone::UTC);
    }
    let text = settings.text(name)?;
    if text == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Ok(zone) = ZONES.get(text) {
        return Some(zone);
    }
    let names: Vec<String> = ZONES.available().map(|zone| zone.as_str().to_owned()).collect();
    // People know the city, the database has "Area/City".
    let city = text.rsplit('/').next().unwrap_or(text).replace(' ', "_");
    let same_city = names
        .iter()
        .find(|known| known.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city)));
    let hint = same_city.map(|known| format!("did you mean \"{known}\"?"));
    let hint = hint.or_else(|| crate::domain::fault::did_you_mean(text, names.iter().map(String::as_str)));
    let hint = hint.unwrap_or_else(|| "an IANA name such as \"Africa/Nairobi\" or \"UTC\"".to_owned());
    settings.fault(name, format!("unknown time zone \"{text}\""), Some(hint));
    None
}

fn time(settings: &mut TableReader<'_>) -> Option<Run> {
    let form = Form::read(settings, "format", "zone");
    let from_zone = read_zone(settings, "from_zone");
    let from = match settings.text("from") {
        None if settings.has("from") => return None,
        Some(text) if !text.contains('%') || text.chars().count() > FORMAT_CHARS => {
            let hint = "such as \"%d.%m.%Y\"; leave it out for ISO 8601 and epochs";
            settings.fault("from", "no time pattern", Some(hint.to_owned()));
            return None;
        }
        other => other.map(str::to_owned),
    };
    let (form, from_zone) = (form?, from_zone?);
    value_run(move |value| {
        let moment = match &from {
            Some(pattern) => read_as(value, pattern, &from_zone)?,
            None => read_in(value, &from_zone)?,
        };
        Ok(Some(form.write(moment)))
    })
}

fn age(settings: &mut TableReader<'_>) -> Option<Run> {
    let units = [
        ("years", Unit::Year),
        ("months", Unit::Month),
        ("weeks", Unit::Week),
        ("days", Unit::Day),
        ("hours", Unit::Hour),
        ("minutes", Unit::Minute),
        ("seconds", Unit::Second),
    ];
    let unit = if settings.has("unit") { settings.choice("unit", &units)? } else { Unit::Day };
    Some(Box::new(move |value, scope| {
        let moment = read(&value)?.to_zoned(TimeZone::UTC);
        let now = moment_of(scope.context.now)?.to_zoned(TimeZone::UTC);
        let span = moment.until((unit, &now)).map_err(|error| error.to_string())?;
        let whole = match unit {
            Unit::Year => i64::from(span.get_years()),
            Unit::Month => i64::from(span.get_months()),
            Unit::Week => i64::from(span.get_weeks()),
            Unit::Day => i64::from(span.get_days()),
            Unit::Hour => i64::from(span.get_hours()),
            Unit::Minute => span.get_minutes(),
            _ => span.get_seconds(),
        };
        Ok(Some(Cow::Owned(whole.into())))
    }))
}

fn now(settings: &mut TableReader<'_>) -> Option<Run> {
    let form = Form::read(settings, "format", "zone")?;
    Some(Box::new(move |_, scope| Ok(Some(Cow::Owned(form.write(moment_of(scope.context.now)?))))))
}

fn moment_of(time: Timestamp) -> Result<jiff::Timestamp, String> {
    jiff::Timestamp::from_millisecond(time.millis()).map_err(|error| error.to_string())
}

/// The moment that a value tells; a time without a zone is UTC.
pub fn read(value: &Value) -> Result<jiff::Timestamp, String> {
    read_in(value, &TimeZone::UTC)
}

fn read_as(value: &Value, pattern: &str, zone: &TimeZone) -> Result<jiff::Timestamp, String> {
    let text = value.as_str().ok_or_else(|| format!("expected a text, found {}", kind(value)))?.trim();
    if text.len() > FORMAT_CHARS * 4 {
        return Err("too long for a time".to_owned());
    }
    let wrong = |_| format!("no time as \"{pattern}\" tells it");
    let parsed = strtime::parse(pattern, text).map_err(wrong)?;
    if let Ok(moment) = parsed.to_timestamp() {
        return Ok(moment);
    }
    let plain = parsed.to_datetime().or_else(|_| parsed.to_date().map(Into::into)).map_err(wrong)?;
    plain.to_zoned(zone.clone()).map(|zoned| zoned.timestamp()).map_err(wrong)
}

fn read_in(value: &Value, zone: &TimeZone) -> Result<jiff::Timestamp, String> {
    match value {
        Value::Number(number) => {
            let moment = number.as_i64().and_then(epoch).or_else(|| fraction(&number.to_string()));
            moment.ok_or_else(|| "no epoch within the years 1 to 9999".into())
        }
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_prefix('-').unwrap_or(text);
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                // Eight digits are a date without dashes in ISO 8601 and an epoch in 1970: neither is guessed.
                return text
                    .parse()
                    .ok()
                    .filter(|_| digits.len() >= EPOCH_DIGITS)
                    .and_then(epoch)
                    .ok_or_else(|| "digits that are no epoch".into());
            }
            if digits.find('.').is_some_and(|at| at >= EPOCH_DIGITS)
                && let Some(moment) = fraction(text)
            {
                return Ok(moment);
            }
            let moment = text.parse::<jiff::Timestamp>().ok();
            let moment = moment.or_else(|| {
                let plain = text.parse::<DateTime>().ok()?;
                plain.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
            });
            let moment = moment.ok_or("no time such as 2026-05-03T14:22:08Z")?;
            // The platform counts in milliseconds.
            jiff::Timestamp::from_millisecond(moment.as_millisecond()).map_err(|error| error.to_string())
        }
        other => Err(format!("expected a time, found {}", kind(other))),
    }
}

/// An epoch with a fraction, such as Slack's `1777818128.000200`; what is finer than a millisecond is cut off.
fn fraction(text: &str) -> Option<jiff::Timestamp> {
    let (whole, parts) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(parts) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    if number.unsigned_abs() >= MILLIS_FROM.unsigned_abs() {
        return epoch(number);
    }
    let millis: i64 = format!("{parts:0<3}").get(..3)?.parse().ok()?;
    let millis = if whole.starts_with('-') { -millis } else { millis };
    jiff::Timestamp::from_millisecond(number.checked_mul(1_000)?.checked_add(millis)?).ok()
}

fn epoch(number: i64) -> Option<jiff::Timestamp> {
    let millis = if number.unsigned_abs() >= MILLIS_FROM.unsigned_abs() {
        number
    } else {
        number.checked_mul(1_000)?
    };
    jiff::Timestamp::from_millisecond(millis).ok()
}
