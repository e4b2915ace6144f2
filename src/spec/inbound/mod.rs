//! What a connector receives: `[in]`.
//!
//! ```toml
//! [in]
//! mapping = "whatsapp_in"                   # makes each event of the request: type, id, time, source, data
//!
//! [[in.options]]                            # what it asks of each source, as [[options]] of a connection
//! name = "verify_token"
//! description = "The word that was typed into the app's settings."
//! secret = true
//!
//! [in.signature]                            # where it differs from [signature]; [[in.signature]] for alternatives
//! algorithm = "hmac_sha256"
//! format = "sha256={digest}"
//! headers."X-Hub-Signature-256" = "{signature}"
//!
//! [[in.handshake]]                          # a request that only asks whether we are who we should be
//! method = "GET"
//! when = { path = "$.query['hub.mode']", op = "eq", value = "subscribe" }
//! token = { path = "$.query['hub.verify_token']", option = "verify_token" }
//! answer = "$.query['hub.challenge']"
//!
//! [[in.each]]                               # several events of one request: one for each message of each change
//! name = "change"
//! path = "$.body.entry[*].changes[*]"
//! [[in.each]]
//! name = "message"
//! path = "$.change.value.messages[*]"
//! ```
//!
//! | key | what it says | when left out |
//! |---|---|---|
//! | `mapping` | the mapping that makes an event of a request; it may write `type`, `id`, `time`, `source` and `data`, and must write `type` | a fault |
//! | `secret` | `required`, `optional`, `none` | `required` when the signature needs one, else `none` |
//! | `secret_maker` | whose it is to make the secret: `gateway`, where none is given, or `sender`, so that it must be given | `gateway` |
//! | `signature` | a table as `[signature]`, or a list of them of which the first counts whose parts are all there | `[signature]` |
//! | `body` | the forms of body that are taken: `json`, `form`, `multipart` | `["json"]` |
//! | `json_field` | a form's field that holds the body as JSON, where it is there | none |
//! | `delivery_id` | what names a delivery, so that a repeat is known: a path or a list of paths, of which the first that gives something counts; or `body`, its bytes | what was signed, where something is |
//! | `ignore` | a condition; what meets it is acknowledged and makes no event | nothing |
//! | `[[in.options]]` | what it asks of each source, see [`option`] | nothing |
//! | `[[in.handshake]]` | see [`Handshake`] | none |
//! | `[[in.each]]` | lists of which each item makes an event, from the outside in: `name`, `path` | one event a request |
//! | `[in.accepted]`, `[in.ignored]` | what is answered: `status`, `body`, `content_type` | 200 and a short JSON summary |
//!
//! # The request as rows and conditions see it
//! `{"method", "query", "headers", "body", "options"}` and the items of `each` by their names: header names are in lower case,
//! a form's fields are texts (lists where a field comes twice), a file of a form is its `filename`, `content_type` and
//! `size_bytes`; options are the source's own, but for the secret ones. `Authorization`, `Cookie` and the headers of the signature are
//! not there, so that no secret gets into an event.
//!
//! # What holds
//! - An event whose `type` the mapping leaves out is no event: the request is acknowledged.
//! - Without a `data` row the event's data is the innermost item of `each`, else the body.
//! - `delivery_id` must be part of what is signed, else a replay could bring another one.

mod handshake;
mod reply;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::option::{self, OptionSpec};
use super::read::{NAME_HINT, SECRET_USES, is_name};
use super::rows::BodyPath;
use super::{ConnectorSpec, SecretUse};
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::{Fault, Faults};
use crate::mapping::{Condition, Mapping};
use crate::signature::SignatureSpec;
pub use handshake::{Handshake, HandshakeAnswer, Token};
pub use reply::Reply;

pub(super) use handshake::METHODS as HANDSHAKE_METHODS;

