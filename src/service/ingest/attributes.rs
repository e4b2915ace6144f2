//! One event's attributes, read out of JSON or headers and checked.

use bytes::Bytes;
use serde::Serialize;

use crate::domain::event::{RESERVED, is_event_type, is_reserved};
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::id::TenantId;
use crate::domain::json::{self, Object};
use crate::domain::time::Timestamp;
use crate::domain::trace::{TRACEPARENT, TraceContext};

/// The longest id or source.
pub const MAX_ID_CHARS: usize = 256;
const MAX_TIME_CHARS: usize = 64;
const MAX_EXTENSION_NAME: usize = 64;
const PLAIN_KEYS: [&str; 6] = ["type", "id", "time", "tenant", "source", "data"];
const SPEC_VERSION: &str = "1.0";
const NULL: &[u8] = b"null";

/// A text or another value as compact JSON.
pub fn written(value: &impl Serialize) -> Bytes {
    // Writing to a Vec does not fail, and every key is a text.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// One event as it came, checked, before it is anyone's.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The id that the platform gave.
    pub id: Option<String>,
    /// Its type.
    pub kind: String,
    /// When it happened, RFC 3339, as written.
    pub time: Option<String>,
    /// Whose it is said to be.
    pub tenant: Option<TenantId>,
    /// Where it comes from.
    pub source: Option<String>,
    /// A `CloudEvents` subject, extensions and so on, as compact JSON.
    pub others: Vec<(String, Bytes)>,
    /// What happened, as compact JSON.
    pub data: Bytes,
}

impl Incoming {
    /// Notes the trace that it belongs to; what it says itself stays.
    pub(in crate::service) fn carry(&mut self, trace: Option<TraceContext>) {
        if let Some(trace) = trace.filter(|_| !self.others.iter().any(|(name, _)| name == TRACEPARENT)) {
            self.others.push((TRACEPARENT.to_owned(), written(&trace.to_string())));
        }
    }
}

/// An event while it is being read.
#[derive(Debug, Default)]
pub struct Draft {
    kind: Option<String>,
    id: Option<String>,
    time: Option<String>,
    tenant: Option<TenantId>,
    source: Option<String>,
    version: bool,
    others: Vec<(String, Bytes)>,
    /// `None` when it is missing.
    pub data: Option<Bytes>,
    /// Attributes that were written, sound or not, so that an unsound one is not told as missing too.
    seen: Vec<&'static str>,
}

fn below(at: &str, key: &str) -> String {
    if at.is_empty() {
        return key.to_owned();
    }
    // A header's prefix, or a table's path.
    if at.ends_with('-') { format!("{at}{key}") } else { format!("{at}.{key}") }
}

impl Draft {
    /// Reads `{type, id?, time?, tenant?, source?, data}`; `at` is the event's own path.
    pub fn plain(event: Bytes, at: &str) -> Result<Incoming, Faults> {
        let mut faults = Faults::default();
        let mut draft = Self::default();
        for (key, value) in object(event, at)?.members() {
            if key == "data" {
                draft.data = Some(value);
            } else if PLAIN_KEYS.contains(&&*key) {
                draft.set(&key, &value, at, &mut faults);
            } else {
                let hint = did_you_mean(&key, PLAIN_KEYS).unwrap_or_else(|| {
                    format!("known here: {}; the rest belongs into data", PLAIN_KEYS.join(", "))
                });
                faults.at_field(below(at, &shown(&key)), "unknown key", Some(hint));
            }
        }
        draft.need("type", at, &mut faults);
        if draft.data.is_none() {
            faults.at_field(below(at, "data"), "missing", Some("add \"data\", null at the least".to_owned()));
        }
        draft.finish(faults)
    }

    /// Reads a structured `CloudEvent`.
    pub fn cloud_event(event: Bytes, at: &str) -> Result<Incoming, Faults> {
        let mut faults = Faults::default();
        let mut draft = Self::default();
        for (key, value) in object(event, at)?.members() {
            match &*key {
                "data" => draft.data = Some(value),
                "data_base64" => faults.at_field(
                    below(at, "data_base64"),
                    "binary data is not taken",
                    Some("send JSON under \"data\"".to_owned()),
                ),
                _ => draft.set_cloud(&key, value, at, &mut faults),
            }
        }
        draft.finish_cloud(at, faults)
    }

