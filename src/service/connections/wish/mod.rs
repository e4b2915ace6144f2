//! What a person wants of a connection: read from JSON over what there is, and checked as a whole.

mod check;
mod read;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::connection::{Connection, MappingChoice};
use crate::domain::document::TableReader;
use crate::domain::policy::PolicyOverrides;
use crate::domain::secret::Secret;
pub use check::{Checked, MAX_PATTERNS, below, check_patterns};
pub(in crate::service) use check::{chosen_mapping, mapping_faults, settled_mapping, unknown_connector};
pub(in crate::service) use read::{plain_text, read_mapping, read_values, secret_text};

/// A connection's settings in clear.
#[derive(Debug, Default)]
pub struct Wish {
    name: String,
    connector: String,
    events: Vec<String>,
    filter: Option<Value>,
    mapping: MappingChoice,
    /// Empty for none.
    url: String,
    /// By name in lower case.
    headers: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    credentials: BTreeMap<String, Secret>,
    policy: PolicyOverrides,
}

/// What a change may name. A new connection also names its tenant, its connector and its secret.
const LATER: &str = "it can't be changed; make another connection";

impl Wish {
    /// The settings of a connection that exists, with its headers and credentials opened.
    pub fn of(
        record: &Connection,
        headers: BTreeMap<String, String>,
        credentials: BTreeMap<String, Secret>,
    ) -> Self {
        Self {
            name: record.name.clone(),
            connector: record.connector.clone(),
            events: record.events.iter().map(ToString::to_string).collect(),
            filter: record.filter.clone(),
            mapping: record.mapping.clone(),
            url: record.target.url.clone(),
            headers,
            options: record.options.clone(),
            credentials,
            policy: record.policy.clone(),
        }
    }

    /// Reads a new connection. Its `tenant` and `secret` are read by the caller.
    pub fn new(table: &mut TableReader<'_>) -> Self {
        let mut wish = Self::default();
        for key in ["name", "connector", "events"] {
            table.need(key);
        }
        if let Some(connector) = table.text("connector") {
            connector.clone_into(&mut wish.connector);
        }
        wish.read(table);
        wish
    }

    /// The connector that it names.
    pub fn connector(&self) -> &str {
        &self.connector
    }

    /// Reads a change over what there is: a key that is missing changes nothing, null resets.
    pub fn change(&mut self, table: &mut TableReader<'_>) {
        if table.text("connector").is_some_and(|connector| connector != self.connector) {
            table.fault("connector", "is another one", Some(LATER.to_owned()));
        }
        if table.has("secret") {
            let hint = "POST /v1/connections/{id}/rotate-secret keeps the old one valid for a day";
            table.fault("secret", "is not changed here", Some(hint.to_owned()));
        }
        self.read(table);
    }
}