/// The keys that an event's mapping may write.
pub const EVENT_KEYS: [&str; 5] = ["type", "id", "time", "source", "data"];
/// The keys of the request document, which no `each` may be called.
const DOCUMENT_KEYS: [&str; 5] = ["method", "query", "headers", "body", "options"];
/// Most `each` inside one another, alternatives of a signature, handshakes, and paths of `delivery_id`.
const MOST: usize = 8;
/// The `delivery_id` that is the body's own bytes.
pub(super) const OF_BODY: &str = "body";

pub(super) const BODY_FORMS: &[(&str, BodyForm)] =
    &[("json", BodyForm::Json), ("form", BodyForm::Form), ("multipart", BodyForm::Multipart)];

/// Who makes a source's secret; whether it is the gateway.
pub(super) const SECRET_MAKERS: &[(&str, bool)] = &[("gateway", true), ("sender", false)];

/// How a system's requests become events.
#[derive(Debug, PartialEq)]
pub struct InboundSpec {
    /// The mapping that makes an event, where a source names no other.
    pub mapping: String,
    /// Ways to verify, at least one; all take the same keys.
    pub signatures: Vec<SignatureSpec>,
    /// Whether a source has a secret.
    pub secret: SecretUse,
    /// Whether the gateway makes the secret where none is given; else the other system has made it.
    pub makes_secret: bool,
    /// What it asks of each source.
    pub options: Vec<OptionSpec>,
    /// The forms of body that are taken.
    pub body: Vec<BodyForm>,
    /// A form's field that holds the body as JSON.
    pub json_field: Option<String>,
    /// What names a delivery.
    pub delivery_id: DeliveryId,
    /// What makes no event.
    pub ignore: Option<Condition>,
    /// Requests that only ask who we are.
    pub handshakes: Vec<Handshake>,
    /// Lists whose items make an event each, from the outside in.
    pub each: Vec<Each>,
    /// The answer when events were taken.
    pub accepted: Reply,
    /// The answer when there was nothing to take.
    pub ignored: Reply,
}

/// A form of body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// `application/json`, `application/…+json`, or nothing said.
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// `multipart/form-data`
    Multipart,
}

impl BodyForm {
    /// The name in a file.
    pub fn name(self) -> &'static str {
        BODY_FORMS.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }
}

/// What names a delivery.
#[derive(Debug, PartialEq)]
pub enum DeliveryId {
    /// What was signed.
    Signed,
    /// The body's bytes.
    Body,
    /// What the first of these paths gives.
    Paths(Vec<BodyPath>),
}

/// A list whose items make an event each.
#[derive(Debug, PartialEq)]
pub struct Each {
    /// The item's key in the request document.
    pub name: String,
    /// Where the items are.
    pub path: BodyPath,
}

impl InboundSpec {
    /// Reads `[in]`; `shared` is the file's `[signature]`, `None` while that is faulty.
    pub(super) fn parse(mut table: TableReader<'_>, shared: Option<&SignatureSpec>) -> Self {
        table.need("mapping");
        let mapping = table.text("mapping").unwrap_or_default().to_owned();
        let signatures = parse_signatures(&mut table, shared);
        let secret = parse_secret(&mut table, signatures.as_deref());
        let makes_secret = table.choice("secret_maker", SECRET_MAKERS).unwrap_or(true);
        if table.has("secret_maker") && secret == SecretUse::None {
            table.fault("secret_maker", "says nothing without a secret", None);
        }
        let options = option::parse(&mut table);
        let body = parse_body_forms(&mut table);
        let json_field = table.text("json_field").map(str::to_owned);
        if json_field.is_some() && body == [BodyForm::Json] {
            let hint = "add \"form\" or \"multipart\" to \"body\"".to_owned();
            table.fault("json_field", "no form is taken", Some(hint));
        }
        let delivery_id = parse_delivery_id(&mut table);
        let ignore_path = table.path("ignore");
        let ignore =
            table.node("ignore").and_then(|node| Condition::parse(node, &ignore_path, table.faults()));
        let handshakes = handshake::parse(&mut table, &options);
        let each = parse_each(&mut table);
        let accepted = table.table("accepted").map_or_else(Reply::default, Reply::parse);
        let ignored = table.table("ignored").map_or_else(Reply::default, Reply::parse);
        table.finish();
        Self {
            mapping,
            signatures: signatures.unwrap_or_else(|| vec![SignatureSpec::none()]),
            secret,
            makes_secret,
            options,
            body,
            json_field,
            delivery_id,
            ignore,
            handshakes,
            each,
            accepted,
            ignored,
        }
    }

