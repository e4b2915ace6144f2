//! What an alert says: its kinds, and the event that each becomes. Pure.
//!
//! An alert names its connection, says in one sentence what is the matter, and links to where the rest is read. It carries
//! no body, no secret and none of the other side's words: those stay in the delivery log, for those who may read it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::domain::breaker::BreakerPolicy;
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::time::Timestamp;

/// The `source` of every alert.
pub const SOURCE: &str = "gateway";

/// What alerts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A run of failures has come a good part of the way to its end.
    Failing,
    /// The gateway paused a connection at once: its credentials were refused, or its connector says so.
    Paused,
    /// The gateway gave a connection up: it failed for too long, or its endpoint is gone.
    Disabled,
    /// What failed or was stopped works again.
    Recovered,
    /// A delivery ended without having arrived; it is kept, and can be replayed.
    DeadLetter,
    /// The store was away.
    StoreUnhealthy,
    /// A Google sheet has little room left.
    SheetNearlyFull,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Failing,
        Self::Paused,
        Self::Disabled,
        Self::Recovered,
        Self::DeadLetter,
        Self::StoreUnhealthy,
        Self::SheetNearlyFull,
    ];

    /// The type of its events.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Failing => "gateway.connection.failing",
            Self::Paused => "gateway.connection.paused",
            Self::Disabled => "gateway.connection.disabled",
            Self::Recovered => "gateway.connection.recovered",
            Self::DeadLetter => "gateway.dead_letter",
            Self::StoreUnhealthy => "gateway.store.unhealthy",
            Self::SheetNearlyFull => "gateway.sheets.nearly_full",
        }
    }
}

/// The delivery that an alert comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// The delivery.
    pub job: JobId,
    /// Its event's type.
    pub event_type: String,
    /// What its last attempt came to.
    pub outcome: Outcome,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// Why, without the other side's words.
    pub text: String,
}

impl Occasion {
    /// What may be told of an attempt. `reason` is its reason for the delivery log.
    pub fn new(job: JobId, event_type: &str, outcome: Outcome, status: Option<u16>, reason: &str) -> Self {
        // What a mapping fails on is a value of the event.
        let text = match outcome {
            Outcome::MappingFailed => "the mapping failed".to_owned(),
            _ => without_quotes(reason),
        };
        Self { job, event_type: event_type.to_owned(), outcome, status, text }
    }
}

/// A reason without what it quotes: words of the other side, which may hold anything.
fn without_quotes(reason: &str) -> String {
    match (reason.find('"'), reason.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", &reason[..first], &reason[last + 1..])
        }
        (Some(first), _) => format!("{}\"…", &reason[..first]),
        _ => reason.to_owned(),
    }
}

/// What is the matter, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// [`Kind::Failing`].
    Failing {
        /// 50, 70, 90 or 100.
        percent: u32,
        /// Failures in a row, this one included.
        failures: u32,
        /// When the first of them was.
        since: Timestamp,
        /// When it ends in a pause.
        policy: BreakerPolicy,
    },
    /// [`Kind::Paused`] or [`Kind::Disabled`], by whether the gateway gives it up.
    Stopped {
        /// What of the gateway did it: `auth_failed`, `retries_ended`, `breaker`, `gone`.
        by: &'static str,
        /// Whether its jobs were cancelled with it.
        closed: bool,
        /// Whether it gives it up.
        given_up: bool,
    },
    /// [`Kind::Recovered`]: how many failures in a row it ended, 0 where somebody had resumed it.
    Recovered {
        /// The failures.
        failures: u32,
    },
    /// [`Kind::DeadLetter`].
    DeadLetter {
        /// Where the delivery ended.
        state: JobState,
    },
    /// [`Kind::StoreUnhealthy`].
    StoreUnhealthy {
        /// Since when.
        since: Timestamp,
        /// For how long.
        lasted: Duration,
        /// What it said.
        error: String,
    },
    /// [`Kind::SheetNearlyFull`].
    SheetNearlyFull {
        /// Cells in use.
        cells: u64,
        /// The most there may be.
        limit: u64,
    },
}

