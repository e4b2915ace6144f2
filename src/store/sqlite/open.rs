//! Opens the store, and gives its reads their connections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::checkpoint::{Bounds, Checkpointer};
use super::writer::{Shared, Writer};
use super::{SqliteStore, blocking, restore, schema};
use crate::clock::{Clock, Ids};
use crate::domain::id::ConnectionId;
use crate::domain::retention::Retention;
use crate::store::StoreError;

/// Idle read connections kept for the next reads.
const READERS: usize = 4;

impl SqliteStore {
    /// Opens the database of `folder`, which must exist, as its owner. Ended deliveries are kept for `retention`.
    pub async fn open(
        folder: &Path,
        clock: Clock,
        ids: Ids,
        retention: impl Into<Retention>,
    ) -> Result<Self, StoreError> {
        Self::open_as(folder, clock, ids, retention.into(), true).await
    }

    /// Opens the database of `folder` beside its owner, if there is one: for records and reads, not for jobs.
    pub async fn open_guest(folder: &Path, clock: Clock, ids: Ids) -> Result<Self, StoreError> {
        Self::open_as(folder, clock, ids, Duration::MAX.into(), false).await
    }

    async fn open_as(
        folder: &Path,
        clock: Clock,
        ids: Ids,
        retention: Retention,
        owner: bool,
    ) -> Result<Self, StoreError> {
        let folder = folder.to_owned();
        blocking(move || {
            let lock = owner.then(|| schema::lock(&folder)).transpose()?;
            let file = folder.join("patchbay.db");
            let mut connection = schema::open_writer(&file)?;
            let shared = Arc::new(Shared::default());
            if owner {
                restore::restore(&connection, &mut shared.lanes.lock(), &ids, clock.now())?;
            }
            // A guest writes little, and the engine folds its log by itself.
            let checkpointer =
                owner.then(|| Checkpointer::start(&file, &mut connection, Bounds::default())).transpose()?;
            let (writer, thread) =
                Writer::start(connection, lock, checkpointer, Arc::clone(&shared), clock.clone())?;
            Ok(Self {
                file,
                clock,
                ids,
                retention: Arc::new(retention),
                shared,
                writer,
                thread: Mutex::new(Some(thread)),
                readers: Arc::default(),
                walk: Arc::default(),
                shares: Mutex::default(),
                owner,
            })
        })
        .await
    }

    /// Runs a read on a thread for blocking work, with a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ensure_open()?;
        let readers = Arc::clone(&self.readers);
        let file = self.file.clone();
        blocking(move || {
            let idle = readers.lock().pop();
            let connection = idle.map_or_else(|| schema::open_reader(&file), Ok)?;
            let result = work(&connection);
            let mut readers = readers.lock();
            if readers.len() < READERS {
                readers.push(connection);
            }
            result
        })
        .await
    }

    pub(super) fn ensure_open(&self) -> Result<(), StoreError> {
        if self.shared.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Jobs are the owner's alone: a guest knows no lane.
    pub(super) fn ensure_owner(&self) -> Result<(), StoreError> {
        let guest = "this process is a guest of the folder, and jobs are its owner's";
        if self.owner { Ok(()) } else { Err(StoreError::Unavailable(guest.into())) }
    }

    pub(super) fn is_closed(&self) -> impl Fn(ConnectionId) -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |connection| shared.lanes.lock().is_closed(connection)
    }
}
