//! The Store port: what the gateway needs of a store, and nothing of any engine.
//!
//! # Theory of operation
//!
//! A store keeps three things. *Records* (tenants, keys, connections, sources, chores) are few and small: every process holds all of them
//! in memory and follows [`Store::changes`]. *Events and jobs* are many: an accepted event and its jobs are written in one
//! atomic, durable step ([`Store::ingest`]). *Lanes* are the queues of jobs, one a connection: [`Store::lease`] goes round
//! the lanes that have something to give, a few jobs each, and [`Store::settle`] takes the outcomes back.
//!
//! # Invariants
//!
//! - A job is open (in its lane) until a settlement with [`Next::Done`] is written; a lease only hides it for a time.
//! - A settlement counts only under the token of the job's newest lease: nothing is settled twice.
//! - A lane with a batch is strict, and a whole batch is its one attempt: it gives nothing while one of its jobs is leased.
//! - A job's order in its lane is the order in which jobs were written. In a lane of concurrency 1 a job that waits for its
//!   retry holds back those behind it.
//! - A lane's failures in a row outlive a crash. A success ends the run, and so does whoever resumes the connection. While its breaker is open
//!   ([`LaneEffect::opening`](crate::domain::settle::LaneEffect::opening)) and it waits, further failures don't count: they
//!   were under way before.
//! - An event and its dedupe key are written together: while its jobs do not exist, neither does the refusal of a repeat.
//! - No step's cost grows with the number of jobs or lanes; what is large is done in bounded steps by [`Store::sweep`].

#[cfg(test)]
mod conformance;
pub mod engine;
pub mod kept;
pub mod log;
mod record;
pub mod redis;
pub mod sqlite;
pub mod types;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, JobId, MappingVersion, TenantId};
use crate::domain::settle::Next;
pub use kept::{Added, ERASED, Erased, EventPage, EventWalk, Kept, PlacedEvent, Purged};
pub use types::{
    About, Accepted, Change, Cursor, Dedupe, Delivery, DeliveryPage, DeliveryQuery, Expected, Exported,
    Ingest, Ingested, KeptEvent, KeptJob, LaneCounts, Lease, LeaseRef, NewEvent, NewJob, Record, RecordId,
    Recorded, Retried, Revision, Settlement, Spend, Spent, Stats, StoreError, Sweep, Tally, Totals, Tried,
    UNANSWERED,
};

/// The newest attempts of a job that are kept; older ones go. An endpoint that asks for another try every second, for ever,
/// spends no attempt and must not fill the disk with its answers.
pub const KEPT_ATTEMPTS: u32 = 100;

/// The newest events of one type of one tenant that [`Store::newest_events`] can give.
pub const NEWEST_EVENTS: usize = 100;

/// The types of one tenant that [`Store::newest_events`] looks through.
pub const NEWEST_TYPES: usize = 256;

/// The most jobs of a batch.
pub const MAX_BATCH: u32 = 500;

/// A batch ends before its events' documents and rendered bodies come to more than this; one job is always given.
pub const BATCH_BYTES: usize = 2 << 20;

