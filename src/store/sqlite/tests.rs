//! The conformance suite on the embedded store, and what is its own: full disks, locks, guests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tempfile::TempDir;

use super::SqliteStore;
use crate::clock::{Clock, Entropy, Ids};
use crate::domain::job::Outcome;
use crate::store::conformance::{Engine, RETENTION, World};
use crate::store::{Ingest, RecordId, Store, StoreError};

struct Embedded(TempDir);

impl Embedded {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn open(&self, clock: Clock, ids: Ids) -> Arc<dyn Store> {
        // A store that was dropped lets go of its folder once its thread has ended.
        for _ in 0..100_000 {
            match SqliteStore::open(self.0.path(), clock.clone(), ids.clone(), RETENTION).await {
                Ok(store) => return Arc::new(store),
                Err(StoreError::Unavailable(reason)) if reason.contains("another gateway") => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the folder is never let go");
    }
}

crate::store::conformance::conformance_suite!(Embedded::new());
