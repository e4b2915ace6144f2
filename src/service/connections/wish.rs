//! What a person wants of a connection: read from JSON over what there is, and checked as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::connector::{Given, Settings, check_custom_headers, check_settings};
use crate::domain::connection::{Connection, MappingChoice};
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::event::EventPattern;
use crate::domain::fault::{Fault, Faults, did_you_mean};
use crate::domain::policy::PolicyOverrides;
use crate::domain::secret::Secret;
use crate::egress::{AddressPolicy, Url};
use crate::mapping::{Condition, Mapping};
use crate::service::accounts::check_name;
use crate::spec::{Catalogue, ConnectorSpec, check_overrides};

/// The most patterns of a connection.
pub const MAX_PATTERNS: usize = 50;

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

/// Checked settings.
#[derive(Debug)]
pub struct Checked {
    /// The connector.
    pub connector: Arc<ConnectorSpec>,
    /// What a person calls it.
    pub name: String,
    /// The events it wants.
    pub events: Vec<EventPattern>,
    /// The filter as written.
    pub filter: Option<Value>,
    /// The mapping as chosen.
    pub mapping: MappingChoice,
    /// The connection's own mapping, compiled.
    pub inline: Option<Arc<Mapping>>,
    /// The connection's own target, normalised; empty where the connector says where requests go.
    pub url: String,
    /// Every URL that requests go to, each with the field that it comes from.
    pub called: Vec<(&'static str, Url)>,
    /// Custom headers in clear.
    pub headers: BTreeMap<String, String>,
    /// The connector's options in clear.
    pub options: BTreeMap<String, String>,
    /// Credentials and secret options.
    pub credentials: BTreeMap<String, Secret>,
    /// Changes of the policy.
    pub policy: PolicyOverrides,
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

    fn read(&mut self, table: &mut TableReader<'_>) {
        if let Some(name) = table.text("name") {
            name.clone_into(&mut self.name);
        }
        if let Some(events) = table.texts("events") {
            self.events = events.into_iter().map(str::to_owned).collect();
        }
        if let Some(node) = table.node("filter") {
            self.filter = (node.kind != Kind::Null).then(|| node.to_json());
        }
        read_mapping(table, &mut self.mapping);
        if let Some(mut target) = table.table("target") {
            if let Some(url) = target.text("url") {
                url.clone_into(&mut self.url);
            }
            if let Some(headers) = target.node("headers") {
                self.read_headers(headers, target.faults());
            }
            target.finish();
        }
        if let Some(node) = table.node("options") {
            read_values("options", node, &mut self.options, plain_text, table.faults());
        }
        if let Some(node) = table.node("credentials") {
            read_values("credentials", node, &mut self.credentials, secret_text, table.faults());
        }
        match table.node("policy").map(|node| &node.kind) {
            None => {}
            Some(Kind::Null) => self.policy = PolicyOverrides::default(),
            Some(_) => {
                if let Some(mut policy) = table.table("policy") {
                    self.read_policy(&mut policy);
                    policy.finish();
                }
            }
        }
    }

    fn read_headers(&mut self, node: &Node, faults: &mut Faults) {
        let Kind::Table(entries) = &node.kind else {
            let message = format!("expected a table, found {}", node.kind.name());
            return faults.at_field("target.headers", message, None);
        };
        let mut seen = BTreeSet::new();
        for (key, node) in entries {
            let name = key.name.to_ascii_lowercase();
            let field = format!("target.headers.{}", key.name.escape_debug());
            if !seen.insert(name.clone()) {
                let hint = "upper and lower case are the same in a header's name".to_owned();
                faults.at_field(field, "is there twice", Some(hint));
                continue;
            }
            match &node.kind {
                Kind::Null => drop(self.headers.remove(&name)),
                Kind::Text(value) => drop(self.headers.insert(name, value.clone())),
                other => {
                    let message = format!("expected a text or null, found {}", other.name());
                    faults.at_field(field, message, None);
                }
            }
        }
    }

    fn read_policy(&mut self, table: &mut TableReader<'_>) {
        let is_null = |node: Option<&Node>| node.is_some_and(|node| node.kind == Kind::Null);
        if is_null(table.node("timeout_secs")) {
            self.policy.timeout_secs = None;
        } else if let Some(secs) = table.integer_within("timeout_secs", 0, u32::MAX.into()) {
            self.policy.timeout_secs = u32::try_from(secs).ok();
        }
        if is_null(table.node("concurrency")) {
            self.policy.concurrency = None;
        } else if let Some(number) = table.integer_within("concurrency", 0, u32::MAX.into()) {
            self.policy.concurrency = u32::try_from(number).ok();
        }
        if is_null(table.node("retry_delays_secs")) {
            self.policy.retry_delays_secs = None;
        } else if let Some(items) = table.list("retry_delays_secs") {
            let delays: Option<Vec<u32>> = items
                .iter()
                .map(|item| match item.kind {
                    Kind::Integer(secs) => u32::try_from(secs).ok(),
                    _ => None,
                })
                .collect();
            if delays.is_none() {
                table.fault("retry_delays_secs", "expected whole numbers of seconds", None);
            }
            self.policy.retry_delays_secs = delays.or_else(|| self.policy.retry_delays_secs.take());
        }
    }

    /// Checks where requests go, and the options and credentials, as far as they can be without a connector. Normalises the
    /// target's URL.
    fn check_urls(
        &mut self,
        connector: Option<&Arc<ConnectorSpec>>,
        addresses: &AddressPolicy,
        faults: &mut Faults,
    ) -> Option<Settings> {
        let takes_target = connector.is_none_or(|connector| connector.needs_target());
        let mut told = false;
        if self.url.is_empty() {
            if takes_target && connector.is_some() {
                faults.at_field("target.url", "missing", Some("say where requests go".to_owned()));
                told = true;
            }
        } else if takes_target {
            match addresses.check_url(&self.url) {
                Ok(url) => self.url = url.into(),
                Err(refusal) => {
                    faults.at_field("target.url", refusal.to_string(), Some(refusal.hint().to_owned()));
                    told = true;
                }
            }
        }
        let given = Given { url: &self.url, options: &self.options, credentials: &self.credentials };
        match check_settings(connector?, &given) {
            Ok(settings) => {
                for (field, url) in &settings.urls {
                    // One fault is enough for what many URLs have in common.
                    if !told && let Err(refusal) = addresses.check_url(url.as_str()) {
                        faults.at_field(*field, refusal.to_string(), Some(refusal.hint().to_owned()));
                        told = true;
                    }
                }
                Some(settings)
            }
            Err(found) => {
                for fault in found.list() {
                    if !(told && fault.place.field == "target.url") {
                        faults.push(fault.clone());
                    }
                }
                None
            }
        }
    }

    /// Checks all of it at once.
    pub fn check(
        mut self,
        catalogue: &Catalogue,
        addresses: &AddressPolicy,
        faults: &mut Faults,
    ) -> Option<Checked> {
        let before = faults.len();
        check_name(&self.name, "name", faults);
        let events = check_patterns(&self.events, faults);
        if let Some(filter) = &self.filter {
            Condition::parse(&Node::from_json(filter), "filter", faults);
        }
        let connector = catalogue.connector(&self.connector);
        // What only receives has no URL that could be wrong.
        let sends = connector.is_none_or(|connector| connector.sends());
        let settings = if sends { self.check_urls(connector, addresses, faults) } else { None };
        if let Err(found) = check_overrides(&self.policy, "policy") {
            faults.extend(found);
        }
        let mapping = chosen_mapping(&self.mapping, catalogue, faults);
        match connector {
            None => unknown_connector(&self.connector, catalogue, faults),
            Some(connector) if !connector.sends() => {
                let message = format!("the connector \"{}\" only receives", connector.id);
                let hint = "POST /v1/sources makes a source of it".to_owned();
                faults.at_field("connector", message, Some(hint));
            }
            Some(connector) => {
                if let Some(mapping) = &mapping
                    && let Err(found) = connector.check_mapping(mapping)
                {
                    mapping_faults(&self.mapping, &found, faults);
                }
                if let Err(found) = check_custom_headers(connector, &self.headers) {
                    below("target", &found, faults);
                }
            }
        }
        if faults.len() > before {
            return None;
        }
        Some(Checked {
            connector: Arc::clone(connector?),
            name: self.name,
            events,
            filter: self.filter,
            inline: mapping.filter(|_| matches!(self.mapping, MappingChoice::Inline(_))),
            mapping: self.mapping,
            url: self.url,
            called: settings?.urls,
            headers: self.headers,
            options: self.options,
            credentials: self.credentials,
            policy: self.policy,
        })
    }
}

/// Reads a `mapping` over what was chosen: null is the connector's own.
pub(in crate::service) fn read_mapping(table: &mut TableReader<'_>, chosen: &mut MappingChoice) {
    let Some(node) = table.node("mapping") else { return };
    match &node.kind {
        Kind::Null => *chosen = MappingChoice::Default,
        Kind::Text(name) => *chosen = MappingChoice::Named(name.clone()),
        Kind::Table(_) => *chosen = MappingChoice::Inline(node.to_json()),
        other => {
            let message = format!("expected a mapping's name or a mapping, found {}", other.name());
            table.fault("mapping", message, None);
        }
    }
}

/// The mapping that is chosen, or a fault; `None` for the connector's own.
pub(in crate::service) fn chosen_mapping(
    choice: &MappingChoice,
    catalogue: &Catalogue,
    faults: &mut Faults,
) -> Option<Arc<Mapping>> {
    match choice {
        MappingChoice::Default => None,
        MappingChoice::Named(name) => {
            let mapping = catalogue.mapping(name).cloned();
            if mapping.is_none() {
                let hint = did_you_mean(name, catalogue.mappings().keys().map(String::as_str));
                faults.at_field("mapping", format!("there is no mapping \"{name}\""), hint);
            }
            mapping
        }
        MappingChoice::Inline(source) => match Mapping::from_json(source) {
            Ok(mapping) => Some(Arc::new(mapping)),
            Err(found) => {
                below("mapping", &found, faults);
                None
            }
        },
    }
}

/// A connector that is not there, at `connector`.
pub(in crate::service) fn unknown_connector(id: &str, catalogue: &Catalogue, faults: &mut Faults) {
    let known = catalogue.connectors().keys().map(String::as_str);
    let hint = did_you_mean(id, known.clone())
        .or_else(|| Some(format!("one of {}", known.collect::<Vec<_>>().join(", "))));
    if !id.is_empty() {
        faults.at_field("connector", format!("there is no connector \"{id}\""), hint);
    }
}

/// Tells what is wrong with a chosen mapping; a file's own places would point nowhere in the request.
pub(in crate::service) fn mapping_faults(choice: &MappingChoice, found: &Faults, faults: &mut Faults) {
    if matches!(choice, MappingChoice::Inline(_)) {
        return below("mapping", found, faults);
    }
    for fault in found.list() {
        faults.at_field("mapping", fault.message.clone(), fault.hint.clone());
    }
}

/// Reads a table of values over what there is: null removes one, or all.
pub(in crate::service) fn read_values<T>(
    field: &'static str,
    node: &Node,
    values: &mut BTreeMap<String, T>,
    read: impl Fn(&Kind) -> Result<T, String>,
    faults: &mut Faults,
) {
    let entries = match &node.kind {
        Kind::Null => return values.clear(),
        Kind::Table(entries) => entries,
        other => {
            return faults.at_field(field, format!("expected a table, found {}", other.name()), None);
        }
    };
    for (key, node) in entries {
        if node.kind == Kind::Null {
            values.remove(&key.name);
            continue;
        }
        match read(&node.kind) {
            Ok(value) => drop(values.insert(key.name.clone(), value)),
            Err(message) => {
                faults.at_field(format!("{field}.{}", key.name.escape_debug()), message, None);
            }
        }
    }
}

/// An option's value. Whoever writes a number or a truth value means its text.
pub(in crate::service) fn plain_text(kind: &Kind) -> Result<String, String> {
    match kind {
        Kind::Text(text) => Ok(text.clone()),
        Kind::Integer(number) => Ok(number.to_string()),
        Kind::Boolean(value) => Ok(value.to_string()),
        other => Err(format!("expected a text or null, found {}", other.name())),
    }
}

pub(in crate::service) fn secret_text(kind: &Kind) -> Result<Secret, String> {
    match kind {
        Kind::Text(text) => Ok(Secret::new(text.as_str())),
        other => Err(format!("expected a text or null, found {}", other.name())),
    }
}

fn check_patterns(texts: &[String], faults: &mut Faults) -> Vec<EventPattern> {
    if texts.is_empty() {
        let hint = "at least one type, \"lead.*\" or \"*\"".to_owned();
        faults.at_field("events", "is empty", Some(hint));
    } else if texts.len() > MAX_PATTERNS {
        faults.at_field(
            "events",
            format!("{} patterns", texts.len()),
            Some(format!("at most {MAX_PATTERNS}")),
        );
    }
    let mut patterns: Vec<EventPattern> = Vec::new();
    for (index, text) in texts.iter().enumerate().take(MAX_PATTERNS) {
        match text.parse() {
            Ok(pattern) if patterns.contains(&pattern) => {
                faults.at_field(format!("events[{index}]"), "is there twice", None);
            }
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                faults.at_field(format!("events[{index}]"), "is no event type", Some(error.to_string()));
            }
        }
    }
    patterns
}

/// Adds faults of something that stands under `field`.
pub fn below(field: &str, found: &Faults, faults: &mut Faults) {
    for fault in found.list() {
        let Fault { mut place, message, hint } = fault.clone();
        place.field =
            if place.field.is_empty() { field.to_owned() } else { format!("{field}.{}", place.field) };
        faults.push(Fault { place, message, hint });
    }
}
