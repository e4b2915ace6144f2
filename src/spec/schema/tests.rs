use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::spec::{files, read};

/// A connector file with a key that nobody knows in each of its tables, and where the hint about it stands.
const UNKNOWN: &str = "qqqqqq = 1\nsecret = 'none'\n\
    [[events]]\nqqqqqq = 1\n[[options]]\nqqqqqq = 1\n[[auth]]\nqqqqqq = 1\nkind = 'oauth2_refresh_token'\n[[auth]]\nqqqqqq = 1\nkind = 'api_key'\n\
    [[target]]\nqqqqqq = 1\n[request]\nqqqqqq = 1\n[[steps]]\nqqqqqq = 1\n[envelope]\nqqqqqq = 1\n\
    [signature]\nqqqqqq = 1\nalgorithm = 'hmac_sha256'\n[policy]\nqqqqqq = 1\nretry_exponential = { qqqqqq = 1, first_secs = 1, within_secs = 9 }\n\
    [[answer]]\nqqqqqq = 1\nheader = { qqqqqq = 1 }\nbody = { qqqqqq = 1 }\n[extract]\nqqqqqq = 1\nmessage = { qqqqqq = 1 }\n\
    [[limits]]\nqqqqqq = 1\n[subscription]\nqqqqqq = 1\n\
    [in]\nqqqqqq = 1\nsecret = 'none'\n[[in.options]]\nqqqqqq = 1\n[in.signature]\nqqqqqq = 1\nalgorithm = 'none'\n\
    [[in.handshake]]\nqqqqqq = 1\ntoken = { qqqqqq = 1 }\n[[in.each]]\nqqqqqq = 1\n[in.accepted]\nqqqqqq = 1\n[in.ignored]\nqqqqqq = 1\n";

#[test]
fn the_schema_has_the_keys_that_the_readers_ask_for() {
    let node = Node::from_toml("c.toml", UNKNOWN).unwrap();
    let mut faults = Faults::default();
    read::parse(&node, "c", &mut faults);
    let asked = |field: &str| -> BTreeSet<String> {
        let field = if field.is_empty() { "qqqqqq".to_owned() } else { format!("{field}.qqqqqq") };
        let fault = faults.list().iter().find(|fault| fault.place.field == field);
        let hint =
            fault.and_then(|fault| fault.hint.as_deref()).unwrap_or_else(|| panic!("{field}: no hint"));
        hint.strip_prefix("known here: ").unwrap().split(", ").map(str::to_owned).collect()
    };
    for (field, table) in [
        ("", ROOT),
        ("events[0]", keys::EVENT),
        ("options[0]", keys::OPTION),
        ("auth[0]", keys::AUTH),
        ("auth[1]", keys::AUTH),
        ("target[0]", keys::TARGET),
        ("request", keys::REQUEST),
        ("steps[0]", keys::STEP),
        ("envelope", keys::ENVELOPE),
        ("signature", keys::SIGNATURE),
        ("policy", policy::POLICY),
        ("policy.retry_exponential", policy::GROWTH),
        ("answer[0]", keys::ANSWER),
        ("answer[0].header", keys::HEADER_TEST),
        ("answer[0].body", keys::BODY_TEST),
        ("extract", keys::EXTRACT),
        ("extract.message", SPOT),
        ("limits[0]", keys::LIMIT),
        ("subscription", keys::SUBSCRIPTION),
        ("in", keys::INBOUND),
        ("in.options[0]", keys::OPTION),
        ("in.signature", keys::SIGNATURE),
        ("in.handshake[0]", keys::HANDSHAKE),
        ("in.handshake[0].token", keys::TOKEN),
        ("in.each[0]", keys::EACH),
        ("in.accepted", keys::REPLY),
        ("in.ignored", keys::REPLY),
    ] {
        let known: BTreeSet<String> = table.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let mut wanted = asked(field);
        // Each kind of [[auth]] asks only for what it has a use for.
        if field.starts_with("auth") {
            assert!(wanted.is_subset(&known), "{field}: {wanted:?}");
            wanted = known.clone();
        }
        assert_eq!(known, wanted, "{field}");
    }
}

#[test]
fn what_is_needed_is_what_the_readers_miss() {
    let told = |text: &str| {
        let mut faults = Faults::default();
        read::parse(&Node::from_toml("c.toml", text).unwrap(), "c", &mut faults);
        let missing = faults.list().iter().filter(|fault| fault.message == "missing");
        missing.map(|fault| fault.place.field.rsplit('.').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    for (text, table, besides) in [
        ("", ROOT, &["mapping"][..]),
        ("[[events]]", keys::EVENT, &["version", "id", "name", "description", "mapping"]),
        ("[[answer]]", keys::ANSWER, &["version", "id", "name", "description", "mapping"]),
    ] {
        let needed = table.iter().filter(|(_, _, needed, _)| *needed).map(|(name, ..)| *name);
        let wanted: BTreeSet<String> = needed.chain(besides.iter().copied()).map(str::to_owned).collect();
        assert_eq!(told(text), wanted, "{text}");
    }
}

#[test]
fn the_schemas_under_docs_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
    let mut stale = Vec::new();
    for (name, schema) in schemas() {
        let written = fs::read_to_string(folder.join(name)).unwrap_or_default();
        let mut current = serde_json::to_string_pretty(&schema).unwrap();
        current.push('\n');
        if written != current {
            // Not in the tree, which no test changes, and not where another checkout's test writes.
            let fresh = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
            fs::write(&fresh, current).unwrap();
            stale.push(fresh);
        }
    }
    assert!(stale.is_empty(), "docs/schema is out of date: copy {stale:?} there");
}

/// The little of JSON Schema that these schemas use.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(value, root.pointer(&reference[1..]).unwrap(), root);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        let one_fits = ways.iter().any(|way| fits(value, way, root).is_ok());
        return if one_fits { Ok(()) } else { Err(format!("{value} fits no way")) };
    }
    if let Some(wanted) = schema.get("const").filter(|wanted| *wanted != value) {
        return Err(format!("{value} is not {wanted}"));
    }
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.contains(value)) {
        return Err(format!("{value} is none of {choices:?}"));
    }
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
        return Err(format!("{value} is no {kinds:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], root)?;
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => return Err(format!("{key} is not known")),
            (Value::Null, other) => fits(item, other, root)?,
            (known, _) => fits(item, known, root).map_err(|why| format!("{key}: {why}"))?,
        }
    }
    for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        value.get(needed).ok_or_else(|| format!("{needed} is missing"))?;
    }
    Ok(())
}

#[test]
fn every_file_that_is_compiled_in_fits_its_schema() {
    let [(_, of_connector), (_, of_mapping)] = schemas();
    for ((kind, stem), file) in files::built_in() {
        let schema = match kind.word() {
            "connector" => &of_connector,
            "mapping" => &of_mapping,
            _ => continue,
        };
        let value = Node::from_toml(&file.path, &file.text).unwrap().to_json();
        fits(&value, schema, schema).unwrap_or_else(|why| panic!("{stem}: {why}"));
        let mut wrong = value.clone();
        wrong["colour"] = "red".into();
        assert!(fits(&wrong, schema, schema).is_err(), "{stem}");
    }
}
