//! What is read out of an answer beside its outcome: `[extract]`.
//!
//! ```toml
//! [extract]
//! message = ["$.message", "$[0].message"]     # the other side's own words, for the delivery log
//! id = ["$.id", { path = "$.message", pattern = 'Existing ID: (\d+)' }]
//! retry_after = [{ header = "x-ratelimit-reset" }]     # seconds; only of a throttled answer without Retry-After
//! ```
//!
//! Each is one place or a list of places, of which the first that holds a text or a number is taken. A place is a path into
//! the body, `{ path = … }`, `{ header = … }` or `{ text = true }`, the whole body; a `pattern` takes its first group out of it,
//! or all that it matches.

use http::HeaderName;
use regex::Regex;
use serde_json::Value;

use super::answer::Seen;
use super::header::read_name;
use super::rows::BodyPath;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Faults;

const MAX_PLACES: usize = 16;
/// Bytes of a compiled pattern: `regex` then matches in linear time and little memory.
const PATTERN_BYTES: usize = 256 * 1024;

/// What is read out of an answer.
#[derive(Debug, Default, PartialEq)]
pub struct Extract {
    message: Vec<Spot>,
    id: Vec<Spot>,
    retry_after: Vec<Spot>,
}

/// One place of an answer, and what of it is taken.
#[derive(Debug, PartialEq)]
struct Spot {
    place: SpotPlace,
    pattern: Option<Pattern>,
}

#[derive(Debug, PartialEq)]
enum SpotPlace {
    Path(BodyPath),
    Header(HeaderName),
    Text,
}

/// A compiled pattern, equal by its text.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES).build().map(Self).map_err(|error| {
            let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            let hint = "\"^\" and \"$\" are the ends, \"(?i)\" ignores case; no look-around".to_owned();
            (format!("not a pattern: {reason}"), Some(hint))
        })
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The first group, or all that matches.
    fn take<'t>(&self, text: &'t str) -> Option<&'t str> {
        let found = self.0.captures(text)?;
        found.get(1).or_else(|| found.get(0)).map(|part| part.as_str())
    }
}

impl Extract {
    pub(super) fn parse(mut table: TableReader<'_>) -> Self {
        let extract = Self {
            message: spots(&mut table, "message"),
            id: spots(&mut table, "id"),
            retry_after: spots(&mut table, "retry_after"),
        };
        table.finish();
        extract
    }

    /// The other side's words, as they came.
    pub fn message(&self, seen: &Seen<'_>) -> Option<String> {
        first(&self.message, seen)
    }

    /// The id that the other side gave.
    pub fn id(&self, seen: &Seen<'_>) -> Option<String> {
        first(&self.id, seen)
    }

    /// Seconds to wait, rounded up.
    pub fn retry_after_secs(&self, seen: &Seen<'_>) -> Option<u64> {
        let text = first(&self.retry_after, seen)?;
        let secs: f64 = text.trim().parse().ok().filter(|secs: &f64| secs.is_finite() && *secs >= 0.0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates"
        )]
        Some(secs.ceil() as u64)
    }
}

fn first(spots: &[Spot], seen: &Seen<'_>) -> Option<String> {
    spots.iter().find_map(|spot| spot.read(seen))
}

impl Spot {
    fn read(&self, seen: &Seen<'_>) -> Option<String> {
        let texts: Vec<String> = match &self.place {
            SpotPlace::Text => vec![String::from_utf8_lossy(seen.body).into_owned()],
            SpotPlace::Header(name) => seen
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
                .collect(),
            SpotPlace::Path(path) => path
                .find(seen.json()?)
                .iter()
                .filter_map(|value| match value {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect(),
        };
        texts.into_iter().find_map(|text| {
            let taken = match &self.pattern {
                Some(pattern) => pattern.take(&text)?.to_owned(),
                None => text,
            };
            (!taken.trim().is_empty()).then_some(taken)
        })
    }
}

fn spots(table: &mut TableReader<'_>, key: &'static str) -> Vec<Spot> {
    let Some(node) = table.node(key) else { return Vec::new() };
    let path = table.path(key);
    let faults = table.faults();
    let Kind::List(items) = &node.kind else {
        return spot(node, &path, faults).into_iter().collect();
    };
    if items.is_empty() || items.len() > MAX_PLACES {
        faults.push(node.fault(&path, format!("{} places, expected 1 to {MAX_PLACES}", items.len()), None));
    }
    items
        .iter()
        .take(MAX_PLACES)
        .enumerate()
        .filter_map(|(index, item)| spot(item, &format!("{path}[{index}]"), faults))
        .collect()
}

fn spot(node: &Node, field: &str, faults: &mut Faults) -> Option<Spot> {
    if let Kind::Text(text) = &node.kind {
        return match BodyPath::parse(text) {
            Ok(path) => Some(Spot { place: SpotPlace::Path(path), pattern: None }),
            Err((message, hint)) => {
                faults.push(node.fault(field, message, hint));
                None
            }
        };
    }
    let mut table = node.table(field, faults)?;
    let given: Vec<&str> = ["path", "header", "text"].into_iter().filter(|key| table.has(key)).collect();
    let place = match given.as_slice() {
        ["path"] => table.text("path").and_then(|text| match BodyPath::parse(text) {
            Ok(path) => Some(SpotPlace::Path(path)),
            Err((message, hint)) => {
                table.fault("path", message, hint);
                None
            }
        }),
        ["header"] => read_name(&mut table, "header").map(SpotPlace::Header),
        ["text"] => {
            if table.boolean("text") == Some(false) {
                table.fault("text", "says nothing", Some("write true, or another place".to_owned()));
            }
            Some(SpotPlace::Text)
        }
        _ => {
            let hint = "one of path, header or text = true".to_owned();
            table.fault("path", "expected one place", Some(hint));
            None
        }
    };
    let mut sound = true;
    let pattern = table.text("pattern").and_then(|text| match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err((message, hint)) => {
            sound = false;
            table.fault("pattern", message, hint);
            None
        }
    });
    table.finish();
    Some(Spot { place: place?, pattern }).filter(|_| sound)
}
