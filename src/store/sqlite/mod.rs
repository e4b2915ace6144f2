//! The embedded store: one `SQLite` database in a folder, owned by one gateway process.
//!
//! # Theory of operation
//!
//! All writes go through one thread that commits many requests as one (`writer`); which job goes next is decided in
//! memory (`lanes`); reads have connections of their own and never wait for a writer (write-ahead log). Leases are
//! never written: the owner is the only one that leases, and when it dies every open job stands in its lane again.
//! Another process (the command line) may open the folder as a *guest* to change records; it leases nothing.

mod checkpoint;
mod claims;
mod engine;
mod ingest;
mod kept;
mod lanes;
mod log;
mod newest;
mod open;
mod read;
mod records;
mod refill;
mod restore;
mod retry;
mod rows;
mod schema;
mod settle;
mod shares;
mod statement;
mod sweep;
#[cfg(test)]
mod tests;
mod transfer;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::clock::{Clock, Ids};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, JobId, MappingVersion, TenantId};
use crate::domain::retention::Retention;
use crate::store::Store;
use crate::store::types::{
    About, Change, Cursor, Delivery, DeliveryPage, DeliveryQuery, Expected, Exported, Ingest, Ingested,
    KeptEvent, Lease, LeaseRef, Record, RecordId, Recorded, Retried, Revision, Settlement, Spend, Spent,
    Stats, StoreError, Sweep, Tally,
};
use claims::Claims;
use shares::Shares;
use statement::unavailable;
use writer::{Shared, Writer};

/// How often a process looks for changes that another one wrote.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How often there may be something to sweep.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The longest sleep until something is due: what a leap of the wall clock can delay.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    file: PathBuf,
    clock: Clock,
    ids: Ids,
    retention: Arc<Retention>,
    shared: Arc<Shared>,
    writer: Writer,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    walk: Arc<Mutex<sweep::Walk>>,
    shares: Mutex<Shares>,
    /// Whether this process owns the folder; a guest doesn't.
    owner: bool,
}

