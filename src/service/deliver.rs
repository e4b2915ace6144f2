//! Delivers one leased job: map, render, sign, send, read the answer, and say what follows.
//!
//! It never fails: whatever goes wrong becomes a settlement with a reason. Mapping happens once a job; the bytes of the
//! first attempt are kept for those that follow.

mod unheard;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Gateway;
use super::exchange::{Outgoing, Wire, exchange};
use super::live::{LiveConnection, UNPINNED, Working, event_context};
use super::sheets;
use super::traces::{Attempted, traceparent};
use super::watch::Tried;
use crate::connector::{self, Endpoint, Verdict};
use crate::domain::breaker::weigh;
use crate::domain::connection::ConnectionState;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Attempt, Job, JobState, Outcome};
use crate::domain::policy::{DeliveryPolicy, RetriesEnd};
use crate::domain::settle::{LaneEffect, Next, decide};
use crate::mapping::{Mapping, MappingError};
use crate::spec::Names;
use crate::store::{ERASED, Lease, Settlement};
pub use unheard::{Ticket, hold_back, settle_failure};

/// How long a lane waits when the gateway itself could not try a job.
const OWN_FAULT_WAIT: Duration = Duration::from_secs(2);

/// How long a lane waits whose connection is broken: a person has to mend it, or a file, and its jobs are kept until then.
const BROKEN_WAIT: Duration = Duration::from_secs(15);

/// Why a job could not be tried, through no fault of its endpoint.
pub(super) enum Obstacle {
    /// The job goes back untried.
    Held,
    /// The job goes back untried, and its lane waits so long: the system takes no more requests now.
    NoTurn(Duration, String),
    /// The job goes back untried, and its lane waits a little.
    Own(String),
    /// The mapping can't be applied to this event.
    Mapping(MappingError),
    /// The connection is not fit for use: the job goes back untried, and its lane waits.
    Broken(String),
    /// What the job was made with is gone.
    Lost(String),
}

/// Tries jobs once: one, or a batch of one connection. Answers a settlement for each.
pub async fn deliver(gateway: &Gateway, leases: Vec<Lease>) -> Vec<Settlement> {
    if leases.iter().any(|lease| lease.event.is_erased()) {
        // Their turn has come, and there is nothing to send.
        let (erased, leases): (Vec<Lease>, Vec<Lease>) =
            leases.into_iter().partition(|lease| lease.event.is_erased());
        let mut settlements: Vec<Settlement> =
            erased.iter().map(|lease| end_untried(gateway, lease, ERASED)).collect();
        settlements.extend(deliver_kept(gateway, leases).await);
        return settlements;
    }
    deliver_kept(gateway, leases).await
}

async fn deliver_kept(gateway: &Gateway, leases: Vec<Lease>) -> Vec<Settlement> {
    if let Some(first) = leases.first()
        && let Ok(Some(live)) = connection(gateway, first).await
        && live.record.state.is_active()
        && let Ok(working) = &live.works
        && let Some(sheet) = working.outlet.sheet()
    {
        // In a place of its own: it is large, and the future of every delivery is copied with what it may hold.
        return Box::pin(sheets::deliver(gateway, &live, working, sheet, leases)).await;
    }
    let mut settlements = Vec::with_capacity(leases.len());
    for lease in leases {
        settlements.push(deliver_one(gateway, lease).await);
    }
    settlements
}

