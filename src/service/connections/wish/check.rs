//! Checks a wish as a whole: its connector, addresses, mapping, events and policy, every fault at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Wish;
use crate::connector::google_sheets::GoogleSettings;
use crate::connector::{Given, check_custom_headers, check_settings, check_sheet};
use crate::domain::connection::MappingChoice;
use crate::domain::document::Node;
use crate::domain::event::EventPattern;
use crate::domain::fault::{Fault, Faults, did_you_mean};
use crate::domain::policy::PolicyOverrides;
use crate::domain::secret::Secret;
use crate::egress::{AddressPolicy, Url};
use crate::mapping::{Condition, Mapping};
use crate::service::accounts::check_name;
use crate::spec::{Catalogue, ConnectorKind, ConnectorSpec, check_overrides};

/// The most patterns of a connection.
pub const MAX_PATTERNS: usize = 50;

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

impl Wish {
    /// Checks where requests go, and the options and credentials, as far as they can be without a connector. Normalises the
    /// target's URL.
    fn check_urls(
        &mut self,
        connector: Option<&Arc<ConnectorSpec>>,
        addresses: &AddressPolicy,
        google: &GoogleSettings,
        faults: &mut Faults,
    ) -> Option<Vec<(&'static str, Url)>> {
        if let Some(connector) = connector.filter(|connector| connector.kind == ConnectorKind::GoogleSheets) {
            let given = Given { url: &self.url, options: &self.options, credentials: &self.credentials };
            return match check_sheet(connector, &given, google, connector.policy.timeout) {
                Ok(_) => Some(Vec::new()),
                Err(found) => {
                    faults.extend(found);
                    None
                }
            };
        }
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
                Some(settings.urls)
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
        google: &GoogleSettings,
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
        let called = if sends { self.check_urls(connector, addresses, google, faults) } else { None };
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
                if connector.kind == ConnectorKind::GoogleSheets && self.policy.per_second.is_some() {
                    let message = "a Google sheet is written to as often as Google's quota allows";
                    faults.at_field("policy.per_second", message, Some("leave it out".to_owned()));
                }
                if let Err(found) = check_custom_headers(connector, &self.headers) {
                    below("target", &found, faults);
                }
            }
        }
        if faults.len() > before {
            return None;
        }
        let inline = mapping.filter(|_| matches!(self.mapping, MappingChoice::Inline(_)));
        Some(Checked {
            connector: Arc::clone(connector?),
            name: self.name,
            events,
            filter: self.filter,
            mapping: settled_mapping(self.mapping, inline.as_deref()),
            inline,
            url: self.url,
            called: called?,
            headers: self.headers,
            options: self.options,
            credentials: self.credentials,
            policy: self.policy,
        })
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

/// The choice as it is kept, and shown: a mapping's short form as the rows that it stands for.
pub(in crate::service) fn settled_mapping(
    choice: MappingChoice,
    compiled: Option<&Mapping>,
) -> MappingChoice {
    match (choice, compiled) {
        (MappingChoice::Inline(_), Some(mapping)) => MappingChoice::Inline(mapping.to_json().clone()),
        (choice, _) => choice,
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

/// Event patterns as written, each once.
pub fn check_patterns(texts: &[String], faults: &mut Faults) -> Vec<EventPattern> {
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
