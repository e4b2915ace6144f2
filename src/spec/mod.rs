//! Connector and mapping files become one checked [`Catalogue`].
//!
//! A connector is data: one TOML file says what a system is sent, how it is signed, when to try again and what
//! its answers mean. Whatever lies in the folders `connectors/` and `mappings/` is compiled in; a folder of the
//! operator's own adds to it and overrides by name. A new system needs no line of Rust.
//!
//! # A connector file, `connectors/<id>.toml`
//! | key | what it says | when left out |
//! |---|---|---|
//! | `version` | the format's version, 1 | a fault |
//! | `id` | the file's name | a fault |
//! | `name`, `description` | for people | a fault |
//! | `docs` | where the system's own documentation is, `https://…` | nothing |
//! | `mapping` | the default mapping's name | a fault |
//! | `secret` | `required` (made when none is given), `optional`, `none` | `required` when the signature needs one, else `none` |
//! | `[[events]]` | `type`, `description`, `sample` (a file of `connectors/samples/`) for each type the system names | any type |
//! | `[request]` | `method` (`POST`, `PUT`, `PATCH`), `content_type` (`json`), `reserved_headers`, `reserved_fields` | `POST`, `json`, none |
//! | `[request.headers]` | name -> value over `{event_type}`, `{event_id}`, `{job_id}` | none |
//! | `[signature]` | see [`crate::signature`] | unsigned |
//! | `[policy]` | `timeout_secs`, `retry_delays_secs`, `jitter_percent`, `concurrency` | [`DeliveryPolicy::default`] |
//! | `[[answer]]` | ordered rules that turn an answer into an outcome, see [`answer`] | the default rules |
//!
//! # What holds
//! - Unknown keys are refused, and all faults of all files are told at once.
//! - A file is at most 1 MiB, and there are at most 2,000 of them.
//! - What a [`Catalogue`] hands out was checked against the rest of it: a connector's default mapping exists and
//!   writes none of its reserved fields.

pub mod answer;
mod catalogue;
mod files;
pub mod header;
mod policy;
mod read;

use sha2::{Digest, Sha256};

use crate::domain::event::EventPattern;
use crate::domain::fault::{Fault, Faults};
use crate::domain::id::MappingVersion;
use crate::domain::policy::DeliveryPolicy;
use crate::mapping::Mapping;
use crate::signature::SignatureSpec;

pub use answer::{AnswerRule, AnswerRules, StatusSet};
pub use catalogue::Catalogue;
pub use header::{HeaderTemplate, Names};
pub use policy::check_overrides;

use http::{HeaderName, Method};

/// One connector file, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectorSpec {
    /// Its name everywhere: lower-case letters, digits and underscores, at most 64.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// What it is for, in a sentence or two.
    pub description: String,
    /// Where the system's own documentation is.
    pub docs: Option<String>,
    /// The event types it names; empty when any will do.
    pub events: Vec<EventSpec>,
    /// What is sent.
    pub request: RequestSpec,
    /// The name of the mapping that is used where a connection names none.
    pub mapping: String,
    /// How requests are signed.
    pub signature: SignatureSpec,
    /// Whether a connection has a secret.
    pub secret: SecretUse,
    /// Time limit, retries and concurrency, where a connection says nothing else.
    pub policy: DeliveryPolicy,
    /// What answers mean.
    pub answer: AnswerRules,
}

/// An event type that a connector names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSpec {
    /// The types it stands for: most name one, such as `lead.captured`.
    pub pattern: EventPattern,
    /// When it happens.
    pub description: String,
    /// The type of the sample event that shows it, a key of [`Catalogue::samples`].
    pub sample: Option<String>,
}

/// What a connector's requests look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSpec {
    /// `POST`, `PUT` or `PATCH`.
    pub method: Method,
    /// How the mapped fields become bytes.
    pub content_type: ContentType,
    /// Headers that every request has.
    pub headers: Vec<(HeaderName, HeaderTemplate)>,
    /// Headers that a connection may not set: the fixed ones, the signature's, and those stated. What HTTP itself
    /// reserves is not listed, see [`header::reserved_by_http`].
    pub reserved_headers: Vec<HeaderName>,
    /// Top-level fields that a mapping may not write.
    pub reserved_fields: Vec<String>,
}

/// How the mapped fields become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
}

impl ContentType {
    /// The header's value.
    pub fn header_value(self) -> &'static str {
        match self {
            Self::Json => "application/json",
        }
    }
}

/// Whether a connection has a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretUse {
    /// Always; one is made when none is given.
    Required,
    /// Where one is given; without it requests are unsigned.
    Optional,
    /// Never; one that is given is refused.
    None,
}

impl ConnectorSpec {
    /// Whether the mapping may be used with this connector: every row that writes a reserved field is a fault.
    pub fn check_mapping(&self, mapping: &Mapping) -> Result<(), Faults> {
        let mut faults = Faults::default();
        for (target, place) in mapping.targets() {
            let top = target.split('.').next().unwrap_or(target);
            if self.request.reserved_fields.iter().any(|reserved| reserved == top) {
                faults.push(Fault {
                    place: place.clone(),
                    message: format!("\"{top}\" is written by the connector \"{}\" itself", self.id),
                    hint: Some(format!(
                        "choose another name; reserved: {}",
                        self.request.reserved_fields.join(", ")
                    )),
                });
            }
        }
        faults.into_result(())
    }
}

/// The version of a mapping: the first 128 bits of the SHA-256 over its JSON, in the order in which it was written.
/// The order is part of it because it is the order of what the mapping makes.
pub fn mapping_version(mapping: &Mapping) -> MappingVersion {
    let digest = Sha256::digest(mapping.to_json().to_string());
    let mut bits = [0; 16];
    bits.copy_from_slice(&digest[..16]);
    MappingVersion::from_bits(u128::from_be_bytes(bits))
}

#[cfg(test)]
mod tests;
