//! Replays, added jobs, erasures and purges of the embedded store, each step inside the writer's transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::ingest::insert_job;
use super::lanes::{Effect, Slot};
use super::rows::{self, state_code, state_of};
use super::statement::run;
use super::sweep::{remove_event, remove_job};
use super::writer::Effects;
use super::{SqliteStore, blocking, read, retry, schema, unavailable};
use crate::domain::id::{ChoreId, ConnectionId, JobId, MappingVersion, TenantId};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::kept::LOOKED_AT;
use crate::store::{
    Added, Cursor, ERASED, Erased, EventPage, EventWalk, Kept, NewJob, PlacedEvent, Purged, Retried,
    StoreError,
};

/// How often a database that is busy is asked again to let go of its log.
const SCRUBS: usize = 20;
const SCRUB_AGAIN: Duration = Duration::from_millis(50);

#[async_trait]
impl Kept for SqliteStore {
    async fn replay(
        &self,
        job: JobId,
        mapping: Option<MappingVersion>,
        replay: ChoreId,
        again: bool,
    ) -> Result<Retried, StoreError> {
        self.ensure_owner()?;
        let (clock, shared) = (self.clock.clone(), Arc::clone(&self.shared));
        self.writer
            .write(move |database, effects| {
                if !takes(database, job, replay, again)? {
                    return Ok(Retried::Already);
                }
                let retried = retry::write(database, job, mapping, true, clock.now(), &shared, effects)?;
                if retried == Retried::Queued {
                    run(
                        database,
                        "INSERT OR REPLACE INTO replayed(job, replay) VALUES(?, ?)",
                        params![job.bits().to_be_bytes(), replay.bits().to_be_bytes()],
                    )?;
                }
                Ok(retried)
            })
            .await
    }

    async fn events(&self, walk: EventWalk) -> Result<EventPage, StoreError> {
        self.read(move |database| events(database, &walk)).await
    }

    async fn add_job(&self, placed: &PlacedEvent, job: NewJob) -> Result<Added, StoreError> {
        self.ensure_owner()?;
        let (placed, clock, ids) = (placed.clone(), self.clock.clone(), self.ids.clone());
        let is_closed = self.is_closed();
        self.writer
            .write(move |database, effects| {
                if is_closed(job.connection) {
                    return Ok(Added::Closed);
                }
                add_job(database, &placed, job, JobId::from_bits(ids.next()), clock.now(), effects)
            })
            .await
    }

    async fn erase(&self, placed: &PlacedEvent) -> Result<Erased, StoreError> {
        self.ensure_owner()?;
        let (placed, clock) = (placed.clone(), self.clock.clone());
        self.writer.write(move |database, effects| erase(database, &placed, clock.now(), effects)).await
    }

    async fn purge(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        after: Option<Cursor>,
    ) -> Result<Purged, StoreError> {
        self.ensure_owner()?;
        let tenant = tenant.clone();
        let clock = self.clock.clone();
        self.writer
            .write(move |database, _| purge(database, &tenant, before, after.as_ref(), clock.now()))
            .await
    }

    async fn scrub(&self) -> Result<(), StoreError> {
        // What was overwritten in the database stands in the write-ahead log until that begins anew.
        for _ in 0..SCRUBS {
            let file = self.file.clone();
            let busy = blocking(move || {
                let database = Connection::open(file).map_err(|error| unavailable(&error))?;
                database.busy_timeout(schema::BUSY_TIMEOUT).map_err(|error| unavailable(&error))?;
                database
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
                    .map_err(|error| unavailable(&error))
            })
            .await?;
            if busy == 0 {
                return Ok(());
            }
            tokio::time::sleep(SCRUB_AGAIN).await;
        }
        Err(StoreError::Unavailable("readers keep the write-ahead log from being emptied".to_owned()))
    }
}

/// Whether a replay may put a job back.
fn takes(database: &Connection, job: JobId, replay: ChoreId, again: bool) -> Result<bool, StoreError> {
    let by: Option<[u8; 16]> = database
        .prepare_cached("SELECT replay FROM replayed WHERE job = ?")
        .and_then(|mut select| select.query_row([job.bits().to_be_bytes()], |row| row.get(0)).optional())
        .map_err(|error| unavailable(&error))?;
    Ok(by.is_none_or(|by| again && by != replay.bits().to_be_bytes()))
}

fn sequence(place: &Cursor) -> Result<i64, StoreError> {
    <[u8; 8]>::try_from(place.0.as_slice())
        .map(i64::from_be_bytes)
        .map_err(|_| StoreError::Corrupt("a cursor of another store".to_owned()))
}

/// A tenant's events in the order of writing, of a bounded number of rows; and the last row where there may be more.
fn sequences(
    database: &Connection,
    tenant: &TenantId,
    after: Option<&Cursor>,
    wanted: impl Fn(Timestamp) -> bool,
    limit: usize,
) -> Result<(Vec<i64>, Option<Cursor>), StoreError> {
    let after = after.map(sequence).transpose()?.unwrap_or(0);
    let mut select = database
        .prepare_cached("SELECT seq, tenant = ?, received FROM events WHERE seq > ? ORDER BY seq LIMIT ?")
        .map_err(|error| unavailable(&error))?;
    let most = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
    let mut found =
        select.query(params![tenant.as_str(), after, most]).map_err(|error| unavailable(&error))?;
    let (mut sequences, mut looked, mut last) = (Vec::new(), 0, after);
    while sequences.len() < limit
        && let Some(row) = found.next().map_err(|error| unavailable(&error))?
    {
        let read = || -> rusqlite::Result<(i64, bool, i64)> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
        let (sequence, own, received) = read().map_err(|error| unavailable(&error))?;
        looked += 1;
        last = sequence;
        if own && wanted(Timestamp::from_millis(received)) {
            sequences.push(sequence);
        }
    }
    let more = looked == LOOKED_AT || sequences.len() == limit;
    Ok((sequences, more.then(|| Cursor(last.to_be_bytes().to_vec()))))
}

