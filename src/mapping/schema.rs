//! What a connector's system takes: its fields, their types, which it needs, how long they may be.
//!
//! A connector file states it as `[[target]]` tables. [`TargetSchema::check`] tells what can be known of a mapping when
//! it is saved: a needed field that no row writes, a row that can only give another type, a constant that is too long,
//! a field that is nearly one of the system's. [`TargetSchema::accept`] holds each output to all of it.
//!
//! ```
//! use patchbay::domain::{document::Node, fault::Faults};
//! use patchbay::mapping::{Mapping, TargetSchema};
//! let file = Node::from_toml("crm.toml", r#"
//!     [[target]]
//!     name = "email"
//!     type = "text"
//!     required = true
//!     max_length = 80
//!     description = "The lead's mail address"
//!     example = "ada@example.com"
//! "#).unwrap();
//! let mut faults = Faults::default();
//! let mut table = file.table("", &mut faults).unwrap();
//! let schema = TargetSchema::read(&mut table, "target");
//! table.finish();
//! let mapping = Mapping::from_template(&serde_json::json!({"emial": "$.data.email"})).unwrap();
//! let told: Vec<String> = schema.check(&mapping).iter().map(ToString::to_string).collect();
//! assert_eq!(told[0], "emial: the connector has no field \"emial\"\n  hint: did you mean \"email\"?");
//! ```

use serde::Serialize;
use serde_json::{Map, Value};

use super::rows::{Row, Source, Take};
use super::target::split_names;
use super::value::{Shape, kind};
use super::{Mapping, MappingError};
use crate::domain::document::{Node, TableReader};
use crate::domain::fault::{Fault, Place, did_you_mean};

/// Fields of one schema.
const FIELDS: usize = 500;

/// What a connector's system takes. Fields that it does not name are free, since most systems take custom ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TargetSchema {
    fields: Vec<TargetField>,
}

/// One field of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetField {
    /// Its name; dots nest, as in a row's `to`.
    pub name: String,
    /// What it takes; `None` for anything.
    #[serde(rename = "type")]
    pub shape: Option<Shape>,
    /// Whether every request must have it, and not null or empty.
    pub required: bool,
    /// The most characters (Unicode code points) of a text, or items of a list.
    pub max_length: Option<usize>,
    /// What it is, for people.
    pub description: Option<String>,
    /// A value that it takes, for people.
    pub example: Option<Value>,
}

impl TargetSchema {
    /// Reads the tables under `key`; a table without any is a schema that takes anything.
    pub fn read(table: &mut TableReader<'_>, key: &'static str) -> Self {
        let path = table.path(key);
        let nodes = table.list(key).unwrap_or_default();
        if nodes.len() > FIELDS {
            table.fault(key, format!("{} fields, {FIELDS} are the most", nodes.len()), None);
            return Self::default();
        }
        let mut fields: Vec<TargetField> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let own = format!("{path}[{index}]");
            let Some(field) = read_field(node, &own, table) else { continue };
            if fields.iter().any(|other| other.name == field.name) {
                let message = format!("\"{}\" is there already", field.name);
                table.faults().push(node.fault(&own, message, None));
            }
            fields.push(field);
        }
        Self { fields }
    }

    /// The fields, in the order of the file.
    pub fn fields(&self) -> &[TargetField] {
        &self.fields
    }

    /// What can be known to be wrong with a mapping before it runs.
    pub fn check(&self, mapping: &Mapping) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut written: Vec<(Vec<String>, &Row)> = Vec::new();
        collect(&mapping.rows, &[], &mut written);
        for (names, row) in &written {
            match self.fields.iter().find(|field| split_names(&field.name) == *names) {
                Some(field) => check_row(field, row, &mut faults),
                None => faults.extend(self.misspelt(names, row, &written)),
            }
        }
        for field in self.fields.iter().filter(|field| field.required) {
            let names = split_names(&field.name);
            // A row at, above or below the field may write it.
            let writes =
                |(other, _): &(Vec<String>, &Row)| names.iter().zip(other).all(|(left, right)| left == right);
            if !written.iter().any(writes) {
                let hint = field.description.as_ref().map_or_else(
                    || format!("add a row with to = \"{}\"", field.name),
                    |description| format!("add a row with to = \"{}\" ({description})", field.name),
                );
                let message = format!("the connector needs the field \"{}\"", field.name);
                faults.push(Fault { place: Place::field("fields"), message, hint: Some(hint) });
            }
        }
        faults
    }

    /// A field that is nearly one which no row writes.
    fn misspelt(&self, names: &[String], row: &Row, written: &[(Vec<String>, &Row)]) -> Option<Fault> {
        let free = self.fields.iter().map(|field| (field, split_names(&field.name))).filter(|(_, wanted)| {
            wanted.len() == names.len() && !written.iter().any(|(other, _)| other == wanted)
        });
        let hint = did_you_mean(&row.to, free.map(|(field, _)| field.name.as_str()))?;
        let message = format!("the connector has no field \"{}\"", row.to);
        Some(Fault { place: place_of(row), message, hint: Some(hint) })
    }

    /// Holds an output to the schema; the error is that of the first field, in the order of the file.
    pub fn accept(&self, output: &Map<String, Value>) -> Result<(), MappingError> {
        for field in &self.fields {
            let reason = match find(output, &field.name) {
                None | Some(Value::Null) if field.required => "the connector needs this field".to_owned(),
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) if field.required && text.is_empty() => {
                    "the connector needs this field, and it is empty".to_owned()
                }
                Some(value) => match field.refuse(value) {
                    Some(reason) => reason,
                    None => continue,
                },
            };
            return Err(MappingError { field: field.name.clone(), path: None, reason });
        }
        Ok(())
    }
}

