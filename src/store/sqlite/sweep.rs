//! Upkeep in bounded steps: cancels what can never be sent, removes what is past its retention.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::lanes::Effect;
use super::read::first_id;
use super::rows::state_code;
use super::unavailable;
use super::writer::Effects;
use crate::domain::id::ConnectionId;
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::types::Sweep;
use crate::store::{StoreError, log};

/// Rows that one step touches of each kind.
pub(super) const STEP: usize = 500;

/// A lane's wait is forgotten so long after it has passed: a clock may be set back by less.
const PASSED: Duration = Duration::from_secs(60);

/// How far the walk over old rows has come; it begins again once it reached what must be kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    pub job: u128,
    pub event: i64,
}

/// Cancels open jobs of a closed lane, but for those that are leased (so many at the most), whose settlement will end
/// them.
pub(super) fn cancel(
    database: &Connection,
    (connection, leased): (ConnectionId, u32),
    is_leased: &dyn Fn(u128) -> bool,
    now: Timestamp,
    sweep: &mut Sweep,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let limit = STEP + leased as usize;
    let ids: Vec<[u8; 16]> = database
        .prepare_cached(
            "SELECT id FROM jobs WHERE connection = ? AND due IS NOT NULL ORDER BY due, id LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(
                    params![connection.bits().to_be_bytes(), i64::try_from(limit).unwrap_or(i64::MAX)],
                    |row| row.get(0),
                )?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    let done = ids.len() < limit;
    let mut count = 0;
    for id in ids.iter().filter(|id| !is_leased(u128::from_be_bytes(**id))) {
        database
            .prepare_cached("UPDATE jobs SET state = ?, due = NULL, finished = ?, reason = ? WHERE id = ?")
            .and_then(|mut update| {
                update.execute(params![
                    state_code(JobState::Cancelled),
                    now.millis(),
                    "its connection was closed or deleted",
                    id
                ])
            })
            .map_err(|error| unavailable(&error))?;
        count += 1;
    }
    sweep.cancelled += count;
    sweep.more |= !done;
    effects.lanes.push(Effect::Cancelled { connection, count: count as u64 });
    Ok(())
}

/// Removes jobs that ended before `cutoff`, with their attempts and bodies; then events without jobs; then dedupe keys
/// whose day is over and waits that have passed.
pub(super) fn remove_old(
    database: &Connection,
    cutoff: Timestamp,
    now: Timestamp,
    walk: &mut Walk,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    let old: Vec<([u8; 16], bool)> = database
        .prepare_cached(
            "SELECT id, due IS NULL AND coalesce(finished, 0) < ? FROM jobs WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(
                    params![
                        cutoff.millis(),
                        walk.job.to_be_bytes(),
                        first_id(cutoff).to_be_bytes(),
                        step
                    ],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    for (id, _) in old.iter().filter(|(_, ended)| *ended) {
        for sql in [
            "DELETE FROM attempts WHERE job = ?",
            "DELETE FROM bodies WHERE job = ?",
            "DELETE FROM jobs WHERE id = ?",
        ] {
            run(database, sql, params![id])?;
        }
        sweep.removed += 1;
    }
    let full = old.len() == STEP;
    walk.job = if full { old.last().map_or(0, |(id, _)| u128::from_be_bytes(*id)) } else { 0 };
    sweep.more |= full;

    let events: Vec<(i64, i64, bool)> = database
        .prepare_cached(
            "SELECT seq, received, EXISTS(SELECT 1 FROM jobs WHERE jobs.event = events.seq) FROM events
             WHERE seq > ? ORDER BY seq LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![walk.event, step], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    let old = events.iter().take_while(|(_, received, _)| *received < cutoff.millis());
    let mut last = 0;
    for (sequence, _, has_jobs) in old {
        if !has_jobs {
            run(database, "DELETE FROM events WHERE seq = ?", params![sequence])?;
            sweep.removed += 1;
        }
        last = *sequence;
    }
    let full = events.len() == STEP && events.last().is_some_and(|(sequence, ..)| *sequence == last);
    walk.event = if full { last } else { 0 };
    sweep.more |= full;

    let forgotten = run(
        database,
        "DELETE FROM dedupe WHERE key IN (SELECT key FROM dedupe WHERE expires <= ? LIMIT ?)",
        params![now.millis(), step],
    )?;
    sweep.removed += forgotten;
    sweep.more |= forgotten == STEP;
    run(
        database,
        "DELETE FROM tallies WHERE (connection, day, slot) IN
           (SELECT connection, day, slot FROM tallies WHERE day <= ? LIMIT ?)",
        params![log::day_of(now) - log::TALLY_DAYS, step],
    )?;
    run(
        database,
        "DELETE FROM waits WHERE connection IN (SELECT connection FROM waits WHERE until <= ? LIMIT ?)",
        params![now.minus(PASSED).millis(), step],
    )?;
    Ok(())
}

fn run(database: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
    database
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(|error| unavailable(&error))
}
