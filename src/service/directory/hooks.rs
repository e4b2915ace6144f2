//! Subscriptions by what is asked of them: which a key made, which go to a URL, which need upkeep by now.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Directory, LiveConnection};
use crate::domain::connection::{Connection, ConnectionState};
use crate::domain::id::{ConnectionId, KeyId, TenantId};
use crate::domain::subscription::{Over, next_upkeep};
use crate::domain::time::Timestamp;

/// Which connections are meant, by who made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeBy {
    /// People.
    People,
    /// Programs, by subscribing.
    Subscribers,
    /// Anyone.
    Anyone,
}

impl MadeBy {
    pub(super) fn includes(self, live: &LiveConnection) -> bool {
        match self {
            Self::People => live.record.subscription.is_none(),
            Self::Subscribers => live.record.subscription.is_some(),
            Self::Anyone => true,
        }
    }
}

/// The subscriptions of all tenants.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    by_key: HashMap<KeyId, HashSet<ConnectionId>>,
    by_url: HashMap<TenantId, HashMap<String, BTreeSet<ConnectionId>>>,
    due: BTreeSet<(Timestamp, ConnectionId)>,
    due_of: HashMap<ConnectionId, Timestamp>,
    /// Closed ones by tenant: they do not count for its limit.
    closed: HashMap<TenantId, usize>,
}

impl Hooks {
    pub fn add(&mut self, record: &Connection, has_key: bool) {
        let Some(subscription) = &record.subscription else { return };
        self.by_key.entry(subscription.key).or_default().insert(record.id);
        let urls = self.by_url.entry(record.tenant.clone()).or_default();
        urls.entry(record.target.url.clone()).or_default().insert(record.id);
        if matches!(record.state, ConnectionState::Closed { .. }) {
            *self.closed.entry(record.tenant.clone()).or_default() += 1;
        }
        self.schedule(record, has_key);
    }

    /// Notes when something is next to be done about one.
    pub fn schedule(&mut self, record: &Connection, has_key: bool) {
        if let Some(due) = self.due_of.remove(&record.id) {
            self.due.remove(&(due, record.id));
        }
        if let Some(due) = next_upkeep(record, has_key) {
            self.due.insert((due, record.id));
            self.due_of.insert(record.id, due);
        }
    }

    pub fn remove(&mut self, record: &Connection) {
        let Some(subscription) = &record.subscription else { return };
        if let Some(made) = self.by_key.get_mut(&subscription.key) {
            made.remove(&record.id);
            if made.is_empty() {
                self.by_key.remove(&subscription.key);
            }
        }
        if let Some(urls) = self.by_url.get_mut(&record.tenant) {
            if let Some(there) = urls.get_mut(&record.target.url) {
                there.remove(&record.id);
                if there.is_empty() {
                    urls.remove(&record.target.url);
                }
            }
            if urls.is_empty() {
                self.by_url.remove(&record.tenant);
            }
        }
        if matches!(record.state, ConnectionState::Closed { .. })
            && let Some(count) = self.closed.get_mut(&record.tenant)
        {
            *count -= 1;
            if *count == 0 {
                self.closed.remove(&record.tenant);
            }
        }
        if let Some(due) = self.due_of.remove(&record.id) {
            self.due.remove(&(due, record.id));
        }
    }

    /// Those that a key made.
    pub fn of_key(&self, key: KeyId) -> Vec<ConnectionId> {
        self.by_key.get(&key).into_iter().flatten().copied().collect()
    }

    /// A tenant's that go to a URL, oldest first.
    pub fn at_url(&self, tenant: &TenantId, url: &str) -> Vec<ConnectionId> {
        let urls = self.by_url.get(tenant);
        urls.and_then(|urls| urls.get(url)).into_iter().flatten().copied().collect()
    }

    /// Those that need upkeep by now, the longest due first; at most `limit`.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<ConnectionId> {
        self.due.iter().take_while(|(due, _)| *due <= now).take(limit).map(|(_, id)| *id).collect()
    }

    /// How many of a tenant's are closed.
    pub fn closed(&self, tenant: &TenantId) -> usize {
        self.closed.get(tenant).copied().unwrap_or_default()
    }
}

impl Directory {
    /// A tenant's subscriptions that go to a URL, oldest first.
    pub fn hooks_at(&self, tenant: &TenantId, url: &str) -> Vec<Arc<LiveConnection>> {
        let state = self.state.read();
        let found = state.hooks.at_url(tenant, url);
        found.iter().filter_map(|id| state.connections.get(id).cloned()).collect()
    }

    /// The subscriptions that something is to be done about by now, the longest due first; at most `limit`.
    pub fn due_hooks(&self, now: Timestamp, limit: usize) -> Vec<ConnectionId> {
        self.state.read().hooks.due(now, limit)
    }

    /// Why a subscription is over though it is not closed yet.
    pub fn over(&self, live: &LiveConnection, now: Timestamp) -> Option<Over> {
        self.state.read().over(live, now)
    }
}
