//! What the scheduler is told and what it asks for.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::breaker::Failing;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::types::Revision;

/// A job in memory, ready to be tried.
#[derive(Debug, Clone)]
pub(in crate::store::sqlite) struct Slot {
    pub job: Job,
    pub event: Arc<Event>,
    /// Length of the event's document.
    pub document_bytes: usize,
    pub rendered: Option<Bytes>,
    /// When a retry is due; `None` for a job that never failed.
    pub due: Option<Timestamp>,
}

impl Slot {
    /// What it counts against the budget.
    pub fn bytes(&self) -> usize {
        self.document_bytes + self.rendered.as_ref().map_or(0, Bytes::len)
    }
}

/// What a connection's record says about its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::sqlite) struct LaneRule {
    /// Of the record it was read from; an older rule never replaces a newer one.
    pub revision: Revision,
    pub tenant: TenantId,
    pub concurrency: u32,
    /// How many jobs it gives at once; above 1 only with a concurrency of 1.
    pub batch: u32,
    pub paused: bool,
    pub closed: bool,
    /// Jobs made before are to be cancelled before it gives any.
    pub unwanted_before: Option<Timestamp>,
}

/// A lane with jobs to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::sqlite) struct Closing {
    pub connection: ConnectionId,
    /// Jobs of it that are leased, which their settlements end.
    pub leased: u32,
    /// Those made before are to go and the lane stays; `None` for all of a closed one.
    pub before: Option<Timestamp>,
    /// How far its jobs were looked at, where some of them stay.
    pub seen: Place,
}

/// Where a job stands in its lane: when it is due (0 for one that never failed), and its id.
pub(in crate::store::sqlite) type Place = (i64, [u8; 16]);

/// A committed change that the scheduler must know of.
#[derive(Debug)]
pub(in crate::store::sqlite) enum Effect {
    /// A new job.
    Made(Slot),
    /// A lease ended and the job left its lane.
    Ended(JobId),
    /// A lease ended and the job is due again; it carries its new counts.
    Again { job: Job, due: Timestamp, rendered: Option<Bytes> },
    /// A lease ended without an attempt being spent; the job goes back to its place.
    Back { job: Job, rendered: Option<Bytes> },
    /// A job that had ended is open again, or a waiting one became due: on disk, due at `due`.
    Reopened { connection: ConnectionId, job: JobId, due: Timestamp, was_open: bool },
    /// An open job left its lane, leased or not.
    Dropped { connection: ConnectionId, job: JobId },
    /// The endpoint works.
    Worked { connection: ConnectionId },
    /// The endpoint does not work: its failures in a row, as they were written.
    Failed { connection: ConnectionId, failing: Failing },
    /// The lane gives nothing before this time.
    Wait { connection: ConnectionId, until: Timestamp },
    /// The connection was written.
    Rule { connection: ConnectionId, rule: LaneRule },
    /// The connection was deleted.
    Deleted { connection: ConnectionId, revision: Revision },
    /// Jobs of a closed lane, or those of another that nobody wants, were cancelled on disk, as far as it was looked at.
    Cancelled { connection: ConnectionId, count: u64, seen: Place },
}

/// A lane's rows, read by the writer for [`Lanes::refilled`](super::Lanes::refilled).
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Refill {
    /// Retries that are due (in a strict lane: all that wait), not yet known, the first due first.
    pub due: Vec<Slot>,
    /// The earliest retry still on disk only.
    pub next_due: Option<Timestamp>,
    /// Jobs that never failed, not yet known, oldest first.
    pub fresh: Vec<Slot>,
    /// Whether there are more of those.
    pub more_fresh: bool,
}

/// What a refill has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::sqlite) struct RefillPlan {
    /// How many retries are wanted.
    pub want_due: usize,
    /// How many jobs that never failed are wanted.
    pub want_fresh: usize,
    /// How many bytes of them are wanted; the first few of each kind are read all the same.
    pub want_bytes: usize,
    /// How many of the lane's rows may be known already and will be skipped.
    pub known: usize,
    /// Whether waiting retries are wanted whatever their time.
    pub strict: bool,
}

/// What [`Lanes::restore`](super::Lanes::restore) takes in: what the database holds of a lane at start.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::sqlite) struct Restored {
    /// Open jobs.
    pub open: u64,
    /// Whether some of them never failed.
    pub fresh: bool,
    /// When the first retry is due.
    pub next_due: Option<Timestamp>,
    /// When the oldest was made.
    pub oldest: Timestamp,
}
