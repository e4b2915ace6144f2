//! A gateway for tests: the embedded store in a folder of its own, a clock that stands still, no workers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::traces::Traces;
use super::vault::Vault;
use super::{Gateway, Parts, Settings};
use crate::clock::{Clock, Entropy, Ids};
use crate::domain::time::Timestamp;
use crate::egress::{AddressPolicy, Egress, EgressSettings};
use crate::spec::Catalogue;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// When a test's clock starts: 2026-05-03T14:22:08Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_777_818_128_000);

/// A gateway as the owner of an empty folder.
pub(crate) async fn gateway(settings: Settings) -> (Arc<Gateway>, Clock, TempDir) {
    let folder = TempDir::new().unwrap();
    let clock = Clock::manual(START);
    let gateway = gateway_in(folder.path(), clock.clone(), settings, 7, true).await;
    (gateway, clock, folder)
}

/// A gateway that lets requests go to public addresses over https alone.
pub(crate) async fn gateway_over_https() -> (Arc<Gateway>, Clock, TempDir) {
    let folder = TempDir::new().unwrap();
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store = SqliteStore::open(folder.path(), clock.clone(), ids, Duration::from_hours(1)).await.unwrap();
    let (settings, addresses) = (Settings::default(), AddressPolicy::default());
    (guarded(Arc::new(store), clock.clone(), settings, 7, addresses).await, clock, folder)
}

/// A gateway on a folder, as its owner or beside it, whose vault's key is made of `key`.
pub(crate) async fn gateway_in(
    folder: &Path,
    clock: Clock,
    settings: Settings,
    key: u8,
    owner: bool,
) -> Arc<Gateway> {
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store = if owner {
        SqliteStore::open(folder, clock.clone(), ids.clone(), Duration::from_hours(1)).await
    } else {
        SqliteStore::open_guest(folder, clock.clone(), ids.clone()).await
    };
    gateway_on(Arc::new(store.unwrap()), clock, settings, key).await
}

/// A gateway on a store, whose vault's key is made of `key`. Loopback and plain http are allowed.
pub(crate) async fn gateway_on(
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    key: u8,
) -> Arc<Gateway> {
    let loopback = vec!["127.0.0.0/8".parse().unwrap()];
    guarded(store, clock, settings, key, AddressPolicy { allow_http: true, allowed: loopback }).await
}

async fn guarded(
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    key: u8,
    addresses: AddressPolicy,
) -> Arc<Gateway> {
    let entropy = Entropy::system();
    let ids = Ids::new(clock.clone(), entropy.clone());
    let addresses = Arc::new(addresses);
    let egress = Egress::new(Arc::clone(&addresses), EgressSettings::default()).unwrap();
    let parts = Parts {
        store,
        clock,
        vault: Vault::new(&[key; 32], entropy.clone()),
        entropy,
        ids,
        catalogue: Arc::new(Catalogue::load(None).unwrap()),
        egress: Arc::new(egress),
        addresses,
        settings,
        traces: Traces::default(),
    };
    Gateway::start(parts).await.unwrap()
}
