//! What a subscriber asks for: read from JSON, and written as the connection that it becomes.

use serde_json::{Value, json};

use super::Event;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::{Fault, Faults};
use crate::domain::time::Timestamp;
use crate::service::accounts::MAX_NAME_CHARS;
use crate::spec::ConnectorSpec;

/// What subscribers call the URL.
pub const URL_KEYS: [&str; 4] = ["targetUrl", "target_url", "hookUrl", "url"];
const TIME_HINT: &str = "RFC 3339 with a zone, such as 2027-01-31T12:00:00Z";

/// A wish to subscribe.
#[derive(Debug)]
pub(super) struct Wanted {
    pub url: Option<String>,
    /// What the subscriber called it.
    pub url_key: &'static str,
    pub event: Option<String>,
    pub connector: Option<String>,
    pub tenant: Option<String>,
    pub expires: Option<Timestamp>,
    /// Whether the URL is to confirm with `X-Hook-Secret`.
    pub handshake: bool,
    mapping: Option<Value>,
    secret: Option<String>,
}

/// A text; null is as good as nothing.
fn text<'a>(table: &mut TableReader<'a>, key: &'static str) -> Option<&'a str> {
    if is_left_out(table, key) { None } else { table.text(key) }
}

fn is_left_out(table: &mut TableReader<'_>, key: &'static str) -> bool {
    table.node(key).is_none_or(|node| node.kind == Kind::Null)
}

impl Wanted {
    /// Reads it. What is faulty is told, and then of no use.
    pub fn read(wanted: &Value, now: Timestamp, faults: &mut Faults) -> Self {
        let node = Node::from_json(wanted);
        let mut this = Self {
            url: None,
            url_key: URL_KEYS[0],
            event: None,
            connector: None,
            tenant: None,
            expires: None,
            handshake: false,
            mapping: None,
            secret: None,
        };
        let Some(mut table) = node.table("", faults) else { return this };
        for key in URL_KEYS {
            let Some(url) = text(&mut table, key) else { continue };
            match &this.url {
                Some(other) if other != url => {
                    let hint = format!("\"{}\" says another one; write one of them", this.url_key);
                    table.fault(key, "is there twice", Some(hint));
                }
                Some(_) => {}
                None => (this.url, this.url_key) = (Some(url.to_owned()), key),
            }
        }
        if this.url.is_none() && URL_KEYS.iter().all(|key| is_left_out(&mut table, key)) {
            table.fault(URL_KEYS[0], "missing", Some("say where events go".to_owned()));
        }
        this.event = table.need_text("event").map(str::to_owned);
        this.connector = text(&mut table, "connector").map(str::to_owned);
        this.tenant = text(&mut table, "tenant").map(str::to_owned);
        this.handshake = table.boolean("handshake").unwrap_or(false);
        this.secret = text(&mut table, "secret").map(str::to_owned);
        this.mapping = table.node("mapping").map(Node::to_json);
        match text(&mut table, "expiration_date").map(str::parse::<Timestamp>) {
            Some(Ok(expires)) if expires > now => this.expires = Some(expires),
            Some(Ok(_)) => {
                table.fault("expiration_date", "is over", Some(format!("a time after {now}")));
            }
            Some(Err(_)) => table.fault("expiration_date", "is no time", Some(TIME_HINT.to_owned())),
            None => {}
        }
        table.finish();
        this
    }

    /// The connection that it becomes, as JSON; something that stands for what is missing.
    pub fn connection(&self, spec: Option<&ConnectorSpec>, event: Option<&Event>) -> Value {
        let named = event.map_or("", |event| event.named.as_str());
        let name = format!("{}: {named}", spec.map_or("", |spec| spec.name.as_str()));
        let types = event.map_or_else(|| vec!["*".to_owned()], |event| event.types.clone());
        let mut connection = json!({
            "name": name.chars().take(MAX_NAME_CHARS).collect::<String>(),
            "connector": spec.map_or("", |spec| spec.id.as_str()),
            "events": types,
            "target": { "url": self.url.as_deref().unwrap_or_default() },
        });
        if let Some(mapping) = &self.mapping {
            connection["mapping"] = mapping.clone();
        }
        if let Some(secret) = &self.secret {
            connection["secret"] = json!(secret);
        }
        connection
    }

    /// Tells a connection's faults by the names that the subscriber used.
    pub fn rename(&self, found: &Faults, faults: &mut Faults) {
        for Fault { mut place, message, hint } in found.list().iter().cloned() {
            match place.field.as_str() {
                // A URL that is missing was told, and what the connection is made of besides is not the subscriber's.
                "target.url" if self.url.is_none() => continue,
                "target.url" => self.url_key.clone_into(&mut place.field),
                "name" | "events" | "connector" => continue,
                _ => {}
            }
            faults.push(Fault { place, message, hint });
        }
    }
}
