//! The shorthand: a JSON object in the shape of the output, with paths where values go.
//!
//! `{"contact": {"email": "$.data.email"}, "source": "chatbot"}` is turned into rows, which is what is kept and shown.
//! A text that starts with `$` is a path, one with `{{` a template, anything else a constant; `\$` at the start is a
//! plain `$`. A list of one path is all of its matches; a list of one object with `$each` beside its keys is an item of it
//! for each item of that path; any other list with paths has its items as they are written; one without paths is a constant.

use serde_json::{Map, Value, json};

use super::target::{escape_name, split_names};
use crate::domain::fault::{Fault, Faults, key_in_field};

/// Beside the keys of an item: the list that it stands for.
const EACH: &str = "$each";
/// The transform that makes a list of rows.
const VALUES: &str = "values";

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
    let mut field = String::new();
    let mut here = rows;
    for part in fault.place.field.split('.') {
        if let (Some(each), "each") = (here.get("each"), part) {
            field.push_str("[0]");
            here = each;
            continue;
        }
        let index = part.strip_prefix("fields[").and_then(|rest| rest.strip_suffix(']'));
        let row = index.and_then(|index| here.get("fields")?.get(index.parse::<usize>().ok()?));
        let Some(row) = row else {
            if here.get("to").is_none() && part == "from" {
                field.push_str(".$each");
            }
            break;
        };
        let names = row.get("to").and_then(Value::as_str).map(split_names).unwrap_or_default();
        let name = key_in_field(&names.concat());
        if is_list(here) {
            field.extend(["[", &name, "]"]);
        } else {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(&name);
        }
        here = row;
    }
    fault.place.field = field;
    fault
}

/// Whether a row's rows are the items of a list.
fn is_list(row: &Value) -> bool {
    row.get("apply").is_some_and(|apply| *apply == json!([VALUES]))
}

fn rows_of(entries: &Map<String, Value>, parent: &str, faults: &mut Faults) -> Vec<Value> {
    let mut rows = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let to = escape_name(name);
        let shown = key_in_field(name);
        let place = if parent.is_empty() { shown } else { format!("{parent}.{shown}") };
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
            [Value::Object(entries)] if entries.contains_key(EACH) => {
                let place = format!("{place}[0]");
                let mut inner = entries.clone();
                let from = inner.shift_remove(EACH);
                let is_path = |value: &Value| value.as_str().is_some_and(|text| text.starts_with('$'));
                if !from.as_ref().is_some_and(|from| match from {
                    Value::Array(paths) => !paths.is_empty() && paths.iter().all(is_path),
                    path => is_path(path),
                }) {
                    let hint = "{\"$each\": \"$.data.lines\", \"sku\": \"$.sku\"}".to_owned();
                    faults.at_field(format!("{place}.{EACH}"), "expected a path to a list", Some(hint));
                }
                put("each", json!({"from": from, "fields": rows_of(&inner, &place, faults)}));
            }
            items => {
                let rows = items.iter().enumerate().map(|(index, item)| {
                    let mut row = Map::new();
                    row.insert("to".to_owned(), Value::String(index.to_string()));
                    fill_row(&mut row, item, &format!("{place}[{index}]"), faults);
                    Value::Object(row)
                });
                put("fields", rows.collect());
                put("apply", json!([VALUES]));
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
            "lines": [{"$each": "$.data.lines", "sku": "$.s", "at": "$index", "of": "$parent.data.name"}],
            "blocks": [{"type": "text", "text": "{{$.data.name}}!"}, "$.data.missing", "$.data.email", ["$.data.email", 1], 7],
            "fixed": {"list": [1, "x"], "price": "\\$5"},
            "none": null,
        });
        let mapping = Mapping::from_json(&template).unwrap();
        assert_eq!(mapping, Mapping::from_template(&template).unwrap());
        let event = json!({"data": {"email": "a@b.c", "name": "Ada", "tags": ["x", "y"], "lines": [{"s": "a"}, {"s": "b"}]}});
        let output = Value::Object(mapping.apply(&event, &sample()).unwrap());
        let wanted = r#"{"contact":{"email":"a@b.c","a.b":"evt_1"},"text":"Ada wrote","tags":["x","y"],"lines":[{"sku":"a","at":0,"of":"Ada"},{"sku":"b","at":1,"of":"Ada"}],"blocks":[{"type":"text","text":"Ada!"},"a@b.c",["a@b.c",1],7],"fixed":{"list":[1,"x"],"price":"$5"},"none":null}"#;
        assert_eq!(output.to_string(), wanted);
        assert_eq!(mapping.to_json()["fields"][0]["fields"][1], json!({"to": "a\\.b", "from": "$event.id"}));
        assert_eq!(Mapping::from_json(mapping.to_json()).unwrap(), mapping);
    }

    #[test]
    fn faults_stand_where_they_are_in_the_template() {
        let faults =
            Mapping::from_json(&json!({"a": {"b": "$5"}, "c": [{"$each": 5, "x": "$.y"}], "d": "{{x}}"}))
                .unwrap_err();
        assert_eq!(faults.len(), 1, "{faults}");
        assert_eq!(faults.list()[0].place.field, "c[0].$each");
        let template = json!({"a": {"b.c": "$5"}, "d": "{{x}}", "e": ["$.x", {"y": "$6"}],
            "f": [{"$each": "$.x", "y": "$7"}], "g": [{"$each": "$8", "y": "$.z"}]});
        let faults = Mapping::from_json(&template).unwrap_err();
        let places: Vec<&str> = faults.list().iter().map(|fault| fault.place.field.as_str()).collect();
        assert_eq!(places, ["a.b\\.c", "d", "e[1].y", "f[0].y", "g[0].$each"], "{faults}");
        assert_eq!(faults.list()[0].place.pointer(), "/a/b.c");
    }

    #[test]
    fn what_has_a_version_or_rows_is_no_shorthand() {
        assert!(!is_shorthand(&json!({"version": 1, "feilds": []})));
        assert!(!is_shorthand(&json!({"fields": []})));
        assert!(!is_shorthand(&json!({})));
        assert!(is_shorthand(&json!({"fields": {"Name": "$.data.name"}})));
    }
}
