//! A connection's secrets: opened to be changed, replaced with an overlap, checked against the connector.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Gateway, Saved, ServiceError};
use crate::domain::connection::{Connection, SigningSecret};
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::secret::{Sealed, Secret};
use crate::domain::time::Timestamp;
use crate::spec::{ConnectorSpec, SecretUse};

/// How long a replaced secret still signs beside the new one.
pub const SECRET_OVERLAP: Duration = Duration::from_hours(24);
/// The credential that a token endpoint may replace.
const REFRESH_TOKEN: &str = "refresh_token";
/// The most secrets that sign at once.
const MAX_SECRETS: usize = 4;

impl Gateway {
    pub(super) fn open_headers(&self, record: &Connection) -> Result<BTreeMap<String, String>, ServiceError> {
        let owner = record.id.to_string();
        let open = |(name, sealed): (&String, &Sealed)| {
            Ok((name.clone(), self.vault.open(&owner, sealed)?.reveal().to_owned()))
        };
        record.target.headers.iter().map(open).collect()
    }

    pub(super) fn open_credentials(
        &self,
        record: &Connection,
    ) -> Result<BTreeMap<String, Secret>, ServiceError> {
        let owner = record.id.to_string();
        let open = |(name, sealed): (&String, &Sealed)| Ok((name.clone(), self.vault.open(&owner, sealed)?));
        record.credentials.iter().map(open).collect()
    }

    /// Puts `new` in place of the refresh token `used`. A connection that has another one by now, or is gone, keeps what it
    /// has: a person, or another process, was faster.
    pub(in crate::service) async fn replace_refresh_token(
        &self,
        id: ConnectionId,
        used: &Secret,
        new: &Secret,
    ) -> Result<(), ServiceError> {
        let owner = id.to_string();
        let sealed = self.vault.seal(&owner, new)?;
        let changed = self
            .change(None, id, |record| {
                let Some(held) = record.credentials.get_mut(REFRESH_TOKEN) else { return Ok(false) };
                if self.vault.open(&owner, held)? != *used {
                    return Ok(false);
                }
                *held = sealed.clone();
                Ok(true)
            })
            .await;
        match changed {
            Ok(_) | Err(ServiceError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The connection's refresh token as the store has it now, where it is another one than `used`.
    pub(in crate::service) async fn newer_refresh_token(
        &self,
        id: ConnectionId,
        used: &Secret,
    ) -> Option<Secret> {
        if let Err(error) = self.directory.catch_up(self.store.as_ref()).await {
            tracing::warn!(%error, connection = %id, "cannot look for a newer refresh token");
        }
        let live = self.directory.connection(id)?;
        let sealed = live.record.credentials.get(REFRESH_TOKEN)?;
        self.vault.open(&id.to_string(), sealed).ok().filter(|newest| newest != used)
    }

    /// Gives a connection a new secret, `given` or made here; the ones it had sign beside it for [`SECRET_OVERLAP`].
    pub async fn rotate_secret(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        given: Option<Secret>,
    ) -> Result<Saved, ServiceError> {
        let live = self.owned_connection(tenant, id)?;
        let catalogue = self.catalogue();
        let connector = catalogue.connector(&live.record.connector).ok_or_else(|| {
            ServiceError::State(format!("there is no connector \"{}\" any more", live.record.connector))
        })?;
        if connector.secret == SecretUse::None {
            return Err(ServiceError::State(format!("the connector \"{}\" has no secret", connector.id)));
        }
        let mut faults = Faults::default();
        check_secret(connector, given.as_ref(), &mut faults);
        faults.into_result(())?;
        let made = match given {
            Some(_) => None,
            None => Some(Secret::new(connector.signature.generate_secret(self.entropy.bytes()))),
        };
        let Some(secret) = given.as_ref().or(made.as_ref()) else { return Err(ServiceError::Conflict) };
        let sealed = self.vault.seal(&id.to_string(), secret)?;
        let now = self.clock.now();
        let live = self
            .change(tenant, id, |record| {
                renew_secrets(&mut record.signing, sealed.clone(), now);
                Ok(true)
            })
            .await?;
        Ok(Saved { live, secret: made })
    }
}

/// Puts a new secret before the others, which are valid for [`SECRET_OVERLAP`] more at the most.
pub(in crate::service) fn renew_secrets(secrets: &mut Vec<SigningSecret>, sealed: Sealed, now: Timestamp) {
    let until = now.plus(SECRET_OVERLAP);
    for old in secrets.iter_mut() {
        old.expires = Some(old.expires.map_or(until, |expires| expires.min(until)));
    }
    secrets.retain(|old| old.expires.is_none_or(|expires| expires > now));
    secrets.insert(0, SigningSecret { sealed, expires: None });
    secrets.truncate(MAX_SECRETS);
}

/// Whether a connector takes this secret, or none.
pub(super) fn check_secret(connector: &ConnectorSpec, given: Option<&Secret>, faults: &mut Faults) {
    match (given, connector.secret) {
        (Some(_), SecretUse::None) => {
            let message = format!("the connector \"{}\" has no secret", connector.id);
            faults.at_field("secret", message, Some("leave it out".to_owned()));
        }
        (Some(secret), _) => {
            if let Err(reason) = connector.signature.check_secret(secret.reveal()) {
                faults.at_field("secret", reason, Some("leave it out, and one is made".to_owned()));
            }
        }
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::{Settings, testing};

    #[tokio::test]
    async fn of_two_processes_that_replace_a_refresh_token_one_wins_and_the_other_learns_of_it() {
        let (owner, clock, folder) = testing::gateway(Settings::default()).await;
        let tenant: TenantId = "acme".parse().unwrap();
        owner.make_tenant(tenant.clone(), "Acme").await.unwrap();
        let credentials =
            json!({ "client_id": "id-1", "client_secret": "secret-1", "refresh_token": "refresh-1" });
        let wanted = json!({ "name": "CRM", "connector": "hubspot", "events": ["*"], "credentials": credentials,
            "options": { "base_url": "http://127.0.0.1:9" } });
        let id = owner.make_connection(Some(&tenant), &wanted).await.unwrap().live.record.id;
        let guest = testing::gateway_in(folder.path(), clock, Settings::default(), 7, false).await;
        let token = |number: u8| Secret::new(format!("refresh-{number}"));

        // Both know the first one; the second to write finds another and leaves it.
        let (a, b) = (token(2), token(3));
        let first = token(1);
        let (left, right) = tokio::join!(
            owner.replace_refresh_token(id, &first, &a),
            guest.replace_refresh_token(id, &first, &b),
        );
        assert_eq!((left, right), (Ok(()), Ok(())));
        let newest = owner.newer_refresh_token(id, &first).await.unwrap();
        assert!([&a, &b].contains(&&newest));
        assert_eq!(guest.newer_refresh_token(id, &first).await, Some(newest.clone()), "both see the same");
        assert_eq!(guest.newer_refresh_token(id, &newest).await, None);

        // A person's own change is not undone by what was under way.
        let change = json!({ "credentials": { "refresh_token": "refresh-9" } });
        owner.update_connection(None, id, &change).await.unwrap();
        guest.replace_refresh_token(id, &newest, &token(4)).await.unwrap();
        assert_eq!(owner.newer_refresh_token(id, &newest).await, Some(token(9)));
        owner.delete_connection(None, id).await.unwrap();
        assert_eq!(guest.replace_refresh_token(id, &token(9), &token(4)).await, Ok(()), "nothing to keep");
    }
}
