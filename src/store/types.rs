//! What goes into and comes out of a [`Store`](super::Store).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Next;
pub use super::log::{Delivery, DeliveryPage, DeliveryQuery, Tally, Totals, Tried};
pub use super::record::{Record, RecordId};
use crate::domain::breaker::Failing;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId, MappingVersion};
use crate::domain::job::{Attempt, Job, JobState};
use crate::domain::settle::LaneEffect;
use crate::domain::time::Timestamp;

/// How long a dedupe key or an idempotency key is remembered.
pub const DEDUPE_SPAN: Duration = Duration::from_hours(24);

/// Counts the changes of records; each change has its own, rising.
pub type Revision = u64;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Could not be reached or written to; the same call may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The disk or the memory limit is full.
    #[error("the store is full: {0}")]
    Full(String),
    /// Too much is waiting to be written already.
    #[error("the store is overloaded")]
    Overloaded,
    /// What it held is gone; see [`Store::rebuild`](super::Store::rebuild).
    #[error(
        "the store was emptied: what the gateway kept there is gone, and with it every event that was not delivered yet"
    )]
    Emptied,
    /// The record changed meanwhile, or exists already.
    #[error("the record changed meanwhile")]
    Conflict,
    /// What was read is not what was written.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// It was closed.
    #[error("the store is closed")]
    Closed,
}

/// What a store is and what it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Which engine: `sqlite` or `redis`.
    pub engine: &'static str,
    /// Whether other processes may work on it too.
    pub shared: bool,
    /// What an accepted event survives: `fsync` and `replicas:N` are what they say; `everysec` (but for the last second),
    /// `system` (but for the last half minute) and `memory` speak of the server's machine; `unknown` where it does not tell.
    pub durability: String,
    /// What an operator has to know of that; `None` when there is nothing to mend.
    pub note: Option<String>,
}

/// A key for dedupe and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// Hash of tenant and key. Two events of one key have one tenant and one id.
    pub key: [u8; 16],
    /// Hash of the content: another one under the same key is a conflict.
    pub content: [u8; 16],
}

/// Events of one request.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// The request's `Idempotency-Key`, when it had one.
    pub idempotency: Option<Dedupe>,
    /// The events, in the request's order.
    pub events: Vec<NewEvent>,
}

/// An event and the jobs it makes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// Its `source` and `id`, where the platform gave an id.
    pub dedupe: Option<Dedupe>,
    /// One a connection that wants it.
    pub jobs: Vec<NewJob>,
}

/// A job to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewJob {
    /// For which connection.
    pub connection: ConnectionId,
    /// Rendered by which mapping version.
    pub mapping: MappingVersion,
    /// Whether whoever makes it tries it at once, outside its lane: then it is written as [`JobState::Dead`] with
    /// [`UNANSWERED`], and [`Store::record`](super::Store::record) says what came of it. So a crash leaves no job that
    /// would be sent a second time, and a log that says what is known.
    pub triggered: bool,
}

impl NewJob {
    /// The job that it makes of an event.
    pub fn of(&self, id: JobId, event: &Event, created: Timestamp) -> Job {
        Job {
            id,
            name: id,
            tenant: event.tenant.clone(),
            connection: self.connection,
            event: event.key,
            mapping: self.mapping,
            created,
            attempts: 0,
            tries: 0,
        }
    }
}

/// What a triggered job's log says until its outcome is written.
pub const UNANSWERED: &str = "it was triggered, and what came of it is not known: it may have arrived";

/// What came of a job that was tried outside its lane.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The job.
    pub job: JobId,
    /// The record of the try; its number tells a job that was tried meanwhile.
    pub attempt: Attempt,
    /// Where the job ends.
    pub state: JobState,
    /// Why, in plain words, for the delivery log.
    pub reason: String,
    /// What becomes of the lane.
    pub effect: LaneEffect,
}

/// What [`Store::ingest`](super::Store::ingest) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// Durably stored now; an answer for each event, in order.
    Stored(Vec<Accepted>),
    /// The idempotency key was seen before with the same content: the answer it had then.
    Repeated(Vec<Accepted>),
    /// The idempotency key was seen before with other content; nothing was stored.
    KeyReused,
}

/// The answer for one event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Accepted {
    /// It is stored, with this many jobs.
    Stored {
        /// The event's public id.
        id: String,
        /// How many connections it goes to.
        jobs: u32,
        /// Whether it had been stored before under the same source and id.
        duplicate: bool,
    },
    /// Its source and id were seen before with other content; it was not stored.
    IdReused {
        /// The event's public id.
        id: String,
    },
}

/// A job that a worker may try until the deadline.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The job.
    pub job: Job,
    /// Its event.
    pub event: Arc<Event>,
    /// What the attempts before it left for this one: the bytes of the first, or how far a chain of requests got.
    pub rendered: Option<Bytes>,
    /// Fences the settlement: a later lease of the same job has another.
    pub token: u64,
    /// When the job returns to its lane by itself.
    pub deadline: Timestamp,
    /// One of a batch: of an answer's leases, all that have this and one connection are to be tried and settled together.
    pub batch: bool,
    /// An earlier lease of it may have been lost to a crash or a deadline: what was done under it is not known. Never
    /// `false` where that happened; `true` also for jobs that only may have been leased.
    pub doubtful: bool,
    /// The failures in a row of its lane when it was leased.
    pub failing: Failing,
}

