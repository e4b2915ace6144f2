//! Requests that go before the one of `[request]`, each of whose answers may feed those that follow: `[[steps]]`.
//!
//! ```toml
//! [[steps]]
//! name = "person"
//! url = "https://{domain}.pipedrive.com/api/v1/persons"
//!
//! [[steps.fields]]                  # rows as in a mapping file; what they read is told in `envelope`
//! to = "name"
//! from = "$.fields.name"
//!
//! [steps.take]                      # out of the answer's body; a step whose answer lacks one of them has failed
//! id = "$.data.id"                  # for later rows: "$.answers.person.id"
//! ```
//!
//! A step has the keys of `[request]`, but for what is reserved. Its answer is read by the rules of the file like the last
//! one's: what is not delivered ends the chain there. A step that was delivered is not sent again: how far a job got is kept.

use super::read::{NAME_HINT, is_name};
use super::request::{CallSpec, Surroundings, parse_call};
use super::rows::{self, BodyPath};
use crate::domain::document::{Kind, TableReader};
use crate::mapping::Mapping;

const MAX_STEPS: usize = 4;
const MAX_TAKEN: usize = 16;

/// One step.
#[derive(Debug, PartialEq)]
pub struct StepSpec {
    /// Its name, for later rows and for reasons.
    pub name: String,
    /// What is sent.
    pub call: CallSpec,
    /// The rows that make its fields.
    pub fields: Mapping,
    /// What later rows may read of its answer: name and path.
    pub take: Vec<(String, BodyPath)>,
}

/// Reads `[[steps]]`.
pub(super) fn parse(root: &mut TableReader<'_>, around: &Surroundings<'_>) -> Vec<StepSpec> {
    let nodes = root.list("steps").unwrap_or_default();
    if nodes.len() > MAX_STEPS {
        root.fault("steps", format!("more than {MAX_STEPS} steps"), None);
    }
    let path = root.path("steps");
    let mut steps: Vec<StepSpec> = Vec::new();
    for (index, node) in nodes.iter().take(MAX_STEPS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        let name = table.need_text("name").unwrap_or_default().to_owned();
        if table.has("name") && !is_name(&name) {
            table.fault("name", format!("\"{name}\" is no name for a step"), Some(NAME_HINT.to_owned()));
        }
        if steps.iter().any(|step| step.name == name) {
            table.fault("name", "is listed twice", None);
        }
        let call = parse_call(&mut table, around);
        table.need("fields");
        let fields = rows::parse(&mut table, "fields");
        let take = parse_take(&mut table);
        table.finish();
        if let Some(fields) = fields {
            steps.push(StepSpec { name, call, fields, take });
        }
    }
    steps
}

fn parse_take(table: &mut TableReader<'_>) -> Vec<(String, BodyPath)> {
    let Some(node) = table.node("take") else { return Vec::new() };
    let path = table.path("take");
    let Kind::Table(entries) = &node.kind else {
        table.fault("take", format!("expected a table, found {}", node.kind.name()), None);
        return Vec::new();
    };
    if entries.len() > MAX_TAKEN {
        table.fault("take", format!("more than {MAX_TAKEN}"), None);
    }
    let mut taken = Vec::new();
    for (key, node) in entries.iter().take(MAX_TAKEN) {
        let field = format!("{path}.{}", key.name);
        let found = match &node.kind {
            Kind::Text(text) => BodyPath::parse(text),
            other => Err((format!("expected a path, found {}", other.name()), None)),
        };
        match found {
            Ok(found) => taken.push((key.name.clone(), found)),
            Err((message, hint)) => table.faults().push(node.fault(&field, message, hint)),
        }
    }
    taken
}
