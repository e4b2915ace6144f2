//! Builds the lanes from what is on disk: rules from the connections, counts from the index of open jobs.

use rusqlite::Connection;

use super::lanes::{Effect, Lanes, Restored};
use super::{records, unavailable};
use crate::clock::Ids;
use crate::domain::breaker::Failing;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Changes read at once.
const PAGE: usize = 1_000;

/// Fills empty lanes, and lets `ids` go on after the newest job.
pub(super) fn restore(
    database: &Connection,
    lanes: &mut Lanes,
    ids: &Ids,
    now: Timestamp,
) -> Result<(), StoreError> {
    let newest: Option<[u8; 16]> = database
        .query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))
        .map_err(|error| unavailable(&error))?;
    ids.after(newest.map_or(0, u128::from_be_bytes));
    // Tokens of an earlier life must not fit: begin at random, below the middle so that they rise.
    lanes.begin_tokens(u64::try_from(ids.next() & u128::from(u64::MAX >> 1)).unwrap_or_default());
    let mut since = 0;
    loop {
        let changes = records::changes(database, since, PAGE)?;
        let Some(last) = changes.last() else { break };
        since = last.revision;
        for effect in records::effects_of(&changes) {
            lanes.apply(effect, now);
        }
    }
    // Who leased them before the end of the last life is not known.
    let newest = newest.map_or(now, |id| JobId::from_bits(u128::from_be_bytes(id)).time());
    lanes.doubt(newest.max(now));
    restore_jobs(database, lanes, now).map_err(|error| unavailable(&error))?;
    restore_waits(database, lanes, now).map_err(|error| unavailable(&error))?;
    restore_failing(database, lanes, now).map_err(|error| unavailable(&error))
}

fn restore_jobs(database: &Connection, lanes: &mut Lanes, now: Timestamp) -> rusqlite::Result<()> {
    let mut select = database.prepare(
        "SELECT connection, count(*), max(due = 0), min(CASE WHEN due > 0 THEN due END), min(id)
         FROM jobs INDEXED BY jobs_lane WHERE due IS NOT NULL GROUP BY connection",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let connection = ConnectionId::from_bits(u128::from_be_bytes(row.get(0)?));
        let restored = Restored {
            open: row.get::<_, i64>(1)?.cast_unsigned(),
            fresh: row.get(2)?,
            next_due: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
            oldest: JobId::from_bits(u128::from_be_bytes(row.get(4)?)).time(),
        };
        lanes.restore(connection, restored, now);
    }
    Ok(())
}

fn restore_waits(database: &Connection, lanes: &mut Lanes, now: Timestamp) -> rusqlite::Result<()> {
    // Those that have passed too: a clock that is set back must find the wait that the lane had before.
    let mut select = database.prepare("SELECT connection, until FROM waits")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let connection = ConnectionId::from_bits(u128::from_be_bytes(row.get(0)?));
        lanes.apply(Effect::Wait { connection, until: Timestamp::from_millis(row.get(1)?) }, now);
    }
    Ok(())
}

fn restore_failing(database: &Connection, lanes: &mut Lanes, now: Timestamp) -> rusqlite::Result<()> {
    let mut select = database.prepare("SELECT connection, count, since FROM failing")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let connection = ConnectionId::from_bits(u128::from_be_bytes(row.get(0)?));
        let failing = Failing { count: row.get(1)?, since: Timestamp::from_millis(row.get(2)?) };
        lanes.apply(Effect::Failed { connection, failing }, now);
    }
    Ok(())
}
