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
//! | `kind` | how it is spoken to: `http`, by what stands here, or `google_sheets`, which takes no `[request]`, `[[steps]]`, `[[auth]]`, `[signature]`, `[envelope]`, `[[answer]]` or `[extract]` | `http` |
//! | `mapping` | the default mapping's name | a fault, but for a file that only receives |
//! | `secret` | `required` (made when none is given), `optional`, `none` | `required` when the signature needs one, else `none` |
//! | `[[events]]` | `type`, `description`, `sample` (a file of `connectors/samples/`) and `alias` (what the system calls it) for each type the system names | any type |
//! | `[[options]]` | what it asks of each connection, see `option` | nothing |
//! | `[[auth]]` | how a connection shows who it is, see [`auth`] | no credentials |
//! | `[[target]]` | the fields that the system knows, see [`TargetSchema`] | any fields |
//! | `[request]` | `url` (over `{url}`, the connection's own, and the options), `method` (`POST`, `PUT`, `PATCH`, `GET`), `content_type` (`json`, `form`, `query`), `reserved_headers`, `reserved_fields`, `max_bytes` of a body | `{url}`, `POST`, `json`, none, none, any |
//! | `[request.query]` | name -> value over the options | none |
//! | `[request.headers]` | name -> value over `{event_type}`, `{event_id}`, `{job_id}` and the options | none |
//! | `[envelope]` | what stands around the mapped fields or beside them, see [`envelope`] | the mapped fields alone |
//! | `[[steps]]` | requests that go first, whose answers feed the last one, see [`step`] | one request |
//! | `[signature]` | see [`crate::signature`] | unsigned |
//! | `[policy]` | `timeout_secs`; `retry_delays_secs`, or `retry_exponential`; `when_retries_end` (`dead`, `drop_and_log`, `deactivate`), `jitter_percent`, `concurrency`, and for kinds that take several events at once `batch` | [`DeliveryPolicy::default`] |
//! | `[[answer]]` | ordered rules that turn an answer into an outcome, see [`answer`] | the default rules |
//! | `[[limits]]` | how many requests the system takes, see [`limit`] | as many as there are |
//! | `[subscription]` | what holds for those who subscribe by themselves, see [`subscription`] | connections are made by people |
//! | `[in]` | what it receives, see [`inbound`]; a file with `[in]` and without `mapping` only receives | it only sends |
//! | `[extract]` | the message, the id and the wait that an answer tells, see [`extract`] | nothing |
//!
//! # What holds
//! - Unknown keys are refused, and all faults of all files are told at once.
//! - A file is at most 1 MiB, and there are at most 2,000 of them.
//! - What a [`Catalogue`] hands out was checked against the rest of it: a connector's default mapping exists and
//!   writes none of its reserved fields.

pub mod answer;
pub mod auth;
mod catalogue;
mod conditions;
pub mod envelope;
pub mod extract;
mod files;
pub mod header;
pub mod inbound;
pub mod limit;
pub mod option;
mod policy;
mod read;
pub mod request;
mod rows;
mod schema;
pub mod step;
pub mod subscription;
mod template;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::event::EventPattern;
use crate::domain::fault::{Fault, Faults};
use crate::domain::id::MappingVersion;
use crate::domain::policy::DeliveryPolicy;
use crate::mapping::{Mapping, TargetSchema};
use crate::signature::SignatureSpec;

pub use answer::{AnswerRule, AnswerRules, Judgement, Seen, StatusSet};
pub use auth::{AuthKind, AuthPlace, AuthSpec, Grant, OAuthSpec};
pub use catalogue::Catalogue;
pub use envelope::{Envelope, FIELDS};
pub use extract::Extract;
pub use files::{Stamp, case_files};
pub use header::{HeaderTemplate, Names};
pub use inbound::InboundSpec;
pub use limit::LimitSpec;
pub use option::OptionSpec;
pub use policy::check_overrides;
pub use request::{CallSpec, ContentType, RequestSpec};
pub use rows::BodyPath;
pub use schema::schemas;
pub use step::StepSpec;
pub use subscription::{Again, SubscriptionSpec};

/// One connector file, checked.
#[derive(Debug, PartialEq)]
pub struct ConnectorSpec {
    /// Its name everywhere: lower-case letters, digits and underscores, at most 64.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// What it is for, in a sentence or two.
    pub description: String,
    /// How it is spoken to.
    pub kind: ConnectorKind,
    /// Where the system's own documentation is.
    pub docs: Option<String>,
    /// The event types it names; empty when any will do.
    pub events: Vec<EventSpec>,
    /// What it asks of each connection.
    pub options: Vec<OptionSpec>,
    /// How a connection may show who it is; empty when it needs not.
    pub auth: Vec<AuthSpec>,
    /// What is sent.
    pub request: RequestSpec,
    /// What is sent before it, in order.
    pub steps: Vec<StepSpec>,
    /// What stands around the mapped fields or beside them.
    pub envelope: Option<Envelope>,
    /// The fields that the system knows.
    pub target: TargetSchema,
    /// The name of the mapping that is used where a connection names none; empty where it only receives.
    pub mapping: String,
    /// How requests are signed.
    pub signature: SignatureSpec,
    /// Whether a connection has a secret.
    pub secret: SecretUse,
    /// Time limit, retries and concurrency, where a connection says nothing else.
    pub policy: DeliveryPolicy,
    /// What answers mean.
    pub answer: AnswerRules,
    /// What else they tell.
    pub extract: Extract,
    /// How many requests the system takes, the widest limit first.
    pub limits: Vec<LimitSpec>,
    /// How subscriptions behave; `None` where people alone make connections.
    pub subscription: Option<SubscriptionSpec>,
    /// What it receives, where it does.
    pub inbound: Option<Arc<InboundSpec>>,
}

/// How a system is spoken to. [`crate::connector::Outlet`] has the code of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectorKind {
    /// Requests that the file describes.
    #[default]
    Http,
    /// Rows in a Google sheet.
    GoogleSheets,
}

impl ConnectorKind {
    /// Every kind with its name in a file.
    pub const ALL: &[(&str, Self)] = &[("http", Self::Http), ("google_sheets", Self::GoogleSheets)];

    /// The name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::GoogleSheets => "google_sheets",
        }
    }
}

/// An event type that a connector names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSpec {
    /// The types it stands for: most name one, such as `lead.captured`.
    pub pattern: EventPattern,
    /// What the system calls it, where that is not the type.
    pub alias: Option<String>,
    /// When it happens.
    pub description: String,
    /// The type of the sample event that shows it, a key of [`Catalogue::samples`].
    pub sample: Option<String>,
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
    /// Whether a connection says where requests go; else the file does.
    pub fn needs_target(&self) -> bool {
        let calls = self.kind == ConnectorKind::Http && self.sends();
        calls && (self.request.call.needs_target() || self.steps.iter().any(|step| step.call.needs_target()))
    }

    /// The names that a connection's credentials may have: those of every way to be let in, and the secret options.
    pub fn credential_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.auth.iter().flat_map(|way| way.credentials().iter().copied()).collect();
        names.extend(self.options.iter().filter(|option| option.secret).map(|option| option.name.as_str()));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether the mapping may be used with this connector: every row that writes a reserved field is a fault, and so is
    /// a required field that no row writes.
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
        for Fault { mut place, message, hint } in self.target.check(mapping) {
            // What no row does has no place of its own, but it is in the same file.
            place.file = place.file.or_else(|| mapping.targets().find_map(|(_, place)| place.file.clone()));
            faults.push(Fault { place, message, hint });
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
