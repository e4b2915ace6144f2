//! A connection: a tenant's use of a connector.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::EventPattern;
use super::history::StateChange;
use super::id::{ConnectionId, TenantId};
use super::policy::PolicyOverrides;
use super::secret::Sealed;
use super::subscription::Subscription;
use super::time::Timestamp;

/// A connection as the store keeps it: every secret in it is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Its id, and its lane's.
    pub id: ConnectionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What a person calls it, at most 100 characters.
    pub name: String,
    /// The connector file it uses, by id.
    pub connector: String,
    /// The events it wants; at least one pattern.
    pub events: Vec<EventPattern>,
    /// A condition that an event must meet (the grammar of a mapping's `when`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// How an event becomes what is sent.
    #[serde(default)]
    pub mapping: MappingChoice,
    /// Where it goes.
    pub target: Target,
    /// The connector's options in clear, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What it shows the other side to be let in, and the connector's secret options, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, Sealed>,
    /// Signing secrets, newest first; older ones are used beside it until they expire.
    #[serde(default)]
    pub signing: Vec<SigningSecret>,
    /// What it changes of its connector's policy.
    #[serde(default)]
    pub policy: PolicyOverrides,
    /// How many attempts may be under way at once: the policy's, resolved when saved, for the lane.
    pub concurrency: u32,
    /// How many jobs one attempt may take: the policy's, resolved when saved, for the lane. With more than 1 the lane is
    /// strict, whatever `concurrency` says.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub batch: u32,
    /// Whether it delivers.
    pub state: ConnectionState,
    /// The changes of its state, newest last; at most [`KEPT_CHANGES`](super::history::KEPT_CHANGES).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<StateChange>,
    /// The gateway had stopped it, and since it was resumed nothing was delivered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// Its jobs that were made before this time are not wanted: its lane gives nothing until the store has cancelled them
    /// all, and then the store takes this away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwanted_before: Option<Timestamp>,
    /// What makes it a subscription; `None` where a person made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Subscription>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(batch: &u32) -> bool {
    *batch == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Why a job was cancelled that was made before [`Connection::unwanted_before`].
pub fn unwanted(before: Timestamp) -> String {
    format!(
        "it was made before {before}, and whoever resumed its connection did not want it; it can be replayed"
    )
}

/// Which mapping renders a connection's events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingChoice {
    /// The connector's own default.
    #[default]
    Default,
    /// One of the catalogue, by name.
    Named(String),
    /// The connection's own, in its JSON form.
    Inline(Value),
}

/// Where deliveries go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The endpoint; empty where the connector's file says where requests go.
    pub url: String,
    /// Custom headers by lower-case name; values may hold secrets, so all are sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Sealed>,
}

/// One signing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningSecret {
    /// The secret, sealed.
    pub sealed: Sealed,
    /// When it stops being used; `None` for the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Whether a connection delivers, and if not, why, since when and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ConnectionState {
    /// Delivers.
    #[default]
    Active,
    /// Keeps its jobs and sends none until it is resumed.
    Paused {
        /// Why, in plain words.
        reason: String,
        /// `person`, or what of the gateway did it (`auth_failed`, `retries_ended`, `breaker`).
        by: String,
        /// Since when.
        at: Timestamp,
    },
    /// The endpoint is gone: takes no more jobs, and those it had are cancelled.
    Closed {
        /// Why, in plain words.
        reason: String,
        /// Since when.
        at: Timestamp,
    },
}

impl ConnectionState {
    /// Whether its lane gives out jobs.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active)
    }

    /// Whether new events make jobs for it: a paused one keeps them for later.
    pub fn takes_jobs(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }
}
