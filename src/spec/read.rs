//! One connector file: from its tree to a [`ConnectorSpec`], with every fault told.

use std::sync::Arc;

use super::answer::AnswerRules;
use super::envelope::Envelope;
use super::extract::Extract;
use super::files::FileKind;
use super::inbound::InboundSpec;
use super::{
    ConnectorKind, ConnectorSpec, EventSpec, RequestSpec, SecretUse, auth, limit, option, policy, request,
    step, subscription,
};
use crate::domain::document::{Node, TableReader};
use crate::domain::event::{EventPattern, is_event_type};
use crate::domain::fault::{Faults, Place};
use crate::domain::policy::DeliveryPolicy;
use crate::mapping::TargetSchema;
use crate::signature::SignatureSpec;

const VERSION: i64 = 1;
const MAX_NAME_CHARS: usize = 64;
const MAX_TEXT_CHARS: usize = 2_000;
const MAX_EVENTS: usize = 200;
/// What has a meaning only for what is sent.
const SENDING_KEYS: &[&str] = &[
    "secret", "events", "options", "auth", "target", "request", "steps", "envelope", "policy", "answer",
    "extract",
];

pub(super) const SECRET_USES: &[(&str, SecretUse)] =
    &[("required", SecretUse::Required), ("optional", SecretUse::Optional), ("none", SecretUse::None)];

/// Whether `text` may name a connector, a mapping or a connector's file.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What [`is_name`] asks for.
pub(super) const NAME_HINT: &str = "1 to 64 lower-case letters, digits or underscores";

/// Another file that a connector names, and where it does.
pub(super) struct Reference {
    pub(super) kind: FileKind,
    pub(super) name: String,
    pub(super) place: Place,
}

/// Takes the name under `key` as a reference.
fn refer(table: &mut TableReader<'_>, key: &'static str, kind: FileKind, references: &mut Vec<Reference>) {
    if let Some((name, node)) = table.text(key).zip(table.node(key)) {
        references.push(Reference { kind, name: name.to_owned(), place: node.mark.place(table.path(key)) });
    }
}

/// Reads a connector file, and what it refers to; `None` when the tree could not even be walked. What is faulty is
/// told, and the spec is then of no use.
pub(super) fn parse(node: &Node, stem: &str, faults: &mut Faults) -> Option<(ConnectorSpec, Vec<Reference>)> {
    let mut references = Vec::new();
    let mut root = node.table("", faults)?;
    root.need("version");
    if let Some(version) = root.integer("version").filter(|version| *version != VERSION) {
        root.fault("version", format!("version {version} is not known"), Some("write 1".to_owned()));
    }
    let id = root.need_text("id");
    if let Some(id) = id.filter(|id| *id != stem) {
        let hint = format!("write \"{stem}\", or rename the file");
        root.fault("id", format!("\"{id}\" is not the file's name"), Some(hint));
    }
    let name = need_line(&mut root, "name");
    let description = need_line(&mut root, "description");
    let kind = root.choice("kind", ConnectorKind::ALL).unwrap_or_default();
    let docs = root.text("docs").map(str::to_owned);
    if docs.as_deref().is_some_and(|docs| !is_web_address(docs)) {
        root.fault("docs", "no web address", Some("begin with \"https://\"".to_owned()));
    }
    let sends = !root.has("in") || root.has("mapping");
    if sends {
        root.need("mapping");
        refer(&mut root, "mapping", FileKind::Mapping, &mut references);
    } else {
        for key in SENDING_KEYS {
            if root.has(key) {
                let hint = "add \"mapping\", or move it into [in]".to_owned();
                root.fault(key, "says nothing in a file that only receives", Some(hint));
            }
        }
    }
    let mapping = references.first().map_or_else(String::new, |reference| reference.name.clone());
    let events = parse_events(&mut root, &mut references);
    let signature = match root.table("signature") {
        Some(table) => SignatureSpec::parse(table),
        None => Some(SignatureSpec::none()),
    };
    let inbound = parse_inbound(&mut root, signature.as_ref(), &mut references);
    let secret = if sends { parse_secret(&mut root, signature.as_ref()) } else { SecretUse::None };
    let options = option::parse(&mut root);
    let auth = auth::parse(&mut root, &options);
    let known = request::Surroundings { options: &options, auth: &auth, signature: signature.as_ref() };
    let mut request = match root.table("request") {
        Some(table) => request::parse(table, &known),
        None => RequestSpec::default(),
    };
    let steps = step::parse(&mut root, &known);
    if let Some(signature) = &signature {
        if sends && signature.receives_only() {
            let message = "signs in the body, which can be verified but not sent";
            root.fault("signature", message, Some("write [signature.headers]".to_owned()));
        }
        request.reserve(signature.header_names().filter_map(|name| name.parse().ok()));
    }
    request.reserve(auth.iter().filter_map(|way| way.header().cloned()));
    let envelope = root.table("envelope").and_then(Envelope::parse);
    request.reserved_fields.extend(envelope.iter().flat_map(Envelope::reserved));
    check_credentials(&mut root, &options, &auth);
    let target = TargetSchema::read(&mut root, "target");
    let policy = root.table("policy").map_or_else(DeliveryPolicy::default, policy::parse);
    let answer = AnswerRules::parse(&mut root);
    let extract = root.table("extract").map_or_else(Extract::default, Extract::parse);
    let limits = limit::parse(&mut root);
    let subscription = root.table("subscription").map(subscription::parse);
    check_kind(&mut root, kind, &policy);
    root.finish();
    let spec = ConnectorSpec {
        id: stem.to_owned(),
        name,
        description,
        kind,
        docs,
        events,
        options,
        auth,
        request,
        steps,
        envelope,
        mapping,
        target,
        signature: signature.unwrap_or_else(SignatureSpec::none),
        secret,
        policy,
        answer,
        extract,
        limits,
        subscription,
        inbound: inbound.map(Arc::new),
    };
    Some((spec, references))
}

