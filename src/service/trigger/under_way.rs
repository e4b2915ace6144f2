//! Which triggers are under way in this process, and which endpoints asked it to be left alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// Connections whose wish to be left alone is remembered.
const MOST_HOLDS: usize = 10_000;

/// Which connections have triggers under way, and which asked to be left alone.
#[derive(Debug, Default)]
pub struct Triggers {
    under_way: Mutex<HashMap<ConnectionId, u32>>,
    holds: Mutex<HashMap<ConnectionId, Timestamp>>,
}

impl Triggers {
    /// The endpoint wants nothing before this time.
    pub(in crate::service) fn hold(&self, connection: ConnectionId, until: Timestamp, now: Timestamp) {
        let mut holds = self.holds.lock();
        if holds.len() >= MOST_HOLDS {
            holds.retain(|_, until| *until > now);
        }
        if holds.len() < MOST_HOLDS {
            let held = holds.entry(connection).or_insert(until);
            *held = until.max(*held);
        }
    }

    /// For how long the endpoint wants nothing more.
    pub(super) fn held(&self, connection: ConnectionId, now: Timestamp) -> Option<Duration> {
        let mut holds = self.holds.lock();
        let until = *holds.get(&connection)?;
        if until <= now {
            holds.remove(&connection);
            return None;
        }
        Some(until.since(now))
    }

    /// Takes a place among the connection's triggers, unless `most` are under way.
    pub(super) fn begin(self: &Arc<Self>, connection: ConnectionId, most: u32) -> Option<Turn> {
        let mut under_way = self.under_way.lock();
        let count = under_way.entry(connection).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Turn { triggers: Arc::clone(self), connection })
    }
}

/// A trigger under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    triggers: Arc<Triggers>,
    connection: ConnectionId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.triggers.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.connection) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.connection);
            }
        }
    }
}
