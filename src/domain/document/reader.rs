//! Reads a table's keys and reports those that nobody asked for.

use super::{Key, Kind, Mark, Node};
use crate::domain::fault::{Fault, Faults, did_you_mean, key_in_field};
use crate::domain::time::Timestamp;

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
    /// A reader over a table's entries; `field` is the table's own path.
    pub(super) fn new(
        entries: &'a [(Key, Node)],
        mark: &'a Mark,
        field: &str,
        faults: &'a mut Faults,
    ) -> Self {
        Self { entries, mark, field: field.to_owned(), faults, asked: Vec::new() }
    }

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

    /// A time, RFC 3339 with a zone.
    pub fn time(&mut self, key: &'static str) -> Option<Timestamp> {
        let parsed = self.text(key)?.parse().ok();
        if parsed.is_none() {
            self.fault(key, "is no RFC 3339 time", Some("such as 2026-05-03T14:22:08Z".to_owned()));
        }
        parsed
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
                let name = key_in_field(&key.name);
                let path = if field.is_empty() { name } else { format!("{field}.{name}") };
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