/// What only connectors of another kind have a use for.
fn check_kind(root: &mut TableReader<'_>, kind: ConnectorKind, policy: &DeliveryPolicy) {
    if kind == ConnectorKind::Http {
        if policy.batch > 1 {
            let hint = "leave it out: a request of kind \"http\" carries one event".to_owned();
            root.fault("policy", "has a \"batch\"", Some(hint));
        }
        return;
    }
    for key in ["request", "steps", "auth", "signature", "envelope", "answer", "extract"] {
        if root.has(key) {
            let message = format!("has no meaning for the kind \"{}\"", kind.name());
            root.fault(key, message, Some("leave it out".to_owned()));
        }
    }
}

/// Reads `[in]`, and notes the mapping that it names.
fn parse_inbound(
    root: &mut TableReader<'_>,
    shared: Option<&SignatureSpec>,
    references: &mut Vec<Reference>,
) -> Option<InboundSpec> {
    let node = root.node("in")?;
    let path = root.path("in");
    let inbound = InboundSpec::parse(node.table(&path, root.faults())?, shared);
    refer(&mut node.table(&path, &mut Faults::default())?, "mapping", FileKind::Mapping, references);
    Some(inbound)
}

/// Credentials and secret options of a connection lie side by side.
fn check_credentials(root: &mut TableReader<'_>, options: &[option::OptionSpec], ways: &[auth::AuthSpec]) {
    let taken = |name: &str| ways.iter().flat_map(auth::AuthSpec::credentials).any(|other| *other == name);
    if let Some(option) = options.iter().find(|option| taken(&option.name)) {
        let message = format!("\"{}\" is a credential of [[auth]] already", option.name);
        root.fault("options", message, Some("choose another name".to_owned()));
    }
}

fn is_web_address(text: &str) -> bool {
    text.len() <= MAX_TEXT_CHARS
        && url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
}

/// A text for people that must be there and say something.
pub(super) fn need_line(table: &mut TableReader<'_>, key: &'static str) -> String {
    let text = table.need_text(key);
    if text.is_some_and(|text| text.trim().is_empty()) {
        table.fault(key, "says nothing", None);
    }
    if text.is_some_and(|text| text.chars().count() > MAX_TEXT_CHARS) {
        table.fault(key, format!("longer than {MAX_TEXT_CHARS} characters"), None);
    }
    text.unwrap_or_default().to_owned()
}

fn parse_events(root: &mut TableReader<'_>, references: &mut Vec<Reference>) -> Vec<EventSpec> {
    let nodes = root.list("events").unwrap_or_default();
    if nodes.len() > MAX_EVENTS {
        root.fault("events", format!("more than {MAX_EVENTS} event types"), None);
    }
    let path = root.path("events");
    let mut events: Vec<EventSpec> = Vec::new();
    for (index, node) in nodes.iter().take(MAX_EVENTS).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), root.faults()) else { continue };
        let pattern = table.need_text("type").map(str::parse::<EventPattern>);
        let description = need_line(&mut table, "description");
        let alias = table.text("alias").map(str::to_owned);
        if alias.as_deref().is_some_and(|alias| !is_event_type(alias)) {
            table.fault("alias", "no event type", Some("such as new_lead".to_owned()));
        }
        refer(&mut table, "sample", FileKind::Sample, references);
        let sample = table.text("sample").map(str::to_owned);
        match pattern {
            Some(Ok(pattern)) if events.iter().any(|event| event.pattern == pattern) => {
                table.fault("type", "is listed twice", None);
            }
            Some(Ok(pattern)) => events.push(EventSpec { pattern, alias, description, sample }),
            Some(Err(error)) => table.fault("type", "no event type", Some(error.to_string())),
            None => {}
        }
        table.finish();
    }
    events
}

fn parse_secret(root: &mut TableReader<'_>, signature: Option<&SignatureSpec>) -> SecretUse {
    let written = root.choice("secret", SECRET_USES);
    // Nothing can be said of a secret's use while the signature itself is faulty.
    let Some(signature) = signature else { return SecretUse::None };
    let needs = signature.needs_secret();
    match written {
        Some(SecretUse::None) if needs => {
            let hint = "write \"required\" or \"optional\", or leave it out";
            root.fault("secret", "the signature needs a secret", Some(hint.to_owned()));
        }
        Some(SecretUse::Required | SecretUse::Optional) if !needs => {
            let hint = "add [signature], or write \"none\"";
            root.fault("secret", "nothing is signed, so there is no use for a secret", Some(hint.to_owned()));
        }
        _ => {}
    }
    written.unwrap_or(if needs { SecretUse::Required } else { SecretUse::None })
}
