//! The gateway put together: configuration to store to gateway to API and workers, and its orderly end.
//!
//! Starting goes up the floors and stopping down: first nothing new is accepted, then attempts under way may end, then the
//! store writes what it holds and closes. Whatever is cut off by the limit is in the store and is tried again at the next
//! start.

pub mod data_dir;
mod listener;
mod reload;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::api;
use crate::clock::{Clock, Entropy, Ids};
use crate::config::{Config, Role, StoreConfig, inherited_listener};
use crate::domain::fault::Faults;
use crate::domain::secret::Secret;
use crate::egress::{AddressPolicy, Egress, EgressError, EgressSettings};
use crate::service::traces::{LAST_POSTS, Traces};
use crate::service::vault::{Vault, VaultError};
use crate::service::{Gateway, Parts, ServiceError, Settings};
use crate::spec::{Catalogue, Stamp};
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::worker::{self, WorkerError, WorkerSettings, Workers};
use listener::{BoundedListener, IDLE_LIMIT, most_connections};
pub use reload::Reloader;

/// Before the store is swept again after that failed.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);

/// How long the last alerts may take to be written when the gateway stops.
const LAST_ALERTS: Duration = Duration::from_secs(2);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Connectors or mappings are faulty.
    #[error("{0}")]
    Catalogue(Faults),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {}", plain(error))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("{}: {reason}", path.display())]
    DataDir {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What would mend it.
        hint: Option<&'static str>,
    },
    /// The store does not open.
    #[error("the store ({store}) does not open: {error}")]
    Store {
        /// Which: what [`store_name`] says.
        store: String,
        /// Why.
        error: StoreError,
    },
    /// The secret key opens nothing of what is stored.
    #[error("{0}")]
    SecretKey(VaultError),
    /// The HTTP client does not start.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The workers' settings make no sense together.
    #[error(transparent)]
    Workers(#[from] WorkerError),
    /// The store answered, but not as it should.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// The system's words without its number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl AppError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { error, address } => match error.kind() {
                std::io::ErrorKind::AddrInUse => Some(format!(
                    "something listens on port {} already; --listen 127.0.0.1:0 takes a free port",
                    address.port()
                )),
                std::io::ErrorKind::PermissionDenied => {
                    Some("ports below 1024 need a privilege; choose a higher one".to_owned())
                }
                _ => Some("--listen names the address".to_owned()),
            },
            Self::DataDir { hint, .. } => hint.map(str::to_owned),
            Self::Store { error: StoreError::Corrupt(_), .. } => Some(
                "what another version wrote opens with that version; what is damaged is restored from a backup"
                    .to_owned(),
            ),
            Self::SecretKey(_) => Some(
                "every process on one store needs the same key: give it in PATCHBAY_SECRET_KEY, or copy \
                 secret.key into the data folder"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A gateway that serves and delivers.
pub struct RunningApp {
    /// Where it serves HTTP.
    pub address: SocketAddr,
    /// The operator's key, when this start made the first one.
    pub operator_token: Option<Secret>,
    /// What it runs on.
    pub gateway: Arc<Gateway>,
    /// Reads connector and mapping files again.
    pub reloader: Reloader,
    drain: Duration,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    workers: Option<Workers>,
    background: JoinSet<()>,
    exporter: JoinHandle<()>,
}

/// Starts the gateway. It answers when this returns.
pub async fn start(config: &Config, clock: Clock, entropy: Entropy) -> Result<RunningApp, AppError> {
    let address = config.listen;
    let bound = match inherited_listener() {
        Ok(Some(inherited)) => TcpListener::from_std(inherited),
        Ok(None) => TcpListener::bind(address).await,
        Err(error) => Err(error),
    };
    let listener = bound.map_err(|error| AppError::Listen { address, error })?;
    let address = listener.local_addr().map_err(|error| AppError::Listen { address, error })?;
    let read = config.catalogue_dir.as_deref().map(Stamp::of).unwrap_or_default();
    let gateway = open_gateway(config, clock, entropy, Place::Owner).await?;
    gateway.check_secret_key().map_err(AppError::SecretKey)?;
    let role = config.role;
    let operator_token = if role.serves_api() { gateway.first_operator_key().await? } else { None };
    gateway.settle_all_concurrency().await;
    if let Some(tenant) = gateway.settings.alerts_tenant.as_ref()
        && gateway.directory.tenant(tenant).is_none()
    {
        tracing::warn!(%tenant, "alerts.tenant names no tenant yet: nobody is told of all tenants' alerts until it is made");
    }

    let workers = if role.delivers() {
        let settings =
            WorkerSettings { concurrency: config.delivery.concurrency, lease: config.delivery.lease };
        Some(worker::start(&gateway, &settings, config.delivery.drain)?)
    } else {
        gateway.progress.expect_nothing();
        None
    };
    let mut background = JoinSet::new();
    background.spawn(follow(Arc::clone(&gateway)));
    background.spawn(sweep(Arc::clone(&gateway)));
    background.spawn(tend_hooks(Arc::clone(&gateway)));
    background.spawn(keep_quotas(Arc::clone(&gateway)));
    let exporter = tokio::spawn(export_traces(Arc::clone(&gateway)));
    background.spawn(tend_chores(Arc::clone(&gateway)));
    background.spawn(watch_over(Arc::clone(&gateway)));

    let (stop, stopped) = watch::channel(false);
    let router = match role {
        Role::Both | Role::Api => api::router(Arc::clone(&gateway)),
        Role::Worker => api::probe_router(Arc::clone(&gateway)),
    };
    let listener = BoundedListener::new(listener, most_connections(), IDLE_LIMIT);
    let server = tokio::spawn(server::serve(listener, router, stopped, server::HEAD_LIMIT));
    let drain = config.delivery.drain;
    tracing::info!(%address, role = role.name(), version = env!("CARGO_PKG_VERSION"), "started");
    let reloader = Reloader::new(Arc::clone(&gateway), config.catalogue_dir.clone(), read);
    Ok(RunningApp {
        address,
        operator_token,
        gateway,
        reloader,
        drain,
        stop,
        server,
        workers,
        background,
        exporter,
    })
}

/// Opens the data folder's gateway for a command, beside the one that serves, if there is one: it makes and reads records
/// and delivers nothing.
pub async fn open_guest(config: &Config, clock: Clock, entropy: Entropy) -> Result<Arc<Gateway>, AppError> {
    open_gateway(config, clock, entropy, Place::Guest).await
}

/// In which part a process opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Owner,
    Guest,
}

