//! The mapping language: rows of data that turn one event into the fields that one connector sends.
//!
//! A mapping is read once ([`Mapping::parse`]): every path, template, transform and condition is checked and
//! compiled then, and everything that is wrong is told at once. After that it never changes, and
//! [`Mapping::apply`] is a pure function of the event and a [`Context`]: the same input gives the same bytes.
//!
//! # Invariants
//! - The order of the rows is the order of the keys.
//! - *Absent*, *null* and *empty* are three things. An absent row leaves no key; a null stays `null`; `""`, `0`,
//!   `false` and `[]` are values. Only what is absent or null takes the row's `default` or fails `required`;
//!   transforms see neither. `blank = "absent"` makes an empty text count as absent.
//! - How many matches are taken is declared by `take`, never guessed.
//! - Nothing is evaluated that could run long: paths, queries, results and the output are bounded, see [`limits`].
//! - One evaluator serves [`Mapping::apply`] and [`Mapping::preview`]; the latter listens to it.

use serde_json::{Map, Value};

use crate::domain::document::Node;
use crate::domain::fault::{Faults, Place};
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

/// Why an event could not be mapped: the field, the path when one took part, and the reason in plain words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error("field \"{field}\"{}: {reason}", .path.as_ref().map(|path| format!(" from {path}")).unwrap_or_default())]
pub struct MappingError {
    /// The row's full `to`.
    pub field: String,
    /// The path as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong, without a full stop.
    pub reason: String,
}

/// What a mapping makes of one event, and how, field by field.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Preview {
    /// The output; `None` when a row failed.
    pub output: Option<Value>,
    /// The first error, which is what [`Mapping::apply`] would return.
    pub error: Option<MappingError>,
    /// A trace of every row, in row order; a nested row follows the row that holds it.
    pub fields: Vec<FieldTrace>,
}

/// How one row came to its value.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct FieldTrace {
    /// The row's full `to`.
    pub to: String,
    /// The path that gave the value as written, or `value`, `template`, `fields`.
    pub source: Option<String>,
    /// What the source gave before the transforms; `None` when it gave nothing.
    pub raw: Option<Value>,
    /// Each transform and what it made of the value.
    pub steps: Vec<StepTrace>,
    /// What was put into the output.
    pub value: Option<Value>,
    /// Why nothing was, or why the default was.
    pub note: Option<String>,
    /// Why the row failed, also when `on_error` let it pass.
    pub error: Option<String>,
}

/// One transform's turn.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepTrace {
    /// The transform's name.
    pub name: String,
    /// What it made; `None` when it made nothing or failed.
    pub result: Option<Value>,
}

/// A checked and compiled mapping.
pub struct Mapping {
    source: Value,
}

impl Mapping {
    /// Reads a mapping and tells all that is wrong with it.
    pub fn parse(node: &Node) -> Result<Self, Faults> {
        let _ = node;
        todo!()
    }

    /// [`Mapping::parse`] on a TOML text; `file` is for messages.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, Faults> {
        Self::parse(&Node::from_toml(file, text)?)
    }

    /// [`Mapping::parse`] on JSON.
    pub fn from_json(value: &Value) -> Result<Self, Faults> {
        Self::parse(&Node::from_json(value))
    }

    /// Maps one event document (`{"id", "type", "time", "tenant", "source", "data"}`).
    pub fn apply(&self, event: &Value, context: &Context<'_>) -> Result<Map<String, Value>, MappingError> {
        let _ = (event, context);
        todo!()
    }

    /// The same with a trace of every field.
    pub fn preview(&self, event: &Value, context: &Context<'_>) -> Preview {
        let _ = (event, context);
        todo!()
    }

    /// The mapping as it was written; [`Mapping::from_json`] of it gives an equal mapping.
    pub fn to_json(&self) -> &Value {
        &self.source
    }

    /// Every row's full `to` and where it stands, nested rows included, in row order.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Place)> {
        std::iter::empty()
    }
}

/// A test on an event: `{ path, op, value }`, or `all`, `any`, `not` over such tests.
pub struct Condition {
    source: Value,
}

impl Condition {
    /// Reads a condition; `field` is its path for messages.
    pub fn parse(node: &Node, field: &str, faults: &mut Faults) -> Option<Self> {
        let _ = (node, field, faults);
        todo!()
    }

    /// Reads a condition out of JSON.
    pub fn from_json(value: &Value) -> Result<Self, Faults> {
        let _ = value;
        todo!()
    }

    /// Whether the event passes. With several matches of a path, one that passes is enough.
    pub fn matches(&self, event: &Value, context: &Context<'_>) -> bool {
        let _ = (event, context);
        todo!()
    }

    /// The condition as it was written.
    pub fn to_json(&self) -> &Value {
        &self.source
    }
}
