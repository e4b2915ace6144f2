//! Which settings are in force, and where each value came from: for a person who wonders.

use std::path::Path;

use serde::Serialize;

use super::settings::{SETTINGS, Setting};
use super::{Environment, Given, SECRET_KEY, given_by, layered, read_file};
use crate::domain::document::{Kind, Node};
use crate::domain::fault::Faults;

/// What stands in the place of a secret.
const HIDDEN: &str = "[hidden]";

/// Settings that are secrets as a whole, and lists of `name=value` whose values may be.
const SECRET_SETTINGS: [&str; 2] = ["chat.upstream_key", "telemetry.otlp_headers"];

/// One setting as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// The setting's key.
    pub key: &'static str,
    /// Its value as TOML, without secrets; `None` when it is not set.
    pub value: Option<String>,
    /// Where it came from: `default`, a file and a line, a variable, or a flag.
    pub source: String,
}

/// Every setting, in the order of the reference, and whether the environment gives the secret key. What is wrong with the
/// values is told by [`Config::load`](super::Config::load), not here.
pub fn in_force(
    file: Option<&Path>,
    environment: &Environment,
    flags: &[Given],
) -> Result<Vec<InForce>, Faults> {
    let (name, text) = read_file(file)?;
    of_text(&name, &text, environment, flags)
}

pub(super) fn of_text(
    file: &str,
    text: &str,
    environment: &Environment,
    flags: &[Given],
) -> Result<Vec<InForce>, Faults> {
    let given = given_by(environment, flags, &mut Faults::default());
    let root = layered(file, text, &given)?;
    let mut all: Vec<InForce> = SETTINGS.iter().map(|setting| of_setting(&root, setting, &given)).collect();
    let key = environment.get(SECRET_KEY).is_some();
    all.push(InForce {
        key: "secret key",
        value: Some(HIDDEN.to_owned()),
        source: if key { SECRET_KEY.to_owned() } else { "secret.key in data_dir".to_owned() },
    });
    Ok(all)
}

fn of_setting(root: &Node, setting: &Setting, given: &[Given]) -> InForce {
    let node = setting.key.split('.').try_fold(root, |node, name| match &node.kind {
        Kind::Table(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
        _ => None,
    });
    let place = node.map(|node| node.mark.place(""));
    let by_hand = given.iter().rev().find(|given| given.key == setting.key);
    let source = match (by_hand, place.and_then(|place| Some((place.file?, place.line)))) {
        (Some(given), _) => given.name.clone(),
        (None, Some((file, line))) if !file.is_empty() => format!("{file}:{line}"),
        _ => "default".to_owned(),
    };
    let show = if SECRET_SETTINGS.contains(&setting.key) { shown_names } else { shown };
    InForce { key: setting.key, value: node.map(show), source }
}

/// Each `name=value` of a list without its value; nothing of a text.
fn shown_names(node: &Node) -> String {
    let Kind::List(items) = &node.kind else { return format!("\"{HIDDEN}\"") };
    let name = |item: &Node| match &item.kind {
        Kind::Text(text) => text.split_once('=').map_or(String::new(), |(name, _)| name.to_owned()),
        _ => String::new(),
    };
    let names = items.iter().map(|item| format!("\"{}={HIDDEN}\"", name(item).escape_debug()));
    format!("[{}]", names.collect::<Vec<_>>().join(", "))
}

fn shown(node: &Node) -> String {
    match &node.kind {
        Kind::Text(text) => serde_json::Value::from(without_secrets(text)).to_string(),
        Kind::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        _ => node.to_json().to_string(),
    }
}

/// A URL without what may let somebody in: all between the scheme and the last `@`, and what follows a `?`. Any other text
/// as it is.
pub fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    let rest = rest.split_once('?').map_or(rest.clone(), |(path, _)| format!("{path}?{HIDDEN}"));
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_tells_where_it_came_from_and_no_secret() {
        let environment = Environment::from_pairs([
            ("PATCHBAY_STORE".to_owned(), "redis://user:pass/w@rd@redis.internal:6379/0?x=secret".to_owned()),
            ("PATCHBAY_SECRET_KEY".to_owned(), "c2VjcmV0".to_owned()),
            ("PATCHBAY_LISTEN".to_owned(), "0.0.0.0:1".to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), "x-key=pass,x-other=pass=2".to_owned()),
        ]);
        let text = "data_dir = \"here\"\n[delivery]\nconcurrency = 7\n[egress]\nallow_ranges = [\"10.0.0.0/8\"]\n\
             [chat]\nupstream_key = \"pass-3\"\n";
        let flags = [Given { key: "listen", name: "--listen".to_owned(), text: "127.0.0.1:0".to_owned() }];
        let all = of_text("my.toml", text, &environment, &flags).unwrap();
        let of = |key: &str| {
            let found = all.iter().find(|one| one.key == key).unwrap();
            (found.value.as_deref().unwrap_or("not set"), found.source.as_str())
        };
        assert_eq!(of("listen"), ("\"127.0.0.1:0\"", "--listen"));
        assert_eq!(of("store"), ("\"redis://[hidden]@redis.internal:6379/0?[hidden]\"", "PATCHBAY_STORE"));
        assert_eq!(of("data_dir"), ("\"here\"", "my.toml:1"));
        assert_eq!(of("delivery.concurrency"), ("7", "my.toml:3"));
        assert_eq!(of("egress.allow_ranges"), ("[\"10.0.0.0/8\"]", "my.toml:5"));
        assert_eq!(of("delivery.drain_secs"), ("20", "default"));
        assert_eq!(of("public_url"), ("not set", "default"));
        assert_eq!(of("chat.upstream_key"), ("\"[hidden]\"", "my.toml:7"));
        let headers = "[\"x-key=[hidden]\", \"x-other=[hidden]\"]";
        assert_eq!(of("telemetry.otlp_headers"), (headers, "OTEL_EXPORTER_OTLP_HEADERS"));
        assert_eq!(of("secret key"), ("[hidden]", "PATCHBAY_SECRET_KEY"));
        assert_eq!(all.len(), SETTINGS.len() + 1);
        let told = format!("{all:?}");
        assert!(!told.contains("pass") && !told.contains("c2VjcmV0") && !told.contains("secret\""), "{told}");
    }
}
