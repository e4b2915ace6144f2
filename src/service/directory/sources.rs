//! Sources in memory: by id, by tenant, and by an agent's channel.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Directory, Ready, STEP};
use crate::domain::id::{SourceId, TenantId};
use crate::service::live::{LiveSource, Stock};
use crate::store::Record;

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    all: BTreeMap<SourceId, Arc<LiveSource>>,
    tenants: BTreeMap<TenantId, BTreeMap<SourceId, Arc<LiveSource>>>,
    /// By agent, channel and id. Two sources of one channel are refused when saved; should two processes save them at the same
    /// moment, the older one counts.
    agents: BTreeMap<(String, String, SourceId), Arc<LiveSource>>,
}

fn place(live: &LiveSource) -> Option<(String, String, SourceId)> {
    let agent = live.record.agent.clone()?;
    Some((agent, live.record.channel().to_owned(), live.record.id))
}

impl Sources {
    pub(super) fn put(&mut self, live: Arc<LiveSource>) {
        let id = live.record.id;
        self.forget(id);
        if let Some(place) = place(&live) {
            self.agents.insert(place, Arc::clone(&live));
        }
        self.tenants.entry(live.record.tenant.clone()).or_default().insert(id, Arc::clone(&live));
        self.all.insert(id, live);
    }

    pub(super) fn forget(&mut self, id: SourceId) {
        let Some(live) = self.all.remove(&id) else { return };
        if let Some(place) = place(&live) {
            self.agents.remove(&place);
        }
        if let Some(own) = self.tenants.get_mut(&live.record.tenant) {
            own.remove(&id);
            if own.is_empty() {
                self.tenants.remove(&live.record.tenant);
            }
        }
    }

    pub(super) fn forget_tenant(&mut self, tenant: &TenantId) {
        let own: Vec<SourceId> =
            self.tenants.get(tenant).into_iter().flat_map(BTreeMap::keys).copied().collect();
        for id in own {
            self.forget(id);
        }
    }

    pub(super) fn get(&self, id: SourceId) -> Option<Arc<LiveSource>> {
        self.all.get(&id).cloned()
    }

    pub(super) fn list(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SourceId>,
        limit: usize,
    ) -> Vec<Arc<LiveSource>> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let of = match tenant {
            None => Some(&self.all),
            Some(tenant) => self.tenants.get(tenant),
        };
        of.into_iter().flat_map(|of| of.range(range)).map(|(_, live)| Arc::clone(live)).take(limit).collect()
    }

    /// All of them, as the store has them.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.all.values().map(|live| Record::Source(Box::new(live.record.clone())))
    }

    pub(super) fn count(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).map_or(0, BTreeMap::len)
    }

    pub(super) fn of_agent(&self, agent: &str, channel: &str) -> Option<Arc<LiveSource>> {
        self.of(agent).find(|live| live.record.channel() == channel).cloned()
    }

    pub(super) fn public_of(&self, agent: &str) -> Option<Arc<LiveSource>> {
        self.of(agent).find(|live| live.record.public).cloned()
    }

    /// An agent's sources, channel by channel, the oldest of each first.
    fn of<'s>(&'s self, agent: &str) -> impl Iterator<Item = &'s Arc<LiveSource>> + use<'s> {
        let first = (agent.to_owned(), String::new(), SourceId::from_bits(0));
        let agent = agent.to_owned();
        self.agents.range(first..).take_while(move |((of, ..), _)| *of == agent).map(|(_, live)| live)
    }
}

impl Directory {
    /// Compiles anew the sources that another catalogue changes, and those that were broken.
    pub(super) async fn adopt_for_sources(&self, before: &Stock) {
        let now = self.compiler.stock();
        let mut after = None;
        loop {
            let some = self.sources(None, after, STEP);
            let Some(last) = some.last() else { return };
            after = Some(last.record.id);
            let changed =
                some.iter().filter(|old| old.works.is_err() || now.differs_for_source(before, &old.record));
            let ready = changed.map(|old| {
                let live = self.compiler.compile_source(old.record.clone(), old.revision);
                if let Err(reason) = &live.works {
                    tracing::error!(source = %live.record.id, reason, "a source can't receive");
                }
                Ready::Source(Arc::new(live))
            });
            self.put_in_place(ready.collect(), self.revision());
            tokio::task::yield_now().await;
        }
    }
}
