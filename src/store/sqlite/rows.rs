//! How domain values lie in columns: ids as 16 big-endian bytes (so they sort by time), states as small numbers.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;

use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, EventKey, JobId, MappingVersion, TenantId};
use crate::domain::job::{Job, JobState};
use crate::domain::json::Object;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// The columns that [`job`] reads, in its order.
pub(super) const JOB_COLUMNS: &str = "jobs.id, jobs.tenant, jobs.connection, events.key, jobs.mapping, jobs.created, \
     jobs.attempts, jobs.tries";

pub(super) fn state_code(state: JobState) -> i64 {
    JobState::ALL.iter().position(|other| *other == state).map_or(-1, |at| i64::try_from(at).unwrap_or(-1))
}

pub(super) fn state_of(code: i64) -> Option<JobState> {
    usize::try_from(code).ok().and_then(|at| JobState::ALL.get(at).copied())
}

fn bits(row: &Row<'_>, column: usize) -> rusqlite::Result<u128> {
    row.get::<_, [u8; 16]>(column).map(u128::from_be_bytes)
}

pub(super) fn tenant(row: &Row<'_>, column: usize) -> rusqlite::Result<TenantId> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// A job out of [`JOB_COLUMNS`].
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let id = JobId::from_bits(bits(row, 0)?);
    Ok(Job {
        id,
        name: id,
        tenant: tenant(row, 1)?,
        connection: ConnectionId::from_bits(bits(row, 2)?),
        event: EventKey::from_bits(bits(row, 3)?),
        mapping: MappingVersion::from_bits(bits(row, 4)?),
        created: Timestamp::from_millis(row.get(5)?),
        attempts: row.get(6)?,
        tries: row.get(7)?,
    })
}

/// An event out of its document; what the document says of itself was checked when it was taken in.
pub(super) fn event(
    key: EventKey,
    tenant: TenantId,
    received: Timestamp,
    document: &[u8],
) -> Result<Event, StoreError> {
    let document = Object::read(&Bytes::copy_from_slice(document))
        .ok_or_else(|| StoreError::Corrupt(format!("event {key} cannot be read")))?;
    Ok(Event {
        id: document.string("id").unwrap_or_else(|| key.to_string()),
        kind: document.string("type").unwrap_or_default(),
        source: document.string("source"),
        key,
        tenant,
        received,
        document,
    })
}

/// An event out of the columns `key, tenant, received, document` from `first` on.
pub(super) fn event_at(row: &Row<'_>, first: usize) -> Result<Arc<Event>, StoreError> {
    let read = || -> rusqlite::Result<_> {
        let key = EventKey::from_bits(bits(row, first)?);
        let received = Timestamp::from_millis(row.get(first + 2)?);
        Ok((key, tenant(row, first + 1)?, received, row.get_ref(first + 3)?.as_bytes()?))
    };
    let (key, tenant, received, document) =
        read().map_err(|error| StoreError::Corrupt(format!("an event's row: {error}")))?;
    event(key, tenant, received, document).map(Arc::new)
}
