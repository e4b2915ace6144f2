//! The mapping language: rows of data that turn one event into the fields that one connector sends.
//!
//! A mapping is read once ([`Mapping::parse`]): every path, template, transform and condition is checked and
//! compiled then, and everything that is wrong is told at once. After that it never changes, and
//! [`Mapping::apply`] is a pure function of the event and a [`Context`]: the same input gives the same bytes.
//!
//! # Invariants
//! - The order of the rows is the order of the keys.
//! - *Absent*, *null* and *empty* are three things. An absent row leaves no key; a null stays `null`; `""`, `0`,
//!   `false` and `[]` are values. Only what is absent or null takes the row's `default` or fails `required`, and
//!   is passed over in a list of paths; transforms see neither. `blank = "absent"` makes an empty text, before or
//!   after the transforms, count as absent. An object of rows that are all absent is absent.
//! - How many matches are taken is declared by `take`, never guessed. `all` of no matches is absent.
//! - A row whose `when` is not met takes no part: no default, no `required`.
//! - Nothing is evaluated that could run long, and nothing grows without bound: see `limits.rs`.
//! - One evaluator serves [`Mapping::apply`] and [`Mapping::preview`]; the latter listens to it.
//!
//! ```
//! use patchbay::domain::time::Timestamp;
//! use patchbay::mapping::{Context, Mapping};
//! use serde_json::{Value, json};
//!
//! let mapping = Mapping::from_toml("lead.toml", r#"
//!     version = 1
//!     [[fields]]
//!     to = "name.first"
//!     from = "$.data.lead.name"
//!     apply = ["trim", "first_name"]
//!     required = true
//!     [[fields]]
//!     to = "stage"
//!     from = "$.data.lead.status"
//!     apply = [{ lookup = { new = "Open", won = "Closed" } }]
//!     default = "Open"
//!     [[fields]]
//!     to = "summary"
//!     template = "{{$.data.lead.name}} asked about {{$.data.intent}}"
//! "#).unwrap();
//! let event = json!({"id": "evt_1", "data": {"lead": {"name": "Ada Lovelace"}, "intent": "prices"}});
//! let context = Context {
//!     event_id: "evt_1", event_type: "lead.created", event_time: "2026-05-03T14:22:08Z", source: None,
//!     tenant_id: "ten_1", connection_id: "con_1", job_id: "job_1", attempt: 1, now: Timestamp::default(),
//! };
//! assert_eq!(
//!     Value::Object(mapping.apply(&event, &context).unwrap()),
//!     json!({"name": {"first": "Ada"}, "stage": "Open", "summary": "Ada Lovelace asked about prices"}),
//! );
//! let error = mapping.apply(&json!({"data": {}}), &context).unwrap_err();
//! assert_eq!(error.field, "name.first");
//! ```

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::document::Node;
use crate::domain::fault::{Fault, Faults, Place};
use crate::domain::json::Object;

mod check;
mod condition;
mod context;
mod copy;
mod evaluate;
mod keys;
mod limits;
mod path;
mod preview;
mod query;
mod reference;
mod rows;
mod schema;
mod shorthand;
mod target;
mod template;
mod transcript;
mod transform;
mod value;

#[cfg(test)]
mod tests;

pub use check::{check_filter, check_paths};
pub use condition::Condition;
pub use context::Context;
pub use keys::{KeyShown, MAPPING_KEYS, ROW_KEYS};
pub use preview::{FieldTrace, Preview, StepTrace};
pub use reference::reference;
pub use schema::{TargetField, TargetSchema};
pub use transform::{Example, Setting, Shown, Transform, list as transforms};

use copy::Copies;
use evaluate::{Run, Silence};
pub use value::Shape;

use limits::Work;
pub(crate) use limits::measure;
use path::{Found, Path, Scope};
use preview::Tracer;
use rows::{Row, Source};

/// Why an event could not be mapped, in plain words; the values of the event are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("field \"{field}\"{}: {reason}", .path.as_ref().map(|path| format!(" from {path}")).unwrap_or_default())]
pub struct MappingError {
    /// The row's full `to`.
    pub field: String,
    /// The path as written, where paths give the value; of several of which none gave one, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong, without a full stop.
    pub reason: String,
}

/// A checked and compiled mapping.
pub struct Mapping {
    source: Value,
    rows: Vec<Row>,
    copies: Option<Copies>,
}

