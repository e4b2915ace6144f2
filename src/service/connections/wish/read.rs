//! Reads what a person wrote over what there is: a key that is missing changes nothing, null resets.

use std::collections::{BTreeMap, BTreeSet};

use super::Wish;
use crate::domain::connection::MappingChoice;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::{Faults, key_in_field};
use crate::domain::policy::PolicyOverrides;
use crate::domain::secret::Secret;

impl Wish {
    pub(super) fn read(&mut self, table: &mut TableReader<'_>) {
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
            let field = format!("target.headers.{}", key_in_field(&key.name));
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
        let numbers = [
            ("timeout_secs", &mut self.policy.timeout_secs),
            ("concurrency", &mut self.policy.concurrency),
            ("breaker_failures", &mut self.policy.breaker_failures),
            ("pause_failures", &mut self.policy.pause_failures),
            ("pause_secs", &mut self.policy.pause_secs),
            ("per_second", &mut self.policy.per_second),
            ("burst", &mut self.policy.burst),
        ];
        for (key, number) in numbers {
            if is_null(table.node(key)) {
                *number = None;
            } else if let Some(wanted) = table.integer_within(key, 0, u32::MAX.into()) {
                *number = u32::try_from(wanted).ok();
            }
        }
        if is_null(table.node("log_bodies")) {
            self.policy.log_bodies = None;
        } else if let Some(wanted) = table.boolean("log_bodies") {
            self.policy.log_bodies = Some(wanted);
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
                faults.at_field(format!("{field}.{}", key_in_field(&key.name)), message, None);
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