/// A durable store. Every method may be called by many tasks at once.
#[async_trait]
pub trait Store: Kept + Send + Sync + std::fmt::Debug + 'static {
    /// What it is and what it promises, for people and for probes.
    fn about(&self) -> About;

    /// Writes events and their jobs, all or nothing; returns when they are durable. A repeat of an idempotency key or of
    /// an event's id gives the first answer again and writes nothing.
    async fn ingest(&self, ingest: Ingest) -> Result<Ingested, StoreError>;

    /// The newest event of a tenant with this public id.
    async fn event(&self, tenant: &TenantId, id: &str) -> Result<Option<Event>, StoreError>;

    /// A tenant's newest events of the types that any of `patterns` matches, newest first: at most `limit`, of each type at
    /// most [`NEWEST_EVENTS`], of at most [`NEWEST_TYPES`] types. Costs the same however many events there are.
    async fn newest_events(
        &self,
        tenant: &TenantId,
        patterns: &[EventPattern],
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;

    /// Leases at most `room` jobs for `span`, going round the ready lanes; an empty list when none has work. A batch counts
    /// as one of them, whatever its size: up to the lane's batch of its first jobs, as far as [`BATCH_BYTES`] go. A lease
    /// that is neither settled, renewed nor released by its deadline returns to its lane.
    async fn lease(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError>;

    /// Returns when [`Store::lease`] may have something to give, perhaps for nothing. Costs nothing while it waits.
    async fn wait_for_work(&self);

    /// Writes outcomes back. Those whose lease was lost are ignored; how many were taken is the answer. Of a job's attempts
    /// the newest [`KEPT_ATTEMPTS`] are kept.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, StoreError>;

    /// Writes what came of a triggered job ([`NewJob::triggered`]). `false` when there is no such job, or it was tried or
    /// put into its lane meanwhile: then nothing is written.
    async fn record(&self, recorded: Recorded) -> Result<bool, StoreError>;

    /// Extends leases by `span` from now; those already lost stay lost.
    async fn renew(&self, leases: &[LeaseRef], span: Duration) -> Result<(), StoreError>;

    /// Gives leased jobs back untried; each stands where it stood.
    async fn release(&self, leases: &[LeaseRef]) -> Result<(), StoreError>;

    /// Takes tokens from every bucket named, or from none, over all processes. `scope` decides where in the store the
    /// buckets lie: the same name in another scope is another bucket. What was spent may be forgotten by a crash.
    async fn spend(&self, scope: &str, spends: &[Spend]) -> Result<Spent, StoreError>;

    /// Takes or extends a hold: until `span` from now, or until it is let go, nobody else gets the one of this name, over
    /// all processes. `false` when another owner has it. The embedded store forgets holds when it closes or crashes.
    async fn hold(&self, name: &str, owner: u128, span: Duration) -> Result<bool, StoreError>;

    /// Ends a hold, if it is still this owner's.
    async fn let_go(&self, name: &str, owner: u128) -> Result<(), StoreError>;

    /// Writes a record if `expected` holds, else [`StoreError::Conflict`]. A connection's pause, closing and concurrency
    /// hold for its lane from here on.
    async fn put(&self, record: Record, expected: Expected) -> Result<Revision, StoreError>;

    /// Deletes a record, with what belongs to it: a connection's open jobs are cancelled, a tenant's connections, sources and
    /// keys are deleted too. `false` when there was none.
    async fn delete(&self, id: RecordId) -> Result<bool, StoreError>;

    /// Changes of records after `since` in order, at most `limit`; from 0 it gives every record there is.
    async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError>;

    /// Returns when there may be changes after `since`, within a second of their being written by any process.
    async fn wait_for_change(&self, since: Revision);

    /// Writes `records` again into a store that was emptied under the running process ([`StoreError::Emptied`]), and
    /// takes it into use; `newest` is the last revision that the caller knows, and new ones come after it. Of several
    /// processes one does it: `false` where another does, or where nothing is missing.
    async fn rebuild(&self, records: Vec<Record>, newest: Revision) -> Result<bool, StoreError>;

    /// Keeps a mapping's source under its version, for the jobs that are pinned to it.
    async fn put_mapping(&self, version: MappingVersion, source: &Value) -> Result<(), StoreError>;

    /// The source of a mapping version.
    async fn mapping(&self, version: MappingVersion) -> Result<Option<Value>, StoreError>;

    /// Deliveries that match, newest first, without attempts; at most `query.limit`. A walk is bounded: after
    /// [`log::LOOKS`] that don't match it ends with what it has, and says where to go on.
    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError>;

    /// What came of a connection's jobs, day by day, and what waits. Costs the same however many there are.
    async fn tally(&self, tenant: &TenantId, connection: ConnectionId) -> Result<Tally, StoreError>;

    /// One delivery with its attempts.
    async fn delivery(&self, id: JobId) -> Result<Option<Delivery>, StoreError>;

    /// Puts a job that has ended back into its lane with a fresh retry schedule; `mapping` replaces the version it is
    /// pinned to where it failed by its mapping. A waiting one becomes due at once.
    async fn retry(&self, id: JobId, mapping: Option<MappingVersion>) -> Result<Retried, StoreError>;

    /// One bounded step of upkeep: cancels jobs of closed connections, removes what is past its retention. To be called
    /// again at once while [`Sweep::more`].
    async fn sweep(&self) -> Result<Sweep, StoreError>;

    /// Returns when [`Store::sweep`] may find something, and it is this process that should look; costs next to nothing
    /// while there is nothing.
    async fn wait_for_upkeep(&self);

    /// Every event with its jobs, in the order of writing: at most `limit` events after `after`. For moving a store while
    /// nobody writes to it.
    async fn export(&self, after: Option<Cursor>, limit: usize) -> Result<Exported, StoreError>;

    /// Writes events as another store gave them, after their records and in their order; those that are there already
    /// stay as they are. How many were new. Jobs may get other ids, but keep their names. Their lanes follow at the
    /// latest when the store is opened again.
    async fn import(&self, events: Vec<KeptEvent>) -> Result<usize, StoreError>;

    /// How many open jobs wait in these lanes of a tenant, those under lease left out: one cheap step, at most 1,000 lanes.
    async fn backlog(&self, tenant: &TenantId, connections: &[ConnectionId]) -> Result<u64, StoreError>;

    /// What lies in the lanes, from memory or by a few cheap reads.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Whether the store can be written to, by a real round trip.
    async fn health(&self) -> Result<(), StoreError>;

    /// Finishes what was begun and closes; every later call fails with [`StoreError::Closed`].
    async fn close(&self);
}
