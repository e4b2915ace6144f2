//! A tenant's newest events of some types, by the index over tenant and type.
//!
//! `SQLite` has no loose index scan: types are found by leaping from one to the next in the index, so that a type with a
//! million events costs as much as one with one.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::{rows, unavailable};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::TenantId;
use crate::store::{NEWEST_EVENTS, NEWEST_TYPES, StoreError};

/// See [`Store::newest_events`](crate::store::Store::newest_events).
pub(super) fn events(
    database: &Connection,
    tenant: &TenantId,
    patterns: &[EventPattern],
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let mut sequences = Vec::new();
    for kind in kinds(database, tenant, patterns).map_err(|error| unavailable(&error))? {
        let newest = newest_of(database, tenant, &kind, limit.min(NEWEST_EVENTS));
        sequences.extend(newest.map_err(|error| unavailable(&error))?);
    }
    sequences.sort_unstable_by(|left, right| right.cmp(left));
    sequences.truncate(limit);
    let places = vec!["?"; sequences.len()].join(",");
    let sql = format!(
        "SELECT key, tenant, received, document FROM events WHERE seq IN ({places}) ORDER BY seq DESC"
    );
    let mut select = database.prepare(&sql).map_err(|error| unavailable(&error))?;
    let mut found = select
        .query(params_from_iter(sequences.into_iter().map(Value::Integer)))
        .map_err(|error| unavailable(&error))?;
    let mut events = Vec::new();
    while let Some(row) = found.next().map_err(|error| unavailable(&error))? {
        let event = std::sync::Arc::unwrap_or_clone(rows::event_at(row, 0)?);
        if !event.is_erased() {
            events.push(event);
        }
    }
    Ok(events)
}

/// The tenant's types that any pattern matches, each once.
fn kinds(
    database: &Connection,
    tenant: &TenantId,
    patterns: &[EventPattern],
) -> rusqlite::Result<Vec<String>> {
    let mut kinds: Vec<String> = Vec::new();
    for pattern in patterns {
        match pattern {
            EventPattern::Exact(kind) => kinds.push(kind.clone()),
            EventPattern::Family(_) | EventPattern::All => {
                let first = if let EventPattern::Family(family) = pattern { family } else { "" };
                let mut next = kind_after(database, tenant, first)?;
                while let Some(kind) = next.filter(|kind| pattern.matches(kind) && kinds.len() < NEWEST_TYPES)
                {
                    next = kind_after(database, tenant, &kind)?;
                    kinds.push(kind);
                }
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    kinds.truncate(NEWEST_TYPES);
    Ok(kinds)
}

fn kind_after(database: &Connection, tenant: &TenantId, kind: &str) -> rusqlite::Result<Option<String>> {
    database
        .prepare_cached("SELECT kind FROM events WHERE tenant = ? AND kind > ? ORDER BY kind LIMIT 1")?
        .query_row(params![tenant.as_str(), kind], |row| row.get(0))
        .optional()
}

fn newest_of(
    database: &Connection,
    tenant: &TenantId,
    kind: &str,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    database
        .prepare_cached("SELECT seq FROM events WHERE tenant = ? AND kind = ? ORDER BY seq DESC LIMIT ?")?
        .query_map(params![tenant.as_str(), kind, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            row.get(0)
        })?
        .collect()
}
