//! What the gateway does, apart from HTTP and from the workers: takes events in, keeps accounts and connections.
//!
//! [`Gateway`] is one process's share of it, used by the API and the workers alike. What is durable lies in the store;
//! what is here is either a snapshot of it ([`directory`]) or may be lost (rates, metrics, requests under way).

pub mod accounts;
pub mod chores;
pub mod connections;
pub mod deliver;
pub mod directory;
pub mod door;
pub mod erasure;
pub mod exchange;
pub mod hooks;
pub mod ingest;
pub mod live;
pub mod metrics;
pub mod migrate;
mod progress;
pub mod public;
pub mod quotas;
pub mod rate;
pub mod receive;
pub mod recent;
pub mod rehearsal;
pub mod reload;
pub mod replay;
mod running;
pub mod sheets;
pub mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub mod traces;
pub mod trigger;
pub mod tryout;
pub mod turn;
pub mod vault;
pub mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::{Clock, Entropy, Ids};
use crate::connector::google_sheets::GoogleSettings;
use crate::domain::fault::Faults;
use crate::domain::id::{SourceId, TenantId};
use crate::domain::secret::Sealed;
use crate::egress::{AddressPolicy, Egress};
use crate::spec::Catalogue;
use crate::store::{Store, StoreError};
use directory::Directory;
use door::Door;
use metrics::Metrics;
pub use progress::Progress;
use public::ChatSettings;
use quotas::Backlogs;
use rate::Rates;
use reload::Reloads;
use running::Running;
use sheets::Sheets;
use traces::Traces;
use trigger::Triggers;
use vault::{Vault, VaultError};
use watch::Watch;

/// The most events of one request.
pub const MAX_BATCH: usize = 1_000;

/// Limits that an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events a tenant may send a second; 0 means no limit.
    pub events_per_second: u32,
    /// Requests that may be under way at once.
    pub requests_in_flight: usize,
    /// Bytes of their bodies that may be in memory at once.
    pub bytes_in_flight: usize,
    /// Open jobs a tenant may have; 0 means no limit.
    pub jobs_per_tenant: u64,
    /// Connections a tenant may have.
    pub connections_per_tenant: usize,
    /// The longest body of a request.
    pub body_bytes: usize,
    /// Where Google is.
    pub google: GoogleSettings,
    /// Verified deliveries of a source a second; 0 means no limit.
    pub deliveries_per_second: u32,
    /// Requests a visitor may send to the public paths a minute; 0 means no limit.
    pub visitor_requests_per_minute: u32,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where a public chat's messages are answered.
    pub chat: Option<ChatSettings>,
    /// The address by which others reach the gateway, without a slash at its end.
    pub public_url: Option<String>,
    /// The operator's tenant, which is told of alerts about every tenant.
    pub alerts_tenant: Option<TenantId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            events_per_second: 20_000,
            requests_in_flight: 4_096,
            bytes_in_flight: 64 << 20,
            jobs_per_tenant: 0,
            connections_per_tenant: 100_000,
            body_bytes: 1 << 20,
            google: GoogleSettings::default(),
            deliveries_per_second: 1_000,
            visitor_requests_per_minute: 60,
            trusted_proxies: Vec::new(),
            chat: None,
            public_url: None,
            alerts_tenant: None,
        }
    }
}

/// What a [`Gateway`] is made of.
pub struct Parts {
    /// Where everything durable lies.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Clock,
    /// Makes tokens, secrets and nonces.
    pub entropy: Entropy,
    /// Makes identifiers.
    pub ids: Ids,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// Connectors and mappings.
    pub catalogue: Arc<Catalogue>,
    /// Sends requests.
    pub egress: Arc<Egress>,
    /// Where requests may go; the one that `egress` goes by.
    pub addresses: Arc<AddressPolicy>,
    /// Limits.
    pub settings: Settings,
    /// Tells spans.
    pub traces: Traces,
}

