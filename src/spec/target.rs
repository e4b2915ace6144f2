//! The fields that a system knows: `[[target]]`, checked before anything is sent.
//!
//! ```toml
//! [[target]]
//! name = "email"                 # as a mapping writes it: dotted names nest
//! type = "text"                  # text, number, integer, boolean, list, object
//! required = true
//! max_length = 80                # characters of a text, items of a list
//! description = "Where the lead can be reached."
//! example = "jane@example.com"
//! ```
//!
//! A mapping may write other fields too. A required field that is missing, null or blank, a value of another type or one that is
//! too long fails the mapping: the fault is in what was made of the event, nothing was sent, and the job is sent once the mapping
//! is mended. (`rejected` is for what the other side refused.)

use serde_json::{Map, Value};

use super::read::need_line;
use crate::domain::document::TableReader;
use crate::domain::fault::{Fault, Faults};
use crate::mapping::{Mapping, MappingError};

const MAX_FIELDS: usize = 500;
const MAX_LENGTH: i64 = 1_000_000;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetType {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// A list.
    List,
    /// An object.
    Object,
}

pub(super) const TYPES: &[(&str, TargetType)] = &[
    ("text", TargetType::Text),
    ("number", TargetType::Number),
    ("integer", TargetType::Integer),
    ("boolean", TargetType::Boolean),
    ("list", TargetType::List),
    ("object", TargetType::Object),
];

impl TargetType {
    /// Its name in a file.
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

/// A field that a system knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetField {
    /// Its name, dotted where it is nested.
    pub name: String,
    /// What its value may be; anything when not stated.
    pub kind: Option<TargetType>,
    /// Whether nothing may be sent without it.
    pub required: bool,
    /// The most characters of a text or items of a list.
    pub max_length: Option<usize>,
    /// What it is, for people.
    pub description: String,
    /// What it may look like.
    pub example: Option<Value>,
}