impl Matter {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Failing { .. } => Kind::Failing,
            Self::Stopped { given_up: false, .. } => Kind::Paused,
            Self::Stopped { .. } => Kind::Disabled,
            Self::Recovered { .. } => Kind::Recovered,
            Self::DeadLetter { .. } => Kind::DeadLetter,
            Self::StoreUnhealthy { .. } => Kind::StoreUnhealthy,
            Self::SheetNearlyFull { .. } => Kind::SheetNearlyFull,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Failing { percent, failures, since, .. } => format!(
                "is failing: {failures} attempts in a row since {since}, {percent}% of the way to being paused"
            ),
            Self::Stopped { by: "auth_failed", .. } => {
                "was paused because its credentials were refused; its events wait".to_owned()
            }
            Self::Stopped { by: "breaker", .. } => {
                "was paused because it failed for too long; its events wait".to_owned()
            }
            Self::Stopped { closed: true, .. } => {
                "was closed because its endpoint is gone; what waited is cancelled".to_owned()
            }
            Self::Stopped { .. } => {
                "was paused because the retries of a delivery ended; its events wait".to_owned()
            }
            Self::Recovered { .. } => "delivers again".to_owned(),
            Self::DeadLetter { state } => format!(
                "has a delivery that ended as {}; it is kept, and can be replayed. More may follow within the hour \
                 without another alert",
                state.name()
            ),
            Self::StoreUnhealthy { lasted, .. } => {
                format!("the gateway's store could not be written to for {} s; it can now", lasted.as_secs())
            }
            Self::SheetNearlyFull { cells, limit } => {
                format!("writes to a spreadsheet that is nearly full: {cells} of {limit} cells")
            }
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::Failing { percent, failures, since, policy } => json!({
                "percent": percent,
                "failures": failures,
                "failing_since": since,
                "pause_failures": policy.pauses_after,
                "pause_secs": policy.pauses_after_span.as_secs(),
            }),
            Self::Stopped { by, closed, .. } => {
                json!({ "by": by, "status": if *closed { "closed" } else { "paused" } })
            }
            Self::Recovered { failures } => json!({ "failures": failures }),
            Self::DeadLetter { state } => json!({ "state": state.name() }),
            Self::StoreUnhealthy { since, lasted, error } => {
                json!({ "since": since, "lasted_secs": lasted.as_secs(), "error": error })
            }
            Self::SheetNearlyFull { cells, limit } => json!({ "cells": cells, "limit": limit }),
        }
    }
}

/// The connection that an alert is about, as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it.
    pub name: String,
    /// Its connector.
    pub connector: String,
}

/// The `data` of an alert's event. `base` is what links begin with.
pub fn data(matter: &Matter, about: Option<&Named>, occasion: Option<&Occasion>, base: &str) -> Value {
    let mut links = Map::new();
    let sentence = matter.sentence();
    let summary = match about {
        Some(named) => format!("{} ({}) {sentence}", named.name, named.tenant),
        None => sentence,
    };
    let mut data = json!({ "summary": summary });
    if let Some(named) = about {
        data["tenant"] = json!(named.tenant);
        data["connection"] = json!({ "id": named.id, "name": named.name, "connector": named.connector });
        links.insert("connection".to_owned(), json!(format!("{base}/v1/connections/{}", named.id)));
    }
    for (name, value) in matter.details().as_object_mut().into_iter().flatten() {
        data[name.as_str()] = value.take();
    }
    if let Some(Occasion { job, event_type, outcome, status, text }) = occasion {
        data["event_type"] = json!(event_type);
        data["last_error"] = match outcome {
            Outcome::Delivered | Outcome::Duplicate => Value::Null,
            _ => json!({ "outcome": outcome.name(), "status": status, "text": text }),
        };
        links.insert("delivery".to_owned(), json!(format!("{base}/v1/deliveries/{job}")));
    }
    data["links"] = Value::Object(links);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_said_is_left_out() {
        let cases = [
            ("the endpoint answered 500", "the endpoint answered 500"),
            (
                "the endpoint answered 400; it said \"no \"jane@example.com\" here\" and asked to come back in 5 s",
                "the endpoint answered 400; it said \"…\" and asked to come back in 5 s",
            ),
            ("cut off; it said \"jane@exam", "cut off; it said \"…"),
        ];
        for (reason, wanted) in cases {
            let told = Occasion::new(JobId::from_bits(1), "a", Outcome::Retry, None, reason);
            assert_eq!(told.text, wanted);
        }
        let told = Occasion::new(JobId::from_bits(1), "a", Outcome::MappingFailed, None, "jane is no number");
        assert_eq!(told.text, "the mapping failed");
    }

    #[test]
    fn every_kind_is_the_gateways_own_and_named_once() {
        let mut types: Vec<&str> = Kind::ALL.iter().map(|kind| kind.event_type()).collect();
        assert!(types.iter().all(|kind| crate::domain::event::is_reserved(kind)));
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), Kind::ALL.len());
    }
}
