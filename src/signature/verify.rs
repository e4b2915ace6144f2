//! Receiving: the spec's templates are read backwards and what they carry is checked.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;
use subtle::{Choice, ConstantTimeEq};

use super::key::{Digest, SigningKey};
use super::sign::Values;
use super::spec::{Algorithm, Carrier, SignatureSpec};
use super::template::{Template, Var};
use crate::domain::time::Timestamp;

/// Most items of one header that are looked at.
const MAX_ITEMS: usize = 32;

/// Most digits of a timestamp: all that fit an `i64`.
const MAX_TIMESTAMP_DIGITS: usize = 18;

/// A request as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Upper case, such as `POST`.
    pub method: &'a str,
    /// The whole URL as the sender knows it.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body's bytes before anyone parsed them.
    pub body: &'a [u8],
    /// The body's fields where it is a form of several parts; other bodies are read here.
    pub form: Option<&'a [(String, String)]>,
}

/// Where a part of a signature is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// In this header.
    Header(HeaderName),
    /// In this form field of the body, or under this path of JSON keys, joined by dots.
    Field(String),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Field(path) => write!(f, "body field {path}"),
        }
    }
}

/// What a verified message says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The message's id, where the spec carries one.
    pub id: Option<String>,
    /// Seconds since 1970, where the spec carries a timestamp.
    pub timestamp: Option<i64>,
    /// SHA-256 over what was signed; `None` where nothing is. A replay has the same, however its headers are written.
    pub signed: Option<[u8; 32]>,
}

/// Why a message is not taken, for the engineer who sends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The spec needs a secret and there is no key.
    #[error("no secret is set, so nothing can be verified")]
    NoSecret,
    /// What the check needs was not sent.
    #[error("{slot} is missing")]
    Missing {
        /// What is missing.
        slot: Slot,
    },
    /// It was sent, in another form or twice.
    #[error("{slot} is malformed: expected {expected}")]
    Malformed {
        /// What is malformed.
        slot: Slot,
        /// The form it should have, such as `sha256=<hex digest>`.
        expected: String,
    },
    /// Signed too long ago.
    #[error("signed {by_secs} s ago, and at most {tolerance_secs} s are allowed: a replay, or a wrong clock")]
    TooOld {
        /// Age in seconds.
        by_secs: u64,
        /// The spec's limit in seconds.
        tolerance_secs: u64,
    },
    /// Signed in the future.
    #[error("signed {by_secs} s in the future, and at most {tolerance_secs} s are allowed: a wrong clock")]
    TooNew {
        /// How far ahead, in seconds.
        by_secs: u64,
        /// The spec's limit in seconds.
        tolerance_secs: u64,
    },
    /// Nothing that was sent fits any active secret.
    #[error(
        "the signature fits no active secret: check the secret, and that the body's own bytes were signed"
    )]
    Mismatch,
}

/// What was read, as it was written.
#[derive(Default)]
struct Found<'t> {
    id: Option<&'t str>,
    timestamp: Option<&'t str>,
    timestamp_ms: Option<&'t str>,
    /// Signatures' digests.
    digests: Vec<Digest>,
    /// Signatures by ed25519.
    ed25519: Vec<Digest>,
    secrets: Vec<&'t str>,
}

impl<'t> Found<'t> {
    /// What the content is made of.
    fn values<'v>(&self, received: &Received<'v>) -> Values<'v>
    where
        't: 'v,
    {
        Values {
            id: self.id.unwrap_or_default(),
            timestamp: self.timestamp.unwrap_or_default(),
            timestamp_ms: self.timestamp_ms.unwrap_or_default(),
            event_type: "",
            method: received.method,
            url: received.url,
            body: received.body,
        }
    }
}

impl SignatureSpec {
    /// Checks a request against every key in `keys`, at the time `now`. An unsigned spec takes any request
    /// that has the form of its headers. A key made by a spec of another kind never fits.
    pub fn verify(
        &self,
        keys: &[&SigningKey],
        received: &Received<'_>,
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        if self.needs_secret() && keys.is_empty() {
            return Err(VerifyError::NoSecret);
        }
        let fields = self.receives_only().then(|| Fields::of(received));
        let mut texts = Vec::with_capacity(self.carriers.len());
        for carrier in &self.carriers {
            match carrier.text(received.headers, fields.as_ref())? {
                Some(text) => texts.push((carrier, text)),
                None if carrier.required => return Err(VerifyError::Missing { slot: carrier.slot.clone() }),
                None => {}
            }
        }
        let mut found = Found::default();
        for (carrier, text) in &texts {
            self.read(carrier, text, &mut found)?;
        }
        let seconds: Option<i64> = found.timestamp.and_then(|text| text.parse().ok());
        let millis: Option<i64> = found.timestamp_ms.and_then(|text| text.parse().ok());
        let from_millis = millis.map(|millis| millis.div_euclid(1_000));
        for timestamp in [seconds, from_millis].into_iter().flatten() {
            self.check_age(timestamp, now)?;
        }
        let values = found.values(received);
        if self.needs_secret() && !bool::from(self.fits(keys, &found, &values)) {
            return Err(VerifyError::Mismatch);
        }
        Ok(Verified {
            id: found.id.map(str::to_owned),
            timestamp: seconds.or(from_millis),
            signed: matches!(self.algorithm, Algorithm::Hmac(_)).then(|| self.content_digest(&values)),
        })
    }