/// One process's gateway.
pub struct Gateway {
    /// Where everything durable lies.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Clock,
    /// Makes tokens, secrets and nonces.
    pub entropy: Entropy,
    /// Makes identifiers.
    pub ids: Ids,
    /// Seals and opens secrets.
    pub vault: Arc<Vault>,
    /// Sends requests.
    pub egress: Arc<Egress>,
    /// Where requests may go.
    pub addresses: Arc<AddressPolicy>,
    /// What became of the last reload of the catalogue.
    pub reloads: Reloads,
    /// Tenants, keys and connections, in memory.
    pub directory: Directory,
    /// What is counted.
    pub metrics: Metrics,
    /// Spans on their way to a collector.
    pub traces: Traces,
    /// Limits.
    pub settings: Settings,
    /// How much may be under way.
    pub door: Door,
    /// Whether the workers get on.
    pub progress: Progress,
    sheets: Sheets,
    rates: Rates<TenantId>,
    source_rates: Rates<SourceId>,
    visitor_rates: Rates<IpAddr>,
    backlogs: Backlogs,
    running: Running,
    triggers: Arc<Triggers>,
    trying: tokio::sync::Semaphore,
    /// Held by whoever looks for a subscription and makes it where there is none.
    subscribing: tokio::sync::Mutex<()>,
    /// Rung when a subscription may need upkeep before its time.
    hooks_changed: tokio::sync::Notify,
    /// Rung when a chore was made.
    chores_changed: tokio::sync::Notify,
    watch: Watch,
}

impl Gateway {
    /// Loads every record and keeps the catalogue's mappings in the store, so that jobs can be pinned to them.
    /// [`Gateway::follow`] must run beside it.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let Parts { store, clock, entropy, ids, vault, catalogue, egress, addresses, settings, traces } =
            parts;
        let vault = Arc::new(vault);
        let directory = Directory::new(
            Arc::clone(&catalogue),
            Arc::clone(&vault),
            Arc::clone(&addresses),
            settings.google.clone(),
        );
        keep_mappings(&catalogue, store.as_ref()).await?;
        directory.catch_up(store.as_ref()).await?;
        let batch = u32::try_from(MAX_BATCH).unwrap_or(u32::MAX);
        let shared = store.about().shared;
        Ok(Arc::new(Self {
            rates: Rates::new(settings.events_per_second, batch).shared(shared),
            source_rates: Rates::new(settings.deliveries_per_second, 1).shared(shared),
            visitor_rates: Rates::a_minute(settings.visitor_requests_per_minute).shared(shared),
            backlogs: Backlogs::new(settings.jobs_per_tenant),
            door: Door::new(settings.requests_in_flight, settings.bytes_in_flight),
            running: Running::default(),
            triggers: Arc::default(),
            trying: tokio::sync::Semaphore::new(tryout::MAX_TRYOUTS),
            subscribing: tokio::sync::Mutex::default(),
            hooks_changed: tokio::sync::Notify::default(),
            chores_changed: tokio::sync::Notify::default(),
            watch: Watch::default(),
            metrics: Metrics::default(),
            traces,
            progress: Progress::default(),
            sheets: Sheets::new(&egress, &settings.google, &clock, &ids),
            store,
            clock,
            entropy,
            ids,
            vault,
            egress,
            addresses,
            reloads: Reloads::default(),
            directory,
            settings,
        }))
    }

    /// The connectors and mappings in force.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.directory.catalogue()
    }

    /// Fails when stored secrets are there and none of the first ones opens: the key is not the one they were sealed with.
    pub fn check_secret_key(&self) -> Result<(), VaultError> {
        /// Connections and sources looked at, of each.
        const LOOKED_AT: usize = 100;
        let mut sealed: Vec<(String, Sealed)> = Vec::new();
        for live in self.directory.connections(None, None, LOOKED_AT) {
            let (record, owner) = (&live.record, live.record.id.to_string());
            let signing = record.signing.iter().map(|secret| &secret.sealed);
            let own = signing.chain(record.credentials.values()).chain(record.target.headers.values());
            sealed.extend(own.map(|secret| (owner.clone(), secret.clone())));
        }
        for live in self.directory.sources(None, None, LOOKED_AT) {
            let (record, owner) = (&live.record, live.record.id.to_string());
            let own = record.secrets.iter().map(|secret| &secret.sealed).chain(record.credentials.values());
            sealed.extend(own.map(|secret| (owner.clone(), secret.clone())));
        }
        let mut found = Ok(());
        for (owner, secret) in &sealed {
            match self.vault.open(owner, secret) {
                Ok(_) => return Ok(()),
                Err(error) => found = Err(error),
            }
        }
        found
    }

    /// Keeps the directory fresh with what other processes write; runs until it is dropped.
    pub async fn follow(&self) {
        /// Before the store is asked again after it failed.
        const PAUSE: Duration = Duration::from_millis(250);
        loop {
            self.store.wait_for_change(self.directory.revision()).await;
            if let Err(error) = self.directory.catch_up(self.store.as_ref()).await {
                self.store_failed(&error);
                match error {
                    StoreError::Closed => return,
                    StoreError::Emptied => match self.rebuild().await {
                        Ok(true) => continue,
                        Ok(false) => tracing::debug!("another process writes the store's records again"),
                        Err(error) => {
                            tracing::error!(%error, "the records of an emptied store could not be written again");
                        }
                    },
                    error => tracing::warn!(%error, "the records could not be read; trying again"),
                }
                self.clock.sleep(PAUSE).await;
            }
        }
    }

    /// Gives an emptied store the tenants, keys and connections that this process remembers.
    async fn rebuild(&self) -> Result<bool, StoreError> {
        let records = self.directory.records();
        keep_mappings(&self.catalogue(), self.store.as_ref()).await?;
        for live in self.directory.connections(None, None, usize::MAX) {
            if let Ok(working) = &live.works {
                self.store.put_mapping(live.mapping_version, working.mapping.to_json()).await?;
            }
        }
        let count = records.len();
        let is_first = self.store.rebuild(records, self.directory.revision()).await?;
        if is_first {
            tracing::error!(
                records = count,
                "THE STORE WAS EMPTIED: events that were accepted and not delivered are lost; its tenants, keys and \
                 connections were written again from memory, and work goes on"
            );
        }
        Ok(is_first)
    }
}

