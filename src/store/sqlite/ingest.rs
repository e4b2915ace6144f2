//! Writes events and their jobs, with dedupe, inside the writer's transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::lanes::{Effect, Slot};
use super::rows::state_code;
use super::unavailable;
use super::writer::Effects;
use crate::clock::Ids;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Job, JobState};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Accepted, DEDUPE_SPAN, Dedupe, Ingest, Ingested, NewEvent, UNANSWERED};

/// What was remembered under a key.
enum Seen<T> {
    Never,
    Same(T),
    Other,
}

/// Writes one request. `is_closed` says which connections take no jobs any more.
pub(super) fn write(
    database: &Connection,
    ingest: &Ingest,
    now: Timestamp,
    ids: &Ids,
    is_closed: &dyn Fn(ConnectionId) -> bool,
    effects: &mut Effects,
) -> Result<Ingested, StoreError> {
    if let Some(key) = ingest.idempotency {
        match seen::<Vec<Accepted>>(database, key, now)? {
            Seen::Never => {}
            Seen::Same(answer) => return Ok(Ingested::Repeated(answer)),
            Seen::Other => return Ok(Ingested::KeyReused),
        }
    }
    let mut accepted = Vec::with_capacity(ingest.events.len());
    for event in &ingest.events {
        accepted.push(write_event(database, event, now, ids, is_closed, effects)?);
    }
    if let Some(key) = ingest.idempotency {
        remember(database, key, now, &accepted)?;
    }
    Ok(Ingested::Stored(accepted))
}

fn write_event(
    database: &Connection,
    new: &NewEvent,
    now: Timestamp,
    ids: &Ids,
    is_closed: &dyn Fn(ConnectionId) -> bool,
    effects: &mut Effects,
) -> Result<Accepted, StoreError> {
    let event = &new.event;
    if let Some(key) = new.dedupe {
        match seen::<u32>(database, key, now)? {
            Seen::Never => {}
            Seen::Same(jobs) => return Ok(Accepted::Stored { id: event.id.clone(), jobs, duplicate: true }),
            Seen::Other => return Ok(Accepted::IdReused { id: event.id.clone() }),
        }
    }
    database
        .prepare_cached(
            "INSERT INTO events(key, tenant, id, kind, received, document) VALUES(?, ?, ?, ?, ?, ?)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                event.key.bits().to_be_bytes(),
                event.tenant.as_str(),
                event.id,
                event.kind,
                event.received.millis(),
                &event.document.text()[..],
            ])
        })
        .map_err(|error| unavailable(&error))?;
    let sequence = database.last_insert_rowid();
    let mut jobs = 0;
    for new_job in &new.jobs {
        if is_closed(new_job.connection) {
            continue;
        }
        let id = JobId::from_bits(ids.next());
        let job = Job {
            id,
            name: id,
            tenant: event.tenant.clone(),
            connection: new_job.connection,
            event: event.key,
            mapping: new_job.mapping,
            created: now,
            attempts: 0,
            tries: 0,
        };
        insert_job(database, &job, sequence, &event.kind, new_job.triggered)?;
        if !new_job.triggered {
            effects.lanes.push(Effect::Made(Slot {
                job,
                event: Arc::clone(event),
                document_bytes: event.document.text().len(),
                rendered: None,
                due: None,
            }));
        }
        jobs += 1;
    }
    if let Some(key) = new.dedupe {
        remember(database, key, now, &jobs)?;
    }
    Ok(Accepted::Stored { id: event.id.clone(), jobs, duplicate: false })
}

pub(super) fn insert_job(
    database: &Connection,
    job: &Job,
    event: i64,
    kind: &str,
    triggered: bool,
) -> Result<(), StoreError> {
    let (state, due, finished, reason) = if triggered {
        (JobState::Dead, None, Some(job.created.millis()), UNANSWERED)
    } else {
        (JobState::Queued, Some(0), None, "")
    };
    database
        .prepare_cached(
            "INSERT INTO jobs(id, connection, tenant, event, kind, mapping, created, state, due, finished, attempts, tries,
             reason) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                job.id.bits().to_be_bytes(),
                job.connection.bits().to_be_bytes(),
                job.tenant.as_str(),
                event,
                kind,
                job.mapping.bits().to_be_bytes(),
                job.created.millis(),
                state_code(state),
                due,
                finished,
                reason,
            ])
        })
        .map_err(|error| unavailable(&error))?;
    Ok(())
}

fn seen<T: serde::de::DeserializeOwned>(
    database: &Connection,
    key: Dedupe,
    now: Timestamp,
) -> Result<Seen<T>, StoreError> {
    let row: Option<([u8; 16], String)> = database
        .prepare_cached("SELECT content, answer FROM dedupe WHERE key = ? AND expires > ?")
        .and_then(|mut select| {
            select.query_row(params![key.key, now.millis()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(|error| unavailable(&error))?;
    match row {
        None => Ok(Seen::Never),
        Some((content, _)) if content != key.content => Ok(Seen::Other),
        Some((_, answer)) => serde_json::from_str(&answer)
            .map(Seen::Same)
            .map_err(|error| StoreError::Corrupt(format!("a remembered answer: {error}"))),
    }
}

pub(super) fn remember<T: serde::Serialize>(
    database: &Connection,
    key: Dedupe,
    now: Timestamp,
    answer: &T,
) -> Result<(), StoreError> {
    let answer = serde_json::to_string(answer)
        .map_err(|error| StoreError::Corrupt(format!("an answer cannot be written: {error}")))?;
    database
        .prepare_cached("INSERT OR REPLACE INTO dedupe(key, content, expires, answer) VALUES(?, ?, ?, ?)")
        .and_then(|mut insert| {
            insert.execute(params![key.key, key.content, now.plus(DEDUPE_SPAN).millis(), answer])
        })
        .map_err(|error| unavailable(&error))?;
    Ok(())
}
