//! What a mapping may read beside the event, and the names it has for it.

use serde_json::Value;

use super::path::{Refusal, nearest_or_list};
use crate::domain::time::Timestamp;

/// What a mapping may read beside the event: `$event.id`, `$event.type`, `$event.time`, `$event.source`,
/// `$tenant.id`, `$connection.id`, `$job.id` and `$job.attempt`. No secret is among them.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `$event.id`.
    pub event_id: &'a str,
    /// `$event.type`.
    pub event_type: &'a str,
    /// `$event.time`, RFC 3339.
    pub event_time: &'a str,
    /// `$event.source`; absent when `None`.
    pub source: Option<&'a str>,
    /// `$tenant.id`.
    pub tenant_id: &'a str,
    /// `$connection.id`.
    pub connection_id: &'a str,
    /// `$job.id`.
    pub job_id: &'a str,
    /// `$job.attempt`, from 1.
    pub attempt: u32,
    /// The moment at which the mapping runs, for transforms that need one.
    pub now: Timestamp,
}

impl Context<'_> {
    /// A context of which all is empty, for paths that are followed without an event.
    pub fn empty() -> Self {
        Self {
            event_id: "",
            event_type: "",
            event_time: "",
            source: None,
            tenant_id: "",
            connection_id: "",
            job_id: "",
            attempt: 1,
            now: Timestamp::default(),
        }
    }
}

/// One of the named roots.
#[derive(Debug, Clone, Copy)]
pub struct Known(fn(&Context<'_>) -> Option<Value>);

/// A named root for the documentation: its name and what it is.
pub type RootShown = (&'static str, &'static str);

impl Known {
    /// Its value.
    pub fn read(self, context: &Context<'_>) -> Option<Value> {
        (self.0)(context)
    }
}

const ROOTS: &[(&str, &str, Known)] = &[
    ("$event.id", "the event's id", Known(|context| Some(context.event_id.into()))),
    (
        "$event.type",
        "the event's type, such as `lead.captured`",
        Known(|context| Some(context.event_type.into())),
    ),
    ("$event.time", "when it happened, RFC 3339", Known(|context| Some(context.event_time.into()))),
    (
        "$event.source",
        "the agent or bot it came from; may be absent",
        Known(|context| context.source.map(Value::from)),
    ),
    ("$tenant.id", "whose event it is", Known(|context| Some(context.tenant_id.into()))),
    (
        "$connection.id",
        "the connection that it is mapped for",
        Known(|context| Some(context.connection_id.into())),
    ),
    ("$job.id", "the delivery; stays over all attempts", Known(|context| Some(context.job_id.into()))),
    ("$job.attempt", "which attempt it is, from 1", Known(|context| Some(context.attempt.into()))),
];

/// The roots that only an item of an `each` has.
const ITEM_ROOTS: &[RootShown] = &[
    ("$parent", "inside of `each`: what `$` is around it; `$parent.$parent` goes up twice"),
    ("$index", "inside of `each`: the item's number, from 0"),
];

/// All named roots.
pub fn roots() -> impl Iterator<Item = RootShown> {
    ROOTS.iter().map(|(name, summary, _)| (*name, *summary)).chain(ITEM_ROOTS.iter().copied())
}

/// The named root that `text`, which `depth` `each` surround, is; `None` when it is a path into the event.
pub fn named_root(text: &str, depth: usize) -> Option<Result<Known, Refusal>> {
    if !text.strip_prefix('$')?.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return None;
    }
    let known = ROOTS.iter().find(|(name, ..)| *name == text).map(|(.., known)| *known);
    Some(known.ok_or_else(|| {
        let message = format!("\"{text}\" is not known beside the event");
        match text.strip_prefix("$event.") {
            Some(rest) if rest.starts_with("data") => {
                Refusal::new(message, format!("the event itself is \"$\": \"$.{rest}\""))
            }
            _ => Refusal::new(message, {
                let items = if depth > 0 { ITEM_ROOTS } else { &[] };
                let names = ROOTS.iter().map(|(name, ..)| *name).chain(items.iter().map(|(name, _)| *name));
                nearest_or_list(text, names)
            }),
        }
    }))
}

/// A context for tests.
#[cfg(test)]
pub fn sample() -> Context<'static> {
    Context {
        event_id: "evt_1",
        event_type: "lead.created",
        event_time: "2026-05-03T14:22:08Z",
        source: None,
        tenant_id: "ten_1",
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now: Timestamp::from_millis(1_777_818_128_000),
    }
}