    /// The way to verify whose secrets are made and decoded for all of them.
    pub fn signature(&self) -> &SignatureSpec {
        // There is at least one.
        &self.signatures[0]
    }

    /// Whether the mapping makes events: it must write a type, and nothing that an event has not.
    pub fn check_mapping(&self, connector: &str, mapping: &Mapping) -> Result<(), Faults> {
        let mut faults = Faults::default();
        let mut has_type = false;
        let mut first = None;
        for (target, place) in mapping.targets() {
            first = first.or_else(|| Some(place.clone()));
            let top = target.split('.').next().unwrap_or(target);
            has_type |= target == "type";
            if !EVENT_KEYS.contains(&top) {
                let hint = format!("an event of \"{connector}\" has {}", EVENT_KEYS.join(", "));
                let message = format!("\"{top}\" is no part of an event");
                faults.push(Fault { place: place.clone(), message, hint: Some(hint) });
            }
        }
        if let Some(mut place) = first.filter(|_| !has_type) {
            "fields".clone_into(&mut place.field);
            let hint = Some("add a row with to = \"type\"".to_owned());
            faults.push(Fault { place, message: "no row writes the event's type".to_owned(), hint });
        }
        faults.into_result(())
    }
}

impl ConnectorSpec {
    /// Whether connections may use it; a file without a `mapping` of its own only receives.
    pub fn sends(&self) -> bool {
        !self.mapping.is_empty()
    }
}

fn parse_signatures(
    table: &mut TableReader<'_>,
    shared: Option<&SignatureSpec>,
) -> Option<Vec<SignatureSpec>> {
    let Some(node) = table.node("signature") else { return shared.map(|spec| vec![spec.clone()]) };
    let path = table.path("signature");
    let nodes: Vec<(&Node, String)> = match &node.kind {
        Kind::List(items) => {
            items.iter().zip(0..).map(|(item, at)| (item, format!("{path}[{at}]"))).collect()
        }
        _ => vec![(node, path)],
    };
    if nodes.is_empty() || nodes.len() > MOST {
        let message = format!("{} ways to verify, expected 1 to {MOST}", nodes.len());
        table.fault("signature", message, None);
        return None;
    }
    let mut specs: Vec<SignatureSpec> = Vec::new();
    for (node, path) in &nodes {
        let spec = node.table(path, table.faults()).and_then(SignatureSpec::parse)?;
        if specs.first().is_some_and(|first| !first.shares_keys_with(&spec)) {
            let message = "takes another kind of secret than the first way";
            let hint = Some("write the same algorithm and key".to_owned());
            table.faults().push(node.fault(path, message, hint));
        }
        specs.push(spec);
    }
    Some(specs)
}

fn parse_secret(table: &mut TableReader<'_>, signatures: Option<&[SignatureSpec]>) -> SecretUse {
    let written = table.choice("secret", SECRET_USES);
    // Nothing can be said of a secret's use while the signature itself is faulty.
    let Some(signatures) = signatures else { return SecretUse::None };
    let needs = signatures.iter().all(SignatureSpec::needs_secret);
    let fault = match written {
        Some(SecretUse::None) if needs => {
            Some(("the signature needs a secret", "write \"required\" or \"optional\", or leave it out"))
        }
        Some(SecretUse::Required | SecretUse::Optional) if !needs => {
            Some(("nothing is verified, so there is no use for a secret", "add [in.signature]"))
        }
        _ => None,
    };
    if let Some((message, hint)) = fault {
        table.fault("secret", message, Some(hint.to_owned()));
    }
    written.unwrap_or(if needs { SecretUse::Required } else { SecretUse::None })
}