/// Keeps the catalogue's mappings in the store, for the jobs that are pinned to them.
async fn keep_mappings(catalogue: &Catalogue, store: &dyn Store) -> Result<(), StoreError> {
    for mapping in catalogue.mappings().values() {
        store.put_mapping(crate::spec::mapping_version(mapping), mapping.to_json()).await?;
    }
    Ok(())
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// What was sent is wrong.
    #[error("{0}")]
    Invalid(Faults),
    /// There is none of that id: `tenant`, `key`, `connection`, `hook`, `source`, `event`, `delivery`, `replay` or `erasure`.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// There is one of that id already.
    #[error("there is a {0} of that id already")]
    Exists(&'static str),
    /// Someone else changed it meanwhile.
    #[error("it was changed meanwhile")]
    Conflict,
    /// As many as allowed are there.
    #[error("{0}")]
    Limit(Faults),
    /// Its state does not allow it; the reason is for a person.
    #[error("{0}")]
    State(String),
    /// It has no turn for so long; the reason is for a person.
    #[error("{1}")]
    Throttled(Duration, String),
    /// Too much of it is under way; it may be tried again soon.
    #[error("{0}")]
    Busy(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<Faults> for ServiceError {
    fn from(faults: Faults) -> Self {
        Self::Invalid(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_secret_key_than_the_stores_is_noticed() {
        let (first, clock, folder) = testing::gateway(Settings::default()).await;
        assert_eq!(first.check_secret_key(), Ok(()), "nothing is sealed yet");
        let tenant = first.make_tenant("acme".parse().unwrap(), "Acme").await.unwrap().id.clone();
        let wanted = serde_json::json!({"name": "x", "connector": "webhook", "events": ["*"],
                                        "target": {"url": "http://127.0.0.1:9/"}});
        first.make_connection(Some(&tenant), &wanted).await.unwrap();
        assert_eq!(first.check_secret_key(), Ok(()));
        for (key, wanted) in [(7, Ok(())), (8, Err(VaultError::Sealed))] {
            let gateway =
                testing::gateway_in(folder.path(), clock.clone(), Settings::default(), key, false).await;
            assert_eq!(gateway.check_secret_key(), wanted);
        }
    }

    #[tokio::test]
    async fn another_secret_key_is_noticed_by_a_source_alone() {
        let (first, clock, folder) = testing::gateway(Settings::default()).await;
        let tenant = first.make_tenant("acme".parse().unwrap(), "Acme").await.unwrap().id.clone();
        let wanted = serde_json::json!({"name": "Repo", "connector": "github"});
        first.make_source(Some(&tenant), &wanted).await.unwrap();
        for (key, wanted) in [(7, Ok(())), (8, Err(VaultError::Sealed))] {
            let gateway =
                testing::gateway_in(folder.path(), clock.clone(), Settings::default(), key, false).await;
            assert_eq!(gateway.check_secret_key(), wanted);
        }
    }
}
