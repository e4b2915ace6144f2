//! Tenants, and the keys that open what is theirs.
//!
//! A token is `pb_<the key's id>_<256 random bits>`. The store has its SHA-256; a token is compared in constant time, with
//! something of the same length where the key is unknown, so that the time says nothing about which keys exist.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Gateway, ServiceError};
use crate::domain::account::{ApiKey, Scope, Tenant};
use crate::domain::chore::Chore;
use crate::domain::fault::Faults;
use crate::domain::id::{KeyId, TenantId};
use crate::domain::secret::Secret;
use crate::store::{Expected, Record, RecordId, StoreError};

const TOKEN_PREFIX: &str = "pb_";
const ID_CHARS: usize = 26;
/// A hash that no token has: what a token is compared with that names no key.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The longest name of a tenant, a key or a connection.
pub const MAX_NAME_CHARS: usize = 100;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose; `None` makes an operator's key.
    pub tenant: Option<TenantId>,
    /// What it may do; ignored for an operator's key, which may do all.
    pub scopes: Vec<Scope>,
    /// What a person calls it.
    pub name: String,
}

/// The key's id of a token.
fn id_of(token: &str) -> Option<KeyId> {
    let rest = token.strip_prefix(TOKEN_PREFIX)?;
    let id = rest.get(..ID_CHARS)?;
    rest[ID_CHARS..].starts_with('_').then(|| KeyId::of_ulid(id)).flatten()
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// Adds a fault when a name is no name: one that is empty, long, or has control characters.
pub(super) fn check_name(name: &str, field: &str, faults: &mut Faults) {
    let chars = name.chars().count();
    if name.trim().is_empty() {
        faults.at_field(field, "is empty", Some("a name for people".to_owned()));
    } else if chars > MAX_NAME_CHARS {
        let message = format!("has {chars} characters");
        faults.at_field(field, message, Some(format!("at most {MAX_NAME_CHARS}")));
    } else if name.chars().any(char::is_control) {
        faults.at_field(field, "has control characters", None);
    }
}

impl Gateway {
    /// The key that a token belongs to; `None` when the token is not one of ours.
    pub fn authenticate(&self, token: &str) -> Option<Arc<ApiKey>> {
        let key = id_of(token).and_then(|id| self.directory.key(id));
        let wanted = key.as_ref().map_or(NOBODY, |key| key.hash.as_str());
        let same: bool = hash(token).as_bytes().ct_eq(wanted.as_bytes()).into();
        key.filter(|_| same)
    }

    /// Makes a tenant.
    pub async fn make_tenant(&self, id: TenantId, name: &str) -> Result<Tenant, ServiceError> {
        let mut faults = Faults::default();
        check_name(name, "name", &mut faults);
        faults.into_result(())?;
        let tenant = Tenant { id, name: name.to_owned(), created: self.clock.now() };
        match self.store.put(Record::Tenant(tenant.clone()), Expected::Absent).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => return Err(ServiceError::Exists("tenant")),
            Err(error) => return Err(error.into()),
        }
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok(tenant)
    }

    /// Deletes a tenant with its keys and connections, and begins to erase whatever is kept of it; `None` when there was none.
    pub async fn delete_tenant(&self, id: &TenantId, by: &str) -> Result<Option<Chore>, ServiceError> {
        if self.directory.tenant(id).is_none() {
            return Ok(None);
        }
        // First, so that a process that dies here leaves nothing that nobody erases.
        let purge = self.make_purge(id, by).await?;
        let deleted = self.store.delete(RecordId::Tenant(id.clone())).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        self.rates.forget(id);
        Ok(deleted.then_some(purge))
    }

    /// Makes a key. The token is in the answer and nowhere else.
    pub async fn make_key(&self, new: NewKey) -> Result<(ApiKey, Secret), ServiceError> {
        let mut faults = Faults::default();
        check_name(&new.name, "name", &mut faults);
        if new.tenant.is_some() && new.scopes.is_empty() {
            faults.at_field(
                "scopes",
                "is empty",
                Some("one or more of publish, manage, read, subscribe".to_owned()),
            );
        }
        if let Some(tenant) = &new.tenant
            && self.directory.tenant(tenant).is_none()
        {
            let hint = "make it first, by POST /v1/tenants".to_owned();
            faults.at_field("tenant", format!("there is no tenant \"{tenant}\""), Some(hint));
        }
        faults.into_result(())?;
        let id = KeyId::from_bits(self.ids.next());
        let random: [u8; 32] = self.entropy.bytes();
        let id_text = id.to_string();
        let public = id_text.trim_start_matches(KeyId::PREFIX);
        let token = Secret::new(format!("{TOKEN_PREFIX}{public}_{}", URL_SAFE_NO_PAD.encode(random)));
        let mut scopes = new.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        if new.tenant.is_none() {
            scopes.clear();
        }
        let key = ApiKey {
            id,
            tenant: new.tenant,
            scopes,
            name: new.name,
            hash: hash(token.reveal()),
            created: self.clock.now(),
        };
        self.store.put(Record::Key(key.clone()), Expected::Absent).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok((key, token))
    }

    /// Makes the first operator's key where there is none: for the first start.
    /// Of processes that start together on one store one makes it.
    pub async fn first_operator_key(&self) -> Result<Option<Secret>, ServiceError> {
        const SPAN: Duration = Duration::from_secs(10);
        let owner = u128::from_be_bytes(self.entropy.bytes());
        if self.directory.has_operator_key() || !self.store.hold("first_key", owner, SPAN).await? {
            return Ok(None);
        }
        // Whoever had the duty before may have done it meanwhile.
        self.directory.catch_up(self.store.as_ref()).await?;
        if self.directory.has_operator_key() {
            return Ok(None);
        }
        let new = NewKey { tenant: None, scopes: Vec::new(), name: "first operator key".to_owned() };
        let made = self.make_key(new).await.map(|(_, token)| Some(token));
        self.store.let_go("first_key", owner).await?;
        made
    }

    /// Revokes a key; `false` when there was none. What was subscribed with it receives nothing more.
    pub async fn revoke_key(&self, id: KeyId) -> Result<bool, ServiceError> {
        let revoked = self.store.delete(RecordId::Key(id)).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        self.hooks_changed.notify_one();
        Ok(revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_key() {
        let id = KeyId::from_bits(42);
        let public = id.to_string().replace("key_", "");
        assert_eq!(id_of(&format!("pb_{public}_abc")), Some(id));
        for bad in ["", "pb_", "pb_x_y", &public, &format!("pb_{public}"), "pb_äääääääääääääää_x"]
        {
            assert_eq!(id_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_for_people() {
        for (name, good) in
            [("Acme GmbH", true), ("", false), (" ", false), ("a\nb", false), (&"x".repeat(101), false)]
        {
            let mut faults = Faults::default();
            check_name(name, "name", &mut faults);
            assert_eq!(faults.is_empty(), good, "{name}");
        }
    }
}
