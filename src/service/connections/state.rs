//! Whether a connection delivers: paused, resumed, active again.

use std::sync::Arc;

use super::{Gateway, LiveConnection, ServiceError};
use crate::domain::connection::ConnectionState;
use crate::domain::fault::Faults;
use crate::domain::history::{KeyName, StateChange, Status};
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::settle::RETRIES_ENDED;
use crate::domain::subscription::SUBSCRIPTION;
use crate::domain::time::Timestamp;

/// What is to become of the jobs that a connection kept while it did not deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// They are sent, in their order.
    All,
    /// Those made at or after this time are sent; the others are cancelled, and can be replayed.
    Since(Timestamp),
    /// They are cancelled, and can be replayed.
    None,
}

/// The longest reason for a pause.
const MAX_REASON_CHARS: usize = 500;

impl Gateway {
    /// Stops a connection's deliveries; its jobs and new ones wait.
    pub async fn pause_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        reason: Option<&str>,
        key: Option<KeyName>,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let reason = reason.unwrap_or("paused by a person");
        if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
            let mut faults = Faults::default();
            let hint = format!("at most {MAX_REASON_CHARS} characters, none of them a control character");
            faults.at_field("reason", "is no reason", Some(hint));
            return Err(faults.into());
        }
        let at = self.clock.now();
        self.change(tenant, id, |record| match record.state {
            ConnectionState::Active => {
                record.enter(StateChange::by_person(Status::Paused, reason, key.clone(), at));
                Ok(true)
            }
            ConnectionState::Paused { .. } => Ok(false),
            ConnectionState::Closed { .. } => Err(ServiceError::State(
                "the connection is closed: it has nothing to pause; resuming it opens it again".to_owned(),
            )),
        })
        .await
    }

    /// Stops an active connection for a reason that the gateway found; `by` says what of it.
    pub(in crate::service) async fn pause_by(
        &self,
        id: ConnectionId,
        by: &str,
        reason: &str,
    ) -> Result<(), ServiceError> {
        let at = self.clock.now();
        self.change(None, id, |record| {
            let active = record.state.is_active();
            if active {
                record.enter(StateChange::by_gateway(Status::Paused, reason, by, at));
            }
            Ok(active)
        })
        .await
        .map(|_| ())
    }

    /// Lets a connection deliver again that was deactivated because its retries ended: what a new subscription of the same
    /// endpoint to the same event does. Whatever else a connection is paused for stays.
    pub async fn reactivate_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let at = self.clock.now();
        self.change(tenant, id, |record| {
            let ended = matches!(&record.state, ConnectionState::Paused { by, .. } if by == RETRIES_ENDED);
            if ended {
                let reason = "subscribed to once more";
                record.enter(StateChange::by_gateway(Status::Active, reason, SUBSCRIPTION, at));
            }
            Ok(ended)
        })
        .await
    }

    /// Writes the concurrency that the policy in force says, where the record has another.
    pub(in crate::service) async fn resolve_concurrency(&self, id: ConnectionId) -> Result<(), ServiceError> {
        self.change(None, id, |record| {
            let catalogue = self.catalogue();
            let Some(connector) = catalogue.connector(&record.connector) else { return Ok(false) };
            let concurrency = record.policy.over(&connector.policy).concurrency;
            let differs = record.concurrency != concurrency;
            record.concurrency = concurrency;
            Ok(differs)
        })
        .await
        .map(|_| ())
    }

    /// Lets a paused connection deliver again, or opens a closed one: of what it kept, what `backlog` says.
    pub async fn resume_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        backlog: Backlog,
        key: Option<KeyName>,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let at = self.clock.now();
        let unwanted_before = match backlog {
            Backlog::All => None,
            Backlog::None => Some(at),
            Backlog::Since(since) if since <= at => Some(since),
            Backlog::Since(_) => {
                let mut faults = Faults::default();
                let hint = format!("it is {at} now; what comes from now on is always wanted");
                faults.at_field("since", "lies in the future", Some(hint));
                return Err(faults.into());
            }
        };
        self.change(tenant, id, |record| {
            if record.state.is_active() {
                if unwanted_before.is_none() {
                    return Ok(false);
                }
                let reason = "the connection is active, so it has no backlog to leave out; pause it first";
                return Err(ServiceError::State(reason.to_owned()));
            }
            let reason = match unwanted_before {
                None => "resumed, with all that it kept".to_owned(),
                Some(before) => format!("resumed, without what was made before {before}"),
            };
            record.enter(StateChange::by_person(Status::Active, reason, key.clone(), at));
            record.unwanted_before = unwanted_before;
            Ok(true)
        })
        .await
    }
}
