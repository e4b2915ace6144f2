//! A source: a tenant's way in for another system's webhooks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::{MappingChoice, SigningSecret};
use super::id::{SourceId, TenantId};
use super::secret::Sealed;
use super::time::Timestamp;

/// A source as the store keeps it: every secret in it is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its id, and the end of the path that deliveries come to.
    pub id: SourceId,
    /// Whose it is; its events are theirs.
    pub tenant: TenantId,
    /// What a person calls it, at most 100 characters.
    pub name: String,
    /// The connector file that says how to receive, by id.
    pub connector: String,
    /// The agent or bot whose source it is; its events then come from there, and its channel's path leads here too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The agent's channel; the connector's id where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Whether the agent's public chat paths are open for it: visitors' ratings and messages, without a key.
    #[serde(default)]
    pub public: bool,
    /// How a request becomes events.
    #[serde(default)]
    pub mapping: MappingChoice,
    /// The connector's options in clear, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The connector's secret options, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, Sealed>,
    /// Secrets by which deliveries are verified, newest first; older ones count until they expire.
    #[serde(default)]
    pub secrets: Vec<SigningSecret>,
    /// Whether it takes deliveries.
    pub state: SourceState,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

/// Whether a source takes deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SourceState {
    /// Takes them.
    #[default]
    Active,
    /// Sends them away, to come again later.
    Paused {
        /// Since when.
        at: Timestamp,
    },
}

impl Source {
    /// The channel by which its agent's path names it.
    pub fn channel(&self) -> &str {
        self.channel.as_deref().unwrap_or(&self.connector)
    }
}
