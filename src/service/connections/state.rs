//! Whether a connection delivers: paused, resumed, active again.

use std::sync::Arc;

use super::{Gateway, LiveConnection, ServiceError};
use crate::domain::connection::ConnectionState;
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::settle::RETRIES_ENDED;

/// The longest reason for a pause.
const MAX_REASON_CHARS: usize = 500;

impl Gateway {
    /// Stops a connection's deliveries; its jobs and new ones wait.
    pub async fn pause_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
        reason: Option<&str>,
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
                record.state =
                    ConnectionState::Paused { reason: reason.to_owned(), by: "person".to_owned(), at };
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
                let (reason, by) = (reason.to_owned(), by.to_owned());
                record.state = ConnectionState::Paused { reason, by, at };
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
        self.change(tenant, id, |record| {
            let ended = matches!(&record.state, ConnectionState::Paused { by, .. } if by == RETRIES_ENDED);
            if ended {
                record.state = ConnectionState::Active;
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

    /// Lets a paused connection deliver what waits, or opens a closed one again.
    pub async fn resume_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        self.change(tenant, id, |record| {
            let changes = !record.state.is_active();
            record.state = ConnectionState::Active;
            Ok(changes)
        })
        .await
    }
}
