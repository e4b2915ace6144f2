//! What the store itself writes into a connection's record: the state that an outcome led to, and that a backlog is gone.

use super::Core;
use super::keys::Partition;
use super::records::Rule;
use crate::domain::connection::ConnectionState;
use crate::domain::history::StateChange;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Expected, Record, RecordId};

/// How often a record is read again because it changed while it was being written.
const ROUNDS: usize = 16;

impl Core {
    /// Changes a connection's state, if it is still there and open.
    pub(super) async fn set_state(
        &self,
        connection: ConnectionId,
        state: &ConnectionState,
    ) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let found = self.read(&[RecordId::Connection(connection)]).await?.pop().flatten();
            let Some((Record::Connection(mut record), revision)) = found else { return Ok(()) };
            if !record.state.takes_jobs() || record.state == *state {
                return Ok(());
            }
            if let Some(change) = StateChange::of_attempt(state) {
                record.enter(change);
            }
            record.updated = self.clock.now();
            match self.put(&Record::Connection(record), Expected::At(revision)).await {
                Err(StoreError::Conflict) => {}
                written => return written.map(|_| ()),
            }
        }
        Err(StoreError::Overloaded)
    }

    /// Notes that no job is left of those that were not wanted.
    pub(super) async fn end_clearing(
        &self,
        connection: ConnectionId,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let found = self.read(&[RecordId::Connection(connection)]).await?.pop().flatten();
            let Some((Record::Connection(mut record), revision)) = found else { return Ok(()) };
            if record.unwanted_before != Some(before) {
                return Ok(());
            }
            record.unwanted_before = None;
            match self.put(&Record::Connection(record), Expected::At(revision)).await {
                Err(StoreError::Conflict) => {}
                written => return written.map(|_| ()),
            }
        }
        Err(StoreError::Overloaded)
    }

    /// Tells a lane what its record says after an effect was written into it.
    pub(super) async fn mirror_resolved(
        &self,
        partition: Partition,
        connection: ConnectionId,
        resolves: &str,
    ) -> Result<(), StoreError> {
        let found = self.read(&[RecordId::Connection(connection)]).await?.pop().flatten();
        let mut rule = match found {
            Some((Record::Connection(record), revision)) => Rule::of(&record, revision),
            _ => Rule::gone(connection, 0, ""),
        };
        resolves.clone_into(&mut rule.resolves);
        self.mirror(partition, &[rule]).await
    }
}
