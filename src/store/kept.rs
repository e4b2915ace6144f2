//! What is done on someone's wish with what is kept: sent again, added to, erased. None of it is on an event's way.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Cursor, Delivery, NewJob, Retried, StoreError};
use crate::domain::event::Event;
use crate::domain::id::{ChoreId, JobId, MappingVersion, TenantId};
use crate::domain::time::Timestamp;

/// Why a delivery has no contents, and what became of it.
pub const ERASED: &str = "its event was erased";

/// Events that one step of a walk looks at.
pub(in crate::store) const LOOKED_AT: usize = 2_000;

/// Which of a tenant's events a walk gives, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct EventWalk {
    /// Whose.
    pub tenant: TenantId,
    /// After this place.
    pub after: Option<Cursor>,
    /// Taken in at or after.
    pub since: Option<Timestamp>,
    /// Taken in before.
    pub until: Timestamp,
    /// How many at the most.
    pub limit: usize,
}

/// An event and where it is.
#[derive(Debug, Clone)]
pub struct PlacedEvent {
    /// Names it for [`Kept::erase`] and [`Kept::add_job`].
    pub place: Cursor,
    /// The event.
    pub event: Arc<Event>,
    /// Its jobs, without attempts.
    pub jobs: Vec<Delivery>,
}

/// Events of a walk.
#[derive(Debug, Clone, Default)]
pub struct EventPage {
    /// At most as many as were wanted; fewer, or none, where others lie between.
    pub items: Vec<PlacedEvent>,
    /// Where the walk goes on; `None` at its end.
    pub next: Option<Cursor>,
}

/// What became of a wish for one more job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The job is in its lane.
    Made,
    /// Someone else was at the event; it has another job now, perhaps this one.
    Changed,
    /// The connection takes no jobs.
    Closed,
    /// There is no such event any more.
    Missing,
}

/// What an erasure did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Jobs whose contents went.
    pub jobs: u64,
    /// Of these, open ones that were cancelled.
    pub cancelled: u64,
}

/// What one step of a purge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// Events that went with all that belonged to them.
    pub removed: u64,
    /// Events that stayed, since jobs of them are open yet.
    pub waiting: u64,
    /// Where the next step begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// What a store does on someone's wish with what it keeps. Every method is one bounded step, and may be called again after a
/// crash.
#[async_trait]
pub trait Kept: Send + Sync {
    /// Puts a job that has ended back into its lane, as [`Store::retry`](super::Store::retry) does, and notes who did: a
    /// replay does that once for each job, however often it is called. Without `again` it leaves alone what any replay had
    /// put back before.
    async fn replay(
        &self,
        job: JobId,
        mapping: Option<MappingVersion>,
        replay: ChoreId,
        again: bool,
    ) -> Result<Retried, StoreError>;

    /// A tenant's events with their jobs.
    async fn events(&self, walk: EventWalk) -> Result<EventPage, StoreError>;

    /// Makes one more job for an event that [`Kept::events`] gave, if its jobs are still those that were given.
    async fn add_job(&self, placed: &PlacedEvent, job: NewJob) -> Result<Added, StoreError>;

    /// Erases what an event told, and what its jobs kept of it: bytes, attempts, reasons. Its name and its jobs' states
    /// stay. Open jobs are cancelled, at once or when their turn comes; a lease on one is lost. Nothing of it can be
    /// sent again.
    async fn erase(&self, placed: &PlacedEvent) -> Result<Erased, StoreError>;

    /// One step of removing all that is kept of a tenant's events that were taken in before `before`, with their jobs and
    /// what was counted of their connections.
    async fn purge(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        after: Option<Cursor>,
    ) -> Result<Purged, StoreError>;

    /// Lets what was erased go from where an engine keeps it beside its data.
    async fn scrub(&self) -> Result<(), StoreError>;
}