impl TargetField {
    /// Why the field does not take the value.
    fn refuse(&self, value: &Value) -> Option<String> {
        if let Some((wanted, found)) = self.shape.zip(Shape::of(value))
            && !found.fits(wanted)
        {
            return Some(format!("the connector takes {}, found {}", wanted.name(), kind(value)));
        }
        let most = self.max_length?;
        let length = match value {
            // Bytes are never fewer than characters.
            Value::String(text) if text.len() > most => text.chars().count(),
            Value::Array(items) => items.len(),
            _ => return None,
        };
        let (what, hint) =
            if value.is_array() { ("items", "") } else { ("characters", "; cut it with \"truncate\"") };
        (length > most).then(|| format!("{length} {what}, the connector takes {most}{hint}"))
    }
}

fn read_field(node: &Node, path: &str, outer: &mut TableReader<'_>) -> Option<TargetField> {
    let mut table = node.table(path, outer.faults())?;
    let name = table.need_text("name").map(str::to_owned);
    let shapes: Vec<(&str, Option<Shape>)> =
        Shape::NAMES.iter().map(|(name, shape)| (*name, Some(*shape))).chain([("any", None)]).collect();
    let shape = table.choice("type", &shapes).flatten();
    let required = table.boolean("required").unwrap_or(false);
    let max_length =
        table.integer_within("max_length", 1, 10_000_000).and_then(|most| usize::try_from(most).ok());
    let description = table.text("description").map(str::to_owned);
    let example = table.node("example").map(Node::to_json);
    if max_length.is_some() && !matches!(shape, None | Some(Shape::Text | Shape::List)) {
        table.fault("max_length", "only a text or a list has a length", None);
    }
    let field =
        TargetField { name: name.unwrap_or_default(), shape, required, max_length, description, example };
    if let Some(reason) = field.example.as_ref().and_then(|example| field.refuse(example)) {
        table.fault("example", reason, None);
    }
    if table.has("name") && split_names(&field.name).iter().any(|name| name.trim().is_empty()) {
        table.fault("name", "an empty name", None);
    }
    table.finish();
    (!field.name.is_empty()).then_some(field)
}

/// Every row with the full names that it writes; what is inside of lists has no names of its own.
fn collect<'m>(rows: &'m [Row], above: &[String], written: &mut Vec<(Vec<String>, &'m Row)>) {
    for row in rows {
        let names: Vec<String> = above.iter().chain(&row.names).cloned().collect();
        written.push((names.clone(), row));
        // With transforms, what the inner rows write is not what is sent.
        if let (Source::Fields(inner), true) = (&row.source, row.apply.is_empty()) {
            collect(inner, &names, written);
        }
    }
}

fn check_row(field: &TargetField, row: &Row, faults: &mut Vec<Fault>) {
    let mut constants: Vec<(&Value, &str)> = row.default.iter().map(|value| (value, "the default")).collect();
    if let (Source::Value(value), true) = (&row.source, row.apply.is_empty()) {
        constants.push((value, "the value"));
    }
    for (value, what) in constants {
        if let Some(reason) = field.refuse(value) {
            faults.push(Fault {
                place: place_of(row),
                message: format!("{what} does not fit: {reason}"),
                hint: None,
            });
        }
    }
    let made = match row.apply.last() {
        Some(last) => last.makes,
        None => made_by(&row.source),
    };
    if let Some((wanted, made)) = field.shape.zip(made)
        && !made.fits(wanted)
        // A number may turn out to be whole.
        && !(made == Shape::Number && wanted == Shape::Integer)
    {
        let message = format!("the connector takes {}, and the row gives {}", wanted.name(), made.name());
        faults.push(Fault { place: place_of(row), message, hint: mending(wanted).map(str::to_owned) });
    }
}

fn made_by(source: &Source) -> Option<Shape> {
    match source {
        Source::From { take: Take::Count, .. } => Some(Shape::Integer),
        Source::From { take: Take::All, .. } | Source::Each { .. } => Some(Shape::List),
        Source::Template(_) | Source::Transcript(_) => Some(Shape::Text),
        Source::Fields(_) => Some(Shape::Object),
        Source::From { .. } | Source::Value(_) => None,
    }
}

fn mending(wanted: Shape) -> Option<&'static str> {
    Some(match wanted {
        Shape::Text => "end with \"string\", \"join\" or \"json_encode\"",
        Shape::Integer => "end with \"integer\" or \"round\"",
        Shape::Number => "end with \"number\"",
        Shape::Boolean => "end with \"boolean\"",
        Shape::List => "end with \"array\" or \"split\"",
        Shape::Object => return None,
    })
}

