//! What a tenant, a source or a visitor may use over all processes, looked after beside the requests.
//!
//! A few times a second, and only while somebody sends: what this process let through is paid out of the buckets in the store
//! ([`Rates`]), and the waiting jobs of tenants that sent something are counted, where there is a limit. A request finds the
//! result in memory and waits for nothing.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Gateway;
use super::rate::{MOST_BUCKETS, Rates};
use crate::domain::id::{ConnectionId, TenantId};
use crate::store::{Spent, StoreError};

/// How often dues are paid and jobs counted.
const EVERY: Duration = Duration::from_millis(250);
/// Who is looked after in one round, and how many at once.
const ROUND: usize = 1_024;
const AT_ONCE: usize = 32;
/// Connections whose jobs are counted in one step.
const PAGE: usize = 500;

/// Which tenants have as many jobs waiting as they may.
#[derive(Debug, Default)]
pub struct Backlogs {
    /// Jobs of a tenant that may wait; 0 is no limit.
    most: u64,
    /// Tenants that sent something since they were looked at last.
    active: Mutex<HashSet<TenantId>>,
    full: Mutex<HashSet<TenantId>>,
    sent: Notify,
}

impl Backlogs {
    /// At most so many waiting jobs each; 0 is no limit.
    pub fn new(most: u64) -> Self {
        Self { most, ..Self::default() }
    }

    /// How many jobs of a tenant may wait, where as many do; notes that it sends something.
    pub fn full(&self, tenant: &TenantId) -> Option<u64> {
        if self.most == 0 {
            return None;
        }
        let mut active = self.active.lock();
        if active.len() < MOST_BUCKETS && !active.contains(tenant) {
            active.insert(tenant.clone());
            self.sent.notify_one();
        }
        drop(active);
        self.full.lock().contains(tenant).then_some(self.most)
    }

    async fn wait(&self) {
        while self.active.lock().is_empty() {
            self.sent.notified().await;
        }
    }

    fn set(&self, tenant: TenantId, open: u64) {
        let mut full = self.full.lock();
        if open < self.most {
            full.remove(&tenant);
        } else {
            full.insert(tenant);
        }
    }
}

impl Gateway {
    /// Looks after quotas until it is dropped.
    pub async fn keep_quotas(&self) {
        loop {
            tokio::select! {
                () = self.rates.wait_for_dues() => {}
                () = self.source_rates.wait_for_dues() => {}
                () = self.visitor_rates.wait_for_dues() => {}
                () = self.backlogs.wait() => {}
            }
            self.clock.sleep(EVERY).await;
            self.settle_quotas().await;
        }
    }

    /// One round.
    pub async fn settle_quotas(&self) {
        self.pay("events", &self.rates).await;
        self.pay("deliveries", &self.source_rates).await;
        self.pay("visits", &self.visitor_rates).await;
        let active: Vec<TenantId> = self.backlogs.active.lock().drain().collect();
        futures::stream::iter(active)
            .for_each_concurrent(AT_ONCE, async |tenant| match self.backlog(&tenant).await {
                Ok(open) => self.backlogs.set(tenant, open),
                Err(error) => tracing::debug!(%error, "waiting jobs could not be counted"),
            })
            .await;
    }

    async fn pay<K: Clone + Eq + Hash + Display>(&self, name: &str, rates: &Rates<K>) {
        futures::stream::iter(rates.dues(ROUND))
            .for_each_concurrent(AT_ONCE, async |(key, owed)| self.pay_of(name, rates, &key, owed).await)
            .await;
    }

    /// Pays as much of what one owes as the bucket holds: a large debt must not wait for a bucket that others empty.
    async fn pay_of<K: Clone + Eq + Hash + Display>(&self, name: &str, rates: &Rates<K>, key: &K, owed: u32) {
        let (mut left, mut cost) = (owed, owed);
        while left > 0 {
            let spend = rates.spend(name, key, cost);
            let (scope, paid) = (spend.bucket.clone(), spend.cost);
            match self.store.spend(&scope, &[spend]).await {
                Ok(Spent::Granted) => {
                    left -= paid;
                    cost = paid.min(left);
                }
                Ok(Spent::Wait(_)) if paid > 1 => cost = paid / 2,
                Ok(Spent::Wait(wait)) => return rates.bar(key, left, wait, self.clock.now()),
                Err(error) => {
                    // A store that is away takes no events either: nobody owes for that time.
                    tracing::debug!(%error, "a limit could not be shared");
                    return;
                }
            }
        }
    }

    /// A tenant's waiting jobs, page by page of its connections; no further than the limit.
    async fn backlog(&self, tenant: &TenantId) -> Result<u64, StoreError> {
        let (mut open, mut after) = (0, None);
        loop {
            let page: Vec<ConnectionId> = self
                .directory
                .connections(Some(tenant), after, PAGE)
                .iter()
                .map(|live| live.record.id)
                .collect();
            open += self.store.backlog(tenant, &page).await?;
            after = page.last().copied();
            if page.len() < PAGE || open >= self.backlogs.most {
                return Ok(open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::service::ingest::read_plain;
    use crate::service::{Settings, testing};
    use crate::store::Ingest;

    #[tokio::test]
    async fn waiting_jobs_are_counted_over_all_of_a_tenants_lanes() {
        let settings = Settings { jobs_per_tenant: 4, ..Settings::default() };
        let (gateway, _clock, _folder) = testing::gateway(settings).await;
        let tenant = gateway.make_tenant("acme".parse().unwrap(), "Acme").await.unwrap().id.clone();
        for number in 0..2 {
            let wanted = json!({"name": number.to_string(), "connector": "webhook", "events": ["*"],
                                "target": {"url": "http://127.0.0.1:9/"}});
            gateway.make_connection(Some(&tenant), &wanted).await.unwrap();
        }
        for jobs in [2, 4] {
            assert_eq!(gateway.backlogs.full(&tenant), None);
            let incoming = read_plain(&json!({"type": "x", "data": 1}), "").unwrap();
            let events = vec![gateway.complete(incoming, tenant.clone(), None)];
            gateway.store.ingest(Ingest { idempotency: None, events }).await.unwrap();
            gateway.settle_quotas().await;
            assert_eq!(gateway.backlog(&tenant).await, Ok(jobs));
        }
        assert_eq!(gateway.backlogs.full(&tenant), Some(4));
        assert_eq!(gateway.backlogs.full(&"other".parse().unwrap()), None);
    }
}
