//! Replays, added jobs, erasures and purges.
//!
//! An event that gets one more job changes its entry in the logs, which name the number of its jobs: whatever removes an
//! event looks whether the entry that it read still stands.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Value;

use super::codec::{self, time_bytes};
use super::ingest::ROUNDS;
use super::keys::{BASE, Base, Partition};
use super::link::Step;
use super::read::{delivery, read_event, read_records};
use super::{Core, REPLY, RedisStore};
use crate::domain::id::{ChoreId, ConnectionId, JobId, MappingVersion, TenantId};
use crate::domain::time::Timestamp;
use crate::store::kept::LOOKED_AT;
use crate::store::log::{TALLY_DAYS, day_of};
use crate::store::{
    Added, Cursor, ERASED, Erased, EventPage, EventWalk, Kept, NewJob, PlacedEvent, Purged, Retried,
    StoreError,
};

/// Jobs of an event that one read or one script call touches.
const JOBS: u32 = 50;
/// Events that one step of a purge removes.
const STEP: usize = 200;
/// What no job's time is behind.
const NEVER: Timestamp = Timestamp::from_millis((1 << 48) - 1);

#[async_trait]
impl Kept for RedisStore {
    async fn replay(
        &self,
        job: JobId,
        mapping: Option<MappingVersion>,
        replay: ChoreId,
        again: bool,
    ) -> Result<Retried, StoreError> {
        self.core()?.retry(job, mapping, Some((replay, again))).await
    }

    async fn events(&self, walk: EventWalk) -> Result<EventPage, StoreError> {
        self.core()?.events(&walk).await
    }

    async fn add_job(&self, placed: &PlacedEvent, job: NewJob) -> Result<Added, StoreError> {
        self.core()?.add_job(placed, job).await
    }

    async fn erase(&self, placed: &PlacedEvent) -> Result<Erased, StoreError> {
        self.core()?.erase_event(placed).await
    }

    async fn purge(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        after: Option<Cursor>,
    ) -> Result<Purged, StoreError> {
        self.core()?.purge(tenant, before, after.as_ref()).await
    }

    async fn scrub(&self) -> Result<(), StoreError> {
        // What the server's files keep beside its memory goes when it rewrites them, which is its operator's to say.
        self.core().map(drop)
    }
}

fn base_of(place: &Cursor) -> Result<Base, StoreError> {
    place.0.first_chunk().copied().ok_or_else(|| StoreError::Corrupt("a cursor of another store".to_owned()))
}

/// Sorts behind every entry of an event, however many jobs it comes to have.
fn behind(base: &Base) -> Cursor {
    Cursor([base.as_slice(), &[0xff; 3]].concat())
}

impl Core {
    /// Entries of a tenant's log, in order.
    async fn entries(
        &self,
        tenant: &TenantId,
        after: Option<&Cursor>,
        (since, until): (Option<Timestamp>, Timestamp),
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let lower = match (after, since) {
            (Some(after), _) => [b"(".as_slice(), after.0.as_slice()].concat(),
            (None, Some(since)) => [b"[".as_slice(), &time_bytes(since)].concat(),
            (None, None) => b"-".to_vec(),
        };
        let upper = [b"(".as_slice(), &time_bytes(until)].concat();
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(self.keys.tenant_log(tenant)).arg(lower).arg(upper).arg("LIMIT").arg(0).arg(limit);
        codec::list(self.reads.plain(range, REPLY).await?)?
            .into_iter()
            .map(|entry| Ok(codec::bytes(entry)?.unwrap_or_default()))
            .collect()
    }

    async fn events(&self, walk: &EventWalk) -> Result<EventPage, StoreError> {
        let partition = self.keys.partition(&walk.tenant);
        let limit = walk.limit.min(LOOKED_AT);
        let span = (walk.since, walk.until);
        let entries = self.entries(&walk.tenant, walk.after.as_ref(), span, limit).await?;
        let bases: Vec<Base> = entries.iter().filter_map(|entry| entry.first_chunk().copied()).collect();
        let next = bases.last().filter(|_| entries.len() == limit).map(behind);
        let steps: Vec<Step<'_>> =
            bases.iter().map(|base| Step::Plain(self.event_at(partition, base))).collect();
        let mut items = Vec::with_capacity(bases.len());
        for (base, answer) in bases.iter().zip(self.reads.run(&steps, REPLY).await?) {
            // One that was removed meanwhile is missing.
            let Some((meta, document)) = read_event(answer?)? else { continue };
            let mut jobs = Vec::new();
            for first in (0..meta.jobs).step_by(JOBS as usize) {
                let indexes: Vec<u32> = (first..meta.jobs.min(first + JOBS)).collect();
                let get = self.records_of(partition, base, &indexes);
                let Some((meta, records)) = read_records(self.reads.plain(get, REPLY).await?)? else { break };
                jobs.extend(indexes.iter().zip(records).filter_map(|(index, record)| {
                    record.map(|record| delivery(base, *index, partition, &meta, record))
                }));
            }
            let event = Arc::new(codec::event(meta, document)?);
            items.push(PlacedEvent { place: Cursor(base.to_vec()), event, jobs });
        }
        Ok(EventPage { items, next })
    }

