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

use std::sync::Arc;

use serde_json::Value;

use super::fault::{Fault, Faults, Place, did_you_mean};

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
            return Some(TableReader {
                entries,
                mark: &self.mark,
                field: field.to_owned(),
                faults,
                asked: Vec::new(),
            });
        }
        faults.push(self.fault(field, format!("expected a table, found {}", self.kind.name()), None));
        None
    }
}

/// Takes known keys out of a table; what nobody asked for is a fault at [`TableReader::finish`].
///
/// A getter answers `None` when the key is missing *or* of the wrong kind; the latter is also a fault. `need_*`
/// makes a missing key a fault too.
#[derive(Debug)]
#[must_use = "call finish(), which reports unknown keys"]
pub struct TableReader<'a> {
    entries: &'a [(Key, Node)],
    mark: &'a Mark,
    field: String,
    faults: &'a mut Faults,
    asked: Vec<&'static str>,
}

impl<'a> TableReader<'a> {
    /// The path of `key` below this table.
    pub fn path(&self, key: &str) -> String {
        if self.field.is_empty() { key.to_owned() } else { format!("{}.{key}", self.field) }
    }

    /// The collector, for readers of what lies below.
    pub fn faults(&mut self) -> &mut Faults {
        self.faults
    }

    /// Whether the key was written; counts as asking for it.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// The keys as written, for tables whose keys are free (headers, lookups); all count as known.
    pub fn all(self) -> (&'a [(Key, Node)], String) {
        (self.entries, self.field)
    }

    /// The raw node under `key`.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|(name, _)| name.name == key).map(|(_, node)| node)
    }

    /// A fault at `key`, or at the table when the key is missing.
    pub fn fault(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let mark =
            self.entries.iter().find(|(name, _)| name.name == key).map_or(self.mark, |(_, node)| &node.mark);
        let place = mark.place(self.path(key));
        self.faults.push(Fault { place, message: message.into(), hint });
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        take: impl FnOnce(&'a Kind) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let found = take(&node.kind);
        if found.is_none() {
            self.fault(key, format!("expected {wanted}, found {}", node.kind.name()), None);
        }
        found
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a text", |kind| match kind {
            Kind::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number.
    pub fn integer(&mut self, key: &'static str) -> Option<i64> {
        self.typed(key, "a whole number", |kind| match kind {
            Kind::Integer(integer) => Some(*integer),
            _ => None,
        })
    }

    /// A whole number within `least..=most`; outside is a fault.
    pub fn integer_within(&mut self, key: &'static str, least: i64, most: i64) -> Option<i64> {
        let number = self.integer(key)?;
        if (least..=most).contains(&number) {
            return Some(number);
        }
        self.fault(key, format!("{number} is outside {least} to {most}"), None);
        None
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", |kind| match kind {
            Kind::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of nodes.
    pub fn list(&mut self, key: &'static str) -> Option<&'a [Node]> {
        self.typed(key, "a list", |kind| match kind {
            Kind::List(items) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of texts; each item that is none is a fault of its own.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<&'a str>> {
        let items = self.list(key)?;
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Kind::Text(text) = &item.kind {
                texts.push(text.as_str());
            } else {
                let field = format!("{}[{index}]", self.path(key));
                self.faults.push(item.fault(
                    &field,
                    format!("expected a text, found {}", item.kind.name()),
                    None,
                ));
            }
        }
        Some(texts)
    }

    /// One of a closed set of names.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.fault(
            key,
            format!("unknown value \"{text}\""),
            Some(
                did_you_mean(text, names.iter().copied())
                    .unwrap_or_else(|| format!("one of {}", names.join(", "))),
            ),
        );
        None
    }

    /// A reader over the table under `key`.
    pub fn table(&mut self, key: &'static str) -> Option<TableReader<'_>> {
        let path = self.path(key);
        self.node(key)?.table(&path, self.faults)
    }

    /// A text that must be there.
    pub fn need_text(&mut self, key: &'static str) -> Option<&'a str> {
        self.need(key);
        self.text(key)
    }

    /// Makes a missing `key` a fault; answers whether it is there.
    pub fn need(&mut self, key: &'static str) -> bool {
        let there = self.has(key);
        if !there {
            self.fault(key, "missing", Some(format!("add \"{key}\"")));
        }
        there
    }

    /// Ends the reading: every key that was not asked for is a fault.
    pub fn finish(self) {
        let Self { entries, field, faults, asked, .. } = self;
        for (key, _) in entries {
            if !asked.contains(&key.name.as_str()) {
                let path = if field.is_empty() { key.name.clone() } else { format!("{field}.{}", key.name) };
                faults.push(Fault {
                    place: key.mark.place(path),
                    message: "unknown key".to_owned(),
                    hint: did_you_mean(&key.name, asked.iter().copied())
                        .or_else(|| Some(format!("known here: {}", asked.join(", ")))),
                });
            }
        }
    }
}

/// Turns byte offsets of one file into lines and columns.
struct Source<'t> {
    file: Arc<str>,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    fn new(file: &str, text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::from(file), text, line_starts }
    }

    fn mark(&self, offset: usize) -> Mark {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        let as_u32 = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Mark { file: Some(Arc::clone(&self.file)), line: as_u32(line), column: as_u32(column) }
    }

    fn table(&self, table: &toml::de::DeTable<'_>, offset: usize) -> Node {
        let entries = table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().to_string();
                (
                    Key { name, mark: self.mark(key.span().start) },
                    self.value(value.get_ref(), value.span().start),
                )
            })
            .collect();
        Node { kind: Kind::Table(entries), mark: self.mark(offset) }
    }

    fn value(&self, value: &toml::de::DeValue<'_>, offset: usize) -> Node {
        use toml::de::DeValue;
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Kind::Text(integer.to_string()), Kind::Integer),
            DeValue::Float(float) => {
                float.as_str().parse().map_or_else(|_| Kind::Text(float.to_string()), Kind::Float)
            }
            DeValue::Boolean(flag) => Kind::Boolean(*flag),
            DeValue::Datetime(moment) => Kind::Text(moment.to_string()),
            DeValue::Array(items) => {
                Kind::List(items.iter().map(|item| self.value(item.get_ref(), item.span().start)).collect())
            }
            DeValue::Table(table) => return self.table(table, offset),
        };
        Node { kind, mark: self.mark(offset) }
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
