//! Writes outcomes back, inside the writer's transaction.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::lanes::Effect;
use super::log::Counted;
use super::records;
use super::rows::state_code;
use super::statement::run;
use super::unavailable;
use super::writer::Effects;
use crate::domain::breaker::Failing;
use crate::domain::connection::ConnectionState;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Attempt, Job, JobState};
use crate::domain::settle::{LaneEffect, Next};
use crate::domain::time::Timestamp;
use crate::store::types::{Recorded, Settlement, UNANSWERED};
use crate::store::{KEPT_ATTEMPTS, StoreError};

/// A settlement whose lease was claimed, with the job as it was leased.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub settlement: Settlement,
    pub job: Job,
}

/// What the settlements of one transaction share.
#[derive(Debug, Default)]
struct Together {
    counted: Counted,
    /// Lanes whose failures were forgotten since the last of them.
    worked: HashSet<ConnectionId>,
}

/// Writes claimed settlements.
pub(super) fn write(
    database: &Connection,
    claimed: &[Claimed],
    now: Timestamp,
    is_closed: &dyn Fn(ConnectionId) -> bool,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut together = Together::default();
    for one in claimed {
        write_one(database, one, now, is_closed, &mut together, effects)?;
    }
    together.counted.write(database, now)
}

/// Writes what came of a triggered job, if it still stands as it was made.
pub(super) fn record(
    database: &Connection,
    recorded: &Recorded,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<bool, StoreError> {
    let id = recorded.job.bits().to_be_bytes();
    let attempt = serde_json::to_string(&recorded.attempt)
        .map_err(|error| StoreError::Corrupt(format!("an attempt cannot be written: {error}")))?;
    let connection: Option<[u8; 16]> = database
        .prepare_cached(
            "UPDATE jobs SET state = ?, finished = ?, attempts = attempts + 1, tries = tries + 1, reason = ?
             WHERE id = ? AND state = ? AND tries = ? AND reason = ? RETURNING connection",
        )
        .and_then(|mut update| {
            let row = params![
                state_code(recorded.state),
                now.millis(),
                recorded.reason,
                id,
                state_code(JobState::Dead),
                recorded.attempt.number.saturating_sub(1),
                UNANSWERED,
            ];
            update.query_row(row, |row| row.get(0)).optional()
        })
        .map_err(|error| unavailable(&error))?;
    let Some(connection) = connection else { return Ok(false) };
    run(
        database,
        "INSERT INTO attempts(job, number, record) VALUES(?, ?, ?)",
        params![id, recorded.attempt.number, attempt],
    )?;
    let connection = ConnectionId::from_bits(u128::from_be_bytes(connection));
    let mut together = Together::default();
    together.counted.add(connection, Some(&recorded.attempt), Some(recorded.state));
    together.counted.write(database, now)?;
    lane_effect(database, connection, &recorded.effect, now, &mut together.worked, effects)?;
    Ok(true)
}

fn write_one(
    database: &Connection,
    Claimed { settlement, job }: &Claimed,
    now: Timestamp,
    is_closed: &dyn Fn(ConnectionId) -> bool,
    together: &mut Together,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut job = job.clone();
    let tried = u32::from(settlement.attempt.is_some());
    job.tries += tried;
    job.attempts += if settlement.next.spends_attempt() { tried } else { 0 };
    // Whatever was in flight when its connection closed is not tried again.
    let closed = settlement.effect.close.is_some() || is_closed(job.connection);
    let (next, reason) = match &settlement.next {
        Next::Due(_) | Next::Requeue if closed => (
            Next::Done(JobState::Cancelled),
            format!("{}; then its connection was closed", settlement.reason),
        ),
        next => (next.clone(), settlement.reason.clone()),
    };
    let id = job.id.bits().to_be_bytes();
    // One that was erased while its outcome was on its way has ended: nothing of that is kept.
    let open = match next {
        Next::Done(state) => run(
            database,
            "UPDATE jobs SET state = ?, due = NULL, finished = ?, attempts = ?, tries = ?, reason = ?
             WHERE id = ? AND due IS NOT NULL",
            params![state_code(state), now.millis(), job.attempts, job.tries, reason, id],
        )?,
        Next::Due(due) => run(
            database,
            "UPDATE jobs SET state = ?, due = ?, attempts = ?, tries = ?, reason = ? WHERE id = ? AND due IS NOT NULL",
            params![state_code(JobState::Waiting), due.millis().max(1), job.attempts, job.tries, reason, id],
        )?,
        Next::Requeue => run(
            database,
            "UPDATE jobs SET tries = ?, reason = ? WHERE id = ? AND due IS NOT NULL",
            params![job.tries, reason, id],
        )?,
    };
    if open == 0 {
        return Ok(());
    }
    if let Some(attempt) = &settlement.attempt {
        keep_attempt(database, job.id, attempt)?;
    }
    let ended = if let Next::Done(state) = next { Some(state) } else { None };
    together.counted.add(job.connection, settlement.attempt.as_ref(), ended);
    match next {
        Next::Done(_) => {
            if settlement.forget {
                run(database, "DELETE FROM bodies WHERE job = ?", params![id])?;
            }
            effects.lanes.push(Effect::Ended(job.id));
        }
        Next::Due(due) => {
            keep_body(database, settlement)?;
            effects.lanes.push(Effect::Again {
                job: job.clone(),
                due,
                rendered: settlement.rendered.clone(),
            });
        }
        Next::Requeue => {
            keep_body(database, settlement)?;
            effects.lanes.push(Effect::Back { job: job.clone(), rendered: settlement.rendered.clone() });
        }
    }
    lane_effect(database, job.connection, &settlement.effect, now, &mut together.worked, effects)
}

fn keep_attempt(database: &Connection, job: JobId, attempt: &Attempt) -> Result<(), StoreError> {
    let record = serde_json::to_string(attempt)
        .map_err(|error| StoreError::Corrupt(format!("an attempt cannot be written: {error}")))?;
    let id = job.bits().to_be_bytes();
    run(
        database,
        "INSERT OR REPLACE INTO attempts(job, number, record) VALUES(?, ?, ?)",
        params![id, attempt.number, record],
    )?;
    if attempt.number > KEPT_ATTEMPTS {
        let oldest = attempt.number - KEPT_ATTEMPTS;
        run(database, "DELETE FROM attempts WHERE job = ? AND number <= ?", params![id, oldest])?;
    }
    Ok(())
}

/// Keeps what the next attempt begins with, in place of what was kept before.
fn keep_body(database: &Connection, settlement: &Settlement) -> Result<(), StoreError> {
    let Some(body) = &settlement.rendered else { return Ok(()) };
    run(
        database,
        "INSERT INTO bodies(job, body) VALUES(?, ?) ON CONFLICT(job) DO UPDATE SET body = excluded.body",
        params![settlement.lease.job.bits().to_be_bytes(), &body[..]],
    )
    .map(drop)
}

fn lane_effect(
    database: &Connection,
    connection: ConnectionId,
    effect: &LaneEffect,
    now: Timestamp,
    worked: &mut HashSet<ConnectionId>,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut wait_until = effect.wait_until;
    if effect.healthy == Some(true) {
        if worked.insert(connection) {
            records::forget_failures(database, connection)?;
        }
        effects.lanes.push(Effect::Worked { connection });
    } else if effect.healthy == Some(false) {
        worked.remove(&connection);
        let opens_after = effect.opening.map_or(u32::MAX, |opening| opening.after);
        let failing = count_failure(database, connection, opens_after, now)?;
        effects.lanes.push(Effect::Failed { connection, failing });
        let opening = effect.opening.filter(|opening| failing.count >= opening.after);
        wait_until = wait_until.max(opening.map(|opening| opening.probe_at));
    }
    if let Some(until) = wait_until {
        run(
            database,
            "INSERT INTO waits(connection, until) VALUES(?1, ?2)
             ON CONFLICT(connection) DO UPDATE SET until = max(until, excluded.until)",
            params![connection.bits().to_be_bytes(), until.millis()],
        )?;
        effects.lanes.push(Effect::Wait { connection, until });
    }
    if let Some(reason) = &effect.close {
        let state = ConnectionState::Closed { reason: reason.clone(), at: now };
        records::set_state(database, connection, &state, now, effects)?;
    } else if let Some((by, reason)) = &effect.pause {
        let state = ConnectionState::Paused { reason: reason.clone(), by: (*by).to_owned(), at: now };
        records::set_state(database, connection, &state, now, effects)?;
    }
    Ok(())
}

/// Counts a failure, but not while an open breaker waits.
fn count_failure(
    database: &Connection,
    connection: ConnectionId,
    opens_after: u32,
    now: Timestamp,
) -> Result<Failing, StoreError> {
    database
        .prepare_cached(
            "INSERT INTO failing(connection, count, since) VALUES(?1, 1, ?2)
             ON CONFLICT(connection) DO UPDATE SET count = min(4294967295, count + (count < ?3
                 OR coalesce((SELECT until FROM waits WHERE connection = ?1), 0) <= ?2))
             RETURNING count, since",
        )
        .and_then(|mut upsert| {
            upsert.query_row(params![connection.bits().to_be_bytes(), now.millis(), opens_after], |row| {
                Ok(Failing { count: row.get(0)?, since: Timestamp::from_millis(row.get(1)?) })
            })
        })
        .map_err(|error| unavailable(&error))
}
