//! Connections: made, changed, paused, resumed, given a new secret, deleted.
//!
//! A change is optimistic: it is worked out from what the directory has and written only if that is still the newest;
//! else it is worked out again. So two people, or a person and a worker that closes the connection, never undo each other.

pub(super) mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::live::LiveConnection;
use super::{Gateway, ServiceError};
use crate::domain::connection::{Connection, ConnectionState, MappingChoice, SigningSecret, Target};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::secret::{Sealed, Secret};
use crate::domain::time::Timestamp;
use crate::egress::Url;
use crate::spec::{ConnectorSpec, SecretUse, mapping_version};
use crate::store::{Expected, Record, RecordId, Revision, StoreError};
use wish::{Checked, Wish};
pub use wish::{MAX_PATTERNS, below};

/// How long a replaced secret still signs beside the new one.
pub const SECRET_OVERLAP: Duration = Duration::from_hours(24);
/// The most secrets that sign at once.
const MAX_SECRETS: usize = 4;
/// The longest reason for a pause.
const MAX_REASON_CHARS: usize = 500;
/// How often a change is worked out again when someone else was faster.
const TRIES: usize = 5;
/// How long the lookup of a new URL's host may take; a host that can't be looked up is no fault.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that was saved, and its secret where one was made for it: shown this once.
#[derive(Debug)]
pub struct Saved {
    /// The connection.
    pub live: Arc<LiveConnection>,
    /// The secret that was made.
    pub secret: Option<Secret>,
}