fn parse_body_forms(table: &mut TableReader<'_>) -> Vec<BodyForm> {
    let Some(names) = table.texts("body") else { return vec![BodyForm::Json] };
    let mut forms = Vec::new();
    for name in names {
        match BODY_FORMS.iter().find(|(known, _)| *known == name) {
            Some((_, form)) if !forms.contains(form) => forms.push(*form),
            Some(_) => table.fault("body", format!("\"{name}\" is listed twice"), None),
            None => {
                let hint = Some("json, form or multipart".to_owned());
                table.fault("body", format!("\"{name}\" is no form of body"), hint);
            }
        }
    }
    if forms.is_empty() {
        table.fault("body", "nothing would be taken", Some("leave it out for JSON".to_owned()));
    }
    forms
}

/// The path under `key`; what is none is a fault.
fn path_of(node: &Node, field: &str, faults: &mut Faults) -> Option<BodyPath> {
    let Kind::Text(text) = &node.kind else {
        faults.push(node.fault(field, format!("expected a path, found {}", node.kind.name()), None));
        return None;
    };
    match BodyPath::parse(text) {
        Ok(path) => Some(path),
        Err((message, hint)) => {
            faults.push(node.fault(field, message, hint));
            None
        }
    }
}

fn parse_delivery_id(table: &mut TableReader<'_>) -> DeliveryId {
    let Some(node) = table.node("delivery_id") else { return DeliveryId::Signed };
    let field = table.path("delivery_id");
    let faults = table.faults();
    match &node.kind {
        Kind::Text(text) if text == OF_BODY => DeliveryId::Body,
        Kind::List(items) => {
            if items.is_empty() || items.len() > MOST {
                let message = format!("{} paths, expected 1 to {MOST}", items.len());
                faults.push(node.fault(&field, message, None));
            }
            let paths = items.iter().zip(0..).take(MOST);
            DeliveryId::Paths(
                paths.filter_map(|(item, at)| path_of(item, &format!("{field}[{at}]"), faults)).collect(),
            )
        }
        _ => DeliveryId::Paths(path_of(node, &field, faults).into_iter().collect()),
    }
}

fn parse_each(table: &mut TableReader<'_>) -> Vec<Each> {
    let nodes = table.list("each").unwrap_or_default();
    let path = table.path("each");
    if nodes.len() > MOST {
        table.fault("each", format!("more than {MOST} inside one another"), None);
    }
    let mut found: Vec<Each> = Vec::new();
    for (index, node) in nodes.iter().take(MOST).enumerate() {
        let Some(mut table) = node.table(&format!("{path}[{index}]"), table.faults()) else { continue };
        let name = table.need_text("name").unwrap_or_default().to_owned();
        let taken = DOCUMENT_KEYS.contains(&name.as_str()) || found.iter().any(|other| other.name == name);
        if table.has("name") && !is_name(&name) {
            table.fault("name", format!("\"{name}\" is no name"), Some(NAME_HINT.to_owned()));
        } else if taken {
            table.fault("name", format!("\"{name}\" is taken"), Some("choose another".to_owned()));
        }
        let field = table.path("path");
        table.need("path");
        let items = table.node("path").and_then(|node| path_of(node, &field, table.faults()));
        table.finish();
        found.extend(items.map(|path| Each { name, path }));
    }
    found
}

/// The request document under construction: what every rule and row reads.
pub fn document(
    method: &str,
    query: Value,
    headers: Value,
    body: Value,
    options: Value,
) -> serde_json::Map<String, Value> {
    DOCUMENT_KEYS.map(str::to_owned).into_iter().zip([method.into(), query, headers, body, options]).collect()
}