async fn open_gateway(
    config: &Config,
    clock: Clock,
    entropy: Entropy,
    place: Place,
) -> Result<Arc<Gateway>, AppError> {
    let catalogue = Catalogue::load(config.catalogue_dir.as_deref()).map_err(AppError::Catalogue)?;
    let folder = config.data_dir.clone();
    data_dir::prepare(&folder)?;
    let key = data_dir::secret_key(&folder, config.secret_key.as_ref(), &entropy)?;
    if config.secret_key.is_none() && matches!(config.store, StoreConfig::Redis(_)) {
        tracing::warn!(
            folder = %folder.display(),
            "secrets are sealed with the secret.key of this folder: any other process on this Redis needs the same"
        );
    }
    let ids = Ids::new(clock.clone(), entropy.clone());
    let opened = open_store(config, &clock, &ids, place).await;
    let store = opened.map_err(|error| AppError::Store { store: store_name(config), error })?;
    let addresses = Arc::new(AddressPolicy {
        allow_http: config.egress.allow_http,
        allowed: config.egress.allow_ranges.clone(),
    });
    let egress = Egress::new(
        Arc::clone(&addresses),
        EgressSettings {
            connect_timeout: config.egress.connect_timeout,
            pool_idle_per_host: config.delivery.concurrency,
            ..EgressSettings::default()
        },
    )?;
    // A command beside the gateway tells nothing of what it does.
    let recorded = config.telemetry.traces.as_ref().filter(|_| place == Place::Owner);
    let traces = Traces::new(recorded, &clock, &entropy)?;
    let parts = Parts {
        store,
        vault: Vault::new(key.reveal(), entropy.clone()),
        clock,
        entropy,
        ids,
        catalogue: Arc::new(catalogue),
        egress: Arc::new(egress),
        addresses,
        traces,
        settings: Settings {
            events_per_second: config.limits.events_per_second,
            requests_in_flight: config.limits.requests_in_flight,
            bytes_in_flight: config.limits.bytes_in_flight,
            jobs_per_tenant: config.limits.jobs_per_tenant,
            connections_per_tenant: config.limits.connections_per_tenant,
            body_bytes: config.limits.body_bytes,
            google: config.google.clone(),
            deliveries_per_second: config.limits.deliveries_per_second,
            visitor_requests_per_minute: config.limits.visitor_requests_per_minute,
            trusted_proxies: config.trusted_proxies.clone(),
            chat: config.chat.clone(),
            alerts_tenant: config.alerts_tenant.clone(),
            public_url: config.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        },
    };
    Gateway::start(parts).await.map_err(|error| AppError::Store { store: store_name(config), error })
}

