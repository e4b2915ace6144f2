//! Reads for the API: events, and single deliveries.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, JOB_COLUMNS};
use super::unavailable;
use crate::domain::event::Event;
use crate::domain::id::{JobId, MappingVersion, TenantId};
use crate::domain::job::Attempt;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Delivery, Tried};

/// The newest event of a tenant with this public id.
pub(super) fn event(database: &Connection, tenant: &TenantId, id: &str) -> Result<Option<Event>, StoreError> {
    let mut select = database
        .prepare_cached(
            "SELECT key, tenant, received, document FROM events WHERE tenant = ? AND id = ? ORDER BY seq DESC LIMIT 1",
        )
        .map_err(|error| unavailable(&error))?;
    let mut found = select.query(params![tenant.as_str(), id]).map_err(|error| unavailable(&error))?;
    match found.next().map_err(|error| unavailable(&error))? {
        Some(row) => rows::event_at(row, 0).map(|event| Some(std::sync::Arc::unwrap_or_clone(event))),
        None => Ok(None),
    }
}

/// The source of a mapping version.
pub(super) fn mapping(
    database: &Connection,
    version: MappingVersion,
) -> Result<Option<serde_json::Value>, StoreError> {
    let source: Option<String> = database
        .prepare_cached("SELECT source FROM mappings WHERE version = ?")
        .and_then(|mut select| {
            select.query_row(params![version.bits().to_be_bytes()], |row| row.get(0)).optional()
        })
        .map_err(|error| unavailable(&error))?;
    source
        .map(|source| serde_json::from_str(&source))
        .transpose()
        .map_err(|error| StoreError::Corrupt(format!("mapping {version}: {error}")))
}

/// One delivery with its attempts.
pub(super) fn delivery(database: &Connection, id: JobId) -> Result<Option<Delivery>, StoreError> {
    let sql = format!("{} WHERE jobs.id = ?", delivery_sql());
    let found = database
        .prepare_cached(&sql)
        .and_then(|mut select| select.query_row(params![id.bits().to_be_bytes()], delivery_row).optional())
        .map_err(|error| unavailable(&error))?;
    let Some(mut delivery) = found else { return Ok(None) };
    delivery.attempts = attempts(database, id)?;
    delivery.last = delivery.attempts.last().map(Tried::from);
    Ok(Some(delivery))
}

/// Deliveries of one event, in the order of writing, without attempts.
pub(super) fn deliveries_of(database: &Connection, event: i64) -> Result<Vec<Delivery>, StoreError> {
    let sql = format!("{} WHERE jobs.event = ? ORDER BY jobs.id", delivery_sql());
    database
        .prepare_cached(&sql)
        .and_then(|mut select| select.query_map(params![event], delivery_row)?.collect())
        .map_err(|error| unavailable(&error))
}

/// A job's attempts, oldest first.
pub(super) fn attempts(database: &Connection, id: JobId) -> Result<Vec<Attempt>, StoreError> {
    let records: Vec<String> = database
        .prepare_cached("SELECT record FROM attempts WHERE job = ? ORDER BY number")
        .and_then(|mut select| {
            select.query_map(params![id.bits().to_be_bytes()], |row| row.get(0))?.collect()
        })
        .map_err(|error| unavailable(&error))?;
    records
        .iter()
        .map(|record| serde_json::from_str::<Attempt>(record))
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::Corrupt(format!("an attempt of {id}: {error}")))
}

pub(super) fn delivery_sql() -> String {
    format!(
        "SELECT {JOB_COLUMNS}, events.id, jobs.kind, jobs.state, jobs.due, jobs.finished, jobs.reason
         FROM jobs JOIN events ON events.seq = jobs.event"
    )
}

pub(super) fn delivery_row(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let state = row.get(10)?;
    let time = |millis: Option<i64>| millis.filter(|millis| *millis > 0).map(Timestamp::from_millis);
    Ok(Delivery {
        job: rows::job(row)?,
        event_id: row.get(8)?,
        kind: row.get(9)?,
        state: rows::state_of(state).ok_or(rusqlite::Error::IntegralValueOutOfRange(10, state))?,
        due: time(row.get(11)?),
        finished: time(row.get(12)?),
        reason: row.get(13)?,
        last: None,
        attempts: Vec::new(),
    })
}

/// The smallest id that can have been made at `time`.
pub(super) fn first_id(time: Timestamp) -> u128 {
    u128::try_from(time.millis()).unwrap_or(0) << 80
}
