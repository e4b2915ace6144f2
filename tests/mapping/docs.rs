//! The pages in `docs/mapping/`. `UPDATE_DOCS=1 cargo test --test it mapping::docs` writes them anew.

use std::fs;

use patchbay::mapping::{Mapping, reference};
use serde_json::Value;

use super::context;

const REFERENCE: &str = "docs/mapping/reference.md";
const EXAMPLES: &str = "docs/mapping/examples.md";

fn updating() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

#[test]
fn the_reference_is_what_the_code_says() {
    if updating() {
        fs::write(REFERENCE, reference()).unwrap();
    }
    let page = fs::read_to_string(REFERENCE).unwrap();
    assert!(page == reference(), "{REFERENCE} is old: UPDATE_DOCS=1 cargo test --test it mapping::docs");
}

/// The fenced block of a section that starts with this line.
fn block<'s>(section: &'s str, fence: &str) -> Option<&'s str> {
    let start = section.find(&format!("\n```{fence}\n"))? + fence.len() + 5;
    let length = section[start..].find("\n```")?;
    Some(&section[start..start + length])
}

fn event_of(section: &str) -> Value {
    if let Some(text) = block(section, "json event") {
        return serde_json::from_str(text).unwrap();
    }
    let name = section.split("sample `").nth(1).and_then(|rest| rest.split('`').next());
    let name = name.unwrap_or_else(|| panic!("an event, or the name of a sample, is missing in {section}"));
    serde_json::from_str(&fs::read_to_string(format!("connectors/samples/{name}.json")).unwrap()).unwrap()
}

#[test]
fn every_example_gives_what_the_page_says() {
    let page = fs::read_to_string(EXAMPLES).unwrap();
    let mut written = page.clone();
    let mut examples = 0;
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap();
        let mapping = match (block(section, "toml"), block(section, "json template")) {
            (Some(text), _) => Mapping::from_toml(title, text),
            (None, Some(text)) => Mapping::from_json(&serde_json::from_str(text).unwrap()),
            (None, None) => continue,
        };
        let mapping = mapping.unwrap_or_else(|faults| panic!("{title}: {faults}"));
        let event = event_of(section);
        let output =
            mapping.apply(&event, &context(&event)).unwrap_or_else(|error| panic!("{title}: {error}"));
        let output = serde_json::to_string_pretty(&output).unwrap();
        let shown = block(section, "json").unwrap_or_else(|| panic!("{title}: the output is missing"));
        if updating() {
            let new =
                section.replace(&format!("\n```json\n{shown}\n```"), &format!("\n```json\n{output}\n```"));
            written = written.replace(section, &new);
        } else {
            assert_eq!(shown, output, "{title}: {EXAMPLES} is old");
        }
        examples += 1;
    }
    if updating() {
        fs::write(EXAMPLES, written).unwrap();
    }
    assert!(examples >= 10, "{examples} examples");
}
