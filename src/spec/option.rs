//! What a connector asks of each connection, beside its URL: `[[options]]`.
//!
//! ```toml
//! [[options]]
//! name = "client_id"                # 1 to 64 lower-case letters, digits or underscores
//! description = "Only for providers: the account that the lead is for."
//! required = true                   # else it may be left out; the default is false
//! default = "main"                  # taken where the connection says nothing
//! example = "acme"
//! secret = true                     # sealed in the store, never shown again, in no mapping's reach
//! ```

use super::read::{NAME_HINT, is_name, need_line};
use super::template::{TARGET, VARS};
use crate::domain::document::TableReader;

const MAX_OPTIONS: usize = 32;

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its name in the connection, and in braces in the file.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// Whether a connection must give it.
    pub required: bool,
    /// What it is where a connection doesn't give it.
    pub default: Option<String>,
    /// What it may look like.
    pub example: Option<String>,
    /// Whether it is kept like a credential.
    pub secret: bool,
}

/// Reads `[[options]]`.
pub(super) fn parse(root: &mut TableReader<'_>) -> Vec<OptionSpec> {
    let nodes = root.list("options").unwrap_or_default();
    if nodes.len() > MAX_OPTIONS {
        root.fault("options", format!("more than {MAX_OPTIONS} options"), None);
    }
    let path = root.path("options");
    let mut options: Vec<OptionSpec> = Vec::new();
    for (index, node) in nodes.iter().take(MAX_OPTIONS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        let name = table.need_text("name").unwrap_or_default().to_owned();
        if table.has("name") && !is_name(&name) {
            table.fault("name", format!("\"{name}\" is no name for an option"), Some(NAME_HINT.to_owned()));
        }
        if name == TARGET || VARS.iter().any(|(word, _)| *word == name) {
            let hint = Some("choose another name".to_owned());
            table.fault("name", format!("\"{{{name}}}\" has a meaning already"), hint);
        }
        if options.iter().any(|other| other.name == name) {
            table.fault("name", "is listed twice", None);
        }
        let description = need_line(&mut table, "description");
        let required = table.boolean("required").unwrap_or(false);
        let default = table.text("default").map(str::to_owned);
        let example = table.text("example").map(str::to_owned);
        let secret = table.boolean("secret").unwrap_or(false);
        if required && default.is_some() {
            let hint = "leave one of them out".to_owned();
            table.fault("default", "what has a default need not be given", Some(hint));
        }
        if secret && default.is_some() {
            table.fault("default", "a secret that stands in a file is none", Some("leave it out".to_owned()));
        }
        table.finish();
        options.push(OptionSpec { name, description, required, default, example, secret });
    }
    options
}
