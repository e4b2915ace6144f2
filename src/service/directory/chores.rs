//! Chores in memory: by id, and by tenant. Their number is bounded by whoever makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Directory;
use crate::domain::chore::Chore;
use crate::domain::id::{ChoreId, TenantId};
use crate::store::{Record, Revision};

/// A chore as the store has it.
#[derive(Debug, Clone)]
pub struct LiveChore {
    /// The record.
    pub record: Chore,
    /// When it was last changed.
    pub revision: Revision,
}

impl LiveChore {
    /// A chore as it was read.
    pub(super) fn of(record: Chore, revision: Revision) -> Arc<Self> {
        Arc::new(Self { record, revision })
    }
}

/// All chores.
#[derive(Debug, Default)]
pub(super) struct Chores(BTreeMap<ChoreId, Arc<LiveChore>>);

impl Chores {
    pub(super) fn put(&mut self, live: Arc<LiveChore>) {
        self.0.insert(live.record.id, live);
    }

    pub(super) fn forget(&mut self, id: ChoreId) {
        self.0.remove(&id);
    }

    pub(super) fn forget_tenant(&mut self, tenant: &TenantId) {
        self.0.retain(|_, live| live.record.tenant.as_ref() != Some(tenant));
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.0.values().map(|live| Record::Chore(Box::new(live.record.clone())))
    }
}

impl Directory {
    /// A chore.
    pub fn chore(&self, id: ChoreId) -> Option<Arc<LiveChore>> {
        self.state.read().chores.0.get(&id).cloned()
    }

    /// All that `wanted` says yes to, newest first.
    pub fn chores(&self, wanted: impl Fn(&Chore) -> bool) -> Vec<Arc<LiveChore>> {
        let state = self.state.read();
        state.chores.0.values().rev().filter(|live| wanted(&live.record)).cloned().collect()
    }
}
