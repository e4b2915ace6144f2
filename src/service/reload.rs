//! Connector and mapping files that change while the gateway runs.
//!
//! Files are read and checked as a whole first: what is faulty changes nothing and is told in the log, in the metrics and at
//! `/readyz`. Then new mappings go into the store, so that jobs can be pinned to them, then the catalogue is put in place and
//! the connections that it changes are compiled anew.
//!
//! # What a job keeps
//! The mapping it was made with, by version; and from its first attempt on the bytes that it made. A job that was not tried
//! yet is enveloped, addressed and signed by the connector file of the day: that is what a mended file is for. See decision 15.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;

use super::live::LiveConnection;
use super::{Gateway, ServiceError, keep_mappings};
use crate::domain::fault::Faults;
use crate::spec::Catalogue;
use crate::store::StoreError;

/// Records written at once when a policy changed.
const WRITES_AT_ONCE: usize = 64;

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Connectors that are new, gone or others now.
    pub connectors: Vec<String>,
    /// Mappings that are new, gone or others now.
    pub mappings: Vec<String>,
    /// Connections that were compiled anew.
    pub connections: usize,
    /// How many of those can't deliver.
    pub broken: usize,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The files are faulty.
    #[error("{0}")]
    Faulty(Faults),
    /// New mappings could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the last reload.
#[derive(Debug, Default)]
pub struct Reloads {
    refused: Mutex<Option<ReloadError>>,
    /// Held by the one that runs.
    running: tokio::sync::Mutex<()>,
}

impl Reloads {
    /// Why the files on the disk are not in force; `None` when they are.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().as_ref().map(|error| match error {
            ReloadError::Faulty(faults) => {
                let count = faults.len();
                let word = if count == 1 { "fault" } else { "faults" };
                format!("the catalogue on the disk has {count} {word}, so the one before stays in force; see the log")
            }
            ReloadError::Store(_) => "the catalogue on the disk could not be put in place; see the log".to_owned(),
        })
    }
}

impl Gateway {
    /// Reads the files again and puts them in force, or changes nothing. Tells the log what came of it.
    pub async fn reload(&self, folder: Option<&Path>) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.reloads.running.lock().await;
        let result = self.reload_now(folder).await;
        match &result {
            Ok(done) => {
                tracing::info!(
                    connectors = ?done.connectors,
                    mappings = ?done.mappings,
                    connections = done.connections,
                    broken = done.broken,
                    "the catalogue was read again"
                );
                self.metrics.reload(0);
            }
            Err(error) => {
                let faults = match error {
                    ReloadError::Faulty(faults) => {
                        for fault in faults.list() {
                            tracing::error!(%fault, "the catalogue is faulty");
                        }
                        faults.len()
                    }
                    ReloadError::Store(error) => {
                        tracing::error!(%error, "the catalogue's mappings could not be kept");
                        1
                    }
                };
                tracing::error!("the catalogue was not read again; the one before stays in force");
                *self.reloads.refused.lock() = Some(error.clone());
                self.metrics.reload(faults);
            }
        }
        result
    }

    async fn reload_now(&self, folder: Option<&Path>) -> Result<Reloaded, ReloadError> {
        let folder = folder.map(Path::to_owned);
        let read = tokio::task::spawn_blocking(move || Catalogue::load(folder.as_deref())).await;
        let catalogue = match read {
            Ok(read) => Arc::new(read.map_err(ReloadError::Faulty)?),
            Err(error) => return Err(StoreError::Unavailable(format!("reading failed: {error}")).into()),
        };
        keep_mappings(&catalogue, self.store.as_ref()).await?;
        // Nothing can refuse it any more, and whoever sees something of it must not be told that the one before is in force.
        *self.reloads.refused.lock() = None;
        let before = self.catalogue();
        let anew = self.directory.adopt(Arc::clone(&catalogue)).await;
        self.settle_concurrency(&anew).await;
        Ok(Reloaded {
            connectors: differing(before.connectors(), catalogue.connectors()),
            mappings: differing(before.mappings(), catalogue.mappings()),
            connections: anew.len(),
            broken: anew.iter().filter(|live| live.works.is_err()).count(),
        })
    }

    /// Writes the concurrency of every connection whose connector's file says another one than when it was saved: for the
    /// files that changed while the gateway did not run.
    pub async fn settle_all_concurrency(&self) {
        let mut after = None;
        loop {
            let some = self.directory.connections(None, after, 1_000);
            let Some(last) = some.last() else { return };
            after = Some(last.record.id);
            self.settle_concurrency(&some).await;
        }
    }

    /// The lane of a connection goes by its record.
    async fn settle_concurrency(&self, lives: &[Arc<LiveConnection>]) {
        let other = |live: &&Arc<LiveConnection>| {
            live.works.as_ref().is_ok_and(|working| working.policy.concurrency != live.record.concurrency)
        };
        futures::stream::iter(lives.iter().filter(other))
            .for_each_concurrent(WRITES_AT_ONCE, |live| async move {
                match self.resolve_concurrency(live.record.id).await {
                    Ok(()) | Err(ServiceError::Missing(_)) => {}
                    Err(error) => {
                        let connection = live.record.id;
                        tracing::error!(%connection, %error, "its new concurrency could not be written");
                    }
                }
            })
            .await;
    }
}

/// The names under which the two have something else.
fn differing<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}
