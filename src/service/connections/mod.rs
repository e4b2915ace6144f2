//! Connections: made, changed, paused, resumed, given a new secret, deleted.
//!
//! A change is optimistic: it is worked out from what the directory has and written only if that is still the newest;
//! else it is worked out again. So two people, or a person and a worker that closes the connection, never undo each other.

mod hosts;
mod secrets;
mod state;
pub(super) mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::live::LiveConnection;
use super::{Gateway, ServiceError};
use crate::domain::connection::{Connection, ConnectionState, MappingChoice, SigningSecret, Target};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::secret::{Sealed, Secret};
use crate::domain::subscription::Subscription;
use crate::spec::{SecretUse, mapping_version};
use crate::store::{Expected, Record, RecordId, Revision, StoreError};
pub use secrets::SECRET_OVERLAP;
use secrets::check_secret;
pub(super) use secrets::renew_secrets;
pub use state::Backlog;
use wish::{Checked, Wish};
pub use wish::{MAX_PATTERNS, below, check_patterns};

/// How often a change is worked out again when someone else was faster.
const TRIES: usize = 5;

/// A connection that was saved, and its secret where one was made for it: shown this once.
#[derive(Debug)]
pub struct Saved {
    /// The connection.
    pub live: Arc<LiveConnection>,
    /// The secret that was made.
    pub secret: Option<Secret>,
}

/// A new connection, read. What is faulty was told.
#[derive(Debug, Default)]
pub(super) struct New {
    /// Whose it says that it is.
    pub tenant: Option<String>,
    /// The secret that it brings.
    pub secret: Option<Secret>,
    /// Its settings; `None` when they can't be used.
    pub checked: Option<Checked>,
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
        let new = self.read_new(wanted, &mut faults);
        let tenant = self.tenant_of_new(tenant, new.tenant.as_deref(), &mut faults);
        let (Some(tenant), Some(checked), true) = (tenant, new.checked, faults.is_empty()) else {
            return Err(faults.into());
        };
        self.make(tenant, new.secret, checked, None).await
    }

    /// Reads and checks a new connection out of its JSON.
    pub(super) fn read_new(&self, wanted: &Value, faults: &mut Faults) -> New {
        let node = Node::from_json(wanted);
        let Some(mut table) = node.table("", faults) else { return New::default() };
        let tenant = table.text("tenant").map(str::to_owned);
        let secret = table.text("secret").map(Secret::new);
        let wish = Wish::new(&mut table);
        table.finish();
        if let Some(connector) = self.catalogue().connector(wish.connector()) {
            check_secret(connector, secret.as_ref(), faults);
        }
        let checked = wish.check(&self.catalogue(), &self.addresses, &self.settings.google, faults);
        New { tenant, secret, checked }
    }

    /// Saves a new connection, with a secret made here where it needs one and none was given.
    pub(super) async fn make(
        &self,
        tenant: TenantId,
        given: Option<Secret>,
        checked: Checked,
        subscription: Option<Subscription>,
    ) -> Result<Saved, ServiceError> {
        self.check_hosts(&checked.called).await?;
        self.check_count(&tenant)?;
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
            batch: 1,
            state: ConnectionState::Active,
            history: Vec::new(),
            unproven: false,
            unwanted_before: None,
            subscription,
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

    /// Whether the tenant may have one more.
    fn check_count(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        let limit = self.settings.connections_per_tenant;
        if self.directory.connection_count(tenant) < limit {
            return Ok(());
        }
        let mut faults = Faults::default();
        let hint =
            "delete what is no longer used, or ask the operator to raise limits.connections_per_tenant";
        let message = format!("has {limit} connections, which is the most");
        faults.at_field("tenant", message, Some(hint.to_owned()));
        Err(ServiceError::Limit(faults))
    }

    /// Whose a new connection is. `said` is what its own JSON says.
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
        let policy = checked.policy.over(&checked.connector.policy);
        (record.concurrency, record.batch) = (policy.concurrency, policy.batch);
        record.policy = checked.policy;
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
            let checked = wish.check(&self.catalogue(), &self.addresses, &self.settings.google, &mut faults);
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
    pub(super) async fn change(
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
