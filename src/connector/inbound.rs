//! A source ready to receive: from a request to the events in it. Pure; reading the body is its caller's.
//!
//! 1. [`Receiver::verify`] checks the signature by the connector's file, over the raw bytes.
//! 2. [`Receiver::document`] makes what rules and rows read.
//! 3. [`Receiver::handshake`] answers a request that only asks who we are.
//! 4. [`Receiver::events`] makes the events, each as plain JSON: `{type, id?, time?, source?, data}`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ::http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use ::http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::http::Key;
use super::settings::{Given, check_source_settings};
use crate::domain::fault::Faults;
use crate::domain::time::Timestamp;
use crate::mapping::{Context, Mapping, MappingError, measure};
use crate::signature::{Received, SignatureSpec, SigningKey, Verified, VerifyError};
use crate::spec::inbound::{DeliveryId, HandshakeAnswer, document};
use crate::spec::{InboundSpec, SecretUse};

/// The most events of one delivery.
const MAX_EVENTS: usize = 1_000;
/// The most that the events of one delivery come to, as JSON: what a mapping repeats in each of them counts each time.
const MAX_EVENTS_BYTES: usize = 8 << 20;
/// The longest answer to a handshake.
const MAX_ANSWER_BYTES: usize = 4_096;

/// What receives a source's deliveries.
pub struct Receiver {
    spec: Arc<InboundSpec>,
    mapping: Arc<Mapping>,
    keys: Vec<Key>,
    /// Options that rows may read.
    options: Value,
    /// Secret options.
    secrets: BTreeMap<String, String>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("mapping", &self.spec.mapping).finish_non_exhaustive()
    }
}

/// Why a delivery that was verified makes no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnderstandError {
    /// The mapping failed.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// There are too many events in it.
    #[error("it holds more than {MAX_EVENTS} events")]
    TooMany,
    /// Together they are too large.
    #[error("its events are larger than {MAX_EVENTS_BYTES} bytes together")]
    TooLarge,
}

/// The events of a delivery while they are made.
struct Made {
    events: Vec<Value>,
    bytes_left: usize,
}

/// What a handshake comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// No rule takes the request.
    None,
    /// The word that the sender showed is not the source's.
    Refused,
    /// To be answered with this.
    Answer(HeaderValue, String),
}

impl Receiver {
    /// Makes a receiver. `keys` are all secrets that are valid or were lately.
    pub fn compile(
        spec: Arc<InboundSpec>,
        mapping: Arc<Mapping>,
        keys: Vec<Key>,
        given: &Given<'_>,
    ) -> Result<Self, Faults> {
        let (options, secrets) = check_source_settings(&spec, given)?;
        let options = options.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        Ok(Self { spec, mapping, keys, options: Value::Object(options), secrets })
    }

    /// What the connector's file says of receiving.
    pub fn spec(&self) -> &InboundSpec {
        &self.spec
    }

    /// Whether the signature stands in the body, so that a form must be read before it is checked.
    pub fn signs_in_body(&self) -> bool {
        self.spec.signatures.iter().any(SignatureSpec::receives_only)
    }

    /// Checks who sent a request. Of several ways the first counts whose parts were all sent. Where the secret is optional
    /// and none is set, anything is taken.
    pub fn verify(&self, received: &Received<'_>, now: Timestamp) -> Result<Verified, VerifyError> {
        if self.keys.is_empty() && self.spec.secret == SecretUse::Optional {
            return Ok(Verified::default());
        }
        let valid = self.keys.iter().filter(|key| key.expires.is_none_or(|expires| expires > now));
        let keys: Vec<&SigningKey> = valid.map(|key| &key.key).collect();
        let mut missing = VerifyError::NoSecret;
        for way in &self.spec.signatures {
            match way.verify(&keys, received, now) {
                Err(error @ VerifyError::Missing { .. }) => missing = error,
                other => return other,
            }
        }
        Err(missing)
    }

    /// What rules and rows read. Of the headers it leaves out what may hold a secret.
    pub fn document(&self, method: &str, query: Value, headers: &HeaderMap, body: Value) -> Value {
        let hidden = |name: &str| {
            [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].iter().any(|known| known == name)
                || self.spec.signatures.iter().any(|way| way.proof_headers().any(|known| known == name))
        };
        let mut shown = Map::new();
        for name in headers.keys().filter(|name| !hidden(name.as_str())) {
            let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            shown.insert(name.as_str().to_owned(), value.into());
        }
        Value::Object(document(method, query, Value::Object(shown), body, self.options.clone()))
    }