    async fn add_job(&self, placed: &PlacedEvent, job: NewJob) -> Result<Added, StoreError> {
        let (base, tenant) = (base_of(&placed.place)?, &placed.event.tenant);
        let partition = self.keys.partition(tenant);
        for _ in 0..ROUNDS {
            let mut call = self.call(partition);
            call.key(self.keys.event(partition, &base));
            call.key(self.keys.tenant_log(tenant));
            call.key(self.keys.connection_log(partition, job.connection));
            call.value(partition.to_be_bytes())
                .value(base)
                .value(job.connection.bits().to_be_bytes())
                .value(job.mapping.bits().to_be_bytes())
                .number(placed.jobs.len());
            let answer = codec::list(self.link.script(&self.scripts.add_job, call, REPLY).await?)?;
            match answer.first().cloned().map(codec::text).transpose()?.as_deref() {
                Some("made") => {
                    self.look_ahead(partition, &answer[1..])?;
                    return Ok(Added::Made);
                }
                Some("changed") => return Ok(Added::Changed),
                Some("closed") => return Ok(Added::Closed),
                Some("unruled") => self.teach(partition, &[job.connection]).await?,
                _ => return Ok(Added::Missing),
            }
        }
        Err(StoreError::Unavailable("the lane of an added job can't be settled".to_owned()))
    }

    async fn erase_event(&self, placed: &PlacedEvent) -> Result<Erased, StoreError> {
        let (base, document) = (base_of(&placed.place)?, placed.event.erased_document().to_string());
        let partition = self.keys.partition(&placed.event.tenant);
        let mut erased = Erased::default();
        let mut first = 0;
        loop {
            let mut call = self.call(partition);
            call.key(self.keys.event(partition, &base));
            call.value(partition.to_be_bytes())
                .value(base)
                .value(document.as_str())
                .value(ERASED)
                .number(first)
                .number(JOBS);
            let answer = codec::list(self.link.script(&self.scripts.erase, call, REPLY).await?)?;
            self.look_ahead(partition, &answer)?;
            let count = |at: usize| answer.get(at).map_or(Ok(0), codec::count);
            let jobs = count(2)?;
            erased.jobs += jobs;
            erased.cancelled += count(3)?;
            // One that got another job meanwhile has more than were read.
            if jobs < u64::from(JOBS) {
                return Ok(erased);
            }
            first += JOBS;
        }
    }

    async fn purge(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        after: Option<&Cursor>,
    ) -> Result<Purged, StoreError> {
        let partition = self.keys.partition(tenant);
        let entries = self.entries(tenant, after, (None, before), STEP).await?;
        let connections = self.connections_of(partition, &entries).await?;
        self.remove(partition, &entries, &|_| NEVER).await?;
        let mut waiting = 0;
        if !entries.is_empty() {
            let mut left = redis::cmd("ZMSCORE");
            left.arg(self.keys.tenant_log(tenant)).arg(&entries);
            let left = codec::list(self.link.plain(left, REPLY).await?)?;
            waiting = left.iter().filter(|score| **score != Value::Nil).count() as u64;
        }
        let today = day_of(self.clock.now());
        for connection in connections {
            let mut forget = redis::cmd("UNLINK");
            for day in today - TALLY_DAYS..=today + 1 {
                forget.arg(self.keys.tally(partition, connection, day));
            }
            self.link.plain(forget, REPLY).await?;
        }
        let last: Option<&Base> = entries.last().and_then(|entry| entry.first_chunk());
        let next = last.filter(|_| entries.len() == STEP).map(behind);
        Ok(Purged { removed: entries.len() as u64 - waiting, waiting, next })
    }

    /// The connections that some events have jobs of.
    async fn connections_of(
        &self,
        partition: Partition,
        entries: &[Vec<u8>],
    ) -> Result<BTreeSet<ConnectionId>, StoreError> {
        let mut found = BTreeSet::new();
        for entry in entries {
            let Some((base, count)) = entry.split_first_chunk::<BASE>() else { continue };
            let jobs = count.iter().fold(0, |count, byte| count << 8 | u32::from(*byte));
            for first in (0..jobs).step_by(JOBS as usize) {
                let indexes: Vec<u32> = (first..jobs.min(first + JOBS)).collect();
                let get = self.records_of(partition, base, &indexes);
                let Some((_, records)) = read_records(self.reads.plain(get, REPLY).await?)? else { break };
                found.extend(records.into_iter().flatten().map(|record| record.connection));
            }
        }
        Ok(found)
    }
}
