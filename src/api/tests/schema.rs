//! The `OpenAPI` document as a test: a small reader of the part of JSON Schema that the document uses.

use serde_json::Value;

use super::Got;
use crate::api::docs::DOCUMENT;

pub(super) fn document() -> &'static Value {
    DOCUMENT.as_ref().unwrap()
}

/// What a reference points to.
pub(super) fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let found = document().pointer(reference.trim_start_matches('#'));
            resolve(found.unwrap_or_else(|| panic!("{reference} points nowhere")))
        }
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("an unknown type {other}"),
    }
}

/// What keeps `value` from being what `schema` says; empty when nothing does.
pub(super) fn faults(schema: &'static Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let all: Vec<Vec<String>> = choices.iter().map(|one| faults(one, value, at)).collect();
        let fitting = all.iter().filter(|faults| faults.is_empty()).count();
        return if fitting == 1 { Vec::new() } else { vec![format!("{at}: fits {fitting} of {all:?}")] };
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        _ => Vec::new(),
    };
    if !names.is_empty() && !names.iter().any(|name| has_type(value, name)) {
        return vec![format!("{at}: {value} is no {names:?}")];
    }
    let mut found = Vec::new();
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at}: {value} is none of {allowed:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema.get("items").is_some() {
            found.extend(faults(&schema["items"], item, &format!("{at}/{index}")));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(property) => found.extend(faults(property, member, &format!("{at}/{name}"))),
            None if schema["additionalProperties"] == false => found.push(format!("{at}/{name}: unknown")),
            None => {}
        }
    }
    if value.is_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.get(name.as_str().unwrap()).is_none() {
                found.push(format!("{at}: {name} is missing"));
            }
        }
    }
    found
}

/// The documented operation of a request's path.
pub(super) fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.split('/').collect();
    let mut fitting = document()["paths"].as_object().unwrap().iter().filter(|(template, _)| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == parts.len()
            && template
                .iter()
                .zip(&parts)
                .all(|(template, part)| template.starts_with('{') || template == part)
    });
    let exact = fitting.clone().find(|(template, _)| *template == path);
    exact.or_else(|| fitting.next()).and_then(|(_, item)| item.get(method))
}

/// An answer is one that the document knows.
pub(super) fn check_answer(method: &str, path: &str, got: &Got) {
    let is_problem = got.header("content-type") == Some("application/problem+json");
    assert_eq!(is_problem, got.status >= 400, "{method} {path}: {got:?}");
    if is_problem {
        let problem = &document()["components"]["schemas"]["Problem"];
        assert_eq!(faults(problem, &got.body, ""), Vec::<String>::new(), "{method} {path}");
        assert_eq!(got.body["status"], got.status);
        assert_eq!(got.body["request_id"].as_str(), got.header("x-request-id"));
    }
    let Some(operation) = operation(method, path) else {
        assert!([404, 405, 414, 431].contains(&got.status), "{method} {path} is not documented: {got:?}");
        return;
    };
    let answer = operation["responses"].get(got.status.to_string());
    let answer = resolve(
        answer.unwrap_or_else(|| panic!("{method} {path}: {} is not documented: {got:?}", got.status)),
    );
    let Some((_, media)) = answer["content"].as_object().and_then(|content| content.iter().next()) else {
        assert_eq!(got.text, "", "{method} {path}");
        return;
    };
    let media_type = got.header("content-type").unwrap().split(';').next().unwrap();
    assert!(answer["content"].get(media_type).is_some(), "{method} {path}: {media_type} is not documented");
    if !is_problem && media_type == "application/json" {
        assert_eq!(
            faults(&media["schema"], &got.body, ""),
            Vec::<String>::new(),
            "{method} {path}: {}",
            got.text
        );
    }
}
