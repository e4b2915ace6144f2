//! Traces: a span for each request that brings events and one for each attempt, told to an OpenTelemetry collector.
//!
//! # Theory of operation
//!
//! Off unless an endpoint is set: then [`Traces`] is empty, and all that is left of it is the caller's `traceparent`, which
//! goes with the event to each attempt as it came. On, a request's span is a child of the caller's or the root of a new
//! trace; the event carries it ([`Event::trace`]), through the store and to whichever process delivers; each attempt is
//! a child of it, and its endpoint is told the attempt's own span. A trace that its caller does not record is not recorded
//! here, and passed on as it came.
//!
//! A span that has ended goes into a queue of [`QUEUE`], and [`Traces::export`] posts what is there in batches. A full queue
//! drops spans and counts them: neither a request nor an attempt ever waits for the collector.
//!
//! # Invariants
//!
//! - What a span says is bounded in number and length, and names no tenant, unless the operator asks for that, and never a
//!   URL, a body or an error's text.

mod otlp;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc};

use super::metrics::{Metrics, Told};
use crate::clock::{Clock, Entropy};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::{Attempt, Outcome};
use crate::domain::trace::{TRACEPARENT, TraceContext};
use crate::egress::{Collector, EgressError, HeaderMap, HeaderName, HeaderValue, PostError, Url};

/// The header that carries a trace, both ways.
pub const HEADER: HeaderName = HeaderName::from_static(TRACEPARENT);
/// Spans that may wait to be told.
pub const QUEUE: usize = 8_192;
/// Spans of one post.
const BATCH: usize = 512;
/// For how long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The first and the longest pause after a post that failed, and how often a batch is posted.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const POSTS: usize = 4;
/// For how long a stopping gateway tells what is left.
pub const LAST_POSTS: Duration = Duration::from_secs(3);

/// Where spans are told, and what they say.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector's URL, `/v1/traces` included.
    pub url: Url,
    /// Headers of each post, such as a key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of 100 traces that begin here so many are recorded.
    pub sample_percent: u8,
    /// Whether spans name the tenant.
    pub names_tenants: bool,
}

/// What a span's peer is to it; numbered as OTLP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server = 2,
    Client = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Attribute {
    Text(String),
    Whole(i64),
}

/// A span that has ended.
#[derive(Debug)]
struct Span {
    name: &'static str,
    kind: Kind,
    context: TraceContext,
    parent: Option<u64>,
    start_nanos: u64,
    end_nanos: u64,
    failed: bool,
    attributes: Vec<(&'static str, Attribute)>,
}

/// A span that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    context: TraceContext,
    parent: Option<u64>,
    start_nanos: u64,
}

/// What a request brought.
#[derive(Debug, Clone, Copy)]
pub struct Brought<'a> {
    /// Whose events they are; `None` where nobody knows, or of several tenants.
    pub tenant: Option<&'a TenantId>,
    /// How many were stored.
    pub events: usize,
    /// How many jobs they made.
    pub jobs: usize,
    /// Whether they were not taken.
    pub failed: bool,
}

/// What an attempt was.
#[derive(Debug, Clone, Copy)]
pub struct Attempted<'a> {
    /// The event.
    pub event: &'a Event,
    /// The connector.
    pub connector: &'a str,
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: &'a Attempt,
}

/// Tells spans; empty when tracing is off.
#[derive(Debug, Default)]
pub struct Traces(Option<Recording>);

#[derive(Debug)]
struct Recording {
    clock: Clock,
    entropy: Entropy,
    sample: f64,
    names_tenants: bool,
    queue: mpsc::Sender<Span>,
    /// Held by whoever tells them.
    waiting: Mutex<mpsc::Receiver<Span>>,
    stopping: Notify,
    collector: Collector,
}

