use std::fs;
use std::path::Path;

use patchbay::mapping::Mapping;
use serde_json::{Value, json};

use super::context;

/// The file as JSON, with every text that stands under `event`, `output` or `mapping` read as JSON.
fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    let node = patchbay::domain::document::Node::from_toml(&path.to_string_lossy(), &text)
        .unwrap_or_else(|faults| panic!("{faults}"));
    node.to_json()
}

fn json_of(case: &Value, key: &str) -> Option<Value> {
    let text = case.get(key)?.as_str().unwrap_or_else(|| panic!("{key} is JSON in a text: {case}"));
    Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{key}: {error} in {text}")))
}

fn run(case: &Value, shared_event: Option<&Value>) -> Result<(), String> {
    let written = json_of(case, "mapping")
        .unwrap_or_else(|| json!({"version": 1, "blank": case.get("blank").cloned().unwrap_or(json!("keep")), "absent": case.get("absent").cloned().unwrap_or(json!("leave_out")), "fields": case["fields"]}));
    let mapping = match (Mapping::from_json(&written), case.get("faults")) {
        (Ok(mapping), None) => mapping,
        (Ok(_), Some(faults)) => return Err(format!("there are no faults, wanted {faults}")),
        (Err(faults), None) => return Err(format!("the mapping is refused: {faults}")),
        (Err(faults), Some(wanted)) => {
            let told: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
            return if &json!(told) == wanted { Ok(()) } else { Err(format!("faults {told:#?}")) };
        }
    };
    assert_eq!(
        Mapping::from_json(mapping.to_json()).unwrap(),
        mapping,
        "it does not come back from its JSON"
    );
    let event = json_of(case, "event").or_else(|| shared_event.cloned()).unwrap_or(json!({}));
    let context = context(&event);
    let answer = mapping.apply(&event, &context);
    let preview = mapping.preview(&event, &context);
    assert_eq!(preview.error.as_ref(), answer.as_ref().err(), "the preview differs");
    match (answer, json_of(case, "output"), case.get("error").and_then(Value::as_str)) {
        (Ok(output), Some(wanted), _) => {
            // Compared as bytes: the order of the keys counts.
            let (output, wanted) = (Value::Object(output).to_string(), wanted.to_string());
            if output == wanted { Ok(()) } else { Err(format!("\n   gave {output}\n wanted {wanted}")) }
        }
        (Err(error), _, Some(wanted)) if error.to_string() == wanted => Ok(()),
        (answer, ..) => Err(format!("gave {answer:?}")),
    }
}

#[test]
fn every_case_holds() {
    let mut files: Vec<_> =
        fs::read_dir("tests/mapping/cases").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the test must run at the project's root");
    let (mut count, mut broken) = (0, Vec::new());
    for path in files {
        let file = read(&path);
        let event = json_of(&file, "event");
        for case in file["case"].as_array().unwrap_or_else(|| panic!("{} has no cases", path.display())) {
            count += 1;
            if let Err(reason) = run(case, event.as_ref()) {
                broken.push(format!("{}: {}: {reason}", path.display(), case["name"]));
            }
        }
    }
    assert!(broken.is_empty(), "{} of {count} cases\n{}", broken.len(), broken.join("\n"));
}