async fn deliver_one(gateway: &Gateway, lease: Lease) -> Settlement {
    let live = match connection(gateway, &lease).await {
        Ok(Some(live)) => live,
        Ok(None) => return end_untried(gateway, &lease, "its connection was deleted"),
        Err(obstacle) => return settle_obstacle(gateway, &lease, obstacle),
    };
    if let ConnectionState::Closed { reason, .. } = &live.record.state {
        let forget = live.record.policy.log_bodies == Some(false);
        let reason = format!("its connection was closed: {reason}");
        return Settlement { forget, ..end_untried(gateway, &lease, &reason) };
    }
    if let Some(over) = gateway.directory.over(&live, gateway.clock.now()) {
        return end_untried(gateway, &lease, &over.reason());
    }
    let body = match body(gateway, &lease, &live).await {
        Ok(body) => body,
        Err(obstacle) => return settle_obstacle(gateway, &lease, obstacle),
    };
    match live.works.as_ref().map(|working| (working, working.outlet.endpoint())) {
        Ok((working, Some(endpoint))) => match turn(gateway, working).await {
            Ok(()) => send(gateway, &lease, (&live, working, endpoint), body).await,
            Err(obstacle) => settle_obstacle(gateway, &lease, obstacle),
        },
        // It was changed a moment ago: the next lease goes the right way.
        Ok((_, None)) => settle_obstacle(gateway, &lease, Obstacle::Own(String::new())),
        Err(reason) => settle_obstacle(gateway, &lease, Obstacle::Broken(reason.clone())),
    }
}

/// The job's connection; `None` when it was deleted. Another process may have made it a moment ago, so the records are
/// read again before a job is given up for it.
async fn connection(gateway: &Gateway, lease: &Lease) -> Result<Option<Arc<LiveConnection>>, Obstacle> {
    let id = lease.job.connection;
    if let Some(live) = gateway.directory.connection(id) {
        return Ok(Some(live));
    }
    match gateway.directory.catch_up(gateway.store.as_ref()).await {
        Ok(()) => Ok(gateway.directory.connection(id)),
        Err(error) => Err(Obstacle::Own(format!("its connection could not be read: {error}"))),
    }
}

/// What the attempts before left, else rendered now.
async fn body(gateway: &Gateway, lease: &Lease, live: &LiveConnection) -> Result<Bytes, Obstacle> {
    if !live.record.state.is_active() {
        return Err(Obstacle::Held);
    }
    if let Some(rendered) = &lease.rendered {
        return Ok(rendered.clone());
    }
    let working = live.works.as_ref().map_err(|reason| Obstacle::Broken(reason.clone()))?;
    let mapping = mapping(gateway, lease, live, working).await?;
    let Job { connection, name, tries, .. } = lease.job;
    let Some(endpoint) = working.outlet.endpoint() else { return Err(Obstacle::Own(String::new())) };
    map_and_render(&mapping, endpoint, &lease.event, connection, name, tries + 1).map_err(Obstacle::Mapping)
}

/// What the first attempt of a job begins with.
pub(super) fn map_and_render(
    mapping: &Mapping,
    endpoint: &Endpoint,
    event: &Event,
    connection: ConnectionId,
    job: JobId,
    number: u32,
) -> Result<Bytes, MappingError> {
    let (connection, job) = (connection.to_string(), job.to_string());
    let context = event_context(event, &connection, &job, number);
    endpoint.render(mapping, &event.document, &context)
}

/// What one try came to.
pub(super) struct Sent {
    pub verdict: Verdict,
    pub attempt: Attempt,
    /// What the next try begins with.
    pub kept: Bytes,
}

impl Sent {
    /// Without what the other side said, for a log that is to keep nothing of it.
    fn without_words(mut self) -> Self {
        self.verdict.reason = connector::without_words(&self.verdict, self.attempt.status);
        self.verdict.remote_id = None;
        let Attempt { reason, remote_id, headers, body, .. } = &mut self.attempt;
        reason.clone_from(&self.verdict.reason);
        (*remote_id, *headers, *body) = (None, Vec::new(), String::new());
        self
    }
}

