//! The shorthand: a JSON object in the shape of the output, with paths where values go.
//!
//! `{"contact": {"email": "$.data.email"}, "source": "chatbot"}` is turned into rows, which is what is kept and shown.
//! A text that starts with `$` is a path, one with `{{` a template, anything else a constant; `\$` at the start is a
//! plain `$`. A list of one path is all of its matches; a list without paths is a constant.

use serde_json::{Map, Value, json};

use super::target::escape_name;
use crate::domain::fault::{Fault, Faults};

/// Whether the JSON is such an object rather than a mapping of rows.
pub fn is_shorthand(value: &Value) -> bool {
    value.as_object().is_some_and(|entries| {
        !entries.is_empty()
            && !entries.contains_key("version")
            && !entries.get("fields").is_some_and(Value::is_array)
    })
}

/// The same as rows.
pub fn to_rows(template: &Value) -> Result<Value, Faults> {
    let mut faults = Faults::default();
    let Value::Object(entries) = template else {
        faults.at_field(
            "",
            "expected an object in the shape of the output",
            Some("{\"email\": \"$.data.email\"}".to_owned()),
        );
        return Err(faults);
    };
    let rows = rows_of(entries, "", &mut faults);
    faults.into_result(json!({"version": 1, "fields": rows}))
}

/// Where a fault of the rows stands in the template.
pub fn place_in_template(rows: &Value, mut fault: Fault) -> Fault {
    let mut names: Vec<&str> = Vec::new();
    let mut here = rows;
    for part in fault.place.field.split('.') {
        let index = part.strip_prefix("fields[").and_then(|rest| rest.strip_suffix(']'));
        let row = index.and_then(|index| here.get("fields")?.get(index.parse::<usize>().ok()?));
        let Some(row) = row else { break };
        names.extend(row.get("to").and_then(Value::as_str));
        here = row;
    }
    fault.place.field = names.join(".");
    fault
}

fn rows_of(entries: &Map<String, Value>, parent: &str, faults: &mut Faults) -> Vec<Value> {
    let mut rows = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let to = escape_name(name);
        let place = if parent.is_empty() { to.clone() } else { format!("{parent}.{to}") };
        let mut row = Map::new();
        row.insert("to".to_owned(), Value::String(to));
        fill_row(&mut row, value, &place, faults);
        rows.push(Value::Object(row));
    }
    rows
}

fn fill_row(row: &mut Map<String, Value>, value: &Value, place: &str, faults: &mut Faults) {
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    match value {
        Value::Object(entries) if has_paths(value) => {
            put("fields", Value::Array(rows_of(entries, place, faults)));
        }
        Value::Array(items) if has_paths(value) => match items.as_slice() {
            [Value::String(path)] if path.starts_with('$') => {
                put("from", Value::String(path.clone()));
                put("take", json!("all"));
            }
            _ => {
                let message = "a list with paths in it has no rows";
                let hint =
                    "one path that gives all: [\"$.data.items[*].name\"]; for objects write rows with `each`";
                faults.at_field(place, message, Some(hint.to_owned()));
            }
        },
        Value::String(text) if text.starts_with('$') => {
            put("from", value.clone());
        }
        Value::String(text) if text.contains("{{") => {
            put("template", value.clone());
        }
        other => {
            put("value", plain(other));
        }
    }
}

fn has_paths(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with('$') || text.contains("{{"),
        Value::Array(items) => items.iter().any(has_paths),
        Value::Object(entries) => entries.values().any(has_paths),
        _ => false,
    }
}

/// A constant, with `\$` at the start of its texts as `$`.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("\\$") => Value::String(text[1..].to_owned()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(entries) => entries.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;
    use crate::mapping::context::sample;

    #[test]
    fn a_template_becomes_rows_and_gives_its_shape() {
        let template = json!({
            "contact": {"email": "$.data.email", "a.b": "$event.id"},
            "text": "{{$.data.name}} wrote",
            "tags": ["$.data.tags[*]"],
            "fixed": {"list": [1, "x"], "price": "\\$5"},
            "none": null,
        });
        let mapping = Mapping::from_json(&template).unwrap();
        assert_eq!(mapping, Mapping::from_template(&template).unwrap());
        let event = json!({"data": {"email": "a@b.c", "name": "Ada", "tags": ["x", "y"]}});
        let output = Value::Object(mapping.apply(&event, &sample()).unwrap());
        let wanted = r#"{"contact":{"email":"a@b.c","a.b":"evt_1"},"text":"Ada wrote","tags":["x","y"],"fixed":{"list":[1,"x"],"price":"$5"},"none":null}"#;
        assert_eq!(output.to_string(), wanted);
        assert_eq!(mapping.to_json()["fields"][0]["fields"][1], json!({"to": "a\\.b", "from": "$event.id"}));
        assert_eq!(Mapping::from_json(mapping.to_json()).unwrap(), mapping);
    }

    #[test]
    fn faults_stand_where_they_are_in_the_template() {
        let faults =
            Mapping::from_json(&json!({"a": {"b": "$5"}, "c": ["$.x", "$.y"], "d": "{{x}}"})).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults}");
        assert_eq!(faults.list()[0].place.field, "c");
        let faults = Mapping::from_json(&json!({"a": {"b": "$5"}, "d": "{{x}}"})).unwrap_err();
        let places: Vec<&str> = faults.list().iter().map(|fault| fault.place.field.as_str()).collect();
        assert_eq!(places, ["a.b", "d"], "{faults}");
    }

    #[test]
    fn what_has_a_version_or_rows_is_no_shorthand() {
        assert!(!is_shorthand(&json!({"version": 1, "feilds": []})));
        assert!(!is_shorthand(&json!({"fields": []})));
        assert!(!is_shorthand(&json!({})));
        assert!(is_shorthand(&json!({"fields": {"Name": "$.data.name"}})));
    }
}