impl Mapping {
    /// Reads a mapping and tells all that is wrong with it.
    pub fn parse(node: &Node) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let rows = rows::read_mapping(node, &mut faults);
        faults.into_result(())?;
        Ok(Self { source: node.to_json(), copies: Copies::of(&rows), rows })
    }

    /// [`Mapping::parse`] on a TOML text; `file` is for messages.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, Faults> {
        Self::parse(&Node::from_toml(file, text)?)
    }

    /// [`Mapping::parse`] on JSON. An object without `version` and without a list of `fields` is taken as the
    /// shorthand of [`Mapping::from_template`].
    pub fn from_json(value: &Value) -> Result<Self, Faults> {
        if shorthand::is_shorthand(value) {
            return Self::from_template(value);
        }
        Self::parse(&Node::from_json(value))
    }

    /// Reads a JSON object in the shape of the output, with paths where values go. What is kept, and shown by
    /// [`Mapping::to_json`], is rows.
    ///
    /// ```
    /// use patchbay::mapping::Mapping;
    /// use serde_json::json;
    /// let mapping = Mapping::from_template(&json!({"contact": {"email": "$.data.email"}, "source": "chatbot"})).unwrap();
    /// assert_eq!(mapping.to_json()["fields"], json!([
    ///     {"to": "contact", "fields": [{"to": "email", "from": "$.data.email"}]},
    ///     {"to": "source", "value": "chatbot"},
    /// ]));
    /// ```
    pub fn from_template(template: &Value) -> Result<Self, Faults> {
        let rows = shorthand::to_rows(template)?;
        Self::parse(&Node::from_json(&rows)).map_err(|faults| {
            let mut placed = Faults::default();
            for fault in faults.list() {
                placed.push(shorthand::place_in_template(&rows, fault.clone()));
            }
            placed
        })
    }

    /// Maps one event document (`{"id", "type", "time", "tenant", "source", "data"}`).
    pub fn apply(&self, event: &Value, context: &Context<'_>) -> Result<Map<String, Value>, MappingError> {
        let work = Work::new();
        let scope = Scope { root: event, context, work: &work, item: None };
        Run::new(scope, &mut Silence).object(&self.rows, 0)
    }

    /// What [`Mapping::apply`] makes, as JSON, where that takes no more than copying; `None` leaves it to that.
    pub fn copy(&self, event: &Object) -> Option<Bytes> {
        self.copies.as_ref()?.write(event)
    }

    /// What [`Mapping::apply`] makes, with a trace of every field.
    pub fn preview(&self, event: &Value, context: &Context<'_>) -> Preview {
        let (mut tracer, work) = (Tracer::new(), Work::new());
        let scope = Scope { root: event, context, work: &work, item: None };
        let (output, error) = match Run::new(scope, &mut tracer).object(&self.rows, 0) {
            Ok(object) => (Some(Value::Object(object)), None),
            Err(error) => (None, Some(error)),
        };
        Preview { output, error, fields: tracer.fields }
    }

    /// The mapping as it was written; [`Mapping::from_json`] of it gives an equal mapping.
    pub fn to_json(&self) -> &Value {
        &self.source
    }

    /// Every row's full `to` and where it stands, in row order; a row with `fields` or `each` comes before its rows.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Place)> {
        let mut targets = Vec::new();
        collect_targets(&self.rows, &mut targets);
        targets.into_iter()
    }
}

/// The matches of one path in a document, in the order of RFC 9535; the fault says why the path is refused, or why a
/// query is ended on so large a document. Of what stands beside an event, all is absent or empty.
///
/// ```
/// use patchbay::mapping::evaluate_path;
/// use serde_json::json;
/// let document = json!({"items": [{"n": 1}, {"n": 2}]});
/// assert_eq!(evaluate_path("$.items[?@.n > 1]", &document).unwrap(), [json!({"n": 2})]);
/// assert_eq!(evaluate_path("$.gone", &document).unwrap(), [] as [serde_json::Value; 0]);
/// let fault = evaluate_path("items", &document).unwrap_err();
/// assert_eq!(fault.hint.as_deref(), Some("a path starts at the event: \"$.items\""));
/// ```
pub fn evaluate_path(path: &str, document: &Value) -> Result<Vec<Value>, Fault> {
    let path = Path::parse(path, 0).map_err(|refusal| Fault {
        place: Place::default(),
        message: refusal.message,
        hint: refusal.hint,
    })?;
    let (context, work) = (Context::empty(), Work::new());
    let scope = Scope { root: document, context: &context, work: &work, item: None };
    match path.find(scope) {
        Ok(Found::One(value)) => Ok(value.into_iter().map(Cow::into_owned).collect()),
        Ok(Found::Many(values)) => Ok(values.into_iter().cloned().collect()),
        Err(reason) => Err(Fault { place: Place::default(), message: reason.to_owned(), hint: None }),
    }
}

fn collect_targets<'m>(rows: &'m [Row], targets: &mut Vec<(&'m str, &'m Place)>) {
    for row in rows {
        targets.push((&row.to, &row.place));
        if let Source::Fields(inner) | Source::Each { rows: inner, .. } = &row.source {
            collect_targets(inner, targets);
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({})", self.source)
    }
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
