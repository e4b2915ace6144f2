//! The delivery log: bounded walks over jobs, and what each connection's jobs came to.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::read::{delivery_row, delivery_sql, first_id};
use super::unavailable;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Attempt, JobState};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::log::{self, COUNTED_OPEN, LOOKS, TALLY_DAYS};
use crate::store::types::{Delivery, DeliveryPage, DeliveryQuery, Tally, Tried};

/// What reading an attempt costs of a walk, in rows.
const ATTEMPT_LOOKS: usize = 5;

/// The tenants that have events, found by jumping over each one's.
const TENANTS: &str = "WITH RECURSIVE tenants(id) AS (
        SELECT min(tenant) FROM events
        UNION ALL SELECT (SELECT min(tenant) FROM events WHERE tenant > tenants.id) FROM tenants WHERE tenants.id IS NOT NULL)
    SELECT seq FROM events WHERE tenant IN (SELECT id FROM tenants WHERE id IS NOT NULL) AND id = ?";

/// Deliveries that match, newest first. One filter leads, by its index; the rest is looked at row by row.
pub(super) fn deliveries(database: &Connection, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
    let (sql, values) = walk(query);
    let mut select = database.prepare_cached(&sql).map_err(|error| unavailable(&error))?;
    let mut rows = select.query(params_from_iter(values)).map_err(|error| unavailable(&error))?;
    let (mut found, mut looks, mut stopped) = (Vec::new(), 0, None);
    while found.len() <= query.limit
        && let Some(row) = rows.next().map_err(|error| unavailable(&error))?
    {
        let mut delivery = delivery_row(row).map_err(|error| unavailable(&error))?;
        let id = delivery.job.id;
        if query.admits(&delivery) {
            delivery.last = tried(database, &delivery)?;
            if query.admits_last(delivery.last.as_ref()) {
                found.push(delivery);
                continue;
            }
            looks += ATTEMPT_LOOKS;
        }
        looks += 1;
        if looks >= LOOKS {
            stopped = Some(id);
            break;
        }
    }
    Ok(DeliveryPage::of(found, query.limit, stopped))
}

fn walk(query: &DeliveryQuery) -> (String, Vec<Value>) {
    let blob = |bits: u128| Value::Blob(bits.to_be_bytes().to_vec());
    let mut values: Vec<Value> = Vec::new();
    // The plus keeps the planner from another index than the leading filter's.
    let (lead, id) = match query {
        DeliveryQuery { event: Some(event), tenant: Some(tenant), .. } => {
            values.extend([Value::Text(tenant.to_string()), Value::Text(event.clone())]);
            ("jobs.event IN (SELECT seq FROM events WHERE tenant = ? AND id = ?)".to_owned(), "+jobs.id")
        }
        DeliveryQuery { event: Some(event), .. } => {
            values.push(Value::Text(event.clone()));
            (format!("jobs.event IN ({TENANTS})"), "+jobs.id")
        }
        DeliveryQuery { connection: Some(connection), .. } => {
            values.push(blob(connection.bits()));
            ("jobs.connection = ?".to_owned(), "jobs.id")
        }
        DeliveryQuery { tenant: Some(tenant), .. } => {
            values.push(Value::Text(tenant.to_string()));
            ("jobs.tenant = ?".to_owned(), "jobs.id")
        }
        _ => ("TRUE".to_owned(), "jobs.id"),
    };
    // Ids begin with the time they were made at, so a span of time is a span of ids.
    let first = query.since.map_or(0, first_id);
    let until = query.until.map(first_id);
    let end = until.into_iter().chain(query.before.map(JobId::bits)).min();
    values.push(blob(first));
    values.push(blob(end.unwrap_or(u128::MAX)));
    let sql = format!("{} WHERE {lead} AND {id} >= ? AND {id} < ? ORDER BY jobs.id DESC", delivery_sql());
    (sql, values)
}

/// What a job's newest attempt came to.
pub(super) fn tried(database: &Connection, delivery: &Delivery) -> Result<Option<Tried>, StoreError> {
    if delivery.job.tries == 0 {
        return Ok(None);
    }
    let record: Option<String> = database
        .prepare_cached("SELECT record FROM attempts WHERE job = ? AND number = ?")
        .and_then(|mut select| {
            select
                .query_row(params![delivery.job.id.bits().to_be_bytes(), delivery.job.tries], |row| {
                    row.get(0)
                })
                .optional()
        })
        .map_err(|error| unavailable(&error))?;
    record
        .map(|record| serde_json::from_str(&record))
        .transpose()
        .map_err(|error| StoreError::Corrupt(format!("an attempt of {}: {error}", delivery.job.id)))
}

/// What settlements of one transaction add to the totals of connections.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<(ConnectionId, u8), u64>);

impl Counted {
    /// Counts one settlement.
    pub fn add(&mut self, connection: ConnectionId, attempt: Option<&Attempt>, ended: Option<JobState>) {
        for slot in log::slots(attempt, ended) {
            *self.0.entry((connection, slot)).or_default() += 1;
        }
    }

    /// Writes it all under today.
    pub fn write(&self, database: &Connection, now: Timestamp) -> Result<(), StoreError> {
        let mut upsert = database
            .prepare_cached(
                "INSERT INTO tallies(connection, day, slot, count) VALUES(?, ?, ?, ?)
                 ON CONFLICT(connection, day, slot) DO UPDATE SET count = count + excluded.count",
            )
            .map_err(|error| unavailable(&error))?;
        for ((connection, slot), count) in &self.0 {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            upsert
                .execute(params![connection.bits().to_be_bytes(), log::day_of(now), slot, count])
                .map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }
}

/// What came of a connection's jobs, and what waits.
pub(super) fn tally(
    database: &Connection,
    connection: ConnectionId,
    now: Timestamp,
) -> Result<Tally, StoreError> {
    read_tally(database, connection, now).map_err(|error| unavailable(&error))
}

fn read_tally(database: &Connection, connection: ConnectionId, now: Timestamp) -> rusqlite::Result<Tally> {
    let id = connection.bits().to_be_bytes();
    let mut tally = Tally::default();
    let mut select = database.prepare_cached(
        "SELECT day, slot, count FROM tallies WHERE connection = ? AND day > ? ORDER BY day, slot",
    )?;
    let mut rows = select.query(params![id, log::day_of(now) - TALLY_DAYS])?;
    while let Some(row) = rows.next()? {
        tally.add(row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
    }
    let most = i64::try_from(COUNTED_OPEN).unwrap_or(i64::MAX);
    let mut open = |condition: &str| -> rusqlite::Result<u64> {
        let sql = format!(
            "SELECT count(*), min(created) FROM
               (SELECT created FROM jobs WHERE connection = ? AND due IS NOT NULL AND {condition} ORDER BY due, id LIMIT ?)"
        );
        let (count, oldest): (i64, Option<i64>) = database
            .prepare_cached(&sql)?
            .query_row(params![id, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        tally.oldest = tally.oldest.into_iter().chain(oldest.map(Timestamp::from_millis)).min();
        Ok(count.unsigned_abs())
    };
    let (queued, waiting) = (open("due = 0")?, open("due > 0")?);
    (tally.queued, tally.waiting) = (queued, waiting);
    Ok(tally)
}