fn events(database: &Connection, walk: &EventWalk) -> Result<EventPage, StoreError> {
    let wanted = |received| received < walk.until && walk.since.is_none_or(|since| received >= since);
    let (found, next) = sequences(database, &walk.tenant, walk.after.as_ref(), wanted, walk.limit)?;
    let mut items = Vec::with_capacity(found.len());
    for sequence in found {
        let mut select = database
            .prepare_cached("SELECT key, tenant, received, document FROM events WHERE seq = ?")
            .map_err(|error| unavailable(&error))?;
        let mut rows = select.query([sequence]).map_err(|error| unavailable(&error))?;
        let Some(row) = rows.next().map_err(|error| unavailable(&error))? else { continue };
        let event = rows::event_at(row, 0)?;
        let jobs = read::deliveries_of(database, sequence)?;
        items.push(PlacedEvent { place: Cursor(sequence.to_be_bytes().to_vec()), event, jobs });
    }
    Ok(EventPage { items, next })
}

fn add_job(
    database: &Connection,
    placed: &PlacedEvent,
    new: NewJob,
    id: JobId,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<Added, StoreError> {
    let (sequence, event) = (sequence(&placed.place)?, &placed.event);
    let found: Option<(usize, i64)> = database
        .prepare_cached(
            "SELECT length(document), (SELECT count(*) FROM jobs WHERE event = ?1) FROM events WHERE seq = ?1 AND key = ?2",
        )
        .and_then(|mut select| {
            let key = event.key.bits().to_be_bytes();
            select
                .query_row(params![sequence, key], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
                .optional()
        })
        .map(|found| found.map(|(length, jobs)| (usize::try_from(length).unwrap_or(0), jobs)))
        .map_err(|error| unavailable(&error))?;
    let Some((document_bytes, jobs)) = found else { return Ok(Added::Missing) };
    if usize::try_from(jobs) != Ok(placed.jobs.len()) {
        return Ok(Added::Changed);
    }
    let job = new.of(id, event, now);
    insert_job(database, &job, sequence, &event.kind, false)?;
    effects.lanes.push(Effect::Made(Slot {
        job,
        event: Arc::clone(event),
        document_bytes,
        rendered: None,
        due: None,
    }));
    Ok(Added::Made)
}

fn erase(
    database: &Connection,
    placed: &PlacedEvent,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<Erased, StoreError> {
    let (sequence, key) = (sequence(&placed.place)?, placed.event.key.bits().to_be_bytes());
    let document = placed.event.erased_document().to_string();
    run(
        database,
        "UPDATE events SET document = ? WHERE seq = ? AND key = ?",
        params![document.as_bytes(), sequence, key],
    )?;
    let jobs: Vec<([u8; 16], [u8; 16], i64)> = database
        .prepare_cached(
            "SELECT jobs.id, jobs.connection, jobs.state FROM jobs JOIN events ON events.seq = jobs.event
             WHERE events.seq = ? AND events.key = ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![sequence, key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    let mut erased = Erased::default();
    for (id, connection, state) in jobs {
        erased.jobs += 1;
        run(database, "DELETE FROM attempts WHERE job = ?", [id])?;
        run(database, "DELETE FROM bodies WHERE job = ?", [id])?;
        if state_of(state).is_some_and(JobState::is_open) {
            erased.cancelled += 1;
            run(
                database,
                "UPDATE jobs SET state = ?, due = NULL, finished = ?, reason = ? WHERE id = ?",
                params![state_code(JobState::Cancelled), now.millis(), ERASED, id],
            )?;
            effects.lanes.push(Effect::Dropped {
                connection: ConnectionId::from_bits(u128::from_be_bytes(connection)),
                job: JobId::from_bits(u128::from_be_bytes(id)),
            });
        } else {
            run(database, "UPDATE jobs SET reason = ? WHERE id = ?", params![ERASED, id])?;
        }
    }
    Ok(erased)
}

fn purge(
    database: &Connection,
    tenant: &TenantId,
    before: Timestamp,
    after: Option<&Cursor>,
    now: Timestamp,
) -> Result<Purged, StoreError> {
    /// Events that one step removes.
    const STEP: usize = 200;
    let (found, next) = sequences(database, tenant, after, |received| received < before, STEP)?;
    let mut purged = Purged { next, ..Purged::default() };
    for sequence in found {
        let jobs: Vec<([u8; 16], [u8; 16], bool)> = database
            .prepare_cached("SELECT id, connection, due IS NOT NULL FROM jobs WHERE event = ?")
            .and_then(|mut select| {
                select.query_map([sequence], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
            })
            .map_err(|error| unavailable(&error))?;
        if jobs.iter().any(|(.., open)| *open) {
            purged.waiting += 1;
            continue;
        }
        for (id, connection, _) in jobs {
            remove_job(database, &id)?;
            run(database, "DELETE FROM tallies WHERE connection = ?", [connection])?;
            run(database, "DELETE FROM waits WHERE connection = ?", [connection])?;
        }
        remove_event(database, sequence, now)?;
        purged.removed += 1;
    }
    Ok(purged)
}