/// Sends a job once and reads the answer.
pub(super) async fn send_once(
    gateway: &Gateway,
    (working, endpoint): (&Working, &Endpoint),
    event: &Event,
    connection: ConnectionId,
    id: JobId,
    number: u32,
    body: Bytes,
) -> Sent {
    let at = gateway.clock.now();
    let (connection_name, job) = (connection.to_string(), id.to_string());
    let outgoing = Outgoing {
        event: &event.document,
        context: event_context(event, &connection_name, &job, number),
        names: Names { event_type: &event.kind, event_id: &event.id, job_id: &job },
    };
    let span = gateway.traces.begin_attempt(event);
    let traceparent = traceparent(span.as_ref(), event);
    let wire = Wire { gateway, connection, traceparent: traceparent.as_ref() };
    let tried = exchange(&wire, &gateway.clock, endpoint, &working.tokens, &outgoing, body).await;
    let elapsed = gateway.clock.now().since(at);
    let attempt = connector::attempt(number, at, elapsed, tried.answer.as_ref(), &tried.verdict);
    let connector = &working.connector.id;
    let attempted = Attempted { event, connector, connection, job: id, attempt: &attempt };
    gateway.traces.end_attempt(span, &attempted, &gateway.metrics);
    let sent = Sent { verdict: tried.verdict, attempt, kept: tried.kept };
    if working.policy.log_bodies { sent } else { sent.without_words() }
}

/// The mapping that the job is pinned to.
pub(super) async fn mapping(
    gateway: &Gateway,
    lease: &Lease,
    live: &LiveConnection,
    working: &Working,
) -> Result<Arc<Mapping>, Obstacle> {
    let pinned = lease.job.mapping;
    if pinned == live.mapping_version || pinned == UNPINNED {
        return Ok(Arc::clone(&working.mapping));
    }
    match gateway.directory.mapping(gateway.store.as_ref(), pinned).await {
        Ok(Some(mapping)) => Ok(mapping),
        Ok(None) => {
            Err(Obstacle::Lost(format!("the mapping {pinned} that it was made with is not in the store")))
        }
        Err(error) => Err(Obstacle::Own(format!("its mapping could not be read: {error}"))),
    }
}

/// Waits for no turn: whoever has none goes back.
async fn turn(gateway: &Gateway, working: &Working) -> Result<(), Obstacle> {
    let Some(turns) = &working.turns else { return Ok(()) };
    match turns.take(gateway.store.as_ref()).await {
        Ok(None) => Ok(()),
        Ok(Some(wait)) => Err(Obstacle::NoTurn(wait, turns.reason())),
        Err(error) => Err(Obstacle::Own(format!("its turn could not be taken: {error}"))),
    }
}

async fn send(
    gateway: &Gateway,
    lease: &Lease,
    (live, working, endpoint): (&LiveConnection, &Working, &Endpoint),
    body: Bytes,
) -> Settlement {
    let Job { connection, name, tries, .. } = lease.job;
    let sent = send_once(gateway, (working, endpoint), &lease.event, connection, name, tries + 1, body).await;
    let (connector, unproven) = (&working.connector.id, live.record.unproven);
    let known = (connector.as_str(), &working.policy, unproven);
    settle(gateway, lease, known, &sent.verdict, sent.attempt, Some(sent.kept))
}

/// What follows from a try that has a verdict; `unproven` as the connection's record has it.
fn settle(
    gateway: &Gateway,
    lease: &Lease,
    (connector, policy, unproven): (&str, &DeliveryPolicy, bool),
    verdict: &Verdict,
    attempt: Attempt,
    body: Option<Bytes>,
) -> Settlement {
    gateway.metrics.attempt(connector, verdict.outcome, Duration::from_millis(attempt.duration_ms));
    tracing::info!(
        target: "patchbay::attempt",
        job = %lease.job.id,
        connection = %lease.job.connection,
        tenant = %lease.job.tenant,
        event_type = %lease.event.kind,
        number = attempt.number,
        outcome = verdict.outcome.name(),
        status = attempt.status,
        duration_ms = attempt.duration_ms,
        "attempt"
    );
    let (now, fraction) = (gateway.clock.now(), gateway.entropy.fraction());
    let attempts = lease.job.attempts + 1;
    let (next, mut effect) =
        decide(verdict.outcome, &verdict.reason, policy, attempts, verdict.retry_after, now, fraction);
    weigh(&mut effect, &verdict.reason, &policy.breaker, lease.failing, now, gateway.entropy.fraction());
    gateway.metrics.flow.follows(&next);
    if let Some(until) = effect.wait_until {
        gateway.triggers.hold(lease.job.connection, until, gateway.clock.now());
    }
    if let Some((by, reason)) = &effect.pause {
        tracing::warn!(connection = %lease.job.connection, tenant = %lease.job.tenant, by, reason, "a connection was paused");
    }
    let tried = Tried {
        job: lease.job.id,
        connection: lease.job.connection,
        kind: &lease.event.kind,
        outcome: verdict.outcome,
        status: attempt.status,
        reason: &verdict.reason,
        failing: lease.failing,
        breaker: &policy.breaker,
        unproven,
    };
    gateway.notice(&tried, &next, &effect);
    let delivered = matches!(next, Next::Done(JobState::Delivered));
    let reason = match (&next, policy.when_retries_end) {
        (Next::Done(JobState::Dead), RetriesEnd::Deactivate) => {
            format!("{}; its retries ended, so the connection is paused", verdict.reason)
        }
        (Next::Done(JobState::Cancelled), _) => {
            format!("{}; its retries ended, so it is dropped", verdict.reason)
        }
        _ => verdict.reason.clone(),
    };
    if let Some(reason) = &effect.close {
        tracing::warn!(connection = %lease.job.connection, tenant = %lease.job.tenant, reason, "a connection was closed");
    }
    Settlement {
        lease: lease.reference(),
        reason,
        attempt: Some(attempt),
        next,
        effect,
        rendered: body.filter(|body| !delivered && lease.rendered.as_ref() != Some(body)),
        forget: !policy.log_bodies,
    }
}

