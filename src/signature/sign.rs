//! Sending: a message and its keys become headers.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::key::{Digest, SigningKey};
use super::spec::{Carrier, SignatureSpec};
use super::template::{Part, Var};
use super::verify::Slot;
use crate::domain::time::Timestamp;

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Stable over the retries of one job.
    pub id: &'a str,
    /// When this attempt is made.
    pub timestamp: Timestamp,
    /// Such as `lead.captured`.
    pub event_type: &'a str,
    /// Upper case, such as `POST`.
    pub method: &'a str,
    /// The whole URL the request goes to.
    pub url: &'a str,
    /// The bytes that are sent.
    pub body: &'a [u8],
}

/// What stands in place of the placeholders.
pub(super) struct Values<'a> {
    pub(super) id: &'a str,
    pub(super) timestamp: &'a str,
    pub(super) timestamp_ms: &'a str,
    pub(super) event_type: &'a str,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) body: &'a [u8],
}

/// A signature and what made it.
enum Made {
    Digest(Digest),
    Ed25519(Digest),
}

impl<'a> Values<'a> {
    fn of(&self, var: Var) -> &'a [u8] {
        match var {
            Var::Id => self.id.as_bytes(),
            Var::Timestamp => self.timestamp.as_bytes(),
            Var::TimestampMs => self.timestamp_ms.as_bytes(),
            Var::EventType => self.event_type.as_bytes(),
            Var::Method => self.method.as_bytes(),
            Var::Url => self.url.as_bytes(),
            Var::Body => self.body,
            Var::Secret | Var::Signature | Var::Digest | Var::Ed25519 => &[],
        }
    }
}

impl SignatureSpec {
    /// The headers for `message`, in the spec's order. `keys` are the active ones, newest first: with `join`
    /// each signs, otherwise the newest alone. Without keys the headers that need one are left out. A key made
    /// by a spec of another kind is passed over. Signatures by ed25519 keys stand after the others.
    pub fn sign(&self, keys: &[&SigningKey], message: &Message<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let id = self.clean(message.id);
        let event_type = self.clean(message.event_type);
        let values = Values {
            id: &id,
            timestamp: &message.timestamp.seconds().to_string(),
            timestamp_ms: &message.timestamp.millis().to_string(),
            event_type: &event_type,
            method: message.method,
            url: message.url,
            body: message.body,
        };
        let signing = if self.join.is_some() { keys } else { &keys[..keys.len().min(1)] };
        let mut digests: Vec<Made> =
            signing.iter().filter_map(|key| self.digest(key, &values)).map(Made::Digest).collect();
        // Receivers that know only the symmetric ones find theirs first.
        if self.ed25519_format.is_some() {
            let signed = signing.iter().filter_map(|key| key.ed25519_sign(|| self.content_bytes(&values)));
            digests.extend(signed.map(Made::Ed25519));
        }
        let secret = keys.iter().find_map(|key| key.secret());
        let mut headers = Vec::with_capacity(self.carriers.len());
        for carrier in &self.carriers {
            if let Slot::Header(name) = &carrier.slot
                && let Some(value) = self.header(carrier, &values, &digests, secret)
            {
                headers.push((name.clone(), value));
            }
        }
        headers
    }

    pub(super) fn digest(&self, key: &SigningKey, values: &Values<'_>) -> Option<Digest> {
        key.digest(self.content.parts().iter().map(|part| match part {
            Part::Literal(text) => text.as_bytes(),
            Part::Value(var) => values.of(*var),
        }))
    }

    /// What is signed, in one piece.
    pub(super) fn content_bytes(&self, values: &Values<'_>) -> Vec<u8> {
        let pieces = self.content.parts().iter().map(|part| match part {
            Part::Literal(text) => text.as_bytes(),
            Part::Value(var) => values.of(*var),
        });
        pieces.collect::<Vec<_>>().concat()
    }

    /// SHA-256 over what is signed.
    pub(super) fn content_digest(&self, values: &Values<'_>) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in self.content.parts() {
            match part {
                Part::Literal(text) => hash.update(text.as_bytes()),
                Part::Value(var) => hash.update(values.of(*var)),
            }
        }
        hash.finalize().into()
    }

    fn header(
        &self,
        carrier: &Carrier,
        values: &Values<'_>,
        digests: &[Made],
        secret: Option<&str>,
    ) -> Option<HeaderValue> {
        // Room for one SHA-256 signature and a timestamp, the most frequent header.
        let mut text = String::with_capacity(96);
        for part in carrier.template.parts() {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value(Var::Secret) => text.push_str(secret?),
                Part::Value(Var::Signature) if digests.is_empty() => return None,
                Part::Value(Var::Signature) => self.write_signatures(digests, &mut text),
                Part::Value(var) => text.push_str(std::str::from_utf8(values.of(*var)).unwrap_or_default()),
            }
        }
        // Literals, ids, event types and secrets were all checked or cleaned, so this is always a header value.
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(carrier.template.has(Var::Secret) || carrier.template.has(Var::Signature));
        Some(value)
    }

    fn write_signatures(&self, digests: &[Made], text: &mut String) {
        for (index, made) in digests.iter().enumerate() {
            if index > 0 {
                text.push_str(self.join.as_deref().unwrap_or_default());
            }
            let (digest, format) = match made {
                Made::Digest(digest) => (digest, &self.format),
                Made::Ed25519(digest) => (digest, self.ed25519_format.as_ref().unwrap_or(&self.format)),
            };
            for part in format.parts() {
                match part {
                    Part::Literal(literal) => text.push_str(literal),
                    Part::Value(_) => self.encoding.write(digest, text),
                }
            }
        }
    }

    /// `text` as one word of visible ASCII in which a reader finds no end before its end.
    fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let fits = |letter: char| letter.is_ascii_graphic() && !self.id_stops.contains(letter);
        if text.is_empty() {
            Cow::Borrowed("?")
        } else if text.chars().all(fits) {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.chars().map(|letter| if fits(letter) { letter } else { '?' }).collect())
        }
    }
}