    /// Takes what one header carries.
    fn read<'t>(&self, carrier: &Carrier, text: &'t str, found: &mut Found<'t>) -> Result<(), VerifyError> {
        let mut seen = Vec::with_capacity(carrier.items.len());
        for piece in carrier.pieces(text) {
            let any_case = self.algorithm == Algorithm::Bearer;
            let captures = carrier.items.iter().find_map(|item| item.read(piece, any_case));
            for (var, value) in captures.into_iter().flatten() {
                match var {
                    Var::Id if value.contains(|letter: char| self.id_stops.contains(letter)) => {
                        return Err(carrier.malformed());
                    }
                    Var::Timestamp | Var::TimestampMs if !is_timestamp(value) => {
                        return Err(carrier.malformed());
                    }
                    Var::Id => found.id = found.id.or(Some(value)),
                    Var::Timestamp => found.timestamp = found.timestamp.or(Some(value)),
                    Var::TimestampMs => found.timestamp_ms = found.timestamp_ms.or(Some(value)),
                    Var::Secret => found.secrets.push(value),
                    Var::Digest => match self.encoding.read(value) {
                        Some(digest) => found.digests.push(digest),
                        None => continue,
                    },
                    Var::Ed25519 => match self.encoding.read(value) {
                        Some(signature) => found.ed25519.push(signature),
                        None => continue,
                    },
                    _ => {}
                }
                // A signature of either kind is one.
                seen.push(if var == Var::Ed25519 { Var::Digest } else { var });
            }
        }
        let mut wanted = carrier.items.iter().flat_map(Template::vars).filter(|var| *var != Var::Ed25519);
        if wanted.all(|var| seen.contains(&var)) { Ok(()) } else { Err(carrier.malformed()) }
    }

    fn check_age(&self, timestamp: i64, now: Timestamp) -> Result<(), VerifyError> {
        let age = now.seconds().saturating_sub(timestamp);
        let (by_secs, tolerance_secs) = (age.unsigned_abs(), self.tolerance_secs);
        if by_secs <= tolerance_secs {
            Ok(())
        } else if age > 0 {
            Err(VerifyError::TooOld { by_secs, tolerance_secs })
        } else {
            Err(VerifyError::TooNew { by_secs, tolerance_secs })
        }
    }

    /// Whether any key fits anything found; all are tried, so that time tells nothing.
    fn fits(&self, keys: &[&SigningKey], found: &Found<'_>, values: &Values<'_>) -> Choice {
        let mut fits = Choice::from(0);
        let content = if found.ed25519.is_empty() { Vec::new() } else { self.content_bytes(values) };
        for key in keys {
            for signature in &found.ed25519 {
                fits |= Choice::from(u8::from(key.ed25519_fits(&content, signature) == Some(true)));
            }
            if let Some(expected) = self.digest(key, values) {
                for digest in &found.digests {
                    fits |= expected.ct_eq(digest);
                }
            } else if let Some(expected) = key.secret() {
                for secret in &found.secrets {
                    fits |= expected.as_bytes().ct_eq(secret.as_bytes());
                }
            }
        }
        fits
    }
}

impl Carrier {
    fn malformed(&self) -> VerifyError {
        VerifyError::Malformed { slot: self.slot.clone(), expected: self.shape.clone() }
    }

    /// The slot's text in a request; `None` when it is not there.
    fn text<'r>(
        &self,
        headers: &'r HeaderMap,
        fields: Option<&'r Fields<'_>>,
    ) -> Result<Option<Cow<'r, str>>, VerifyError> {
        match &self.slot {
            Slot::Field(path) => Ok(fields.and_then(|fields| fields.get(path))),
            Slot::Header(name) => {
                let mut values = headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (None, _) => Ok(None),
                    (Some(value), None) => match value.to_str() {
                        Ok(text) => Ok(Some(Cow::Borrowed(text.trim_ascii()))),
                        Err(_) => Err(self.malformed()),
                    },
                    (Some(_), Some(_)) => Err(VerifyError::Malformed {
                        slot: self.slot.clone(),
                        expected: "it once, found it twice".to_owned(),
                    }),
                }
            }
        }
    }

    /// The items of a list, or the whole text.
    fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self.separator.as_deref() {
            None => vec![text],
            Some(" ") => text.split_ascii_whitespace().take(MAX_ITEMS).collect(),
            Some(separator) => text.split(separator).map(str::trim_ascii).take(MAX_ITEMS).collect(),
        }
    }
}

fn is_timestamp(text: &str) -> bool {
    text.len() <= MAX_TIMESTAMP_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A body, parsed for specs that sign in it.
enum Fields<'a> {
    Form(Vec<(Cow<'a, str>, Cow<'a, str>)>),
    Json(Value),
    Neither,
}

impl<'a> Fields<'a> {
    fn of(received: &Received<'a>) -> Self {
        const FORM: &str = "application/x-www-form-urlencoded";
        if let Some(form) = received.form {
            let borrowed = |(name, value): &'a (String, String)| {
                (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str()))
            };
            return Self::Form(form.iter().map(borrowed).collect());
        }
        let media_type = received.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let start = media_type.and_then(|text| text.get(..FORM.len()));
        if start.is_some_and(|start| start.eq_ignore_ascii_case(FORM)) {
            return Self::Form(url::form_urlencoded::parse(received.body).collect());
        }
        serde_json::from_slice(received.body).map_or(Self::Neither, Self::Json)
    }

    /// A form's field, or what is under a path of JSON keys when it is a text or a number.
    fn get(&self, path: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Form(pairs) => {
                let pair = pairs.iter().find(|(name, _)| name == path)?;
                Some(Cow::Borrowed(&pair.1))
            }
            Self::Json(document) => match path.split('.').try_fold(document, |value, key| value.get(key))? {
                Value::String(text) => Some(Cow::Borrowed(text)),
                Value::Number(number) => Some(Cow::Owned(number.to_string())),
                _ => None,
            },
            Self::Neither => None,
        }
    }
}
