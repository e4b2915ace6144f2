//! The embedded store: one SQLite database in a folder, owned by one gateway process.
//!
//! # Theory of operation
//!
//! All writes go through one thread that commits many requests as one ([`writer`]); which job goes next is decided in
//! memory ([`lanes`]); reads have connections of their own and never wait for a writer (write-ahead log). Leases are
//! never written: the owner is the only one that leases, and when it dies every open job stands in its lane again.
//! Another process (the command line) may open the folder as a *guest* to change records; it leases nothing.

mod ingest;
mod lanes;
mod read;
mod records;
mod refill;
mod rows;
mod schema;
mod settle;
mod sweep;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use crate::clock::{Clock, Ids};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId, MappingVersion, TenantId};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::types::{
    Change, Delivery, DeliveryQuery, Expected, Ingest, Ingested, Lease, LeaseRef, Record, RecordId, Retried,
    Revision, Settlement, Stats, StoreError, Sweep,
};
use lanes::Effect;
use writer::{Shared, Writer};

/// How often a process looks for changes that another one wrote.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Idle read connections kept for the next reads.
const READERS: usize = 4;
/// Changes read at once while the lanes are restored.
const PAGE: usize = 1_000;

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    file: PathBuf,
    clock: Clock,
    ids: Ids,
    retention: Duration,
    shared: Arc<Shared>,
    writer: Writer,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    walk: Arc<Mutex<sweep::Walk>>,
    /// Held while this process owns the folder; a guest has none.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the database of `folder`, which must exist, as its owner. Ended deliveries are kept for `retention`.
    pub async fn open(
        folder: &Path,
        clock: Clock,
        ids: Ids,
        retention: Duration,
    ) -> Result<Self, StoreError> {
        Self::open_as(folder, clock, ids, retention, true).await
    }

    /// Opens the database of `folder` beside its owner, if there is one: for records and reads, not for jobs.
    pub async fn open_guest(folder: &Path, clock: Clock, ids: Ids) -> Result<Self, StoreError> {
        Self::open_as(folder, clock, ids, Duration::MAX, false).await
    }

    async fn open_as(
        folder: &Path,
        clock: Clock,
        ids: Ids,
        retention: Duration,
        owner: bool,
    ) -> Result<Self, StoreError> {
        let folder = folder.to_owned();
        blocking(move || {
            let lock = owner.then(|| schema::lock(&folder)).transpose()?;
            let file = folder.join("patchbay.db");
            let connection = schema::open_writer(&file)?;
            let shared = Arc::new(Shared::default());
            if owner {
                restore(&connection, &mut shared.lanes.lock(), &ids, clock.now())?;
            }
            let (writer, thread) = Writer::start(connection, Arc::clone(&shared), clock.clone())?;
            Ok(Self {
                file,
                clock,
                ids,
                retention,
                shared,
                writer,
                thread: Mutex::new(Some(thread)),
                readers: Arc::default(),
                walk: Arc::default(),
                _lock: lock,
            })
        })
        .await
    }

    /// Runs a read on a thread for blocking work, with a connection of its own.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
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

    fn is_closed(&self) -> impl Fn(ConnectionId) -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |connection| shared.lanes.lock().is_closed(connection)
    }
}

