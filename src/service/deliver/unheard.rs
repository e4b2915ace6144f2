//! What follows for jobs of which no attempt tells: those that were not to be tried, and those whose attempt never came back.

use std::time::Duration;

use super::{Obstacle, connector_of, settle_obstacle};
use crate::connector::{self, Verdict};
use crate::domain::job::Outcome;
use crate::domain::policy::DeliveryPolicy;
use crate::domain::settle::{LaneEffect, decide};
use crate::service::Gateway;
use crate::store::{Lease, LeaseRef, Settlement};

/// Jobs that are not to be tried now, for the reason told: they go back, and their lane waits so long.
pub fn hold_back(gateway: &Gateway, leases: &[Lease], wait: Duration, reason: &str) -> Vec<Settlement> {
    let held = |lease| settle_obstacle(gateway, lease, Obstacle::NoTurn(wait, reason.to_owned()));
    leases.iter().map(held).collect()
}

/// What follows when the gateway failed while it tried a job: a panic, or a hang past every time limit. It may have been
/// sent, so the endpoint's health says nothing.
pub fn settle_failure(gateway: &Gateway, ticket: &Ticket, reason: &str) -> Settlement {
    let now = gateway.clock.now();
    let reason_shown = format!("the gateway failed while it tried the job ({reason}); it may have arrived");
    let verdict = Verdict::plain(Outcome::Ambiguous, reason_shown);
    let attempt = connector::attempt(ticket.tries + 1, now, Duration::ZERO, None, &verdict);
    tracing::error!(job = %ticket.lease.job, connection = %ticket.lease.connection, reason, "an attempt failed inside");
    let connector = connector_of(gateway, ticket.lease.connection);
    gateway.metrics.attempt(&connector, verdict.outcome, Duration::ZERO);
    let (next, effect) = decide(
        verdict.outcome,
        &verdict.reason,
        &DeliveryPolicy::default(),
        ticket.attempts + 1,
        None,
        now,
        gateway.entropy.fraction(),
    );
    gateway.metrics.flow.follows(&next);
    Settlement {
        lease: ticket.lease,
        reason: verdict.reason,
        attempt: Some(attempt),
        next,
        effect: LaneEffect { healthy: None, ..effect },
        rendered: None,
        forget: false,
    }
}

/// What is needed to settle a job whose handler did not come back.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The lease.
    pub lease: LeaseRef,
    /// The job's attempts before this one.
    pub attempts: u32,
    /// The job's tries before this one.
    pub tries: u32,
}

impl Ticket {
    /// The ticket of a lease.
    pub fn of(lease: &Lease) -> Self {
        Self { lease: lease.reference(), attempts: lease.job.attempts, tries: lease.job.tries }
    }
}