    /// What a request that may be a handshake comes to.
    pub fn handshake(&self, method: &Method, document: &Value) -> Result<Greeting, MappingError> {
        let nothing = Context::empty();
        let mut rules = self.spec.handshakes.iter().filter(|rule| rule.method == method);
        let Some(rule) = rules.find(|rule| rule.when.matches(document, &nothing)) else {
            return Ok(Greeting::None);
        };
        if let Some(token) = &rule.token {
            let shown = token.path.find(document).into_iter().next();
            let shown = shown.as_ref().and_then(Value::as_str).unwrap_or_default();
            let known = self.secrets.get(&token.option).map(String::as_str).unwrap_or_default();
            if known.is_empty() || !bool::from(known.as_bytes().ct_eq(shown.as_bytes())) {
                return Ok(Greeting::Refused);
            }
        }
        Ok(match &rule.answer {
            HandshakeAnswer::Text(path, content_type) => match path.find(document).into_iter().next() {
                Some(Value::String(text)) if text.len() <= MAX_ANSWER_BYTES => {
                    Greeting::Answer(content_type.clone(), text)
                }
                Some(Value::Number(number)) => Greeting::Answer(content_type.clone(), number.to_string()),
                _ => Greeting::Refused,
            },
            HandshakeAnswer::Json(rows) => {
                let text = Value::Object(rows.apply(document, &nothing)?).to_string();
                if text.len() > MAX_ANSWER_BYTES {
                    return Ok(Greeting::Refused);
                }
                Greeting::Answer(HeaderValue::from_static("application/json"), text)
            }
        })
    }

    /// What names the delivery, hashed; `None` where nothing does.
    pub fn delivery_id(&self, document: &Value, body: &[u8], verified: &Verified) -> Option<[u8; 32]> {
        match &self.spec.delivery_id {
            DeliveryId::Signed => verified.signed,
            DeliveryId::Body => Some(Sha256::digest(body).into()),
            DeliveryId::Paths(paths) => {
                let scalar = |value: &Value| matches!(value, Value::String(_) | Value::Number(_));
                let found = paths.iter().find_map(|path| path.find(document).into_iter().find(scalar));
                match (&verified.id, found) {
                    // The signed id itself: what stands at a path may be written in several ways.
                    (Some(id), _) => Some(Sha256::digest(id).into()),
                    (None, Some(id)) => Some(Sha256::digest(id.to_string()).into()),
                    // One that names itself by nothing is known by what was signed.
                    (None, None) => verified.signed,
                }
            }
        }
    }

    /// The events of a delivery as plain JSON; none when there is nothing to take.
    pub fn events(&self, mut document: Value, context: &Context<'_>) -> Result<Vec<Value>, UnderstandError> {
        if self.spec.ignore.as_ref().is_some_and(|ignore| ignore.matches(&document, context)) {
            return Ok(Vec::new());
        }
        let mut made = Made { events: Vec::new(), bytes_left: MAX_EVENTS_BYTES };
        self.walk(0, &mut document, context, &mut made)?;
        Ok(made.events)
    }

    /// Goes through the lists of `each` from the `level`-th on.
    fn walk(
        &self,
        level: usize,
        document: &mut Value,
        context: &Context<'_>,
        made: &mut Made,
    ) -> Result<(), UnderstandError> {
        if let Some(each) = self.spec.each.get(level) {
            for item in each.path.find_all(document)? {
                document[each.name.as_str()] = item;
                self.walk(level + 1, document, context, made)?;
            }
            return Ok(());
        }
        if made.events.len() >= MAX_EVENTS {
            return Err(UnderstandError::TooMany);
        }
        let mut event = self.mapping.apply(document, context)?;
        if event.get("type").is_none_or(Value::is_null) {
            return Ok(());
        }
        if !event.contains_key("data") {
            let innermost = self.spec.each.last().map_or("body", |each| each.name.as_str());
            // An item is written anew for the next event, and the body is read once; neither is needed any more.
            let data = document.get_mut(innermost).map(Value::take).unwrap_or_default();
            event.insert("data".to_owned(), data);
        }
        let event = Value::Object(event);
        if !self.spec.each.is_empty() {
            let bytes = measure(&event, made.bytes_left).ok_or(UnderstandError::TooLarge)?;
            made.bytes_left -= bytes;
        }
        made.events.push(event);
        Ok(())
    }
}
