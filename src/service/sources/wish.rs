//! What a person wants of a source: read from JSON over what there is, and checked as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::connector::{Given, check_source_settings};
use crate::domain::connection::MappingChoice;
use crate::domain::document::{Kind, TableReader};
use crate::domain::fault::Faults;
use crate::domain::secret::Secret;
use crate::domain::source::{Source, SourceState};
use crate::service::accounts::check_name;
use crate::service::connections::wish::{
    chosen_mapping, mapping_faults, plain_text, read_mapping, read_values, secret_text, settled_mapping,
    unknown_connector,
};
use crate::service::ingest::MAX_ID_CHARS;
use crate::spec::{Catalogue, InboundSpec};

/// The longest channel.
const MAX_CHANNEL_CHARS: usize = 64;

/// A source's settings in clear.
#[derive(Debug, Default)]
pub struct Wish {
    name: String,
    connector: String,
    agent: Option<String>,
    channel: Option<String>,
    public: bool,
    paused: bool,
    mapping: MappingChoice,
    options: BTreeMap<String, String>,
    credentials: BTreeMap<String, Secret>,
}

/// Checked settings.
#[derive(Debug)]
pub struct Checked {
    /// What receiving by the connector means.
    pub inbound: Arc<InboundSpec>,
    /// The connector's id.
    pub connector: String,
    /// What a person calls it.
    pub name: String,
    /// Whose channel it is.
    pub agent: Option<String>,
    /// Which.
    pub channel: Option<String>,
    /// Whether its agent's public chat is open.
    pub public: bool,
    /// Whether it takes nothing.
    pub paused: bool,
    /// The mapping as chosen.
    pub mapping: MappingChoice,
    /// The connector's options in clear.
    pub options: BTreeMap<String, String>,
    /// Secret options.
    pub credentials: BTreeMap<String, Secret>,
}

impl Wish {
    /// The settings of a source that exists, with its credentials opened.
    pub fn of(record: &Source, credentials: BTreeMap<String, Secret>) -> Self {
        Self {
            name: record.name.clone(),
            connector: record.connector.clone(),
            agent: record.agent.clone(),
            channel: record.channel.clone(),
            public: record.public,
            paused: matches!(record.state, SourceState::Paused { .. }),
            mapping: record.mapping.clone(),
            options: record.options.clone(),
            credentials,
        }
    }

    /// Reads a new source. Its `tenant` and `secret` are read by the caller.
    pub fn new(table: &mut TableReader<'_>) -> Self {
        let mut wish = Self::default();
        for key in ["name", "connector"] {
            table.need(key);
        }
        if let Some(connector) = table.text("connector") {
            connector.clone_into(&mut wish.connector);
        }
        wish.read(table);
        wish
    }

    /// Reads a change over what there is: a key that is missing changes nothing, null resets.
    pub fn change(&mut self, table: &mut TableReader<'_>) {
        if table.text("connector").is_some_and(|connector| connector != self.connector) {
            let hint = "it can't be changed; make another source".to_owned();
            table.fault("connector", "is another one", Some(hint));
        }
        if table.has("secret") {
            let hint = "POST /v1/sources/{id}/rotate-secret keeps the old one valid for a day";
            table.fault("secret", "is not changed here", Some(hint.to_owned()));
        }
        self.read(table);
    }

    fn read(&mut self, table: &mut TableReader<'_>) {
        if let Some(name) = table.text("name") {
            name.clone_into(&mut self.name);
        }
        read_text(table, "agent", &mut self.agent);
        read_text(table, "channel", &mut self.channel);
        if let Some(public) = table.boolean("public") {
            self.public = public;
        }
        if let Some(paused) = table.boolean("paused") {
            self.paused = paused;
        }
        read_mapping(table, &mut self.mapping);
        if let Some(node) = table.node("options") {
            read_values("options", node, &mut self.options, plain_text, table.faults());
        }
        if let Some(node) = table.node("credentials") {
            read_values("credentials", node, &mut self.credentials, secret_text, table.faults());
        }
    }

    /// Checks all of it at once.
    pub fn check(self, catalogue: &Catalogue, faults: &mut Faults) -> Option<Checked> {
        let before = faults.len();
        check_name(&self.name, "name", faults);
        self.check_agent(faults);
        let mapping = chosen_mapping(&self.mapping, catalogue, faults);
        let mut inbound = None;
        match catalogue.connector(&self.connector) {
            None => unknown_connector(&self.connector, catalogue, faults),
            Some(connector) => {
                inbound.clone_from(&connector.inbound);
                if inbound.is_none() {
                    let message = format!("the connector \"{}\" receives nothing", connector.id);
                    faults.at_field("connector", message, Some("it only sends".to_owned()));
                }
            }
        }
        if let Some(inbound) = &inbound {
            if let Some(mapping) = &mapping
                && let Err(found) = inbound.check_mapping(&self.connector, mapping)
            {
                mapping_faults(&self.mapping, &found, faults);
            }
            let given = Given { url: "", options: &self.options, credentials: &self.credentials };
            if let Err(found) = check_source_settings(inbound, &given) {
                faults.extend(found);
            }
        }
        if faults.len() > before {
            return None;
        }
        Some(Checked {
            inbound: inbound?,
            connector: self.connector,
            name: self.name,
            agent: self.agent,
            channel: self.channel,
            public: self.public,
            paused: self.paused,
            mapping: settled_mapping(self.mapping, mapping.as_deref()),
            options: self.options,
            credentials: self.credentials,
        })
    }

    fn check_agent(&self, faults: &mut Faults) {
        let is_plain = |text: &str, most: usize| {
            (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        if self.agent.as_ref().is_some_and(|agent| !is_plain(agent, MAX_ID_CHARS)) {
            let hint = format!("1 to {MAX_ID_CHARS} characters, none of them a control character");
            faults.at_field("agent", "is no agent's id", Some(hint));
        }
        let fits = |channel: &str| {
            is_plain(channel, MAX_CHANNEL_CHARS)
                && channel.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if self.channel.as_ref().is_some_and(|channel| !fits(channel)) {
            let hint = format!("1 to {MAX_CHANNEL_CHARS} letters, digits, dots, underscores or hyphens");
            faults.at_field("channel", "is no channel", Some(hint));
        }
        let need_agent = [("channel", self.channel.is_some()), ("public", self.public)];
        for (field, given) in need_agent {
            if given && self.agent.is_none() {
                let hint = "add \"agent\", or leave it out".to_owned();
                faults.at_field(field, "says nothing without an agent", Some(hint));
            }
        }
    }
}

/// A text over what there is; null takes it away.
fn read_text(table: &mut TableReader<'_>, key: &'static str, value: &mut Option<String>) {
    if table.node(key).is_some_and(|node| node.kind == Kind::Null) {
        *value = None;
    } else if let Some(text) = table.text(key) {
        *value = Some(text.to_owned());
    }
}
