//! The records, as they are found: by tenant, by type of event, by key, in their order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::chores::Chores;
use super::hooks::Hooks;
use super::sources::Sources;
use crate::domain::account::{ApiKey, Tenant};
use crate::domain::event::EventPattern;
use crate::domain::id::{ConnectionId, KeyId, TenantId};
use crate::domain::subscription::Over;
use crate::domain::time::Timestamp;
use crate::service::live::LiveConnection;
use crate::store::{RecordId, Revision};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub revision: Revision,
    pub keys: BTreeMap<KeyId, Arc<ApiKey>>,
    pub tenants: BTreeMap<TenantId, Household>,
    pub connections: HashMap<ConnectionId, Arc<LiveConnection>>,
    /// All of all tenants in their order, for the operator's lists.
    pub order: BTreeMap<ConnectionId, TenantId>,
    pub hooks: Hooks,
    pub sources: Sources,
    pub chores: Chores,
}

/// What belongs to one tenant.
#[derive(Debug, Default)]
pub(super) struct Household {
    /// `None` while only things that belong to it are known.
    pub tenant: Option<Arc<Tenant>>,
    pub connections: BTreeMap<ConnectionId, Arc<LiveConnection>>,
    /// Those with exact types only, by each of them.
    pub exact: HashMap<String, BTreeMap<ConnectionId, Arc<LiveConnection>>>,
    /// Those with a family or all.
    pub broad: BTreeMap<ConnectionId, Arc<LiveConnection>>,
}

impl Household {
    fn add(&mut self, live: &Arc<LiveConnection>) {
        let id = live.record.id;
        self.connections.insert(id, Arc::clone(live));
        if !live.record.state.takes_jobs() {
            return;
        }
        if is_exact(live) {
            for kind in exact_types(live) {
                self.exact.entry(kind.to_owned()).or_default().insert(id, Arc::clone(live));
            }
        } else {
            self.broad.insert(id, Arc::clone(live));
        }
    }

    fn remove(&mut self, live: &LiveConnection) {
        let id = live.record.id;
        self.connections.remove(&id);
        self.broad.remove(&id);
        for kind in exact_types(live) {
            if let Some(wanting) = self.exact.get_mut(kind) {
                wanting.remove(&id);
                if wanting.is_empty() {
                    self.exact.remove(kind);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.tenant.is_none() && self.connections.is_empty()
    }
}

fn is_exact(live: &LiveConnection) -> bool {
    live.record.events.iter().all(|pattern| matches!(pattern, EventPattern::Exact(_)))
}

fn exact_types(live: &LiveConnection) -> impl Iterator<Item = &str> {
    live.record.events.iter().filter_map(|pattern| match pattern {
        EventPattern::Exact(kind) => Some(kind.as_str()),
        _ => None,
    })
}

impl State {
    pub fn forget_connection(&mut self, id: ConnectionId) {
        let Some(live) = self.connections.remove(&id) else { return };
        self.order.remove(&id);
        self.hooks.remove(&live.record);
        let tenant = &live.record.tenant;
        if let Some(household) = self.tenants.get_mut(tenant) {
            household.remove(&live);
            if household.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    pub fn put_connection(&mut self, live: &Arc<LiveConnection>) {
        let id = live.record.id;
        self.forget_connection(id);
        self.order.insert(id, live.record.tenant.clone());
        self.hooks.add(&live.record, self.has_key(live));
        self.connections.insert(id, Arc::clone(live));
        self.tenants.entry(live.record.tenant.clone()).or_default().add(live);
    }

    /// Whether the key that subscribed still exists; true of what no key subscribed.
    pub fn has_key(&self, live: &LiveConnection) -> bool {
        live.record.subscription.as_ref().is_none_or(|made| self.keys.contains_key(&made.key))
    }

    /// Why a subscription is over though it is not closed yet.
    pub fn over(&self, live: &LiveConnection, now: Timestamp) -> Option<Over> {
        live.record.subscription.as_ref()?.over(self.has_key(live), now)
    }

    pub fn put_key(&mut self, key: Arc<ApiKey>) {
        let id = key.id;
        self.keys.insert(id, key);
        self.schedule_hooks_of(id);
    }

    /// A key came or went: what was subscribed with it is to be looked at again.
    fn schedule_hooks_of(&mut self, key: KeyId) {
        for id in self.hooks.of_key(key) {
            if let Some(live) = self.connections.get(&id).cloned() {
                let has_key = self.has_key(&live);
                self.hooks.schedule(&live.record, has_key);
            }
        }
    }

    pub fn forget(&mut self, id: &RecordId) {
        match id {
            RecordId::Key(id) => {
                self.keys.remove(id);
                self.schedule_hooks_of(*id);
            }
            RecordId::Connection(id) => self.forget_connection(*id),
            RecordId::Source(id) => self.sources.forget(*id),
            RecordId::Chore(id) => self.chores.forget(*id),
            RecordId::Tenant(id) => {
                self.keys.retain(|_, key| key.tenant.as_ref() != Some(id));
                self.sources.forget_tenant(id);
                self.chores.forget_tenant(id);
                let household = self.tenants.remove(id).unwrap_or_default();
                for (connection, live) in household.connections {
                    self.connections.remove(&connection);
                    self.order.remove(&connection);
                    self.hooks.remove(&live.record);
                }
            }
        }
    }
}
