//! The synchronous way: an event is sent over one connection now, and whoever asks is told what came of it.
//!
//! # Theory of operation
//!
//! The event and its job are stored first, the job as one that has ended and whose outcome is not known
//! ([`NewJob::triggered`]); then it is sent, outside the lane; then its attempt is written. So it stands in the delivery
//! log like any other, a crash in between leaves a line that says that it may have arrived, and nothing ever sends it a second time
//! by itself. A person may retry it: then it goes through the lane.
//!
//! What speaks of the endpoint holds here as in the lane: a paused or closed connection refuses, refused credentials pause it,
//! 410 closes it, and while it asked to be left alone nothing is sent. No more triggers of a connection are under way in a process
//! than its concurrency allows. Its event types and its filter are not asked: the caller names the connection.

mod under_way;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use super::deliver::{map_and_render, send_once};
use super::ingest::{self, ItemError, PublishError};
use super::live::{LiveConnection, Working};
use super::traces::{self, Brought};
use super::turn::Turns;
use super::{Gateway, ServiceError};
use crate::connector::{self, Verdict};
use crate::domain::connection::ConnectionState;
use crate::domain::event::Event;
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, EventKey, TenantId};
use crate::domain::job::{Attempt, JobState, Outcome};
use crate::domain::policy::{DeliveryPolicy, RetrySchedule};
use crate::domain::settle::{LaneEffect, Next, decide};
use crate::domain::trace::TraceContext;
use crate::store::{
    Accepted, Delivery, DeliveryQuery, Ingest, Ingested, NewEvent, NewJob, Recorded, StoreError, Tried,
    UNANSWERED,
};
pub use under_way::Triggers;

/// How often the outcome is written again when the store does not take it.
const WRITES: u32 = 4;
/// Before the next try to write it; doubled each time.
const WRITE_PAUSE: Duration = Duration::from_millis(100);

/// What is to be sent.
#[derive(Debug)]
pub struct Trigger<'a> {
    /// Whose connection it must be; `None` for the operator.
    pub tenant: Option<&'a TenantId>,
    /// Over which connection.
    pub connection: ConnectionId,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The request's headers, which say what form the event has.
    pub headers: &'a HeaderMap,
    /// An event, or `{"event_id": …}`.
    pub body: &'a [u8],
}

/// What came of it.
#[derive(Debug)]
pub struct Triggered {
    /// As the delivery log has it.
    pub delivery: Delivery,
    /// The one try, where its outcome is known.
    pub attempt: Option<Attempt>,
    /// How long the other side asked to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether an earlier request with the same `Idempotency-Key` had sent it.
    pub replay: bool,
}