impl Lease {
    /// What names this lease.
    pub fn reference(&self) -> LeaseRef {
        LeaseRef { job: self.job.id, connection: self.job.connection, token: self.token }
    }
}

/// Names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The leased job.
    pub job: JobId,
    /// Its lane.
    pub connection: ConnectionId,
    /// The lease's fencing token.
    pub token: u64,
}

/// The end of a lease: what was tried and what follows.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which lease ends.
    pub lease: LeaseRef,
    /// The record of the try; `None` when nothing was tried (the connection had gone).
    pub attempt: Option<Attempt>,
    /// What becomes of the job.
    pub next: Next,
    /// Why, in plain words, for the delivery log.
    pub reason: String,
    /// What becomes of the lane.
    pub effect: LaneEffect,
    /// What the next attempt begins with, in place of what was kept before; `None` keeps what is there.
    pub rendered: Option<Bytes>,
    /// Whether that goes, too, when the job ends; else it stays for whoever sends the job again.
    pub forget: bool,
}

/// What a call costs one bucket of tokens. All processes must name the same `rate`, `per` and `burst` for a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Names the bucket inside its scope.
    pub bucket: String,
    /// Tokens taken; at most `burst`, and what is above counts as `burst`.
    pub cost: u32,
    /// So many tokens come back, evenly, in each `per`; at least 1.
    pub rate: u32,
    /// The span that `rate` speaks of.
    pub per: Duration,
    /// What a full bucket holds, at least 1. In any span of `per` at most `rate + burst` tokens are spent.
    pub burst: u32,
}

impl Spend {
    /// A bucket that lies so much further ahead than it can be spent, in microseconds, was written by a broken clock, and
    /// counts as full: nobody waits for it.
    pub(in crate::store) const SKEW_MICROS: u64 = 60_000_000;

    /// How far into the future a bucket may be spent, in microseconds; and how far this call spends it.
    pub(in crate::store) fn reach_and_price(&self) -> (u64, u64) {
        let per = u64::try_from(self.per.as_micros()).unwrap_or(u64::MAX);
        let interval = (per / u64::from(self.rate.max(1))).max(1);
        let burst = self.burst.max(1);
        let micros = |tokens: u32| interval.saturating_mul(tokens.into());
        (micros(burst), micros(self.cost.min(burst)))
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// Its tokens were taken, from every bucket.
    Granted,
    /// Nothing was taken; not before this time is there enough in every bucket.
    Wait(Duration),
}

/// What must hold of a record for it to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There is none of that id.
    Absent,
    /// It was last changed at this revision.
    At(Revision),
}

/// One change of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The change's revision.
    pub revision: Revision,
    /// Which record.
    pub id: RecordId,
    /// The record now; `None` when it was deleted.
    pub record: Option<Record>,
}

/// Where a walk over a store's events has come; only the engine that gave it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) Vec<u8>);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl std::str::FromStr for Cursor {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode(text).map(Self)
    }
}

/// Events of a store on their way to another.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// In the order in which they were written.
    pub events: Vec<KeptEvent>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// An event with its jobs, wherever those stand.
#[derive(Debug, Clone)]
pub struct KeptEvent {
    /// The event.
    pub event: Arc<Event>,
    /// For a target that has yet to refuse a repeat; a source does not tell it.
    pub dedupe: Option<Dedupe>,
    /// Its jobs, in order.
    pub jobs: Vec<KeptJob>,
}

/// A job with all that is kept of it.
#[derive(Debug, Clone)]
pub struct KeptJob {
    /// The job, where it stands, and its attempts.
    pub delivery: Delivery,
    /// What its next attempt begins with.
    pub rendered: Option<Bytes>,
}

/// What [`Store::retry`](super::Store::retry) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// The job is in its lane again, or due at once.
    Queued,
    /// It is queued or under way already.
    Open,
    /// There is no such job.
    Missing,
    /// Its connection was closed or deleted.
    Closed,
    /// Its event was erased: there is nothing to send.
    Erased,
    /// A replay put it back before.
    Already,
}

/// What a step of upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Jobs cancelled because their connection is closed.
    pub cancelled: usize,
    /// Rows removed because their retention is over.
    pub removed: usize,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// What lies in the lanes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open jobs, leased ones included.
    pub open: u64,
    /// Jobs under lease.
    pub leased: u64,
    /// When the oldest open job was made.
    pub oldest: Option<Timestamp>,
    /// Lanes that hold open jobs, by state.
    pub lanes: LaneCounts,
}

/// Lanes by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Could give a job now.
    pub ready: u64,
    /// Wait until a time.
    pub waiting: u64,
    /// At their concurrency.
    pub full: u64,
    /// Paused.
    pub paused: u64,
}
