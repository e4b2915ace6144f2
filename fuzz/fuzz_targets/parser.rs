//! Any text is a path, a template, a pattern and a mapping, or is told to be none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patchbay::mapping::{Condition, Mapping, evaluate_path};
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let _ = evaluate_path(text, &Value::Null);
    let _ = Mapping::from_toml("fuzz.toml", text);
    let row = json!({"to": text, "template": text, "apply": [{"extract": text}, {"time": text}], "when": {"path": text, "op": "matches", "value": text}});
    let _ = Mapping::from_json(&json!({"version": 1, "fields": [row]}));
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        if let Ok(mapping) = Mapping::from_json(&value) {
            assert_eq!(Mapping::from_json(mapping.to_json()).as_ref(), Ok(&mapping));
        }
        let _ = Condition::from_json(&value);
    }
});
