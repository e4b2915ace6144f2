//! Records: few, small, and followed by every process through their rising revision.

use rusqlite::{Connection as Database, OptionalExtension, params};

use super::lanes::{Effect, LaneRule};
use super::unavailable;
use super::writer::Effects;
use crate::domain::connection::{Connection, ConnectionState};
use crate::domain::history::StateChange;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Change, Expected, Record, RecordId, Revision};

const TENANT: i64 = 0;
const KEY: i64 = 1;
const CONNECTION: i64 = 2;
const SOURCE: i64 = 3;
const CHORE: i64 = 4;

/// What a connection's record says of its lane.
pub(super) fn rule(connection: &Connection, revision: Revision) -> LaneRule {
    LaneRule {
        revision,
        tenant: connection.tenant.clone(),
        concurrency: if connection.batch > 1 { 1 } else { connection.concurrency },
        batch: connection.batch,
        paused: matches!(connection.state, ConnectionState::Paused { .. }),
        closed: matches!(connection.state, ConnectionState::Closed { .. }),
        unwanted_before: connection.unwanted_before,
    }
}

/// Writes a record if `expected` holds.
pub(super) fn put(
    database: &Database,
    record: &Record,
    expected: Expected,
    effects: &mut Effects,
) -> Result<Revision, StoreError> {
    let (kind, id) = columns(&record.id());
    let current: Option<(i64, bool)> = database
        .prepare_cached("SELECT revision, document IS NOT NULL FROM records WHERE kind = ? AND id = ?")
        .and_then(|mut select| {
            select.query_row(params![kind, id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(|error| unavailable(&error))?;
    let live = current.filter(|(_, live)| *live).map(|(revision, _)| revision.cast_unsigned());
    let holds = match expected {
        Expected::Absent => live.is_none(),
        Expected::At(revision) => live == Some(revision),
    };
    if !holds {
        return Err(StoreError::Conflict);
    }
    // Whoever resumes a connection says that its endpoint works.
    if let Record::Connection(connection) = record
        && connection.state.is_active()
        && let Some(Record::Connection(before)) = read(database, &record.id())?
        && !before.state.is_active()
    {
        forget_failures(database, connection.id)?;
    }
    write(database, record, effects)
}

fn write(database: &Database, record: &Record, effects: &mut Effects) -> Result<Revision, StoreError> {
    let document = record.document()?;
    let revision = upsert(database, &record.id(), Some(&document))?;
    if let Record::Connection(connection) = record {
        effects.lanes.push(Effect::Rule { connection: connection.id, rule: rule(connection, revision) });
    }
    effects.records = true;
    Ok(revision)
}

fn upsert(database: &Database, id: &RecordId, document: Option<&str>) -> Result<Revision, StoreError> {
    let (kind, id) = columns(id);
    database
        .prepare_cached(
            "INSERT INTO records(kind, id, revision, document)
             VALUES(?1, ?2, (SELECT coalesce(max(revision), 0) + 1 FROM records), ?3)
             ON CONFLICT(kind, id) DO UPDATE SET revision = excluded.revision, document = excluded.document
             RETURNING revision",
        )
        .and_then(|mut insert| insert.query_row(params![kind, id, document], |row| row.get::<_, i64>(0)))
        .map(i64::cast_unsigned)
        .map_err(|error| unavailable(&error))
}

/// Deletes a record; a tenant's keys, connections and sources go with it.
pub(super) fn delete(database: &Database, id: &RecordId, effects: &mut Effects) -> Result<bool, StoreError> {
    if read(database, id)?.is_none() {
        return Ok(false);
    }
    if let RecordId::Tenant(tenant) = id {
        for owned in owned_by(database, tenant)? {
            erase(database, &owned, effects)?;
        }
    }
    erase(database, id, effects)?;
    Ok(true)
}

fn erase(database: &Database, id: &RecordId, effects: &mut Effects) -> Result<(), StoreError> {
    let revision = upsert(database, id, None)?;
    if let RecordId::Connection(connection) = id {
        effects.lanes.push(Effect::Deleted { connection: *connection, revision });
        forget_failures(database, *connection)?;
    }
    effects.records = true;
    Ok(())
}

/// Ends a run of failures. Costs a look into a small table where there is none.
pub(super) fn forget_failures(database: &Database, connection: ConnectionId) -> Result<(), StoreError> {
    database
        .prepare_cached("DELETE FROM failing WHERE connection = ?")
        .and_then(|mut delete| delete.execute(params![connection.bits().to_be_bytes()]))
        .map(|_| ())
        .map_err(|error| unavailable(&error))
}

fn owned_by(database: &Database, tenant: &TenantId) -> Result<Vec<RecordId>, StoreError> {
    let rows: Vec<(i64, String)> = database
        .prepare_cached(
            "SELECT kind, id FROM records
             WHERE kind IN (?, ?, ?, ?) AND document IS NOT NULL AND json_extract(document, '$.tenant') = ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![KEY, CONNECTION, SOURCE, CHORE, tenant.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    rows.into_iter().map(|(kind, id)| record_id(kind, &id)).collect()
}

/// Changes a connection's state, if it is still there and open.
pub(super) fn set_state(
    database: &Database,
    connection: ConnectionId,
    state: &ConnectionState,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let Some(Record::Connection(mut record)) = read(database, &RecordId::Connection(connection))? else {
        return Ok(());
    };
    if !record.state.takes_jobs() {
        return Ok(());
    }
    if let Some(change) = StateChange::of_attempt(state) {
        record.enter(change);
    }
    record.updated = now;
    write(database, &Record::Connection(record), effects).map(|_| ())
}

/// Notes that no job is left of those that were not wanted.
pub(super) fn end_clearing(
    database: &Database,
    (connection, before): (ConnectionId, Timestamp),
    effects: &mut Effects,
) -> Result<(), StoreError> {
    match read(database, &RecordId::Connection(connection))? {
        Some(Record::Connection(mut record)) if record.unwanted_before == Some(before) => {
            record.unwanted_before = None;
            write(database, &Record::Connection(record), effects).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn read(database: &Database, id: &RecordId) -> Result<Option<Record>, StoreError> {
    let (kind, text) = columns(id);
    let document: Option<Option<String>> = database
        .prepare_cached("SELECT document FROM records WHERE kind = ? AND id = ?")
        .and_then(|mut select| select.query_row(params![kind, text], |row| row.get(0)).optional())
        .map_err(|error| unavailable(&error))?;
    document.flatten().map(|document| id.parse(document.as_bytes())).transpose()
}

/// Changes after `since`, in order.
pub(super) fn changes(database: &Database, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError> {
    let rows: Vec<(i64, String, i64, Option<String>)> = database
        .prepare_cached(
            "SELECT kind, id, revision, document FROM records WHERE revision > ? ORDER BY revision LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![since.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    rows.into_iter()
        .map(|(kind, id, revision, document)| {
            let id = record_id(kind, &id)?;
            let record = document.map(|document| id.parse(document.as_bytes())).transpose()?;
            Ok(Change { revision: revision.cast_unsigned(), id, record })
        })
        .collect()
}

/// What changes of connections mean for their lanes.
pub(super) fn effects_of(changes: &[Change]) -> Vec<Effect> {
    changes
        .iter()
        .filter_map(|change| match (&change.id, &change.record) {
            (RecordId::Connection(id), None) => {
                Some(Effect::Deleted { connection: *id, revision: change.revision })
            }
            (RecordId::Connection(id), Some(Record::Connection(connection))) => {
                Some(Effect::Rule { connection: *id, rule: rule(connection, change.revision) })
            }
            _ => None,
        })
        .collect()
}

fn columns(id: &RecordId) -> (i64, String) {
    match id {
        RecordId::Tenant(id) => (TENANT, id.to_string()),
        RecordId::Key(id) => (KEY, id.to_string()),
        RecordId::Connection(id) => (CONNECTION, id.to_string()),
        RecordId::Source(id) => (SOURCE, id.to_string()),
        RecordId::Chore(id) => (CHORE, id.to_string()),
    }
}

fn record_id(kind: i64, id: &str) -> Result<RecordId, StoreError> {
    let read = match kind {
        TENANT => id.parse().ok().map(RecordId::Tenant),
        KEY => id.parse().ok().map(RecordId::Key),
        CONNECTION => id.parse().ok().map(RecordId::Connection),
        SOURCE => id.parse().ok().map(RecordId::Source),
        CHORE => id.parse().ok().map(RecordId::Chore),
        _ => None,
    };
    read.ok_or_else(|| StoreError::Corrupt(format!("a record of kind {kind} is called {id:?}")))
}
