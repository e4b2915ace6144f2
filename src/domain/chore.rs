//! A chore: long work over what is kept, which someone asked for. It is a record, so that it outlives the process that is
//! at it, everybody sees how far it is, and whoever changes the record stops it.

use serde::{Deserialize, Serialize};

use super::id::{ChoreId, ConnectionId, TenantId};
use super::job::JobState;
use super::secret::Sealed;
use super::time::Timestamp;

/// A chore as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chore {
    /// Its id.
    pub id: ChoreId,
    /// Whose it is; `None` for one that outlives its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What is to be done.
    pub work: Work,
    /// Who asked for it: a key's id.
    pub by: String,
    /// When.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Whether it goes on.
    pub state: ChoreState,
    /// Why it stands where it stands, in plain words; empty while there is nothing to say.
    #[serde(default)]
    pub reason: String,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
}

/// Whether a chore goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoreState {
    /// It is worked on.
    Running,
    /// All of it was done.
    Done,
    /// A person ended it.
    Cancelled,
    /// It can't be done.
    Failed,
}

/// What a chore does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Sends deliveries again.
    Replay(Replay),
    /// Erases events by a value in them.
    Erasure(Erasure),
    /// Erases all that is kept of a tenant that was deleted.
    Purge {
        /// Which.
        of: TenantId,
    },
}

/// Which deliveries are sent again, and how fast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Of one connection; `None` for all of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Which of them.
    pub which: Which,
    /// Of events of this type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Made at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether those are sent again, too, that a replay had sent again before.
    #[serde(default)]
    pub again: bool,
    /// So many a second at the most.
    pub per_second: u32,
}

/// Which deliveries of those that the rest of a replay narrows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Those in this state.
    State(JobState),
    /// What a connection missed: cancelled deliveries, and kept events that it wants now and has no delivery of.
    Missed,
}

/// Which events are erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Where the value stands in an event, as in a mapping.
    pub path: String,
    /// The value as JSON text, sealed: it is personal data. `None` once the chore ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Sealed>,
    /// Whether it only counts.
    #[serde(default)]
    pub dry_run: bool,
}

/// How far a chore is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it goes on; what this says is the work's own affair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Deliveries or events looked at.
    #[serde(default)]
    pub looked_at: u64,
    /// Deliveries sent again, or events erased.
    #[serde(default)]
    pub done: u64,
    /// Deliveries that were left as they are: sent again before, under way, or not to be sent any more.
    #[serde(default)]
    pub skipped: u64,
    /// Deliveries whose contents were erased.
    #[serde(default)]
    pub deliveries: u64,
    /// How many there were to do when it began; `None` where nobody counted so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

impl Chore {
    /// Whether it is worked on.
    pub fn is_running(&self) -> bool {
        self.state == ChoreState::Running
    }

    /// Ends it; what it was looking for is forgotten.
    pub fn end(&mut self, state: ChoreState, reason: impl Into<String>, now: Timestamp) {
        self.state = state;
        self.reason = reason.into();
        self.ended = Some(now);
        if let Work::Erasure(erasure) = &mut self.work {
            erasure.value = None;
        }
    }
}
