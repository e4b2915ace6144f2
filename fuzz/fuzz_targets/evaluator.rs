//! Whatever the mapping and the event, a run ends, twice alike, and its preview agrees.
//!
//! The input is three texts, divided by zero bytes: a path, the entry of an `apply` as JSON, and a document as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patchbay::domain::time::Timestamp;
use patchbay::mapping::{Context, Mapping, evaluate_path};
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\0');
    let (path, apply, document) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let Ok(document) = serde_json::from_str::<Value>(document) else { return };
    assert_eq!(evaluate_path(path, &document), evaluate_path(path, &document));
    let apply: Vec<Value> = serde_json::from_str::<Value>(apply).into_iter().collect();
    let written = json!({"version": 1, "fields": [
        {"to": "a", "from": path, "apply": apply, "on_error": "skip"},
        {"to": "b", "each": {"from": path, "fields": [{"to": "x", "from": "$", "apply": apply, "on_error": "skip"}]}, "on_error": "skip"},
        {"to": "c", "transcript": {"messages": path, "max_chars": 100}, "on_error": "skip"},
        {"to": "d", "value": document, "apply": apply},
    ]});
    let Ok(mapping) = Mapping::from_json(&written) else { return };
    let context = Context {
        event_id: "e", event_type: "t", event_time: "2026-05-03T14:22:08Z", source: None, tenant_id: "t",
        connection_id: "c", job_id: "j", attempt: 1, now: Timestamp::from_millis(1_777_818_128_000),
    };
    let output = mapping.apply(&document, &context);
    assert_eq!(output, mapping.apply(&document, &context));
    assert_eq!(mapping.preview(&document, &context).error.as_ref(), output.as_ref().err());
});