/// The span that a request's caller is in: of its one `traceparent`; what is none is nothing (W3C Trace Context §3.2.1).
pub fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut found = headers.get_all(HEADER).iter();
    match (found.next(), found.next()) {
        (Some(one), None) => one.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

impl Traces {
    /// Tells spans as the settings say; nothing without.
    pub fn new(
        settings: Option<&TraceSettings>,
        clock: &Clock,
        entropy: &Entropy,
    ) -> Result<Self, EgressError> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            headers.append(name.clone(), value.clone());
        }
        let (queue, waiting) = mpsc::channel(QUEUE);
        Ok(Self(Some(Recording {
            clock: clock.clone(),
            entropy: entropy.clone(),
            sample: f64::from(settings.sample_percent) / 100.0,
            names_tenants: settings.names_tenants,
            queue,
            waiting: Mutex::new(waiting),
            stopping: Notify::new(),
            collector: Collector::new(settings.url.clone(), headers)?,
        })))
    }

    /// Begins a request's span: a child of its caller's, or a trace of its own. `None` when it is not recorded.
    pub fn begin_request(&self, caller: Option<TraceContext>) -> Option<Begun> {
        let recording = self.0.as_ref()?;
        match caller {
            Some(caller) => recording.child(caller, recording.clock.nanos()),
            None if recording.entropy.fraction() < recording.sample => {
                let trace = u128::from_be_bytes(recording.entropy.bytes()).max(1);
                let context = TraceContext { trace, span: recording.span_id(), sampled: true };
                Some(Begun { context, parent: None, start_nanos: recording.clock.nanos() })
            }
            None => None,
        }
    }

    /// Begins an attempt's span, where its event's trace is recorded.
    pub fn begin_attempt(&self, event: &Event) -> Option<Begun> {
        let recording = self.0.as_ref()?;
        recording.child(event.trace()?, recording.clock.nanos())
    }

    /// Ends a request's span.
    pub fn end_request(&self, begun: Option<Begun>, brought: Brought<'_>, metrics: &Metrics) {
        let (Some(recording), Some(begun)) = (&self.0, begun) else { return };
        let whole = |number: usize| Attribute::Whole(i64::try_from(number).unwrap_or(i64::MAX));
        let mut attributes =
            vec![("patchbay.events", whole(brought.events)), ("patchbay.jobs", whole(brought.jobs))];
        if let Some(tenant) = brought.tenant.filter(|_| recording.names_tenants) {
            attributes.push(("patchbay.tenant", Attribute::Text(tenant.to_string())));
        }
        recording.end(begun, ("ingest", Kind::Server), brought.failed, attributes, metrics);
    }

    /// Ends an attempt's span.
    pub fn end_attempt(&self, begun: Option<Begun>, attempted: &Attempted<'_>, metrics: &Metrics) {
        let (Some(recording), Some(begun)) = (&self.0, begun) else { return };
        let Attempted { event, connector, connection, job, attempt } = attempted;
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut attributes = vec![
            ("patchbay.connector", text(connector)),
            ("patchbay.connection", text(&connection.to_string())),
            ("patchbay.job", text(&job.to_string())),
            ("patchbay.event_type", text(&event.kind)),
            ("patchbay.attempt", Attribute::Whole(attempt.number.into())),
            ("patchbay.outcome", text(attempt.outcome.name())),
        ];
        if let Some(status) = attempt.status {
            attributes.push(("http.response.status_code", Attribute::Whole(status.into())));
        }
        if recording.names_tenants {
            attributes.push(("patchbay.tenant", text(event.tenant.as_str())));
        }
        let failed = !matches!(attempt.outcome, Outcome::Delivered | Outcome::Duplicate);
        recording.end(begun, ("attempt", Kind::Client), failed, attributes, metrics);
    }

    /// Begins and ends the span of an attempt that is over, whose requests could not name it.
    pub fn tell_attempt(&self, attempted: &Attempted<'_>, metrics: &Metrics) {
        let Some(mut begun) = self.begin_attempt(attempted.event) else { return };
        begun.start_nanos = begun.start_nanos.saturating_sub(attempted.attempt.duration_ms * 1_000_000);
        self.end_attempt(Some(begun), attempted, metrics);
    }

    /// Posts spans until [`Traces::stop`]; then what is left. Returns at once when tracing is off.
    pub async fn export(&self, metrics: &Metrics) {
        let Some(recording) = &self.0 else { return };
        let mut waiting = recording.waiting.lock().await;
        let stopping = recording.stopping.notified();
        let mut stopping = std::pin::pin!(stopping);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = recording.fill(&mut waiting, &mut batch) => {}
                () = &mut stopping => break,
            }
            tokio::select! {
                () = recording.post(&batch, metrics) => batch.clear(),
                () = &mut stopping => break,
            }
        }
        // What is left is posted once: nobody waits for a collector that is away.
        loop {
            while batch.len() < BATCH {
                let Ok(span) = waiting.try_recv() else { break };
                batch.push(span);
            }
            if batch.is_empty() || recording.collector.post(otlp::request(&batch)).await.is_err() {
                return;
            }
            metrics.flow.spans(Told::Exported, batch.len());
            batch.clear();
        }
    }

    /// Has [`Traces::export`] end.
    pub fn stop(&self) {
        if let Some(recording) = &self.0 {
            recording.stopping.notify_one();
        }
    }
}

