//! A whole gateway in this process: the embedded store in a folder of its own, workers, and a clock that the test
//! advances.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use patchbay::clock::{Clock, Entropy, Ids};
use patchbay::domain::id::{ConnectionId, JobId, TenantId};
use patchbay::domain::job::JobState;
use patchbay::domain::time::Timestamp;
use patchbay::egress::{AddressPolicy, Egress, EgressSettings, HeaderMap, header};
use patchbay::service::ingest::{Publish, Receipt};
use patchbay::service::traces::Traces;
use patchbay::service::vault::Vault;
use patchbay::service::{Gateway, Parts, Settings};
use patchbay::spec::Catalogue;
use patchbay::store::sqlite::SqliteStore;
use patchbay::store::{Delivery, DeliveryQuery, Store};
use patchbay::worker::{self, WorkerSettings, Workers};
use serde_json::{Value, json};
use tempfile::TempDir;

/// When the tests' clocks start: 2026-05-03T14:22:08Z.
pub const START: Timestamp = Timestamp::from_millis(1_777_818_128_000);

pub struct TestGateway {
    pub gateway: Arc<Gateway>,
    pub clock: Clock,
    pub folder: Arc<TempDir>,
    workers: Option<Workers>,
    following: tokio::task::JoinHandle<()>,
}

impl TestGateway {
    /// A gateway with workers, on an empty store.
    pub async fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), Clock::manual(START)).await
    }

    /// A gateway on the store of a folder, which lets requests go to loopback.
    pub async fn start_in(folder: Arc<TempDir>, clock: Clock) -> Self {
        Self::start_guarded(folder, clock, &["127.0.0.0/8"]).await
    }

    /// A gateway on the store of a folder, which lets requests go to public addresses and these.
    pub async fn start_guarded(folder: Arc<TempDir>, clock: Clock, allowed: &[&str]) -> Self {
        Self::start_with(folder, clock, allowed, Settings::default()).await
    }

    /// The same with these settings.
    pub async fn start_with(
        folder: Arc<TempDir>,
        clock: Clock,
        allowed: &[&str],
        settings: Settings,
    ) -> Self {
        let entropy = Entropy::system();
        let ids = Ids::new(clock.clone(), entropy.clone());
        let store = SqliteStore::open(folder.path(), clock.clone(), ids.clone(), Duration::from_hours(168));
        let store: Arc<dyn Store> = Arc::new(store.await.unwrap());
        let allowed = allowed.iter().map(|range| range.parse().unwrap()).collect();
        let addresses = Arc::new(AddressPolicy { allow_http: true, allowed });
        let egress = Egress::new(Arc::clone(&addresses), EgressSettings::default()).unwrap();
        let gateway = Gateway::start(Parts {
            store,
            clock: clock.clone(),
            vault: Vault::new(&[7; 32], entropy.clone()),
            entropy,
            ids,
            catalogue: Arc::new(Catalogue::load(None).unwrap()),
            egress: Arc::new(egress),
            addresses,
            settings,
            traces: Traces::default(),
        })
        .await
        .unwrap();
        let following = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move { gateway.follow().await }
        });
        let workers = worker::start(&gateway, &WorkerSettings::default(), Duration::from_secs(5)).unwrap();
        Self { gateway, clock, folder, workers: Some(workers), following }
    }

    /// Stops in order and closes the store.
    pub async fn stop(mut self) {
        if let Some(workers) = self.workers.take() {
            workers.drain().await;
        }
        self.following.abort();
        self.gateway.store.close().await;
    }

    /// A tenant of this name.
    pub async fn tenant(&self, name: &str) -> TenantId {
        let id: TenantId = name.parse().unwrap();
        self.gateway.make_tenant(id.clone(), name).await.unwrap();
        id
    }

    /// A connection for all of a tenant's events; `more` is merged into its JSON. Answers its id and secret.
    pub async fn connection(&self, tenant: &TenantId, url: &str, more: Value) -> (ConnectionId, String) {
        let mut wanted =
            json!({"name": "test", "connector": "webhook", "events": ["*"], "target": {"url": url}});
        merge(&mut wanted, more);
        let saved = self.gateway.make_connection(Some(tenant), &wanted).await.unwrap();
        let secret = saved.secret.map(|secret| secret.reveal().to_owned()).unwrap_or_default();
        (saved.live.record.id, secret)
    }

    /// Sends events in one request, so that all are accepted before any is delivered.
    pub async fn publish_all(&self, tenant: &TenantId, events: impl Iterator<Item = Value>) {
        self.publish(tenant, &Value::Array(events.collect())).await;
    }

    /// Sends one event as plain JSON; answers what became of it.
    pub async fn publish(&self, tenant: &TenantId, event: &Value) -> Receipt {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let body = Bytes::from(event.to_string());
        let published = self
            .gateway
            .publish(Publish {
                key_tenant: Some(tenant),
                named_tenant: None,
                idempotency_key: None,
                headers: &headers,
                body: &body,
            })
            .await
            .unwrap();
        published.items.into_iter().next().unwrap().unwrap()
    }

    /// All deliveries of a connection, newest first.
    pub async fn deliveries(&self, connection: ConnectionId) -> Vec<Delivery> {
        let query = DeliveryQuery { connection: Some(connection), limit: 10_000, ..DeliveryQuery::default() };
        self.gateway.store.deliveries(query).await.unwrap().items
    }

    /// Waits until one of a connection's deliveries is in this state; answers it with its attempts.
    pub async fn wait_for_state(&self, connection: ConnectionId, state: JobState) -> Delivery {
        self.wait_for(connection, state.name(), |delivery| delivery.state == state).await
    }

    /// Waits until one of a connection's deliveries was tried so often; answers it with its attempts.
    pub async fn wait_for_tries(&self, connection: ConnectionId, tries: u32) -> Delivery {
        self.wait_for(connection, &format!("tried {tries} times"), |delivery| delivery.job.tries == tries)
            .await
    }

    /// Waits until one of a connection's deliveries stands where it stands for a reason.
    pub async fn wait_for_reason(&self, connection: ConnectionId) -> Delivery {
        self.wait_for(connection, "told of", |delivery| !delivery.reason.is_empty()).await
    }

    /// Waits until a connection has so many deliveries and all of them were delivered.
    pub async fn wait_until_settled(&self, connection: ConnectionId, count: usize) {
        super::within(&format!("{count} delivered deliveries"), async {
            loop {
                let found = self.deliveries(connection).await;
                if found.len() == count && found.iter().all(|found| found.state == JobState::Delivered) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn wait_for(
        &self,
        connection: ConnectionId,
        what: &str,
        is_it: impl Fn(&Delivery) -> bool,
    ) -> Delivery {
        super::within(&format!("a delivery that is {what}"), async {
            loop {
                if let Some(found) = self.deliveries(connection).await.iter().find(|found| is_it(found)) {
                    return self.delivery(found.job.id).await;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, id: JobId) -> Delivery {
        self.gateway.store.delivery(id).await.unwrap().unwrap()
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
