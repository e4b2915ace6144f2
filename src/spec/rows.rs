//! Mapping rows inside a connector file, and single paths into an answer.

use serde_json::{Value, json};

use crate::domain::document::{Key, Kind, Mark, Node, TableReader};
use crate::domain::fault::Fault;
use crate::domain::time::Timestamp;
use crate::mapping::{Context, Mapping, MappingError};

/// Reads the rows under `key` as a mapping; `None` when they are missing or faulty.
pub(super) fn parse(table: &mut TableReader<'_>, key: &'static str) -> Option<Mapping> {
    let rows = table.node(key)?;
    let path = table.path(key);
    let entry = |name: &str, node: Node| (Key { name: name.to_owned(), mark: Mark::default() }, node);
    let version = Node { kind: Kind::Integer(1), mark: Mark::default() };
    let whole = Node {
        kind: Kind::Table(vec![entry("version", version), entry("fields", rows.clone())]),
        mark: rows.mark.clone(),
    };
    match Mapping::parse(&whole) {
        Ok(mapping) => Some(mapping),
        Err(found) => {
            for fault in found.list() {
                let Fault { mut place, message, hint } = fault.clone();
                // The rows of a mapping always lie under "fields".
                place.field = place.field.replacen("fields", &path, 1);
                table.faults().push(Fault { place, message, hint });
            }
            None
        }
    }
}

/// A `JSONPath` into an answer's body.
#[derive(Debug, PartialEq)]
pub struct BodyPath {
    text: String,
    reader: Mapping,
}

impl BodyPath {
    /// Compiles a path; the error is a message and a hint.
    pub(super) fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        if !(text == "$" || text.starts_with("$.") || text.starts_with("$[")) {
            let hint = "a path into the answer's body, such as \"$.error.message\"".to_owned();
            return Err((format!("\"{text}\" is no JSONPath"), Some(hint)));
        }
        let row = json!({"version": 1, "fields": [{"to": "found", "from": text, "take": "all"}]});
        match Mapping::from_json(&row) {
            Ok(reader) => Ok(Self { text: text.to_owned(), reader }),
            Err(faults) => Err(faults.list().first().map_or_else(
                || (format!("\"{text}\" is no JSONPath"), None),
                |fault| (fault.message.clone(), fault.hint.clone()),
            )),
        }
    }

    /// The path as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it leads to, in order. A body that is too large for the path has nothing.
    pub fn find(&self, body: &Value) -> Vec<Value> {
        self.find_all(body).unwrap_or_default()
    }

    /// The same, where a body that is too large for the path must not look like one that has nothing there.
    pub fn find_all(&self, body: &Value) -> Result<Vec<Value>, MappingError> {
        let nowhere = Context {
            event_id: "",
            event_type: "",
            event_time: "",
            source: None,
            tenant_id: "",
            connection_id: "",
            job_id: "",
            attempt: 0,
            now: Timestamp::from_millis(0),
        };
        Ok(match self.reader.apply(body, &nowhere)?.shift_remove("found") {
            Some(Value::Array(found)) => found,
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_all_that_it_leads_to() {
        let body =
            json!({"status": 200, "none": null, "errors": [{"code": "A"}, {"code": "B"}], "list": [1, 2]});
        for (path, found) in [
            ("$.status", json!([200])),
            ("$.errors[*].code", json!(["A", "B"])),
            ("$.missing", json!([])),
            ("$.none", json!([null])),
            ("$.list", json!([[1, 2]])),
            ("$", json!([body])),
        ] {
            assert_eq!(Value::Array(BodyPath::parse(path).unwrap().find(&body)), found, "{path}");
        }
        assert_eq!(BodyPath::parse("$[0].x").unwrap().find(&json!([{"x": 1}])), [json!(1)]);
        for path in ["status", "$event.id", "$.a..", "$.status | x"] {
            assert!(BodyPath::parse(path).is_err(), "{path}");
        }
    }
}