impl Triggered {
    /// Whether the other side took it, or had it already.
    pub fn succeeded(&self) -> bool {
        self.delivery.state == JobState::Delivered
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// What was sent to us can't be read.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The event is not what it should be, or not this connection's tenant's.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The connection can't be used now.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The endpoint asked to be left alone for so long.
    #[error("the endpoint asked to be left alone for {} s more", .0.as_secs().max(1))]
    Held(Duration),
}

impl From<StoreError> for TriggerError {
    fn from(error: StoreError) -> Self {
        Self::Service(error.into())
    }
}

/// Rows go in batches, within a quota, and in order: none can be pushed in between.
const NO_TRIGGER: &str =
    "a Google sheet takes events in batches and in order: send it the event by POST /v1/events";

impl Gateway {
    /// Sends an event over a connection now; answers when it is known what came of it. What was begun is ended and written
    /// though the caller goes away.
    pub async fn trigger(self: &Arc<Self>, trigger: Trigger<'_>) -> Result<Triggered, TriggerError> {
        let live = self.owned_connection(trigger.tenant, trigger.connection)?;
        let id = live.record.id;
        match &live.record.state {
            ConnectionState::Active => {}
            ConnectionState::Paused { reason, .. } => {
                return Err(refused(format!("the connection is paused: {reason}")));
            }
            ConnectionState::Closed { reason, .. } => {
                return Err(refused(format!("the connection is closed: {reason}")));
            }
        }
        let most = match &live.works {
            Ok(working) if working.outlet.endpoint().is_none() => return Err(refused(NO_TRIGGER.to_owned())),
            Ok(working) => working.policy.concurrency,
            Err(reason) => return Err(refused(format!("the connection can't be used: {reason}"))),
        };
        let realm = [&b"trigger"[..], &id.bits().to_be_bytes()[..]];
        let idempotency = ingest::named(trigger.idempotency_key, &realm, trigger.headers, trigger.body)?;
        let running = match idempotency {
            Some(dedupe) => Some(self.running.begin(dedupe.key).ok_or(PublishError::StillRunning)?),
            None => None,
        };
        let caller = traces::caller(trigger.headers);
        let span = self.traces.begin_request(caller);
        let trace = span.map(|span| span.context()).or(caller);
        let event = self.triggered_event(&trigger, &live.record.tenant, trace).await?;
        if let Some(wait) = self.triggers.held(id, self.clock.now()) {
            return Err(TriggerError::Held(wait));
        }
        let Some(turn) = self.triggers.begin(id, most) else {
            let reason = format!("{most} triggers of the connection are under way, which is its concurrency");
            return Err(ServiceError::Busy(reason).into());
        };
        let standing = self.rates.take(&[(live.record.tenant.clone(), 1)], self.clock.now());
        if let Some(standing) = standing.filter(|standing| !standing.wait.is_zero()) {
            return Err(PublishError::Limited(standing).into());
        }
        let turns = live.works.as_ref().ok().and_then(|working| working.turns.as_ref());
        Turns::take_now(turns, self.store.as_ref()).await?;
        let jobs = vec![NewJob { connection: id, mapping: live.mapping_version, triggered: true }];
        let event = Arc::new(event);
        let new = NewEvent { event: Arc::clone(&event), dedupe: None, jobs };
        let ingested = self.store.ingest(Ingest { idempotency, events: vec![new] }).await;
        let tenant = Some(&live.record.tenant);
        let brought = Brought { tenant, events: 1, jobs: 1, failed: ingested.is_err() };
        self.traces.end_request(span, brought, &self.metrics);
        match ingested? {
            Ingested::Stored(_) => {}
            Ingested::Repeated(accepted) => {
                let event = accepted.into_iter().next().map(|accepted| match accepted {
                    Accepted::Stored { id, .. } | Accepted::IdReused { id } => id,
                });
                return self.answer_again(&live, event).await;
            }
            Ingested::KeyReused => return Err(PublishError::KeyReused.into()),
        }
        let Some(delivery) = self.triggered_job(&live, &event.id, Some(event.key)).await? else {
            return Err(refused("the connection was closed meanwhile".to_owned()));
        };
        // A task of its own: a caller that hangs up must not leave a request without its outcome.
        let gateway = Arc::clone(self);
        let sent = tokio::spawn(async move {
            let _held = (turn, running);
            gateway.send_triggered(&live, &event, delivery).await
        });
        sent.await.map_err(|error| {
            tracing::error!(connection = %id, %error, "a trigger failed inside");
            ServiceError::Busy("the gateway failed while it sent this; it may have arrived".to_owned()).into()
        })
    }

    /// The event that is to be sent.
    async fn triggered_event(
        &self,
        trigger: &Trigger<'_>,
        tenant: &TenantId,
        trace: Option<TraceContext>,
    ) -> Result<Event, TriggerError> {
        if let Some(id) = stored_id(trigger.body)? {
            let found = self.store.event(tenant, &id).await?.ok_or(ServiceError::Missing("event"))?;
            // The same event under a key of its own: it is kept as long as this delivery of it is.
            let key = EventKey::from_bits(self.ids.next());
            return Ok(Event { key, received: self.clock.now(), ..found });
        }
        let mut incoming = ingest::one(trigger.headers, trigger.body)??;
        if incoming.tenant.as_ref().is_some_and(|said| said != tenant) {
            return Err(ItemError::WrongTenant.into());
        }
        incoming.carry(trace);
        Ok(self.unstored_event(incoming, tenant.clone()))
    }

    /// The job that was just made, or for a repeated request the newest one of its event.
    async fn triggered_job(
        &self,
        live: &LiveConnection,
        event: &str,
        key: Option<EventKey>,
    ) -> Result<Option<Delivery>, StoreError> {
        /// Others may trigger the same stored event at the same moment.
        const LOOK_AT: usize = 50;
        let query = DeliveryQuery {
            tenant: Some(live.record.tenant.clone()),
            connection: Some(live.record.id),
            event: Some(event.to_owned()),
            limit: LOOK_AT,
            ..DeliveryQuery::default()
        };
        let found = self.store.deliveries(query).await?;
        Ok(found.items.into_iter().find(|delivery| key.is_none_or(|key| delivery.job.event == key)))
    }

    /// What an earlier request with the same key came to.
    async fn answer_again(
        &self,
        live: &LiveConnection,
        event: Option<String>,
    ) -> Result<Triggered, TriggerError> {
        let found = match &event {
            Some(event) => self.triggered_job(live, event, None).await?,
            None => None,
        };
        let id = found.ok_or(ServiceError::Missing("delivery"))?.job.id;
        let delivery = self.store.delivery(id).await?.ok_or(ServiceError::Missing("delivery"))?;
        let attempt = delivery.attempts.last().cloned();
        Ok(Triggered { delivery, attempt, retry_after: None, replay: true })
    }