#[async_trait]
impl Store for SqliteStore {
    fn about(&self) -> About {
        About { engine: "sqlite", shared: false, durability: "fsync".to_owned(), note: None }
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Ingested, StoreError> {
        self.ensure_owner()?;
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

    async fn newest_events(
        &self,
        tenant: &TenantId,
        patterns: &[EventPattern],
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let (tenant, patterns) = (tenant.clone(), patterns.to_vec());
        self.read(move |database| newest::events(database, &tenant, &patterns, limit)).await
    }

    async fn lease(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError> {
        self.ensure_open()?;
        if !self.owner {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let (leases, pass_on, refill) = {
            let mut lanes = self.shared.lanes.lock();
            // What was due has happened: whatever comes next is news.
            let next = lanes.next_time().filter(|next| *next > now);
            let leases = lanes.lease(room, now.plus(span), now);
            // Each signal wakes one who waits: what is left, or comes sooner than it knows, is for the next one.
            (leases, lanes.has_news(next), lanes.may_refill())
        };
        if refill {
            self.writer.refill(&self.shared);
        }
        if pass_on {
            self.shared.work.notify_one();
        }
        Ok(leases)
    }

    async fn wait_for_work(&self) {
        let notified = self.shared.work.notified();
        if self.shared.is_closed() {
            return;
        }
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
                () = self.clock.sleep_until(next.min(self.clock.now().plus(LONGEST_SLEEP))) => {}
            },
            None => notified.await,
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, StoreError> {
        self.ensure_open()?;
        let claims = Claims::new(&self.shared, settlements, self.clock.now());
        let taken = claims.claimed().len();
        if taken == 0 {
            return Ok(0);
        }
        let (clock, is_closed) = (self.clock.clone(), self.is_closed());
        self.writer
            .write(move |database, effects| {
                settle::write(database, claims.claimed(), clock.now(), &is_closed, effects)
            })
            .await?;
        Ok(taken)
    }

    async fn record(&self, recorded: Recorded) -> Result<bool, StoreError> {
        self.ensure_owner()?;
        let clock = self.clock.clone();
        self.writer
            .write(move |database, effects| settle::record(database, &recorded, clock.now(), effects))
            .await
    }

    async fn renew(&self, leases: &[LeaseRef], span: Duration) -> Result<(), StoreError> {
        self.ensure_open()?;
        let deadline = self.clock.now().plus(span);
        let mut lanes = self.shared.lanes.lock();
        for lease in leases {
            lanes.renew(lease, deadline);
        }
        drop(lanes);
        self.shared.work.notify_one();
        Ok(())
    }

    async fn release(&self, leases: &[LeaseRef]) -> Result<(), StoreError> {
        self.ensure_open()?;
        let now = self.clock.now();
        let mut lanes = self.shared.lanes.lock();
        for lease in leases {
            lanes.release(lease, now);
        }
        drop(lanes);
        self.shared.work.notify_one();
        Ok(())
    }

    async fn spend(&self, scope: &str, spends: &[Spend]) -> Result<Spent, StoreError> {
        self.ensure_open()?;
        self.ensure_owner()?;
        Ok(self.shares.lock().spend(scope, spends, self.clock.now()))
    }

    async fn hold(&self, name: &str, owner: u128, span: Duration) -> Result<bool, StoreError> {
        self.ensure_open()?;
        self.ensure_owner()?;
        let now = self.clock.now();
        Ok(self.shares.lock().hold(name, owner, now.plus(span), now))
    }

    async fn let_go(&self, name: &str, owner: u128) -> Result<(), StoreError> {
        self.ensure_open()?;
        self.shares.lock().let_go(name, owner);
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
        if lanes.has_closing() {
            self.shared.upkeep.notify_one();
        }
        drop(lanes);
        self.shared.work.notify_one();
        Ok(changes)
    }

    async fn wait_for_change(&self, since: Revision) {
        while !self.shared.is_closed() {
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
                Err(StoreError::Closed) => return,
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

    async fn rebuild(&self, _: Vec<Record>, _: Revision) -> Result<bool, StoreError> {
        // A file is not emptied under the process that holds it.
        self.ensure_open()?;
        Ok(false)
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

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.read(move |database| log::deliveries(database, &query)).await
    }

    async fn tally(&self, _: &TenantId, connection: ConnectionId) -> Result<Tally, StoreError> {
        let now = self.clock.now();
        self.read(move |database| log::tally(database, connection, now)).await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<Delivery>, StoreError> {
        self.read(move |database| read::delivery(database, id)).await
    }

    async fn retry(&self, id: JobId, mapping: Option<MappingVersion>) -> Result<Retried, StoreError> {
        self.ensure_owner()?;
        let (clock, shared) = (self.clock.clone(), Arc::clone(&self.shared));
        self.writer
            .write(move |database, effects| {
                retry::write(database, id, mapping, false, clock.now(), &shared, effects)
            })
            .await
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        self.sweep_once().await
    }

    async fn wait_for_upkeep(&self) {
        tokio::select! {
            () = self.shared.upkeep.notified() => {}
            () = self.clock.sleep(SWEEP_EVERY) => {}
        }
    }

    async fn export(&self, after: Option<Cursor>, limit: usize) -> Result<Exported, StoreError> {
        self.read(move |database| transfer::export(database, after.as_ref(), limit)).await
    }

    async fn import(&self, events: Vec<KeptEvent>) -> Result<usize, StoreError> {
        self.ensure_owner()?;
        self.writer.write(move |database, _| transfer::import(database, &events)).await
    }

    async fn backlog(&self, _: &TenantId, connections: &[ConnectionId]) -> Result<u64, StoreError> {
        Ok(self.shared.lanes.lock().waiting_in(connections))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.ensure_open()?;
        Ok(self.shared.lanes.lock().stats(self.clock.now()))
    }

    async fn health(&self) -> Result<(), StoreError> {
        // Writes the version again, the same: an empty transaction would touch no disk.
        self.writer.write(|database, _| schema::touch(database)).await
    }

    async fn close(&self) {
        self.shared.mark_closed();
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
