//! Every tenant, key and connection in memory, kept fresh by the store's changes.
//!
//! Only [`Directory::catch_up`] changes it, one at a time and in the order of the changes: whoever writes a record calls
//! it afterwards and so reads what it wrote. A change costs the same with one connection and with 100,000: it is compiled
//! outside the lock and put in place. Connections are found by exact event type; those with a family (`lead.*`) or `*` are
//! looked through.

mod chores;
mod hooks;
mod sources;
mod state;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::live::{Compiler, LiveConnection, LiveSource};
use super::vault::Vault;
use crate::connector::google_sheets::GoogleSettings;
use crate::domain::account::{ApiKey, Tenant};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, KeyId, MappingVersion, SourceId, TenantId};
use crate::egress::AddressPolicy;
use crate::mapping::Mapping;
use crate::spec::Catalogue;
use crate::store::{Change, NewJob, Record, RecordId, Revision, Store, StoreError};
pub use chores::LiveChore;
pub use hooks::MadeBy;
use state::State;

/// How many changes are read at once.
const STEP: usize = 1_000;

/// The records in memory.
pub struct Directory {
    state: RwLock<State>,
    compiler: Compiler,
    /// Held while changes are read and put in place.
    catching_up: tokio::sync::Mutex<()>,
}

/// A change that was made ready outside the lock.
enum Ready {
    Gone(RecordId),
    Tenant(Arc<Tenant>),
    Key(Arc<ApiKey>),
    Connection(Arc<LiveConnection>),
    Source(Arc<LiveSource>),
    Chore(Arc<LiveChore>),
}

impl Directory {
    /// An empty one.
    pub fn new(
        catalogue: Arc<Catalogue>,
        vault: Arc<Vault>,
        addresses: Arc<AddressPolicy>,
        google: GoogleSettings,
    ) -> Self {
        Self {
            state: RwLock::default(),
            compiler: Compiler::new(catalogue, vault, addresses, google),
            catching_up: tokio::sync::Mutex::default(),
        }
    }

    /// Reads and puts in place whatever changed since the last time.
    pub async fn catch_up(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one_at_a_time = self.catching_up.lock().await;
        loop {
            let since = self.revision();
            let changes = store.changes(since, STEP).await?;
            let Some(last) = changes.last().map(|change| change.revision) else { return Ok(()) };
            let full = changes.len() >= STEP;
            let ready: Vec<Ready> = changes.into_iter().map(|change| self.make_ready(change)).collect();
            self.put_in_place(ready, last);
            if !full {
                return Ok(());
            }
        }
    }

