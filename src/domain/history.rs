//! What became of a connection's state: each change with its reason, its time, and who made it.

use serde::{Deserialize, Serialize};

use super::account::ApiKey;
use super::connection::{Connection, ConnectionState};
use super::id::KeyId;
use super::subscription::SUBSCRIPTION;
use super::time::Timestamp;

/// Changes of one connection's state that are kept; older ones go.
pub const KEPT_CHANGES: usize = 20;

/// Who changed a state that a person changed.
pub const PERSON: &str = "person";

/// What of the gateway closed a connection whose endpoint is gone.
pub const GONE: &str = "gone";

/// A state without its particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It delivers.
    Active,
    /// It keeps its jobs.
    Paused,
    /// It takes no jobs.
    Closed,
}

/// The API key that somebody acted with, by what may be shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyName {
    /// Its public part.
    pub id: KeyId,
    /// What people called it then.
    pub name: String,
}

impl From<&ApiKey> for KeyName {
    fn from(key: &ApiKey) -> Self {
        Self { id: key.id, name: key.name.clone() }
    }
}

/// One change of a connection's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// What it changed to.
    pub status: Status,
    /// Why, in plain words.
    pub reason: String,
    /// [`PERSON`], or what of the gateway did it: `auth_failed`, `retries_ended`, `breaker`, `gone`, `subscription`.
    pub by: String,
    /// The key that the person acted with; `None` where the gateway did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
    /// When.
    pub at: Timestamp,
}

impl StateChange {
    /// A person's change. `key` is missing where a program of the operator's own asked, without a key.
    pub fn by_person(status: Status, reason: impl Into<String>, key: Option<KeyName>, at: Timestamp) -> Self {
        Self { status, reason: reason.into(), by: PERSON.to_owned(), key, at }
    }

    /// A change that the gateway makes by itself; `by` is what of it.
    pub fn by_gateway(status: Status, reason: impl Into<String>, by: &str, at: Timestamp) -> Self {
        Self { status, reason: reason.into(), by: by.to_owned(), key: None, at }
    }

    /// The change to a state that an attempt led to; `None` where it led to none.
    pub fn of_attempt(state: &ConnectionState) -> Option<Self> {
        match state {
            ConnectionState::Active => None,
            ConnectionState::Paused { reason, by, at } => {
                Some(Self::by_gateway(Status::Paused, reason, by, *at))
            }
            ConnectionState::Closed { reason, at } => {
                Some(Self::by_gateway(Status::Closed, reason, GONE, *at))
            }
        }
    }

    /// Whether the gateway stopped it for what its endpoint did.
    fn is_a_failure(&self) -> bool {
        self.status != Status::Active && ![PERSON, SUBSCRIPTION].contains(&self.by.as_str())
    }
}

impl Connection {
    /// Changes its state, and remembers who did it, when and why.
    pub fn enter(&mut self, change: StateChange) {
        let StateChange { reason, by, at, .. } = change.clone();
        self.state = match change.status {
            Status::Active => ConnectionState::Active,
            Status::Paused => ConnectionState::Paused { reason, by, at },
            Status::Closed => ConnectionState::Closed { reason, at },
        };
        match change.status {
            Status::Active => self.unproven |= self.history.last().is_some_and(StateChange::is_a_failure),
            _ if change.is_a_failure() => self.unproven = false,
            _ => {}
        }
        if change.status == Status::Closed {
            // All that it has is cancelled.
            self.unwanted_before = None;
        }
        self.history.push(change);
        let over = self.history.len().saturating_sub(KEPT_CHANGES);
        self.history.drain(..over);
    }

    /// The change that led to its state; `None` where it is as it was made, or changed before changes were kept.
    pub fn last_change(&self) -> Option<&StateChange> {
        self.history.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn connection() -> Connection {
        serde_json::from_value(serde_json::json!({
            "id": crate::domain::id::ConnectionId::from_bits(7), "tenant": "acme", "name": "x",
            "connector": "webhook", "events": ["*"], "target": { "url": "https://example.com/" },
            "concurrency": 1, "state": { "status": "active" }, "created": at(0), "updated": at(0),
        }))
        .unwrap()
    }

    #[test]
    fn the_last_changes_are_kept_in_order() {
        let mut record = connection();
        assert_eq!(record.last_change(), None, "a record of before has no history");
        let key = KeyName { id: KeyId::from_bits(3), name: "ops".to_owned() };
        for step in 0..50 {
            let status = if step % 2 == 0 { Status::Paused } else { Status::Active };
            record.enter(StateChange::by_person(status, format!("step {step}"), Some(key.clone()), at(step)));
        }
        assert_eq!(record.history.len(), KEPT_CHANGES);
        assert_eq!(record.history[0].reason, "step 30");
        assert_eq!(record.last_change().unwrap().reason, "step 49");
        assert!(record.state.is_active());
        let kept: Connection = serde_json::from_value(serde_json::to_value(&record).unwrap()).unwrap();
        assert_eq!(kept, record);
    }

    #[test]
    fn what_the_gateway_stopped_is_unproven_once_it_is_resumed() {
        let person = |status| StateChange::by_person(status, "", None, at(1));
        let gateway = |status| StateChange::by_gateway(status, "", "breaker", at(1));
        let mut record = connection();
        for (change, unproven) in [
            (person(Status::Paused), false),
            (person(Status::Active), false),
            (gateway(Status::Paused), false),
            (person(Status::Active), true),
            (person(Status::Paused), true),
            (person(Status::Active), true),
            (gateway(Status::Closed), false),
            (person(Status::Active), true),
        ] {
            record.enter(change.clone());
            assert_eq!(record.unproven, unproven, "{change:?}");
        }
    }
}