    async fn send_triggered(
        &self,
        live: &LiveConnection,
        event: &Event,
        mut delivery: Delivery,
    ) -> Triggered {
        let at = self.clock.now();
        let (verdict, attempt) = match &live.works {
            Ok(working) => self.try_triggered(live, working, event, &delivery).await,
            Err(reason) => {
                let verdict = Verdict::plain(Outcome::Retry, reason.clone());
                let attempt = connector::attempt(1, at, Duration::ZERO, None, &verdict);
                (verdict, attempt)
            }
        };
        self.metrics.attempt(
            &live.record.connector,
            verdict.outcome,
            Duration::from_millis(attempt.duration_ms),
        );
        tracing::info!(
            target: "patchbay::attempt",
            job = %delivery.job.id,
            connection = %live.record.id,
            tenant = %live.record.tenant,
            event_type = %event.kind,
            number = attempt.number,
            outcome = verdict.outcome.name(),
            status = attempt.status,
            duration_ms = attempt.duration_ms,
            triggered = true,
            "attempt"
        );
        let (state, effect) = self.end(&verdict);
        self.metrics.flow.ended(state);
        if let Some(until) = effect.wait_until {
            self.triggers.hold(live.record.id, until, self.clock.now());
        }
        delivery.state = state;
        delivery.reason.clone_from(&verdict.reason);
        delivery.job.attempts += 1;
        delivery.job.tries += 1;
        delivery.finished = Some(self.clock.now());
        delivery.last = Some(Tried::from(&attempt));
        self.write_outcome(Recorded {
            job: delivery.job.id,
            attempt: attempt.clone(),
            state,
            reason: verdict.reason,
            effect,
        })
        .await;
        Triggered { delivery, attempt: Some(attempt), retry_after: verdict.retry_after, replay: false }
    }

    async fn try_triggered(
        &self,
        live: &LiveConnection,
        working: &Working,
        event: &Event,
        delivery: &Delivery,
    ) -> (Verdict, Attempt) {
        let (id, job) = (live.record.id, delivery.job.id);
        let Some(endpoint) = working.outlet.endpoint() else {
            let verdict = Verdict::plain(Outcome::Rejected, NO_TRIGGER);
            let attempt = connector::attempt(1, self.clock.now(), Duration::ZERO, None, &verdict);
            return (verdict, attempt);
        };
        match map_and_render(&working.mapping, endpoint, event, id, job, 1) {
            Ok(body) => {
                let sent = send_once(self, (working, endpoint), event, id, job, 1, body).await;
                (sent.verdict, sent.attempt)
            }
            Err(error) => {
                let verdict = Verdict::mapping_failed(&error);
                let attempt = connector::attempt(1, self.clock.now(), Duration::ZERO, None, &verdict);
                (verdict, attempt)
            }
        }
    }

    /// Where a triggered job ends: like any other whose last attempt this was, and never back in its lane.
    fn end(&self, verdict: &Verdict) -> (JobState, LaneEffect) {
        let once = DeliveryPolicy { retry: RetrySchedule::none(), ..DeliveryPolicy::default() };
        let now = self.clock.now();
        let (next, effect) =
            decide(verdict.outcome, &verdict.reason, &once, 1, verdict.retry_after, now, 0.0);
        match next {
            Next::Done(state) => (state, effect),
            Next::Due(_) | Next::Requeue => (JobState::Dead, effect),
        }
    }

    /// Writes the outcome; what can't be written stands in the log as not known.
    async fn write_outcome(&self, recorded: Recorded) {
        let mut pause = WRITE_PAUSE;
        for left in (0..WRITES).rev() {
            match self.store.record(recorded.clone()).await {
                Ok(true) => {
                    // Whatever it did to the connection holds for the next trigger.
                    if let Err(error) = self.directory.catch_up(self.store.as_ref()).await {
                        tracing::warn!(%error, "the records could not be read");
                    }
                    return;
                }
                Ok(false) => return,
                Err(error) if left == 0 => {
                    tracing::error!(job = %recorded.job, %error, "what came of a trigger could not be written");
                }
                Err(_) => {
                    self.clock.sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

fn refused(reason: String) -> TriggerError {
    ServiceError::State(reason).into()
}

/// The id of a stored event, where the body names one and nothing else.
fn stored_id(body: &[u8]) -> Result<Option<String>, TriggerError> {
    let Ok(Value::Object(members)) = ingest::json(body) else { return Ok(None) };
    let Some(id) = members.get("event_id") else { return Ok(None) };
    let mut faults = Faults::default();
    for other in members.keys().filter(|key| *key != "event_id") {
        let shown: String = other.chars().take(64).flat_map(char::escape_debug).collect();
        faults.at_field(
            shown,
            "stands beside \"event_id\"",
            Some("send an event, or the id of one".to_owned()),
        );
    }
    if !id.is_string() {
        faults.at_field("event_id", "expected a text", None);
    }
    faults.into_result(()).map_err(ItemError::Invalid)?;
    Ok(id.as_str().map(str::to_owned))
}

/// Whether a delivery's outcome is not known.
pub fn is_unanswered(delivery: &Delivery) -> bool {
    delivery.state == JobState::Dead && delivery.job.tries == 0 && delivery.reason == UNANSWERED
}