    /// The catalogue that connections are compiled by.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.compiler.stock().catalogue)
    }

    /// Compiles by another catalogue from now on, and anew whatever it changes and whatever was broken. The answer is the
    /// connections that were compiled anew.
    pub async fn adopt(&self, catalogue: Arc<Catalogue>) -> Vec<Arc<LiveConnection>> {
        let _one_at_a_time = self.catching_up.lock().await;
        let before = self.compiler.adopt(catalogue);
        let now = self.compiler.stock();
        let mut anew = Vec::new();
        let mut after = None;
        loop {
            let some = self.connections(None, after, STEP);
            let Some(last) = some.last() else { break };
            after = Some(last.record.id);
            let changed = some
                .iter()
                .filter(|live| live.works.is_err() || now.differs_for(&before, &live.record))
                .map(|old| {
                    let mut live = self.compiler.compile(old.record.clone(), old.revision);
                    live.inherit(old);
                    if let Err(reason) = &live.works {
                        tracing::error!(connection = %live.record.id, reason, "a connection can't deliver");
                    }
                    Arc::new(live)
                });
            let ready: Vec<Arc<LiveConnection>> = changed.collect();
            self.put_in_place(ready.iter().cloned().map(Ready::Connection).collect(), self.revision());
            anew.extend(ready);
            // Others get their turn, however many there are.
            tokio::task::yield_now().await;
        }
        self.adopt_for_sources(&before).await;
        anew
    }

    fn make_ready(&self, change: Change) -> Ready {
        match change.record {
            None => Ready::Gone(change.id),
            Some(Record::Tenant(tenant)) => Ready::Tenant(Arc::new(tenant)),
            Some(Record::Key(key)) => Ready::Key(Arc::new(key)),
            Some(Record::Connection(record)) => {
                let mut live = self.compiler.compile(*record, change.revision);
                if let Some(before) = self.connection(live.record.id) {
                    live.inherit(&before);
                }
                if let Err(reason) = &live.works {
                    tracing::error!(connection = %live.record.id, reason, "a connection can't deliver");
                }
                Ready::Connection(Arc::new(live))
            }
            Some(Record::Source(record)) => {
                let live = self.compiler.compile_source(*record, change.revision);
                if let Err(reason) = &live.works {
                    tracing::error!(source = %live.record.id, reason, "a source can't receive");
                }
                Ready::Source(Arc::new(live))
            }
            Some(Record::Chore(record)) => Ready::Chore(LiveChore::of(*record, change.revision)),
        }
    }

    fn put_in_place(&self, changes: Vec<Ready>, revision: Revision) {
        let mut state = self.state.write();
        for change in changes {
            match change {
                Ready::Gone(id) => state.forget(&id),
                Ready::Tenant(tenant) => {
                    let household = state.tenants.entry(tenant.id.clone()).or_default();
                    household.tenant = Some(tenant);
                }
                Ready::Key(key) => state.put_key(key),
                Ready::Connection(live) => state.put_connection(&live),
                Ready::Source(live) => state.sources.put(live),
                Ready::Chore(live) => state.chores.put(live),
            }
        }
        state.revision = revision;
    }

    /// The last change that is in place.
    pub fn revision(&self) -> Revision {
        self.state.read().revision
    }

    /// A key by its public part.
    pub fn key(&self, id: KeyId) -> Option<Arc<ApiKey>> {
        self.state.read().keys.get(&id).cloned()
    }

    /// Keys after `after` in their order, of one tenant or of all; at most `limit`.
    pub fn keys(&self, tenant: Option<&TenantId>, after: Option<KeyId>, limit: usize) -> Vec<Arc<ApiKey>> {
        let state = self.state.read();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let wanted = |key: &&Arc<ApiKey>| tenant.is_none() || key.tenant.as_ref() == tenant;
        state.keys.range(range).map(|(_, key)| key).filter(wanted).take(limit).cloned().collect()
    }

    /// Whether there is a key that opens everything.
    pub fn has_operator_key(&self) -> bool {
        self.state.read().keys.values().any(|key| key.tenant.is_none())
    }

    /// A tenant.
    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.state.read().tenants.get(id).and_then(|household| household.tenant.clone())
    }

    /// Tenants after `after` by id; at most `limit`.
    pub fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Vec<Arc<Tenant>> {
        let state = self.state.read();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        state
            .tenants
            .range::<TenantId, _>(range)
            .filter_map(|(_, household)| household.tenant.clone())
            .take(limit)
            .collect()
    }

    /// A connection.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<LiveConnection>> {
        self.state.read().connections.get(&id).cloned()
    }

    /// Connections after `after` in the order in which they were made, of one tenant or of all; at most `limit`.
    pub fn connections(
        &self,
        tenant: Option<&TenantId>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<Arc<LiveConnection>> {
        self.connections_of(MadeBy::Anyone, tenant, after, limit)
    }

    /// The same of those that were made so.
    pub fn connections_of(
        &self,
        made: MadeBy,
        tenant: Option<&TenantId>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<Arc<LiveConnection>> {
        let state = self.state.read();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        match tenant {
            Some(tenant) => state.tenants.get(tenant).map_or_else(Vec::new, |household| {
                let all = household.connections.range(range).map(|(_, live)| live);
                all.filter(|live| made.includes(live)).take(limit).cloned().collect()
            }),
            None => state
                .order
                .range(range)
                .filter_map(|(id, _)| state.connections.get(id))
                .filter(|live| made.includes(live))
                .take(limit)
                .cloned()
                .collect(),
        }
    }

    /// How many connections a tenant has. Subscriptions that ended do not count.
    pub fn connection_count(&self, tenant: &TenantId) -> usize {
        let state = self.state.read();
        let all = state.tenants.get(tenant).map_or(0, |household| household.connections.len());
        all - state.hooks.closed(tenant)
    }

    /// A source.
    pub fn source(&self, id: SourceId) -> Option<Arc<LiveSource>> {
        self.state.read().sources.get(id)
    }

    /// Sources after `after` in the order in which they were made, of one tenant or of all; at most `limit`.
    pub fn sources(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SourceId>,
        limit: usize,
    ) -> Vec<Arc<LiveSource>> {
        self.state.read().sources.list(tenant, after, limit)
    }

    /// How many sources a tenant has.
    pub fn source_count(&self, tenant: &TenantId) -> usize {
        self.state.read().sources.count(tenant)
    }

    /// The source of an agent's channel.
    pub fn agent_source(&self, agent: &str, channel: &str) -> Option<Arc<LiveSource>> {
        self.state.read().sources.of_agent(agent, channel)
    }

    /// The source by which an agent's public chat is open.
    pub fn public_source(&self, agent: &str) -> Option<Arc<LiveSource>> {
        self.state.read().sources.public_of(agent)
    }

    /// Everything there is, as the store has it.
    pub fn records(&self) -> Vec<Record> {
        let state = self.state.read();
        let tenants = state.tenants.values().filter_map(|household| household.tenant.as_deref());
        let connections = state.order.keys().filter_map(|id| state.connections.get(id));
        tenants
            .map(|tenant| Record::Tenant(tenant.clone()))
            .chain(state.keys.values().map(|key| Record::Key(ApiKey::clone(key))))
            .chain(connections.map(|live| Record::Connection(Box::new(live.record.clone()))))
            .chain(state.sources.records())
            .chain(state.chores.records())
            .collect()
    }

    /// The jobs that an event makes: one for each of its tenant's connections that wants its type and whose filter it
    /// passes. Paused ones keep theirs for later; closed ones and subscriptions that are over get none; broken ones get theirs,
    /// so that nothing is lost.
    pub fn fan_out(&self, event: &Event) -> Vec<NewJob> {
        let state = self.state.read();
        let Some(household) = state.tenants.get(&event.tenant) else { return Vec::new() };
        let exact = household.exact.get(&event.kind).into_iter().flat_map(BTreeMap::values);
        let broad = household.broad.values().filter(|live| live.wants_type(&event.kind));
        exact
            .chain(broad)
            .filter(|live| live.passes(event) && state.over(live, event.received).is_none())
            .map(|live| NewJob {
                connection: live.record.id,
                mapping: live.mapping_version,
                triggered: false,
            })
            .collect()
    }

    /// A mapping by its version: a living connection's or a recently used one, else out of the store. `None` when nobody
    /// has it, or what the store has is no mapping any more.
    pub async fn mapping(
        &self,
        store: &dyn Store,
        version: MappingVersion,
    ) -> Result<Option<Arc<Mapping>>, StoreError> {
        self.compiler.mapping(store, version).await
    }

    /// Compiles a connection as it would be were it saved, for checks and tests.
    pub fn compile(&self, record: crate::domain::connection::Connection) -> LiveConnection {
        self.compiler.compile(record, 0)
    }
}

#[cfg(test)]
mod tests;