/// Opens a store for a command that must have it alone; the embedded one only where there is one, unless it is to be `made`.
pub async fn open_store_alone(
    config: &Config,
    clock: &Clock,
    ids: &Ids,
    made: bool,
) -> Result<Arc<dyn Store>, AppError> {
    if matches!(config.store, StoreConfig::Sqlite) {
        if made {
            data_dir::prepare(&config.data_dir)?;
        } else {
            data_dir::ensure_database(&config.data_dir)?;
        }
    }
    let opened = open_store(config, clock, ids, Place::Owner).await;
    opened.map_err(|error| AppError::Store { store: store_name(config), error })
}

async fn open_store(
    config: &Config,
    clock: &Clock,
    ids: &Ids,
    place: Place,
) -> Result<Arc<dyn Store>, StoreError> {
    let (folder, clock, ids) = (&config.data_dir, clock.clone(), ids.clone());
    Ok(match (&config.store, place) {
        (StoreConfig::Sqlite, Place::Owner) => {
            Arc::new(SqliteStore::open(folder, clock, ids, config.retention.clone()).await?)
        }
        (StoreConfig::Sqlite, Place::Guest) => Arc::new(SqliteStore::open_guest(folder, clock, ids).await?),
        (StoreConfig::Redis(settings), _) => Arc::new(RedisStore::open(settings.clone(), clock, ids).await?),
    })
}

/// The store as a person knows it; never a URL, which may hold a password.
pub fn store_name(config: &Config) -> String {
    match &config.store {
        StoreConfig::Sqlite => format!("sqlite in {}", config.data_dir.display()),
        StoreConfig::Redis(_) => "redis".to_owned(),
    }
}

async fn follow(gateway: Arc<Gateway>) {
    gateway.follow().await;
}

async fn keep_quotas(gateway: Arc<Gateway>) {
    gateway.keep_quotas().await;
}

async fn export_traces(gateway: Arc<Gateway>) {
    gateway.traces.export(&gateway.metrics).await;
}

async fn tend_hooks(gateway: Arc<Gateway>) {
    gateway.tend_hooks_forever().await;
}

async fn tend_chores(gateway: Arc<Gateway>) {
    gateway.tend_chores_forever().await;
}

async fn watch_over(gateway: Arc<Gateway>) {
    gateway.watch_forever().await;
}

/// Sweeps the store as long as it is open.
async fn sweep(gateway: Arc<Gateway>) {
    loop {
        match gateway.store.sweep().await {
            Ok(swept) if swept.more => tokio::task::yield_now().await,
            Ok(_) => gateway.store.wait_for_upkeep().await,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "the store could not be swept; trying again");
                gateway.clock.sleep(SWEEP_AGAIN).await;
            }
        }
    }
}

impl RunningApp {
    /// Where people and programs reach it.
    pub fn url(&self) -> String {
        // An unspecified address is no address to call.
        let host = match self.address {
            SocketAddr::V4(address) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V6(address) if address.ip().is_unspecified() => "[::1]".to_owned(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
            SocketAddr::V4(address) => address.ip().to_string(),
        };
        format!("http://{host}:{}", self.address.port())
    }

    /// Reads connector and mapping files again whenever they change, as long as it runs.
    pub fn watch(&mut self) {
        self.background.spawn(self.reloader.clone().watch());
    }

    /// Stops: accepts nothing more, lets attempts under way end within the drain limit, and closes the store.
    pub async fn stop(mut self) {
        let limit = self.drain;
        self.stop.send_replace(true);
        let served = tokio::time::timeout(limit, &mut self.server);
        let drained = async {
            if let Some(workers) = self.workers {
                workers.drain().await;
            }
        };
        let (served, ()) = tokio::join!(served, drained);
        if served.is_err() {
            tracing::warn!("requests were still open when the time to stop was up");
            self.server.abort();
        }
        self.gateway.traces.stop();
        // What the collector does not take by then is lost, like all that it did not take before.
        let _ = tokio::time::timeout(LAST_POSTS, &mut self.exporter).await;
        self.exporter.abort();
        self.background.shutdown().await;
        // What the last attempts left to tell.
        match tokio::time::timeout(LAST_ALERTS, self.gateway.raise_alerts()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last alerts could not be sent"),
            Err(_) => tracing::warn!("the last alerts could not be sent in time"),
        }
        self.gateway.store.close().await;
    }
}
