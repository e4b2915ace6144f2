//! A mapping that explains itself: the output, and field by field how it came to be.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MappingError;
use super::evaluate::{End, Observer};
use super::limits::measure;
use super::rows::Row;
use super::value::kind;

/// Values above this many bytes are told by their kind alone.
const SHOWN_BYTES: usize = 8 * 1024;
/// Rows of a preview; the rows of further items are not traced.
const TRACES: usize = 2_000;
/// Bytes of all values of a preview's traces.
const TRACED_BYTES: usize = 1024 * 1024;

/// What a mapping makes of one event, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preview {
    /// The output object; `None` when a row failed.
    pub output: Option<Value>,
    /// The first error, which is the one that [`Mapping::apply`](super::Mapping::apply) returns.
    pub error: Option<MappingError>,
    /// Every row in order, also those after an error; the rows of a nested object, and of each item of a list,
    /// follow the row that holds them. At most 2,000.
    pub fields: Vec<FieldTrace>,
}

/// How one row came to its value. A value of more than 8 KiB, and any once the traces hold 1 MiB, is shown
/// as a text that tells its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldTrace {
    /// The row's full `to`, with the index of an item: `lines[0].sku`.
    pub to: String,
    /// The path that was taken, as written, or `value`, `template`, `fields`, `each`, `transcript`.
    pub source: Option<String>,
    /// What the source gave, before the transforms.
    pub raw: Option<Value>,
    /// Each transform and what it made of the value.
    pub steps: Vec<StepTrace>,
    /// What is in the output.
    pub value: Option<Value>,
    /// Why nothing is, or why it is the default.
    pub note: Option<String>,
    /// What went wrong, also when `on_error` let it pass.
    pub error: Option<String>,
}

/// One transform's turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTrace {
    /// The transform's name.
    pub name: String,
    /// What it made; `None` when it made nothing or failed.
    pub result: Option<Value>,
}

/// Writes down what the evaluator does.
pub struct Tracer {
    /// The rows so far.
    pub fields: Vec<FieldTrace>,
    /// The rows that have begun and not ended, outermost first.
    open: Vec<usize>,
    /// The items that have begun and not ended: how long the name of the list is, and the name with indexes.
    items: Vec<(usize, String)>,
    bytes_left: usize,
}

impl Tracer {
    /// A tracer that has seen nothing.
    pub fn new() -> Self {
        Self { fields: Vec::new(), open: Vec::new(), items: Vec::new(), bytes_left: TRACED_BYTES }
    }

    fn shown(&mut self, value: Option<&Value>) -> Option<Value> {
        let value = value?;
        let limit = self.bytes_left.min(SHOWN_BYTES);
        Some(if let Some(bytes) = measure(value, limit) {
            self.bytes_left -= bytes;
            value.clone()
        } else {
            Value::String(format!("({}, too large to be shown)", kind(value)))
        })
    }

    /// The row's name with the indexes of the items that it is in.
    fn named(&self, to: &str) -> String {
        match self.items.last() {
            Some((length, shown)) => format!("{shown}{}", to.get(*length..).unwrap_or_default()),
            None => to.to_owned(),
        }
    }

    fn current(&mut self) -> Option<&mut FieldTrace> {
        self.open.last().and_then(|index| self.fields.get_mut(*index))
    }
}

impl Observer for Tracer {
    fn enter(&mut self, row: &Row, index: usize) {
        let shown = format!("{}[{index}]", self.named(&row.to));
        self.items.push((row.to.len(), shown));
    }

    fn leave(&mut self) {
        self.items.pop();
    }

    fn begin(&mut self, row: &Row) {
        if self.fields.len() >= TRACES {
            // No such index: what is told of the row goes nowhere.
            self.open.push(usize::MAX);
            return;
        }
        self.open.push(self.fields.len());
        self.fields.push(FieldTrace { to: self.named(&row.to), ..FieldTrace::default() });
    }

    fn source(&mut self, name: &str, raw: Option<&Value>) {
        let raw = self.shown(raw);
        if let Some(field) = self.current() {
            field.source = Some(name.to_owned());
            field.raw = raw;
        }
    }

    fn step(&mut self, name: &str, result: Option<&Value>) {
        let result = self.shown(result);
        if let Some(field) = self.current() {
            field.steps.push(StepTrace { name: name.to_owned(), result });
        }
    }

    fn end(&mut self, ended: End<'_>) {
        let value = self.shown(ended.value);
        if let Some(field) = self.current() {
            field.value = value;
            field.note = ended.note.map(str::to_owned);
            field.error = ended.error.map(|error| error.reason.clone());
        }
        self.open.pop();
    }

    fn goes_on(&self) -> bool {
        true
    }
}