/// Builds the lanes from what is on disk: rules from the connections, counts from the index of open jobs.
fn restore(
    database: &Connection,
    lanes: &mut lanes::Lanes,
    ids: &Ids,
    now: Timestamp,
) -> Result<(), StoreError> {
    let newest: Option<[u8; 16]> = database
        .query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))
        .map_err(|error| unavailable(&error))?;
    ids.after(newest.map_or(0, u128::from_be_bytes));
    let mut since = 0;
    loop {
        let changes = records::changes(database, since, PAGE)?;
        let Some(last) = changes.last() else { break };
        since = last.revision;
        for effect in records::effects_of(&changes) {
            lanes.apply(effect, now);
        }
    }
    let mut select = database
        .prepare(
            "SELECT connection, count(*), max(due = 0), min(CASE WHEN due > 0 THEN due END), min(id)
             FROM jobs INDEXED BY jobs_lane WHERE due IS NOT NULL GROUP BY connection",
        )
        .map_err(|error| unavailable(&error))?;
    let mut rows = select.query([]).map_err(|error| unavailable(&error))?;
    while let Some(row) = rows.next().map_err(|error| unavailable(&error))? {
        let read = || -> rusqlite::Result<_> {
            let connection = ConnectionId::from_bits(u128::from_be_bytes(row.get(0)?));
            let oldest = JobId::from_bits(u128::from_be_bytes(row.get(4)?)).time();
            Ok((connection, row.get::<_, i64>(1)?, row.get(2)?, row.get::<_, Option<i64>>(3)?, oldest))
        };
        let (connection, open, fresh, due, oldest) = read().map_err(|error| unavailable(&error))?;
        lanes.restore(connection, open.cast_unsigned(), fresh, due.map(Timestamp::from_millis), oldest, now);
    }
    drop(rows);
    drop(select);
    let waits: Vec<([u8; 16], i64)> = database
        .prepare("SELECT connection, until FROM waits WHERE until > ?")
        .and_then(|mut select| {
            select.query_map([now.millis()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .map_err(|error| unavailable(&error))?;
    for (connection, until) in waits {
        let connection = ConnectionId::from_bits(u128::from_be_bytes(connection));
        lanes.apply(Effect::Wait { connection, until: Timestamp::from_millis(until) }, now);
    }
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    async fn ingest(&self, ingest: Ingest) -> Result<Ingested, StoreError> {
        let (clock, ids, is_closed) = (self.clock.clone(), self.ids.clone(), self.is_closed());
        self.writer
            .write(move |database, effects| {
                ingest::write(database, &ingest, clock.now(), &ids, &is_closed, effects)
            })
            .await
    }

    async fn event(&self, tenant: &TenantId, id: &str) -> Result<Option<Event>, StoreError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.read(move |database| read::event(database, &tenant, &id)).await
    }

    async fn lease(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError> {
        if self._lock.is_none() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let given = self.shared.lanes.lock().lease(room, now.plus(span), now);
        for connection in given.refills {
            if !self.writer.refill(connection) {
                let retry = now.plus(lanes::REFILL_RETRY);
                self.shared.lanes.lock().refill_failed(connection, retry, now);
            }
        }
        Ok(given.leases)
    }

    async fn wait_for_work(&self) {
        let notified = self.shared.work.notified();
        let (ready, next) = {
            let lanes = self.shared.lanes.lock();
            (lanes.has_work(), lanes.next_time())
        };
        if ready {
            return;
        }
        match next {
            Some(next) => tokio::select! {
                () = notified => {}
                () = self.clock.sleep_until(next) => {}
            },
            None => notified.await,
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, StoreError> {
        let claimed: Vec<settle::Claimed> = {
            let mut lanes = self.shared.lanes.lock();
            settlements
                .into_iter()
                .filter_map(|settlement| {
                    let job = lanes.claim(&settlement.lease)?;
                    Some(settle::Claimed { settlement, job })
                })
                .collect()
        };
        let taken = claimed.len();
        let jobs: Vec<JobId> = claimed.iter().map(|one| one.job.id).collect();
        let (clock, is_closed) = (self.clock.clone(), self.is_closed());
        let written = self
            .writer
            .write(move |database, effects| {
                settle::write(database, &claimed, clock.now(), &is_closed, effects)
            })
            .await;
        if let Err(error) = written {
            let mut lanes = self.shared.lanes.lock();
            jobs.into_iter().for_each(|job| lanes.unclaim(job));
            return Err(error);
        }
        Ok(taken)
    }

    async fn renew(&self, leases: &[LeaseRef], span: Duration) -> Result<(), StoreError> {
        let deadline = self.clock.now().plus(span);
        let mut lanes = self.shared.lanes.lock();
        leases.iter().for_each(|lease| lanes.renew(lease, deadline));
        Ok(())
    }

    async fn release(&self, leases: &[LeaseRef]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut lanes = self.shared.lanes.lock();
        leases.iter().for_each(|lease| lanes.release(lease, now));
        drop(lanes);
        self.shared.work.notify_one();
        Ok(())
    }

    async fn put(&self, record: Record, expected: Expected) -> Result<Revision, StoreError> {
        self.writer.write(move |database, effects| records::put(database, &record, expected, effects)).await
    }

    async fn delete(&self, id: RecordId) -> Result<bool, StoreError> {
        self.writer.write(move |database, effects| records::delete(database, &id, effects)).await
    }

    async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError> {
        let changes = self.read(move |database| records::changes(database, since, limit)).await?;
        // What another process wrote reaches the lanes here; what this one wrote is there already.
        let now = self.clock.now();
        let mut lanes = self.shared.lanes.lock();
        for effect in records::effects_of(&changes) {
            lanes.apply(effect, now);
        }
        drop(lanes);
        self.shared.work.notify_one();
        Ok(changes)
    }

    async fn wait_for_change(&self, since: Revision) {
        loop {
            let notified = self.shared.records.notified();
            let newest = self
                .read(|database| {
                    database
                        .prepare_cached("SELECT coalesce(max(revision), 0) FROM records")
                        .and_then(|mut select| select.query_row([], |row| row.get::<_, i64>(0)))
                        .map_err(|error| unavailable(&error))
                })
                .await;
            match newest {
                Ok(newest) if newest.cast_unsigned() > since => return,
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "cannot look for changes; trying again"),
            }
            tokio::select! {
                () = notified => {}
                () = self.clock.sleep(FOLLOW_EVERY) => {}
            }
        }
    }

    async fn put_mapping(&self, version: MappingVersion, source: &Value) -> Result<(), StoreError> {
        let source = source.to_string();
        self.writer
            .write(move |database, _| {
                database
                    .prepare_cached("INSERT OR IGNORE INTO mappings(version, source) VALUES(?, ?)")
                    .and_then(|mut insert| insert.execute(params![version.bits().to_be_bytes(), source]))
                    .map(|_| ())
                    .map_err(|error| unavailable(&error))
            })
            .await
    }

    async fn mapping(&self, version: MappingVersion) -> Result<Option<Value>, StoreError> {
        self.read(move |database| read::mapping(database, version)).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<Vec<Delivery>, StoreError> {
        self.read(move |database| read::deliveries(database, &query)).await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<Delivery>, StoreError> {
        self.read(move |database| read::delivery(database, id)).await
    }

    async fn retry(&self, id: JobId, mapping: Option<MappingVersion>) -> Result<Retried, StoreError> {
        let (clock, is_closed, shared) = (self.clock.clone(), self.is_closed(), Arc::clone(&self.shared));
        self.writer
            .write(move |database, effects| {
                let found: Option<([u8; 16], i64)> = database
                    .prepare_cached("SELECT connection, state FROM jobs WHERE id = ?")
                    .and_then(|mut select| {
                        select
                            .query_row([id.bits().to_be_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                            .optional()
                    })
                    .map_err(|error| unavailable(&error))?;
                let Some((connection, state)) = found else { return Ok(Retried::Missing) };
                let connection = ConnectionId::from_bits(u128::from_be_bytes(connection));
                let state = rows::state_of(state);
                let was_open = state.is_some_and(JobState::is_open);
                if state == Some(JobState::Queued) || shared.lanes.lock().is_leased(id) {
                    return Ok(Retried::Open);
                }
                if is_closed(connection) {
                    return Ok(Retried::Closed);
                }
                let due = clock.now();
                database
                    .prepare_cached(
                        "UPDATE jobs SET state = ?, due = ?, attempts = 0, finished = NULL, mapping = coalesce(?, mapping)
                         WHERE id = ?",
                    )
                    .and_then(|mut update| {
                        update.execute(params![
                            rows::state_code(JobState::Waiting),
                            due.millis(),
                            mapping.map(|version| version.bits().to_be_bytes()),
                            id.bits().to_be_bytes()
                        ])
                    })
                    .map_err(|error| unavailable(&error))?;
                effects.lanes.push(Effect::Reopened { connection, due, was_open });
                Ok(Retried::Queued)
            })
            .await
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let now = self.clock.now();
        let cutoff = now.minus(self.retention);
        let (shared, walk) = (Arc::clone(&self.shared), Arc::clone(&self.walk));
        self.writer
            .write(move |database, effects| {
                let mut sweep = Sweep::default();
                let closing = shared.lanes.lock().closing();
                if let Some(connection) = closing {
                    let is_leased = |id| shared.lanes.lock().is_leased(JobId::from_bits(id));
                    sweep::cancel(database, connection, &is_leased, now, &mut sweep, effects)?;
                }
                sweep::remove_old(database, cutoff, now, &mut walk.lock(), &mut sweep)?;
                Ok(sweep)
            })
            .await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.shared.lanes.lock().stats(self.clock.now()))
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.writer.write(|_, _| Ok(())).await
    }

    async fn close(&self) {
        self.writer.stop().await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A writer that panicked has nothing more to write; what was committed stands.
            let _ = blocking(move || thread.join().map_err(|_| StoreError::Closed)).await;
        }
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable(format!("a store task failed: {error}"))),
    }
}

/// What an error of the engine means to a caller.
fn unavailable(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
