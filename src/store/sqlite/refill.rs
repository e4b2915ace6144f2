//! Reads a lane's next open jobs for its window.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use super::lanes::{LEAST_REFILL, Lanes, Refill, RefillPlan, Slot};
use super::rows::{self, JOB_COLUMNS};
use super::unavailable;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, EventKey, JobId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A job with its event.
static SLOT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {JOB_COLUMNS}, jobs.due, events.key, events.tenant, events.received, events.document
         FROM jobs JOIN events ON events.seq = jobs.event WHERE jobs.id = ?"
    )
});

/// Reads what `plan` asks for. Runs on the writer's thread, so rows and `lanes` agree; `lanes` is locked only to look up
/// which jobs are known.
pub(super) fn read(
    database: &Connection,
    connection: ConnectionId,
    plan: RefillPlan,
    now: Timestamp,
    lanes: &Mutex<Lanes>,
) -> Result<Refill, StoreError> {
    let last_due = if plan.strict { i64::MAX } else { now.millis() };
    let (due_ids, more_due) = ids(database, connection, (1, last_due), plan.want_due, plan.known, lanes)?;
    let (fresh_ids, more_fresh) = ids(database, connection, (0, 0), plan.want_fresh, plan.known, lanes)?;
    let mut events = HashMap::new();
    let mut bytes = 0;
    let mut slots = |wanted: Vec<JobId>| -> Result<(Vec<Slot>, bool), StoreError> {
        let mut read = Vec::with_capacity(wanted.len());
        for id in &wanted {
            if read.len() >= LEAST_REFILL && bytes >= plan.want_bytes {
                break;
            }
            let slot = slot(database, *id, &mut events)?;
            bytes += slot.bytes();
            read.push(slot);
        }
        let cut = read.len() < wanted.len();
        Ok((read, cut))
    };
    let (due, due_cut) = slots(due_ids)?;
    let (fresh, fresh_cut) = slots(fresh_ids)?;
    let next_due = if more_due || due_cut { Some(now) } else { next_due(database, connection, last_due)? };
    Ok(Refill { due, next_due, fresh, more_fresh: more_fresh || fresh_cut })
}

/// The first unknown jobs of a lane whose `due` lies in a span, and whether there are more.
fn ids(
    database: &Connection,
    connection: ConnectionId,
    (first_due, last_due): (i64, i64),
    want: usize,
    known: usize,
    lanes: &Mutex<Lanes>,
) -> Result<(Vec<JobId>, bool), StoreError> {
    let limit = want + known + 1;
    let mut select = database
        .prepare_cached(
            "SELECT id FROM jobs WHERE connection = ? AND due BETWEEN ? AND ? ORDER BY due, id LIMIT ?",
        )
        .map_err(|error| unavailable(&error))?;
    let read: Vec<JobId> = select
        .query_map(
            params![
                connection.bits().to_be_bytes(),
                first_due,
                last_due,
                i64::try_from(limit).unwrap_or(i64::MAX)
            ],
            |row| row.get::<_, [u8; 16]>(0).map(|bytes| JobId::from_bits(u128::from_be_bytes(bytes))),
        )
        .and_then(Iterator::collect)
        .map_err(|error| unavailable(&error))?;
    let reached_end = read.len() < limit;
    let lanes = lanes.lock();
    let mut unknown: Vec<JobId> = read.into_iter().filter(|id| !lanes.knows(*id)).collect();
    let more = !reached_end || unknown.len() > want;
    unknown.truncate(want);
    Ok((unknown, more))
}

fn next_due(
    database: &Connection,
    connection: ConnectionId,
    after: i64,
) -> Result<Option<Timestamp>, StoreError> {
    database
        .prepare_cached("SELECT min(due) FROM jobs WHERE connection = ? AND due > ?")
        .and_then(|mut select| {
            select.query_row(params![connection.bits().to_be_bytes(), after], |row| {
                row.get::<_, Option<i64>>(0)
            })
        })
        .map(|due| due.map(Timestamp::from_millis))
        .map_err(|error| unavailable(&error))
}

/// A job with its event and its rendered bytes. Jobs of one event share it.
fn slot(
    database: &Connection,
    id: JobId,
    events: &mut HashMap<EventKey, (Arc<Event>, usize)>,
) -> Result<Slot, StoreError> {
    let mut select = database.prepare_cached(&SLOT).map_err(|error| unavailable(&error))?;
    let mut found = select.query(params![id.bits().to_be_bytes()]).map_err(|error| unavailable(&error))?;
    let row = found
        .next()
        .map_err(|error| unavailable(&error))?
        .ok_or_else(|| StoreError::Corrupt(format!("{id} has no event")))?;
    let job = rows::job(row).map_err(|error| unavailable(&error))?;
    let due: i64 = row.get(8).map_err(|error| unavailable(&error))?;
    let (event, document_bytes) = if let Some(shared) = events.get(&job.event) {
        shared.clone()
    } else {
        let length =
            row.get_ref(12).ok().and_then(|document| document.as_bytes().ok()).map_or(0, <[u8]>::len);
        let event = rows::event_at(row, 9)?;
        events.insert(job.event, (Arc::clone(&event), length));
        (event, length)
    };
    let rendered = if job.tries > 0 { body(database, id)? } else { None };
    let due = (due > 0).then(|| Timestamp::from_millis(due));
    Ok(Slot { job, event, document_bytes, rendered, due })
}

/// What the next attempt of a job begins with.
pub(super) fn body(database: &Connection, id: JobId) -> Result<Option<Bytes>, StoreError> {
    database
        .prepare_cached("SELECT body FROM bodies WHERE job = ?")
        .and_then(|mut select| {
            select.query_row(params![id.bits().to_be_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()
        })
        .map(|body| body.map(Bytes::from))
        .map_err(|error| unavailable(&error))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::schema;
    use super::*;

    #[test]
    fn a_statement_is_planned_once_whatever_is_bound() {
        let folder = tempfile::tempdir().unwrap();
        let database = schema::open_writer(&folder.path().join("patchbay.db")).unwrap();
        let lanes = Mutex::default();
        for bits in 0..5 {
            assert!(slot(&database, JobId::from_bits(bits), &mut HashMap::new()).is_err(), "there is none");
            let connection = ConnectionId::from_bits(bits);
            ids(&database, connection, (0, 0), usize::try_from(bits).unwrap(), 0, &lanes).unwrap();
        }
        let statement = database.prepare_cached(&SLOT).unwrap();
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        assert_eq!(statement.get_status(StatementStatus::Run), 5);
    }
}