    /// Takes one `CloudEvents` attribute; null is as good as absent.
    pub fn set_cloud(&mut self, key: &str, value: Bytes, at: &str, faults: &mut Faults) {
        match key {
            "specversion" => {
                self.seen.push("specversion");
                self.version = json::string(&value).as_deref() == Some(SPEC_VERSION);
                if !self.version {
                    let hint = format!("this gateway reads \"{SPEC_VERSION}\"");
                    faults.at_field(below(at, "specversion"), "is not a version known here", Some(hint));
                }
            }
            "type" | "id" | "time" | "tenant" | "source" => self.set(key, &value, at, faults),
            _ if value == NULL => {}
            _ => self.extend(key, value, at, faults),
        }
    }

    fn extend(&mut self, key: &str, value: Bytes, at: &str, faults: &mut Faults) {
        let fits = (1..=MAX_EXTENSION_NAME).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !fits {
            let hint = "lower-case letters and digits, at most 64 (CloudEvents 1.0)".to_owned();
            faults.at_field(below(at, &shown(key)), "is no attribute's name", Some(hint));
        } else if value.starts_with(b"{") || value.starts_with(b"[") {
            let hint = "an attribute is a text, a number or a boolean; the rest belongs into data".to_owned();
            faults.at_field(below(at, key), "is a list or an object", Some(hint));
        } else {
            self.others.push((key.to_owned(), value));
        }
    }

    fn set(&mut self, key: &str, value: &[u8], at: &str, faults: &mut Faults) {
        let Some(name) = PLAIN_KEYS.into_iter().find(|name| *name == key) else { return };
        if value == NULL && name != "type" {
            return;
        }
        self.seen.push(name);
        let field = below(at, name);
        let Some(text) = json::string(value) else {
            return faults.at_field(field, "expected a text", None);
        };
        match name {
            "type" if is_reserved(&text) => {
                let hint = format!("types that begin with \"{RESERVED}\" are sent by the gateway alone");
                faults.at_field(field, "is reserved for the gateway's own events", Some(hint));
            }
            "type" if is_event_type(&text) => self.kind = Some(text),
            "type" => {
                let hint =
                    "1 to 128 letters, digits, dots, underscores, hyphens, colons or slashes".to_owned();
                faults.at_field(field, "is no event type", Some(hint));
            }
            "tenant" => match text.parse() {
                Ok(tenant) => self.tenant = Some(tenant),
                Err(error) => faults.at_field(field, "is no tenant id", Some(format!("{error}"))),
            },
            "time" => {
                if text.len() <= MAX_TIME_CHARS && text.parse::<Timestamp>().is_ok() {
                    self.time = Some(text);
                } else {
                    let hint = "RFC 3339 with a zone, such as 2026-05-03T14:22:08Z".to_owned();
                    faults.at_field(field, "is no time", Some(hint));
                }
            }
            _ => {
                let fits =
                    (1..=MAX_ID_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
                if !fits {
                    let hint = format!("1 to {MAX_ID_CHARS} characters, none of them a control character");
                    faults.at_field(field, format!("is no {name}"), Some(hint));
                } else if name == "id" {
                    self.id = Some(text);
                } else {
                    self.source = Some(text);
                }
            }
        }
    }

    fn need(&self, name: &'static str, at: &str, faults: &mut Faults) {
        if !self.seen.contains(&name) {
            faults.at_field(
                below(at, name),
                "missing",
                Some(format!("add \"{}\"", below(if at.ends_with('-') { at } else { "" }, name))),
            );
        }
    }

    /// Ends the reading of a `CloudEvent`.
    pub fn finish_cloud(self, at: &str, mut faults: Faults) -> Result<Incoming, Faults> {
        for name in ["specversion", "id", "source", "type"] {
            self.need(name, at, &mut faults);
        }
        self.finish(faults)
    }

    fn finish(self, faults: Faults) -> Result<Incoming, Faults> {
        let Self { kind, id, time, tenant, source, others, data, .. } = self;
        faults.into_result(Incoming {
            id,
            kind: kind.unwrap_or_default(),
            time,
            tenant,
            source,
            others,
            data: data.unwrap_or(Bytes::from_static(NULL)),
        })
    }
}

fn object(event: Bytes, at: &str) -> Result<Object, Faults> {
    if let Some(object) = Object::of_compact(event) {
        return Ok(object);
    }
    let mut faults = Faults::default();
    faults.at_field(at, "expected an event, a JSON object", None);
    Err(faults)
}

/// A key as a message shows it.
fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
