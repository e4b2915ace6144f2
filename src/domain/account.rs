//! Who may do what: tenants, and keys with scopes.

use serde::{Deserialize, Serialize};

use super::id::{KeyId, TenantId};
use super::time::Timestamp;

/// One customer of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// The platform's own id for the customer.
    pub id: TenantId,
    /// What a person calls it, at most 100 characters.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send events.
    Publish,
    /// Change connections, and retry deliveries.
    Manage,
    /// Look at connections, events and deliveries.
    Read,
    /// Subscribe to events, and leave again: for programs such as Zapier.
    Subscribe,
}

impl Scope {
    /// Every scope and its name on the wire.
    pub const NAMES: [(&str, Self); 4] = [
        ("publish", Self::Publish),
        ("manage", Self::Manage),
        ("read", Self::Read),
        ("subscribe", Self::Subscribe),
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Manage => "manage",
            Self::Read => "read",
            Self::Subscribe => "subscribe",
        }
    }
}

/// An API key as the store keeps it: the token's hash, never the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The key's public part.
    pub id: KeyId,
    /// The tenant whose things it opens; `None` for an operator's key, which opens everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What it may do; an operator's key may do all.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// What a person calls it, at most 100 characters.
    pub name: String,
    /// SHA-256 of the whole token, hex. Tokens hold 256 random bits, so a slow hash would add nothing.
    pub hash: String,
    /// When it was made.
    pub created: Timestamp,
}

impl ApiKey {
    /// Whether it may do what `scope` says. Whoever may change connections may subscribe.
    pub fn allows(&self, scope: Scope) -> bool {
        self.tenant.is_none()
            || self.scopes.contains(&scope)
            || (scope == Scope::Subscribe && self.scopes.contains(&Scope::Manage))
    }
}
