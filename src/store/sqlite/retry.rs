//! Puts a job back by hand, inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::lanes::Effect;
use super::rows::{state_code, state_of};
use super::unavailable;
use super::writer::{Effects, Shared};
use crate::domain::id::{ConnectionId, JobId, MappingVersion};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::types::Retried;
use crate::store::{ERASED, StoreError};

/// Makes a job due now with a fresh schedule; what happened before stays on record. `only_ended` leaves one alone that waits
/// for its retry.
pub(super) fn write(
    database: &Connection,
    id: JobId,
    mapping: Option<MappingVersion>,
    only_ended: bool,
    now: Timestamp,
    shared: &Shared,
    effects: &mut Effects,
) -> Result<Retried, StoreError> {
    let found: Option<([u8; 16], i64, bool)> = database
        .prepare_cached("SELECT connection, state, reason = ? FROM jobs WHERE id = ?")
        .and_then(|mut select| {
            let row = params![ERASED, id.bits().to_be_bytes()];
            select.query_row(row, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(|error| unavailable(&error))?;
    let Some((connection, state, is_erased)) = found else { return Ok(Retried::Missing) };
    let connection = ConnectionId::from_bits(u128::from_be_bytes(connection));
    let state = state_of(state);
    let (is_leased, is_closed) = {
        let lanes = shared.lanes.lock();
        (lanes.is_leased(id), lanes.is_closed(connection))
    };
    let is_open = state.is_some_and(JobState::is_open);
    if state == Some(JobState::Queued) || is_leased || (only_ended && is_open) {
        return Ok(Retried::Open);
    }
    if is_erased {
        return Ok(Retried::Erased);
    }
    if is_closed {
        return Ok(Retried::Closed);
    }
    // Any other job was rendered already, and its bytes never change.
    let mapping = mapping.filter(|_| state == Some(JobState::MappingFailed));
    database
        .prepare_cached(
            "UPDATE jobs SET state = ?, due = ?, attempts = 0, finished = NULL, mapping = coalesce(?, mapping)
             WHERE id = ?",
        )
        .and_then(|mut update| {
            update.execute(params![
                state_code(JobState::Waiting),
                now.millis().max(1),
                mapping.map(|version| version.bits().to_be_bytes()),
                id.bits().to_be_bytes()
            ])
        })
        .map_err(|error| unavailable(&error))?;
    effects.lanes.push(Effect::Reopened { connection, job: id, due: now, was_open: is_open });
    Ok(Retried::Queued)
}