impl Gateway {
    /// A connection of a tenant, or of anyone for the operator (`None`).
    pub fn owned_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        self.directory
            .connection(id)
            .filter(|live| tenant.is_none_or(|tenant| live.record.tenant == *tenant))
            .ok_or(ServiceError::Missing("connection"))
    }

    /// Makes a connection out of its JSON. `tenant` is the key's, or what the query names; the JSON may name it too.
    pub async fn make_connection(
        &self,
        tenant: Option<&TenantId>,
        wanted: &Value,
    ) -> Result<Saved, ServiceError> {
        let mut faults = Faults::default();
        let node = Node::from_json(wanted);
        let Some(mut table) = node.table("", &mut faults) else { return Err(faults.into()) };
        let said = table.text("tenant");
        let given = table.text("secret").map(Secret::new);
        let wish = Wish::new(&mut table);
        let tenant = self.tenant_of_new(tenant, said, table.faults());
        table.finish();
        if let Some(connector) = self.catalogue.connector(wish.connector()) {
            check_secret(connector, given.as_ref(), &mut faults);
        }
        let checked = wish.check(&self.catalogue, &self.addresses, &mut faults);
        let (Some(tenant), Some(checked), true) = (tenant, checked, faults.is_empty()) else {
            return Err(faults.into());
        };
        self.check_hosts(&checked.called).await?;
        let limit = self.settings.connections_per_tenant;
        if self.directory.connection_count(&tenant) >= limit {
            return Err(ServiceError::Limit(format!(
                "the tenant has {limit} connections, which is the most"
            )));
        }
        let made = match (&given, checked.connector.secret) {
            (None, SecretUse::Required) => {
                Some(Secret::new(checked.connector.signature.generate_secret(self.entropy.bytes())))
            }
            _ => None,
        };
        let id = ConnectionId::from_bits(self.ids.next());
        let now = self.clock.now();
        let mut record = Connection {
            id,
            tenant,
            name: String::new(),
            connector: checked.connector.id.clone(),
            events: Vec::new(),
            filter: None,
            mapping: MappingChoice::Default,
            options: BTreeMap::new(),
            credentials: BTreeMap::new(),
            target: Target { url: String::new(), headers: BTreeMap::new() },
            signing: Vec::new(),
            policy: checked.policy.clone(),
            concurrency: 1,
            state: ConnectionState::Active,
            created: now,
            updated: now,
        };
        if let Some(secret) = given.as_ref().or(made.as_ref()) {
            let sealed = self.vault.seal(&id.to_string(), secret)?;
            record.signing.push(SigningSecret { sealed, expires: None });
        }
        self.fill(&mut record, checked).await?;
        self.store.put(Record::Connection(Box::new(record)), Expected::Absent).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok(Saved { live: self.owned_connection(None, id)?, secret: made })
    }

    pub(super) fn tenant_of_new(
        &self,
        tenant: Option<&TenantId>,
        said: Option<&str>,
        faults: &mut Faults,
    ) -> Option<TenantId> {
        let said = match said.map(str::parse::<TenantId>).transpose() {
            Ok(said) => said,
            Err(error) => {
                faults.at_field("tenant", error.to_string(), None);
                return None;
            }
        };
        if let (Some(tenant), Some(said)) = (tenant, &said)
            && tenant != said
        {
            faults.at_field("tenant", "is another one than the key's or the query's", None);
            return None;
        }
        let Some(tenant) = tenant.or(said.as_ref()) else {
            let hint = "an operator's key names the tenant, here or by ?tenant=".to_owned();
            faults.at_field("tenant", "missing", Some(hint));
            return None;
        };
        if self.directory.tenant(tenant).is_none() {
            let hint = "make it first, by POST /v1/tenants".to_owned();
            faults.at_field("tenant", format!("there is no tenant \"{tenant}\""), Some(hint));
        }
        Some(tenant.clone())
    }

    /// Puts checked settings into a record, and keeps its mapping for the jobs that will be pinned to it.
    async fn fill(&self, record: &mut Connection, checked: Checked) -> Result<(), ServiceError> {
        if let Some(mapping) = &checked.inline {
            self.store.put_mapping(mapping_version(mapping), mapping.to_json()).await?;
        }
        let owner = record.id.to_string();
        let mut headers: BTreeMap<String, Sealed> = BTreeMap::new();
        for (name, value) in checked.headers {
            let sealed = self.vault.seal(&owner, &Secret::new(value))?;
            headers.insert(name, sealed);
        }
        record.name = checked.name;
        record.events = checked.events;
        record.filter = checked.filter;
        record.mapping = checked.mapping;
        record.target = Target { url: checked.url, headers };
        record.options = checked.options;
        record.credentials = BTreeMap::new();
        for (name, value) in checked.credentials {
            let sealed = self.vault.seal(&owner, &value)?;
            record.credentials.insert(name, sealed);
        }
        record.concurrency = checked.policy.over(&checked.connector.policy).concurrency;
        record.policy = checked.policy;
        Ok(())
    }

    /// Checks the host of every URL, each host once.
    async fn check_hosts(&self, urls: &[(&'static str, Url)]) -> Result<(), ServiceError> {
        let mut seen = BTreeSet::new();
        for (field, url) in urls {
            if seen.insert((url.domain(), url.port_or_known_default())) {
                self.check_host(field, url).await?;
            }
        }
        Ok(())
    }

    /// Refuses a host that resolves to an address where requests must not go. What does not resolve now may later, and is
    /// judged again on every connection.
    async fn check_host(&self, field: &str, url: &Url) -> Result<(), ServiceError> {
        let Some(host) = url.domain() else { return Ok(()) };
        let lookup = tokio::net::lookup_host((host, url.port_or_known_default().unwrap_or(443)));
        let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await else { return Ok(()) };
        for address in addresses {
            if let Err(refusal) = self.addresses.check_address(address.ip()) {
                // Which address it is would tell of a network that is not the tenant's.
                let mut faults = Faults::default();
                let message = "its host resolves to an address where requests may not go";
                faults.at_field(field, message, Some(refusal.hint().to_owned()));
                return Err(faults.into());
            }
        }
        Ok(())
    }

    /// Changes a connection by a JSON merge patch (RFC 7396). With `revision` in it, only if it is still that one.
    pub async fn update_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        patch: &Value,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let node = Node::from_json(patch);
        for _ in 0..TRIES {
            let live = self.owned_connection(tenant, id)?;
            let mut record = live.record.clone();
            let mut faults = Faults::default();
            let mut wish = Wish::of(&record, self.open_headers(&record)?, self.open_credentials(&record)?);
            let Some(mut table) = node.table("", &mut faults) else { return Err(faults.into()) };
            let revision = table.integer("revision");
            wish.change(&mut table);
            table.finish();
            let checked = wish.check(&self.catalogue, &self.addresses, &mut faults);
            let (Some(checked), true) = (checked, faults.is_empty()) else { return Err(faults.into()) };
            if revision.is_some_and(|revision| Revision::try_from(revision) != Ok(live.revision)) {
                return Err(ServiceError::Conflict);
            }
            if checked.url != record.target.url || checked.options != record.options {
                self.check_hosts(&checked.called).await?;
            }
            self.fill(&mut record, checked).await?;
            if let Some(changed) = self.replace(record, live.revision).await? {
                return Ok(changed);
            }
        }
        Err(ServiceError::Conflict)
    }

    fn open_headers(&self, record: &Connection) -> Result<BTreeMap<String, String>, ServiceError> {
        let owner = record.id.to_string();
        let open = |(name, sealed): (&String, &Sealed)| {
            Ok((name.clone(), self.vault.open(&owner, sealed)?.reveal().to_owned()))
        };
        record.target.headers.iter().map(open).collect()
    }

    fn open_credentials(&self, record: &Connection) -> Result<BTreeMap<String, Secret>, ServiceError> {
        let owner = record.id.to_string();
        let open = |(name, sealed): (&String, &Sealed)| Ok((name.clone(), self.vault.open(&owner, sealed)?));
        record.credentials.iter().map(open).collect()
    }

    /// Writes a changed record; `None` when someone else was faster.
    async fn replace(
        &self,
        mut record: Connection,
        revision: Revision,
    ) -> Result<Option<Arc<LiveConnection>>, ServiceError> {
        let id = record.id;
        record.updated = self.clock.now();
        let written = self.store.put(Record::Connection(Box::new(record)), Expected::At(revision)).await;
        self.directory.catch_up(self.store.as_ref()).await?;
        match written {
            Ok(_) => Ok(Some(self.owned_connection(None, id)?)),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Works a change out and writes it, again while someone else is faster. `None` leaves the connection as it is.
    async fn change(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        change: impl Fn(&mut Connection) -> Result<bool, ServiceError>,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        for _ in 0..TRIES {
            let live = self.owned_connection(tenant, id)?;
            let mut record = live.record.clone();
            if !change(&mut record)? {
                return Ok(live);
            }
            if let Some(changed) = self.replace(record, live.revision).await? {
                return Ok(changed);
            }
        }
        Err(ServiceError::Conflict)
    }

    /// Stops a connection's deliveries; its jobs and new ones wait.
    pub async fn pause_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        reason: Option<&str>,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let reason = reason.unwrap_or("paused by a person");
        if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
            let mut faults = Faults::default();
            let hint = format!("at most {MAX_REASON_CHARS} characters, none of them a control character");
            faults.at_field("reason", "is no reason", Some(hint));
            return Err(faults.into());
        }
        let at = self.clock.now();
        self.change(tenant, id, |record| match record.state {
            ConnectionState::Active => {
                record.state =
                    ConnectionState::Paused { reason: reason.to_owned(), by: "person".to_owned(), at };
                Ok(true)
            }
            ConnectionState::Paused { .. } => Ok(false),
            ConnectionState::Closed { .. } => Err(ServiceError::State(
                "the connection is closed: it has nothing to pause; resuming it opens it again".to_owned(),
            )),
        })
        .await
    }

    /// Lets a paused connection deliver what waits, or opens a closed one again.
    pub async fn resume_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        self.change(tenant, id, |record| {
            let changes = !record.state.is_active();
            record.state = ConnectionState::Active;
            Ok(changes)
        })
        .await
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
                renew_secrets(&mut record.signing, sealed.clone(), now);
                Ok(true)
            })
            .await?;
        Ok(Saved { live, secret: made })
    }

    /// Deletes a connection; its open jobs are cancelled.
    pub async fn delete_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<(), ServiceError> {
        self.owned_connection(tenant, id)?;
        self.store.delete(RecordId::Connection(id)).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok(())
    }
}

/// Puts a new secret before the others, which are valid for [`SECRET_OVERLAP`] more at the most.
pub(super) fn renew_secrets(secrets: &mut Vec<SigningSecret>, sealed: Sealed, now: Timestamp) {
    let until = now.plus(SECRET_OVERLAP);
    for old in secrets.iter_mut() {
        old.expires = Some(old.expires.map_or(until, |expires| expires.min(until)));
    }
    secrets.retain(|old| old.expires.is_none_or(|expires| expires > now));
    secrets.insert(0, SigningSecret { sealed, expires: None });
    secrets.truncate(MAX_SECRETS);
}

fn check_secret(connector: &ConnectorSpec, given: Option<&Secret>, faults: &mut Faults) {
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