pub(super) fn settle_obstacle(gateway: &Gateway, lease: &Lease, obstacle: Obstacle) -> Settlement {
    let now = gateway.clock.now();
    let number = lease.job.tries + 1;
    match obstacle {
        Obstacle::Held => untried(lease, Next::Requeue, String::new(), LaneEffect::default()),
        Obstacle::NoTurn(wait, reason) => {
            gateway.metrics.flow.throttled();
            let effect = LaneEffect { wait_until: Some(now.plus(wait)), ..LaneEffect::default() };
            untried(lease, Next::Requeue, reason, effect)
        }
        Obstacle::Own(reason) => {
            let effect = LaneEffect { wait_until: Some(now.plus(OWN_FAULT_WAIT)), ..LaneEffect::default() };
            untried(lease, Next::Requeue, reason, effect)
        }
        Obstacle::Mapping(error) => {
            let verdict = Verdict::mapping_failed(&error);
            let attempt = connector::attempt(number, now, Duration::ZERO, None, &verdict);
            let connector = connector_of(gateway, lease.job.connection);
            let known = (connector.as_str(), &DeliveryPolicy::default(), false);
            settle(gateway, lease, known, &verdict, attempt, None)
        }
        Obstacle::Broken(reason) => {
            let effect = LaneEffect { wait_until: Some(now.plus(BROKEN_WAIT)), ..LaneEffect::default() };
            untried(lease, Next::Requeue, format!("the connection can't be used: {reason}"), effect)
        }
        Obstacle::Lost(reason) => {
            let verdict = Verdict::plain(Outcome::Retry, reason);
            let attempt = connector::attempt(number, now, Duration::ZERO, None, &verdict);
            let connector = connector_of(gateway, lease.job.connection);
            let known = (connector.as_str(), &DeliveryPolicy::default(), false);
            settle(gateway, lease, known, &verdict, attempt, None)
        }
    }
}

/// The connector of a connection, for what is counted; empty where that has gone.
fn connector_of(gateway: &Gateway, connection: ConnectionId) -> String {
    gateway.directory.connection(connection).map(|live| live.record.connector.clone()).unwrap_or_default()
}

fn end_untried(gateway: &Gateway, lease: &Lease, reason: &str) -> Settlement {
    gateway.metrics.flow.ended(JobState::Cancelled);
    untried(lease, Next::Done(JobState::Cancelled), reason.to_owned(), LaneEffect::default())
}

fn untried(lease: &Lease, next: Next, reason: String, effect: LaneEffect) -> Settlement {
    Settlement {
        lease: lease.reference(),
        attempt: None,
        next,
        reason,
        effect,
        rendered: None,
        forget: false,
    }
}
