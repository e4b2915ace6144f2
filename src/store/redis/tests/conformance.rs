//! The conformance suite on Redis. Cases share a server, each under a prefix of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::server::Server;
use crate::clock::{Clock, Ids};
use crate::store::Store;
use crate::store::conformance::{Engine, retention};
use crate::store::redis::{RedisSettings, RedisStore};

/// Ends with the last case that uses it.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static COUNT: AtomicU64 = AtomicU64::new(0);

struct Shared {
    server: Arc<Server>,
    prefix: String,
}

impl Shared {
    fn new() -> Self {
        let mut shared = SHARED.lock();
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(Server::start()));
        *shared = Arc::downgrade(&server);
        Self { server, prefix: format!("case{}", COUNT.fetch_add(1, Ordering::Relaxed)) }
    }
}

#[async_trait]
impl Engine for Shared {
    async fn open(&self, clock: Clock, ids: Ids) -> Arc<dyn Store> {
        let settings = RedisSettings {
            prefix: self.prefix.clone(),
            retention: retention(),
            ..RedisSettings::new(self.server.url())
        };
        Arc::new(RedisStore::open(settings, clock, ids).await.unwrap())
    }
}

crate::store::conformance::conformance_suite!(Shared::new());
