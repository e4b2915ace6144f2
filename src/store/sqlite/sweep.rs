//! Upkeep in bounded steps: cancels what can never be sent, removes what is past its retention.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::lanes::{Closing, Effect, Place};
use super::read::first_id;
use super::rows::state_code;
use super::writer::Effects;
use super::{records, unavailable};
use crate::domain::connection::unwanted;
use crate::domain::id::{ConnectionId, JobId};
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

/// Cancels what is to be cancelled of a lane, a step of it.
pub(super) fn cancel(
    database: &Connection,
    closing: Closing,
    is_leased: &dyn Fn(u128) -> bool,
    now: Timestamp,
    sweep: &mut Sweep,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    match closing.before {
        None => cancel_all(database, closing, is_leased, now, sweep, effects),
        Some(before) => cancel_unwanted(database, closing, before, now, sweep, effects),
    }
}

/// Cancels open jobs of a closed lane, but for those that are leased, whose settlement will end them.
fn cancel_all(
    database: &Connection,
    Closing { connection, leased, .. }: Closing,
    is_leased: &dyn Fn(u128) -> bool,
    now: Timestamp,
    sweep: &mut Sweep,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let limit = STEP + leased as usize;
    let jobs = open_jobs(database, connection, Place::default(), limit)?;
    let done = jobs.len() < limit;
    let mut count = 0;
    for (_, id) in jobs.iter().filter(|(_, id)| !is_leased(u128::from_be_bytes(*id))) {
        end(database, id, "its connection was closed or deleted", now)?;
        count += 1;
    }
    sweep.cancelled += count;
    sweep.more |= !done;
    effects.lanes.push(Effect::Cancelled { connection, count: count as u64, seen: Place::default() });
    Ok(())
}

/// Cancels open jobs of a lane that were made before a time. None of its jobs is leased, and none will be before the end.
fn cancel_unwanted(
    database: &Connection,
    Closing { connection, seen, .. }: Closing,
    before: Timestamp,
    now: Timestamp,
    sweep: &mut Sweep,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let jobs = open_jobs(database, connection, seen, STEP)?;
    let reason = unwanted(before);
    let mut count = 0;
    for (_, id) in &jobs {
        if JobId::from_bits(u128::from_be_bytes(*id)).time() < before {
            end(database, id, &reason, now)?;
            count += 1;
        }
    }
    sweep.cancelled += count;
    let seen = jobs.last().copied().unwrap_or(seen);
    if jobs.len() == STEP {
        sweep.more = true;
    } else {
        // Before the lane hears of what was cancelled, so that it does not ask for another look.
        records::end_clearing(database, (connection, before), effects)?;
    }
    effects.lanes.push(Effect::Cancelled { connection, count: count as u64, seen });
    Ok(())
}

/// Open jobs of a lane after a place, in the order in which it gives them.
fn open_jobs(
    database: &Connection,
    connection: ConnectionId,
    (due, id): Place,
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    database
        .prepare_cached(
            "SELECT due, id FROM jobs WHERE connection = ? AND due IS NOT NULL AND (due, id) > (?, ?)
             ORDER BY due, id LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![connection.bits().to_be_bytes(), due, id, limit], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        })
        .map_err(|error| unavailable(&error))
}

fn end(database: &Connection, id: &[u8; 16], reason: &str, now: Timestamp) -> Result<(), StoreError> {
    let cancelled = state_code(JobState::Cancelled);
    run(
        database,
        "UPDATE jobs SET state = ?, due = NULL, finished = ?, reason = ? WHERE id = ?",
        params![cancelled, now.millis(), reason, id],
    )
    .map(|_| ())
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
