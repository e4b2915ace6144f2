//! The spec itself: what it holds, and its secrets and keys.

use http::HeaderName;

use super::key::{Encoding, Hash, KeyForm, SigningKey, header_fault, is_ed25519};
use super::template::{Template, Var};
use super::verify::Slot;
use super::{SignatureError, parse};
use crate::domain::document::TableReader;

const DEFAULT_TOLERANCE_SECS: u64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    None,
    SharedSecret,
    Bearer,
    Hmac(Hash),
}

/// One header or body field and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) slot: Slot,
    pub(super) template: Template,
    /// The template as it is read: cut at the joiner where it is a list, and each signature in its format.
    pub(super) items: Vec<Template>,
    /// What cuts the items, where this is a list; a space is any number of spaces.
    pub(super) separator: Option<String>,
    /// Whether the check needs it.
    pub(super) required: bool,
    /// The form for a person.
    pub(super) shape: String,
}

/// How a system's messages are signed and verified; see the module's documentation for its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSpec {
    pub(super) algorithm: Algorithm,
    pub(super) key_form: KeyForm,
    pub(super) content: Template,
    pub(super) encoding: Encoding,
    pub(super) format: Template,
    /// One signature by an ed25519 key, where the spec has them.
    pub(super) ed25519_format: Option<Template>,
    pub(super) join: Option<String>,
    pub(super) tolerance_secs: u64,
    pub(super) carriers: Vec<Carrier>,
    /// Characters at which a reader would take an id to end.
    pub(super) id_stops: String,
}

impl SignatureSpec {
    /// Reads a `[signature]` table. All that is wrong goes to the table's faults, and the answer is then `None`.
    pub fn parse(mut table: TableReader<'_>) -> Option<Self> {
        let before = table.faults().len();
        let spec = parse::read(&mut table);
        let sound = table.faults().len() == before;
        table.finish();
        spec.filter(|_| sound)
    }

    /// Nothing is signed and anything is taken.
    pub fn none() -> Self {
        Self {
            algorithm: Algorithm::None,
            key_form: KeyForm::Utf8,
            content: Template::default(),
            encoding: Encoding::Hex,
            format: Template::default(),
            ed25519_format: None,
            join: None,
            tolerance_secs: DEFAULT_TOLERANCE_SECS,
            carriers: Vec::new(),
            id_stops: String::new(),
        }
    }

    /// Whether there is nothing to sign or verify with until a secret is set.
    pub fn needs_secret(&self) -> bool {
        self.algorithm != Algorithm::None
    }

    /// Whether the signature is in the body, which can be verified but not sent.
    pub fn receives_only(&self) -> bool {
        self.carriers.iter().any(|carrier| matches!(carrier.slot, Slot::Field(_)))
    }

    /// Whether `secret` has the form that the spec asks of who sends; the reason never shows the secret.
    pub fn check_secret(&self, secret: &str) -> Result<(), String> {
        let key = self.key(secret).map_err(|error| error.to_string())?;
        if key.is_public() { Err("a public key can't sign; give the private one".to_owned()) } else { Ok(()) }
    }

    /// Whether a key of the other spec is one of this, so that both can be alternatives.
    pub fn shares_keys_with(&self, other: &Self) -> bool {
        (self.algorithm, self.key_form, self.ed25519_format.is_some())
            == (other.algorithm, other.key_form, other.ed25519_format.is_some())
    }

    /// A new secret of the spec's form that holds `random`, which must be fit for secrets.
    pub fn generate_secret(&self, random: [u8; 32]) -> String {
        self.key_form.encode(random)
    }

    /// Decodes a secret, once for all messages.
    pub fn key(&self, secret: &str) -> Result<SigningKey, SignatureError> {
        match self.algorithm {
            Algorithm::None => {
                Err(SignatureError::Secret("messages are not signed, so there is no secret".to_owned()))
            }
            Algorithm::SharedSecret | Algorithm::Bearer => match header_fault(secret) {
                Some(reason) => Err(SignatureError::Secret(reason)),
                None => Ok(SigningKey::text(secret)),
            },
            Algorithm::Hmac(_) if self.ed25519_format.is_some() && is_ed25519(secret) => {
                SigningKey::ed25519(secret).map_err(SignatureError::Secret)
            }
            Algorithm::Hmac(hash) => {
                let bytes = self.key_form.decode(secret).map_err(SignatureError::Secret)?;
                SigningKey::hmac(hash, &bytes)
                    .ok_or_else(|| SignatureError::Secret("the secret's length does not fit".to_owned()))
            }
        }
    }

    /// The headers that carry a signature or a secret.
    pub fn proof_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.carriers.iter().filter_map(|carrier| match &carrier.slot {
            Slot::Header(name)
                if carrier.template.has(Var::Signature) || carrier.template.has(Var::Secret) =>
            {
                Some(name)
            }
            _ => None,
        })
    }

    /// The headers the spec writes, in lower case: no other part of a request may use them.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        self.carriers.iter().filter_map(|carrier| match &carrier.slot {
            Slot::Header(name) => Some(name.as_str()),
            Slot::Field(_) => None,
        })
    }
}
