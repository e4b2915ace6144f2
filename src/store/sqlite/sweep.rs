//! Upkeep in bounded steps: cancels what can never be sent, removes what is past its retention.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::lanes::{Closing, Effect, Place};
use super::read::first_id;
use super::rows::state_code;
use super::statement::run;
use super::writer::Effects;
use super::{SqliteStore, records, unavailable};
use crate::domain::connection::unwanted;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::JobState;
use crate::domain::retention::Retention;
use crate::domain::time::Timestamp;
use crate::store::types::Sweep;
use crate::store::{StoreError, log};

/// Rows that one step touches of each kind.
pub(super) const STEP: usize = 500;

/// A lane's wait is forgotten so long after it has passed: a clock may be set back by less.
const PASSED: Duration = Duration::from_mins(1);
/// How often what is kept shorter than the rest is looked at again that had not ended when its time came.
const AGAIN: Duration = Duration::from_hours(1);

/// How far the walks over old rows have come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Over what is older than any retention; it begins again once it reached what must be kept.
    all: Reached,
    /// Over what is older than each shorter retention; these go on from where they stood, and begin again now and then.
    shorter: BTreeMap<Duration, (Reached, Timestamp)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    job: u128,
    event: i64,
}

impl SqliteStore {
    /// One step; see [`Store::sweep`](crate::store::Store::sweep).
    pub(super) async fn sweep_once(&self) -> Result<Sweep, StoreError> {
        let (now, retention) = (self.clock.now(), Arc::clone(&self.retention));
        let (shared, walk) = (Arc::clone(&self.shared), Arc::clone(&self.walk));
        self.writer
            .write(move |database, effects| {
                let mut sweep = Sweep::default();
                let closing = shared.lanes.lock().closing();
                if let Some(closing) = closing {
                    let is_leased = |id| shared.lanes.lock().is_leased(JobId::from_bits(id));
                    cancel(database, closing, &is_leased, now, &mut sweep, effects)?;
                    sweep.more |= sweep.cancelled > 0 && shared.lanes.lock().more_closing();
                }
                remove_old(database, &retention, now, &mut walk.lock(), &mut sweep)?;
                Ok(sweep)
            })
            .await
    }
}

/// Cancels what is to be cancelled of a lane, a step of it.
fn cancel(
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

/// Removes jobs that ended before their retention, with their attempts and bodies; then events without jobs; then dedupe
/// keys whose day is over and waits that have passed.
fn remove_old(
    database: &Connection,
    retention: &Retention,
    now: Timestamp,
    walk: &mut Walk,
    sweep: &mut Sweep,
) -> Result<(), StoreError> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    let until = now.minus(retention.all());
    let place = &mut walk.all;
    if !remove_jobs(database, retention, (until, now), &mut place.job, sweep)? {
        place.job = 0;
    }
    if !remove_events(database, retention, (until, now), &mut place.event, sweep)? {
        place.event = 0;
    }
    for span in retention.shorter() {
        let (place, began) = walk.shorter.entry(span).or_insert((Reached::default(), now));
        if began.plus(AGAIN) <= now {
            (*place, *began) = (Reached::default(), now);
        }
        let until = now.minus(span);
        // An event goes after its jobs.
        if !remove_jobs(database, retention, (until, now), &mut place.job, sweep)? {
            remove_events(database, retention, (until, now), &mut place.event, sweep)?;
        }
    }

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

/// Removes the jobs after `place` that were made before `until` and are kept no longer; whether there may be more of them.
fn remove_jobs(
    database: &Connection,
    retention: &Retention,
    (until, now): (Timestamp, Timestamp),
    place: &mut u128,
    sweep: &mut Sweep,
) -> Result<bool, StoreError> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    let old: Vec<([u8; 16], String, Option<i64>)> = database
        .prepare_cached(
            "SELECT id, kind, CASE WHEN due IS NULL THEN coalesce(finished, 0) END FROM jobs WHERE id > ? AND id < ?
             ORDER BY id LIMIT ?",
        )
        .and_then(|mut select| {
            let range = params![place.to_be_bytes(), first_id(until).to_be_bytes(), step];
            select.query_map(range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(|error| unavailable(&error))?;
    for (id, kind, ended) in &old {
        if ended.is_some_and(|ended| ended < retention.cutoff(kind, now).millis()) {
            remove_job(database, id)?;
            sweep.removed += 1;
        }
    }
    let full = old.len() == STEP;
    *place = old.last().map_or(*place, |(id, ..)| u128::from_be_bytes(*id));
    sweep.more |= full;
    Ok(full)
}

/// The same of events that have no jobs any more, taken in before `until`.
fn remove_events(
    database: &Connection,
    retention: &Retention,
    (until, now): (Timestamp, Timestamp),
    place: &mut i64,
    sweep: &mut Sweep,
) -> Result<bool, StoreError> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    let events: Vec<(i64, i64, bool, String)> = database
        .prepare_cached(
            "SELECT seq, received, EXISTS(SELECT 1 FROM jobs WHERE jobs.event = events.seq), kind FROM events
             WHERE seq > ? ORDER BY seq LIMIT ?",
        )
        .and_then(|mut select| {
            select
                .query_map(params![*place, step], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })
        .map_err(|error| unavailable(&error))?;
    let old = events.iter().take_while(|(_, received, ..)| *received < until.millis());
    let mut last = 0;
    for (sequence, received, has_jobs, kind) in old {
        if !has_jobs && *received < retention.cutoff(kind, now).millis() {
            remove_event(database, *sequence, now)?;
            sweep.removed += 1;
        }
        last = *sequence;
    }
    let full = events.len() == STEP && events.last().is_some_and(|(sequence, ..)| *sequence == last);
    *place = last.max(*place);
    sweep.more |= full;
    Ok(full)
}

/// Removes a job with all that hangs on it.
pub(super) fn remove_job(database: &Connection, id: &[u8; 16]) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM attempts WHERE job = ?",
        "DELETE FROM bodies WHERE job = ?",
        "DELETE FROM replayed WHERE job = ?",
        "DELETE FROM jobs WHERE id = ?",
    ] {
        run(database, sql, params![id])?;
    }
    Ok(())
}

/// Removes an event, and remembers under its key what a repeat of it is known by for what is left of its day.
pub(super) fn remove_event(database: &Connection, sequence: i64, now: Timestamp) -> Result<(), StoreError> {
    run(
        database,
        "INSERT OR REPLACE INTO dedupe(key, content, expires, answer)
         SELECT dedupe, content, known_until, made FROM events WHERE seq = ? AND known_until > ?",
        params![sequence, now.millis()],
    )?;
    run(database, "DELETE FROM events WHERE seq = ?", [sequence]).map(drop)
}
