//! A job, its attempts, and where it can end.

use serde::{Deserialize, Serialize};

use super::id::{ConnectionId, EventKey, JobId, MappingVersion, TenantId};
use super::time::Timestamp;

/// One event for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Stable over all attempts.
    pub id: JobId,
    /// What receivers know it by: its id, or the one that it had in the store from which it was moved here.
    pub name: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The lane it waits in.
    pub connection: ConnectionId,
    /// What it delivers.
    pub event: EventKey,
    /// The mapping that renders it, pinned when the job was made.
    pub mapping: MappingVersion,
    /// When it was made.
    pub created: Timestamp,
    /// Attempts spent so far of its retry schedule; a throttled try spends none.
    pub attempts: u32,
    /// Tries so far, of any kind; the next attempt's number less one.
    pub tries: u32,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its first attempt, or for one that spends none.
    Queued,
    /// Failed at least once and is due again at a time.
    Waiting,
    /// Its mapping could not be applied; waits for a person to mend it and retry.
    MappingFailed,
    /// Done.
    Delivered,
    /// Its retries ended; kept, and can be retried by hand.
    Dead,
    /// The other side refused it for good.
    Rejected,
    /// The other side said that it is gone (410).
    Gone,
    /// Its connection was closed or deleted, a person cancelled it, or its retries ended and its connector drops what it
    /// can't deliver.
    Cancelled,
}

impl JobState {
    /// Every state, for documents and metrics.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Waiting,
        Self::MappingFailed,
        Self::Delivered,
        Self::Dead,
        Self::Rejected,
        Self::Gone,
        Self::Cancelled,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::MappingFailed => "mapping_failed",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the job still stands in its lane.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Waiting)
    }
}

/// What one try of a job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The other side took it.
    Delivered,
    /// The other side says that it has it already: as good as delivered, and told apart so that a person sees it.
    Duplicate,
    /// Failed in a way that may pass.
    Retry,
    /// Told to come later; spends no attempt.
    Throttled,
    /// The credentials were refused; the connection is paused.
    AuthFailed,
    /// Refused for good.
    Rejected,
    /// The endpoint no longer exists; the connection is closed.
    Gone,
    /// Sent, but the answer was lost: it may have arrived. Retried with the same id.
    Ambiguous,
    /// The mapping could not be applied; nothing was sent.
    MappingFailed,
}

impl Outcome {
    /// Every outcome, for documents and metrics.
    pub const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Duplicate,
        Self::Retry,
        Self::Throttled,
        Self::AuthFailed,
        Self::Rejected,
        Self::Gone,
        Self::Ambiguous,
        Self::MappingFailed,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::Retry => "retry",
            Self::Throttled => "throttled",
            Self::AuthFailed => "auth_failed",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
            Self::Ambiguous => "ambiguous",
            Self::MappingFailed => "mapping_failed",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The record of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1, counting every try.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// The answer's HTTP status, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it came to.
    pub outcome: Outcome,
    /// Why, in plain words.
    pub reason: String,
    /// The id that the other side gave it, where its answer tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// The answer's headers, at most 16 KiB of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The start of the answer's body, at most 16 KiB; what is no UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_serde_writes() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(JobState::from_name(state.name()), Some(state));
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
        }
    }
}
