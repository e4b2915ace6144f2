//! One reader for everything a person writes: connector files, mapping files, configuration, and the
//! same things as JSON over the API.
//!
//! A text is parsed into a tree of [`Node`]s that remember where they stand. A [`TableReader`] then takes the
//! keys it knows from a table and, when it ends, reports every key that nobody asked for. Faults are collected
//! in [`Faults`], never returned one at a time, so that a person mends a file in one go.
//!
//! ```
//! use patchbay::domain::{document::Node, fault::Faults};
//! let node = Node::from_toml("lead.toml", "version = 1\ncolour = 'red'").unwrap();
//! let mut faults = Faults::default();
//! let mut table = node.table("", &mut faults).unwrap();
//! assert_eq!(table.integer("version"), Some(1));
//! table.text("color");
//! table.finish();
//! let fault = &faults.list()[0];
//! assert_eq!(fault.to_string(), "lead.toml:2:1: colour: unknown key\n  hint: did you mean \"color\"?");
//! ```

mod reader;
mod source;

use std::sync::Arc;

use serde_json::Value;

use super::fault::{Fault, Faults, Place};
pub use reader::TableReader;
use source::Source;

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// JSON `null`; TOML has none.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text; a TOML date is taken as its text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys in the order in which they were written.
    Table(Vec<(Key, Node)>),
}

impl Kind {
    /// The kind's name for a message: "expected a text, found a list".
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A table's key and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key as written.
    pub name: String,
    /// Where the key stands.
    pub mark: Mark,
}

/// File, line and column of a node; shared by all nodes of a file, so cheap to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    file: Option<Arc<str>>,
    line: u32,
    column: u32,
}

impl Mark {
    /// This mark with the field's path.
    pub fn place(&self, field: impl Into<String>) -> Place {
        Place { file: self.file.clone(), line: self.line, column: self.column, field: field.into() }
    }
}

/// A value that remembers where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub mark: Mark,
}

impl Node {
    /// Parses TOML. All syntax errors that the parser can recover from are told at once.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, Faults> {
        let source = Source::new(file, text);
        let (root, mut errors) = toml::de::DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(source.table(root.get_ref(), root.span().start));
        }
        let mut faults = Faults::default();
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            faults.push(Fault {
                place: source.mark(start).place(""),
                message: format!("not valid TOML: {}", error.message().trim().replace('\n', ", ")),
                hint: None,
            });
        }
        Err(faults)
    }

    /// The same tree out of JSON, without lines and columns.
    pub fn from_json(value: &Value) -> Self {
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(flag) => Kind::Boolean(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Kind::Integer(integer),
                None => Kind::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Kind::Text(text.clone()),
            Value::Array(items) => Kind::List(items.iter().map(Self::from_json).collect()),
            Value::Object(entries) => Kind::Table(
                entries
                    .iter()
                    .map(|(name, item)| {
                        (Key { name: name.clone(), mark: Mark::default() }, Self::from_json(item))
                    })
                    .collect(),
            ),
        };
        Self { kind, mark: Mark::default() }
    }

    /// The node as JSON; a number that JSON cannot hold becomes null.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Boolean(flag) => Value::Bool(*flag),
            Kind::Integer(integer) => Value::from(*integer),
            Kind::Float(float) => Value::from(*float),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Table(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect())
            }
        }
    }

    /// A fault at this node.
    pub fn fault(&self, field: &str, message: impl Into<String>, hint: Option<String>) -> Fault {
        Fault { place: self.mark.place(field), message: message.into(), hint }
    }

    /// A reader over this node's keys, or a fault when it is no table. `field` is the node's own path.
    pub fn table<'a>(&'a self, field: &str, faults: &'a mut Faults) -> Option<TableReader<'a>> {
        if let Kind::Table(entries) = &self.kind {
            return Some(TableReader::new(entries, &self.mark, field, faults));
        }
        faults.push(self.fault(field, format!("expected a table, found {}", self.kind.name()), None));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_file_is_told_with_its_place() {
        let text = "name = 3\n[policy]\ntimeout_secs = 900\nretires = [1]\nmode = 'fsat'\n";
        let node = Node::from_toml("a.toml", text).unwrap();
        let mut faults = Faults::default();
        let mut root = node.table("", &mut faults).unwrap();
        assert_eq!(root.text("name"), None);
        assert_eq!(root.need_text("id"), None);
        let mut policy = root.table("policy").unwrap();
        assert_eq!(policy.integer_within("timeout_secs", 1, 60), None);
        assert_eq!(policy.choice("mode", &[("fast", 1), ("slow", 2)]), None);
        policy.list("retries");
        policy.finish();
        root.finish();
        let told: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a.toml:1:8: name: expected a text, found a whole number",
                "a.toml:1:1: id: missing\n  hint: add \"id\"",
                "a.toml:3:16: policy.timeout_secs: 900 is outside 1 to 60",
                "a.toml:5:8: policy.mode: unknown value \"fsat\"\n  hint: did you mean \"fast\"?",
                "a.toml:4:1: policy.retires: unknown key\n  hint: did you mean \"retries\"?",
            ]
        );
    }

    #[test]
    fn several_syntax_errors_are_told_at_once() {
        let faults = Node::from_toml("b.toml", "a = \nb = 1\nc = = 2\n").unwrap_err();
        assert!(faults.len() >= 2, "{faults}");
        assert!(faults.list()[0].to_string().starts_with("b.toml:1:"), "{faults}");
    }

    #[test]
    fn json_and_toml_give_the_same_tree() {
        let toml = Node::from_toml("c.toml", "a = [1, 2.5, true, 'x']\nb.c = 'd'").unwrap();
        let json = serde_json::json!({"a": [1, 2.5, true, "x"], "b": {"c": "d"}});
        assert_eq!(toml.to_json(), json);
        assert_eq!(Node::from_json(&json).to_json(), json);
    }
}
