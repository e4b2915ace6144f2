//! Writes events and their jobs, with dedupe, inside the writer's transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::lanes::{Effect, Slot};
use super::rows::state_code;
use super::statement::run;
use super::unavailable;
use super::writer::Effects;
use crate::clock::Ids;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Job, JobState};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Accepted, DEDUPE_SPAN, Dedupe, Ingest, Ingested, NewEvent, NewJob, UNANSWERED};

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
        match seen_event(database, event, key, now)? {
            Seen::Never => {}
            Seen::Same(jobs) => return Ok(Accepted::Stored { id: event.id.clone(), jobs, duplicate: true }),
            Seen::Other => return Ok(Accepted::IdReused { id: event.id.clone() }),
        }
    }
    let open: Vec<&NewJob> = new.jobs.iter().filter(|job| !is_closed(job.connection)).collect();
    let jobs = u32::try_from(open.len()).unwrap_or(u32::MAX);
    let dedupe = new.dedupe.map(|dedupe| (dedupe, now.plus(DEDUPE_SPAN)));
    let sequence = insert_event(database, event, dedupe, jobs)?;
    for new_job in open {
        let id = JobId::from_bits(ids.next());
        let job = new_job.of(id, event, now);
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
    }
    Ok(Accepted::Stored { id: event.id.clone(), jobs, duplicate: false })
}

/// Writes an event that made so many jobs, with what a repeat of it is known by and until when; its row's number.
pub(super) fn insert_event(
    database: &Connection,
    event: &Event,
    dedupe: Option<(Dedupe, Timestamp)>,
    made: u32,
) -> Result<i64, StoreError> {
    run(
        database,
        "INSERT INTO events(key, tenant, id, kind, received, dedupe, content, known_until, made, document)
         VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            event.key.bits().to_be_bytes(),
            event.tenant.as_str(),
            event.id,
            event.kind,
            event.received.millis(),
            dedupe.map(|(dedupe, _)| dedupe.key),
            dedupe.map(|(dedupe, _)| dedupe.content),
            dedupe.map(|(_, until)| until.millis()),
            made,
            &event.document.text()[..],
        ],
    )?;
    Ok(database.last_insert_rowid())
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
    run(
        database,
        "INSERT INTO jobs(id, connection, tenant, event, kind, mapping, created, state, due, finished, attempts, tries,
         reason) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        params![
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
        ],
    )
    .map(drop)
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

/// What is remembered of an event: in its own row, or, where that was removed before its day was over, under its key.
fn seen_event(
    database: &Connection,
    event: &Event,
    key: Dedupe,
    now: Timestamp,
) -> Result<Seen<u32>, StoreError> {
    let row: Option<([u8; 16], u32)> = database
        .prepare_cached(
            "SELECT content, made FROM events WHERE tenant = ? AND id = ? AND dedupe = ? AND known_until > ? LIMIT 1",
        )
        .and_then(|mut select| {
            let named = params![event.tenant.as_str(), event.id, key.key, now.millis()];
            select.query_row(named, |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(|error| unavailable(&error))?;
    match row {
        None => seen(database, key, now),
        Some((content, _)) if content != key.content => Ok(Seen::Other),
        Some((_, made)) => Ok(Seen::Same(made)),
    }
}

fn remember<T: serde::Serialize>(
    database: &Connection,
    key: Dedupe,
    now: Timestamp,
    answer: &T,
) -> Result<(), StoreError> {
    let answer = serde_json::to_string(answer)
        .map_err(|error| StoreError::Corrupt(format!("an answer cannot be written: {error}")))?;
    run(
        database,
        "INSERT OR REPLACE INTO dedupe(key, content, expires, answer) VALUES(?, ?, ?, ?)",
        params![key.key, key.content, now.plus(DEDUPE_SPAN).millis(), answer],
    )
    .map(drop)
}