fn place_of(row: &Row) -> Place {
    if row.place.file.is_some() { row.place.clone() } else { Place::field(row.to.clone()) }
}

fn find<'o>(output: &'o Map<String, Value>, name: &str) -> Option<&'o Value> {
    if !name.contains(['.', '\\']) {
        return output.get(name);
    }
    let names = split_names(name);
    let (first, rest) = names.split_first()?;
    rest.iter().try_fold(output.get(first)?, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fault::Faults;
    use serde_json::json;

    fn schema(text: &str) -> Result<TargetSchema, Faults> {
        let node = Node::from_toml("crm.toml", text).unwrap();
        let mut faults = Faults::default();
        let mut table = node.table("", &mut faults).unwrap();
        let schema = TargetSchema::read(&mut table, "target");
        table.finish();
        faults.into_result(schema)
    }

    const CRM: &str = r#"
[[target]]
name = "email"
type = "text"
required = true
max_length = 20
[[target]]
name = "score"
type = "integer"
[[target]]
name = "contact.name"
type = "text"
required = true
description = "the full name"
[[target]]
name = "tags"
type = "list"
max_length = 2
[[target]]
name = "free"
"#;

    #[test]
    fn what_can_be_known_is_told_when_it_is_saved() {
        let mapping = Mapping::from_toml(
            "m.toml",
            r#"
version = 1
[[fields]]
to = "emial"
from = "$.data.email"
[[fields]]
to = "score"
from = "$.data.score"
apply = ["string"]
default = 1.5
[[fields]]
to = "tags"
value = ["a", "b", "c"]
[[fields]]
to = "free"
each = { from = "$.x", fields = [{ to = "y", from = "$" }] }
[[fields]]
to = "custom__c"
from = "$.data.other"
"#,
        )
        .unwrap();
        let told: Vec<String> =
            schema(CRM).unwrap().check(&mapping).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "m.toml:4:6: fields[0].to: the connector has no field \"emial\"\n  hint: did you mean \"email\"?",
                "m.toml:7:6: fields[1].to: the default does not fit: the connector takes a whole number, found a number",
                "m.toml:7:6: fields[1].to: the connector takes a whole number, and the row gives a text\n  hint: end with \"integer\" or \"round\"",
                "m.toml:12:6: fields[2].to: the value does not fit: 3 items, the connector takes 2",
                "fields: the connector needs the field \"email\"\n  hint: add a row with to = \"email\"",
                "fields: the connector needs the field \"contact.name\"\n  hint: add a row with to = \"contact.name\" (the full name)",
            ]
        );
        let sound =
            Mapping::from_template(&json!({"email": "$.e", "contact": {"name": "$.n"}, "score": 3})).unwrap();
        assert_eq!(schema(CRM).unwrap().check(&sound), []);
    }

    #[test]
    fn every_output_is_held_to_it() {
        let schema = schema(CRM).unwrap();
        for (output, error) in [
            (json!({"email": "a@b.c", "contact": {"name": "Ada"}, "score": 3, "free": {"x": 1}}), None),
            (json!({"email": "a@b.c", "contact": {"name": "Ada"}, "score": null, "other": 1}), None),
            (json!({"contact": {"name": "Ada"}}), Some("field \"email\": the connector needs this field")),
            (
                json!({"email": "", "contact": {"name": "Ada"}}),
                Some("field \"email\": the connector needs this field, and it is empty"),
            ),
            (
                json!({"email": "a@b.c", "contact": {}}),
                Some("field \"contact.name\": the connector needs this field"),
            ),
            (
                json!({"email": "é".repeat(21), "contact": {"name": "Ada"}}),
                Some("field \"email\": 21 characters, the connector takes 20; cut it with \"truncate\""),
            ),
            (json!({"email": "é".repeat(20), "contact": {"name": "Ada"}, "score": 2}), None),
            (
                json!({"email": "a", "contact": {"name": "Ada"}, "score": "3"}),
                Some("field \"score\": the connector takes a whole number, found a text"),
            ),
        ] {
            let output = output.as_object().unwrap();
            assert_eq!(schema.accept(output).err().map(|error| error.to_string()).as_deref(), error);
        }
    }

    #[test]
    fn faults_of_the_file_are_told() {
        let faults = schema("[[target]]\nname = 'a'\ntype = 'txt'\n[[target]]\nname = 'a'\ntype = 'number'\nmax_length = 3\nexample = 'x'\nmaxlength = 3").unwrap_err();
        let told: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "crm.toml:3:8: target[0].type: unknown value \"txt\"\n  hint: did you mean \"text\"?",
                "crm.toml:7:14: target[1].max_length: only a text or a list has a length",
                "crm.toml:8:11: target[1].example: the connector takes a number, found a text",
                "crm.toml:9:1: target[1].maxlength: unknown key\n  hint: did you mean \"max_length\"?",
                "crm.toml:4:1: target[1]: \"a\" is there already",
            ]
        );
    }
}
