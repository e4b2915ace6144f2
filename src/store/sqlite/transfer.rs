//! Gives all events to another store, and takes them from one.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::ingest::insert_event;
use super::rows::{self, state_code};
use super::statement::run;
use super::{read, refill, unavailable};
use crate::domain::job::JobState;
use crate::store::StoreError;
use crate::store::types::{Cursor, DEDUPE_SPAN, Exported, KeptEvent, KeptJob, Tried};

/// A page of events after the one that `after` names.
pub(super) fn export(
    database: &Connection,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Exported, StoreError> {
    let after = match after {
        Some(Cursor(bytes)) => <[u8; 8]>::try_from(bytes.as_slice())
            .map(i64::from_be_bytes)
            .map_err(|_| StoreError::Corrupt("a cursor of another store".to_owned()))?,
        None => 0,
    };
    let mut select = database
        .prepare_cached(
            "SELECT seq, key, tenant, received, document FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
        )
        .map_err(|error| unavailable(&error))?;
    let mut found = select
        .query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])
        .map_err(|error| unavailable(&error))?;
    let mut exported = Exported::default();
    while let Some(row) = found.next().map_err(|error| unavailable(&error))? {
        let sequence: i64 = row.get(0).map_err(|error| unavailable(&error))?;
        let event = rows::event_at(row, 1)?;
        let jobs = jobs(database, sequence)?;
        exported.events.push(KeptEvent { event, dedupe: None, jobs });
        exported.next = Some(Cursor(sequence.to_be_bytes().to_vec()));
    }
    if exported.events.len() < limit {
        exported.next = None;
    }
    Ok(exported)
}

fn jobs(database: &Connection, event: i64) -> Result<Vec<KeptJob>, StoreError> {
    read::deliveries_of(database, event)?
        .into_iter()
        .map(|mut delivery| {
            delivery.attempts = read::attempts(database, delivery.job.id)?;
            delivery.last = delivery.attempts.last().map(Tried::from);
            let rendered = refill::body(database, delivery.job.id)?;
            Ok(KeptJob { delivery, rendered })
        })
        .collect()
}

/// Writes events that are not there yet; how many those were. Lanes are told nothing: they are built at the next start.
pub(super) fn import(database: &Connection, events: &[KeptEvent]) -> Result<usize, StoreError> {
    let mut new = 0;
    for kept in events {
        new += usize::from(write(database, kept)?);
    }
    Ok(new)
}

fn write(database: &Connection, kept: &KeptEvent) -> Result<bool, StoreError> {
    let event = Arc::as_ref(&kept.event);
    let key = event.key.bits().to_be_bytes();
    let known: Option<i64> = database
        .prepare_cached("SELECT seq FROM events WHERE tenant = ? AND id = ? AND key = ?")
        .and_then(|mut select| {
            select.query_row(params![event.tenant.as_str(), event.id, key], |row| row.get(0)).optional()
        })
        .map_err(|error| unavailable(&error))?;
    if known.is_some() {
        return Ok(false);
    }
    let made = u32::try_from(kept.jobs.len()).unwrap_or(u32::MAX);
    let dedupe = kept.dedupe.map(|dedupe| (dedupe, event.received.plus(DEDUPE_SPAN)));
    let sequence = insert_event(database, event, dedupe, made)?;
    for job in &kept.jobs {
        write_job(database, sequence, job)?;
    }
    Ok(true)
}

fn write_job(database: &Connection, event: i64, kept: &KeptJob) -> Result<(), StoreError> {
    let delivery = &kept.delivery;
    let job = &delivery.job;
    let id = job.name.bits().to_be_bytes();
    let due = match delivery.state {
        JobState::Queued => Some(0),
        JobState::Waiting => Some(delivery.due.map_or(1, |due| due.millis().max(1))),
        _ => None,
    };
    run(
        database,
        "INSERT INTO jobs(id, connection, tenant, event, kind, mapping, created, state, due, attempts, tries, finished,
             reason)
         VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            job.connection.bits().to_be_bytes(),
            job.tenant.as_str(),
            event,
            delivery.kind,
            job.mapping.bits().to_be_bytes(),
            job.created.millis(),
            state_code(delivery.state),
            due,
            job.attempts,
            job.tries,
            delivery.finished.map(crate::domain::time::Timestamp::millis),
            delivery.reason,
        ],
    )?;
    for attempt in &delivery.attempts {
        let record = serde_json::to_string(attempt)
            .map_err(|error| StoreError::Corrupt(format!("an attempt cannot be written: {error}")))?;
        let sql = "INSERT INTO attempts(job, number, record) VALUES(?, ?, ?)";
        run(database, sql, params![id, attempt.number, record])?;
    }
    if let Some(body) = &kept.rendered {
        run(database, "INSERT INTO bodies(job, body) VALUES(?, ?)", params![id, &body[..]])?;
    }
    Ok(())
}