impl TargetField {
    /// Why a value does not fit, if it does not.
    fn refuses(&self, value: Option<&Value>) -> Option<String> {
        let value = match value {
            None | Some(Value::Null) => return self.required.then(|| "is required and there is none".to_owned()),
            Some(Value::String(text)) if self.required && text.trim().is_empty() => {
                return Some("is required and is empty".to_owned());
            }
            Some(value) => value,
        };
        if let Some(kind) = self.kind.filter(|kind| !kind.takes(value)) {
            let found = match value {
                Value::String(_) => "a text",
                Value::Number(_) => "a number",
                Value::Bool(_) => "true or false",
                Value::Array(_) => "a list",
                _ => "an object",
            };
            return Some(format!("must be {}, and is {found}", kind.words()));
        }
        let length = match value {
            Value::String(text) => text.chars().count(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        let most = self.max_length.filter(|most| length > *most)?;
        let unit = if value.is_array() { "items" } else { "characters" };
        Some(format!("has {length} {unit}, and {most} are the most"))
    }
}

impl TargetType {
    fn words(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// Whether the fields may be sent; the error names the first field that may not.
pub fn check_fields(target: &[TargetField], fields: &Map<String, Value>) -> Result<(), MappingError> {
    for field in target {
        let mut names = field.name.split('.');
        let first = names.next().and_then(|name| fields.get(name));
        let value = names.try_fold(first, |value, name| Some(value?.get(name))).flatten();
        if let Some(reason) = field.refuses(value) {
            return Err(MappingError { field: field.name.clone(), path: None, reason });
        }
    }
    Ok(())
}

/// Whether the mapping writes all that is required; `system` is what asks for it.
pub(super) fn check_mapping(target: &[TargetField], system: &str, mapping: &Mapping, faults: &mut Faults) {
    let covers = |written: &str, wanted: &str| {
        written == wanted
            || wanted.strip_prefix(written).is_some_and(|rest| rest.starts_with('.'))
            || written.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
    };
    for field in target.iter().filter(|field| field.required) {
        if !mapping.targets().any(|(written, _)| covers(written, &field.name)) {
            let place = mapping.targets().next().map(|(_, place)| place.clone()).unwrap_or_default();
            faults.push(Fault {
                place: crate::domain::fault::Place { field: "fields".to_owned(), ..place },
                message: format!("no row writes \"{}\", which \"{system}\" requires", field.name),
                hint: Some(format!("add a row with to = \"{}\": {}", field.name, field.description)),
            });
        }
    }
}

/// Reads `[[target]]`.
pub(super) fn parse(root: &mut TableReader<'_>) -> Vec<TargetField> {
    let nodes = root.list("target").unwrap_or_default();
    if nodes.len() > MAX_FIELDS {
        root.fault("target", format!("more than {MAX_FIELDS} fields"), None);
    }
    let path = root.path("target");
    let mut fields: Vec<TargetField> = Vec::new();
    for (index, node) in nodes.iter().take(MAX_FIELDS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        let name = table.need_text("name").unwrap_or_default().to_owned();
        if table.has("name") && name.split('.').any(|part| part.trim().is_empty()) {
            table.fault("name", "an empty name", Some("one name, or names with dots between".to_owned()));
        }
        if fields.iter().any(|other| other.name == name) {
            table.fault("name", "is listed twice", None);
        }
        let kind = table.choice("type", TYPES);
        let required = table.boolean("required").unwrap_or(false);
        let max_length = table.integer_within("max_length", 1, MAX_LENGTH).and_then(|most| usize::try_from(most).ok());
        let measured = matches!(kind, None | Some(TargetType::Text | TargetType::List));
        if max_length.is_some() && !measured {
            table.fault("max_length", "only a text or a list has a length", None);
        }
        let description = need_line(&mut table, "description");
        let example = table.node("example").map(crate::domain::document::Node::to_json);
        let field = TargetField { name, kind, required, max_length, description, example };
        if let Some(reason) = field.example.as_ref().and_then(|example| field.refuses(Some(example))) {
            table.fault("example", format!("{} {reason}", field.name), None);
        }
        table.finish();
        fields.push(field);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(name: &str, kind: Option<TargetType>, required: bool, max_length: Option<usize>) -> TargetField {
        TargetField { name: name.to_owned(), kind, required, max_length, description: String::new(), example: None }
    }

    #[test]
    fn what_may_not_be_sent_is_told_by_its_field() {
        let target = [
            field("email", Some(TargetType::Text), true, Some(10)),
            field("name.last", None, true, None),
            field("score", Some(TargetType::Integer), false, None),
            field("tags", Some(TargetType::List), false, Some(1)),
        ];
        for (fields, error) in [
            (json!({"email": "a@b.c", "name": {"last": "x"}}), None),
            (json!({"email": "a@b.c", "name": {"last": "x"}, "score": null, "tags": ["a"]}), None),
            (json!({"name": {"last": "x"}}), Some(("email", "is required and there is none"))),
            (json!({"email": " ", "name": {"last": "x"}}), Some(("email", "is required and is empty"))),
            (json!({"email": 5, "name": {"last": "x"}}), Some(("email", "must be a text, and is a number"))),
            (json!({"email": "abcdefghijk", "name": {"last": "x"}}), Some(("email", "has 11 characters, and 10 are the most"))),
            (json!({"email": "a", "name": "x"}), Some(("name.last", "is required and there is none"))),
            (json!({"email": "a", "name": {"last": 0}, "score": 1.5}), Some(("score", "must be a whole number, and is a number"))),
            (json!({"email": "a", "name": {"last": 0}, "tags": [1, 2]}), Some(("tags", "has 2 items, and 1 are the most"))),
        ] {
            let wanted = error.map(|(field, reason)| MappingError {
                field: field.to_owned(),
                path: None,
                reason: reason.to_owned(),
            });
            assert_eq!(check_fields(&target, fields.as_object().unwrap()).err(), wanted, "{fields}");
        }
    }

    #[test]
    fn a_mapping_must_write_what_is_required() {
        let target = [field("email", None, true, None), field("name.last", None, true, None)];
        let faults = |rows: &str| {
            let mapping = Mapping::from_toml("m.toml", &format!("version = 1\n{rows}")).unwrap();
            let mut faults = Faults::default();
            check_mapping(&target, "crm", &mapping, &mut faults);
            faults.list().iter().map(|fault| fault.message.clone()).collect::<Vec<_>>()
        };
        assert!(faults("[[fields]]\nto = 'email'\nvalue = 1\n[[fields]]\nto = 'name'\nfrom = '$.n'").is_empty());
        assert_eq!(
            faults("[[fields]]\nto = 'name.first'\nvalue = 1"),
            ["no row writes \"email\", which \"crm\" requires", "no row writes \"name.last\", which \"crm\" requires"]
        );
    }
}
