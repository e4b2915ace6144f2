//! A connection's secrets: opened to be changed, replaced with an overlap, checked against the connector.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Gateway, Saved, ServiceError};
use crate::domain::connection::{Connection, SigningSecret};
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::secret::{Sealed, Secret};
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
        let connector = self.catalogue.connector(&live.record.connector).ok_or_else(|| {
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
                let until = now.plus(SECRET_OVERLAP);
                for old in &mut record.signing {
                    old.expires = Some(old.expires.map_or(until, |expires| expires.min(until)));
                }
                record.signing.retain(|old| old.expires.is_none_or(|expires| expires > now));
                record.signing.insert(0, SigningSecret { sealed: sealed.clone(), expires: None });
                record.signing.truncate(MAX_SECRETS);
                Ok(true)
            })
            .await?;
        Ok(Saved { live, secret: made })
    }
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