/// What an attempt's requests say of the trace: its own span where it has one, else what came with the event.
pub fn traceparent(begun: Option<&Begun>, event: &Event) -> Option<HeaderValue> {
    let context = begun.map(|begun| begun.context).or_else(|| event.trace())?;
    HeaderValue::from_str(&context.to_string()).ok()
}

impl Begun {
    /// What the events of a request carry.
    pub fn context(&self) -> TraceContext {
        self.context
    }
}

impl Recording {
    fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.entropy.bytes()).max(1)
    }

    fn child(&self, parent: TraceContext, start_nanos: u64) -> Option<Begun> {
        parent.sampled.then(|| {
            let context = TraceContext { span: self.span_id(), ..parent };
            Begun { context, parent: Some(parent.span), start_nanos }
        })
    }

    fn end(
        &self,
        begun: Begun,
        (name, kind): (&'static str, Kind),
        failed: bool,
        attributes: Vec<(&'static str, Attribute)>,
        metrics: &Metrics,
    ) {
        let Begun { context, parent, start_nanos } = begun;
        let end_nanos = self.clock.nanos();
        let span = Span { name, kind, context, parent, start_nanos, end_nanos, failed, attributes };
        if self.queue.try_send(span).is_err() {
            metrics.flow.spans(Told::Dropped, 1);
        }
    }

    /// Waits for a span, and a little longer for more.
    async fn fill(&self, waiting: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            // The queue's other end is this value's own, so it never closes.
            batch.extend(waiting.recv().await);
        }
        let gathered = self.clock.sleep(GATHER);
        let mut gathered = std::pin::pin!(gathered);
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                Some(span) = waiting.recv() => batch.push(span),
                () = &mut gathered => return,
            }
        }
    }

    /// Posts a batch, a few times when it must be; then its spans are lost, and counted.
    async fn post(&self, batch: &[Span], metrics: &Metrics) {
        let body = otlp::request(batch);
        let mut pause = PAUSES.0;
        for left in (0..POSTS).rev() {
            match self.collector.post(body.clone()).await {
                Ok(()) => return metrics.flow.spans(Told::Exported, batch.len()),
                Err(PostError::Passing(reason)) if left > 0 => {
                    tracing::debug!(reason, "the trace collector did not take spans; trying again");
                }
                Err(error) => {
                    tracing::warn!(%error, spans = batch.len(), "the trace collector takes no spans");
                    return metrics.flow.spans(Told::Dropped, batch.len());
                }
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
