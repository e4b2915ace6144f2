//! Receives other systems' webhooks at a source: verify, understand, store, and say what the sender is to be answered.
//!
//! # Theory of operation
//! The signature is checked over the raw bytes before anything of the body is read (a form that carries its own signature is
//! cut into fields first). What was verified becomes events by the source's mapping, and those take the same way as the
//! platform's own: one durable write with their jobs, then the answer.
//!
//! # What holds
//! - Nothing unverified is stored, and no body is ever logged.
//! - A delivery that was taken once is acknowledged and not taken again for a day: known by its id, or by what was
//!   signed. Nor is an event whose id the same source gave before.
//! - What is known is written with the events: a delivery that could not be stored may come again.
//! - Why a sender is not verified is told to the log, and not to the sender.
//! - A source's rate is counted after the check, so that nobody without the secret can use it up.

mod body;
mod cases;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::Gateway;
use super::ingest::{Incoming, digest, read_plain};
use super::live::LiveSource;
use super::metrics::Received as Counted;
use super::rate::Standing;
use super::traces::Brought;
use crate::connector::{Greeting, Receiver, UnderstandError};
use crate::domain::fault::Faults;
use crate::domain::source::SourceState;
use crate::domain::time::Timestamp;
use crate::domain::trace::TraceContext;
use crate::mapping::{Context, MappingError};
use crate::signature::{Received, VerifyError};
use crate::spec::inbound::Reply;
use crate::store::{Accepted, Dedupe, Ingest, Ingested, NewEvent, StoreError};
pub use body::{Body, BodyError};
pub use cases::{CheckedReceived, check_received};

/// A request to a source.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: Method,
    /// The whole URL as the sender knows it.
    pub url: String,
    /// The query, without its question mark.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

/// What the sender is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 2xx.
    pub status: StatusCode,
    /// What the body is; `None` where there is none.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: String,
}

/// Why a delivery was not taken. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The source can't receive as it is configured; a person must mend it.
    #[error("the source can't receive now")]
    Broken(String),
    /// The source is paused.
    #[error("the source is paused")]
    Paused,
    /// A GET that is no handshake of this connector.
    #[error("this request is no handshake that the source knows")]
    NoHandshake,
    /// The handshake does not show the word that it should.
    #[error("the handshake does not show the source's token")]
    WrongToken,
    /// Nobody knows who sent it.
    #[error("the delivery is not verified: {0}")]
    Unverified(#[from] VerifyError),
    /// The body can't be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// No events could be made of it.
    #[error("no event could be made of it: {0}")]
    Understand(#[from] UnderstandError),
    /// What was made is no event.
    #[error("what the mapping made is no event: {0}")]
    Event(Faults),
    /// More than the source or its tenant may send.
    #[error("more comes than is taken")]
    Limited(Standing),
    /// The tenant has as many open jobs as it may.
    #[error("the tenant has {0} jobs that wait to be delivered, which is as many as it may have")]
    QueueFull(u64),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MappingError> for ReceiveError {
    fn from(error: MappingError) -> Self {
        Self::Understand(error.into())
    }
}

/// What a request comes to, before anything is stored.
#[derive(Debug)]
enum Understood {
    Greeting(HeaderValue, String),
    Events { events: Vec<Value>, delivery: Option<[u8; 32]> },
}

/// Verifies a request and makes of it what it is.
async fn understand(
    receiver: &Receiver,
    request: &Request,
    context: &Context<'_>,
    now: Timestamp,
) -> Result<Understood, ReceiveError> {
    let spec = receiver.spec();
    let greets = request.method == Method::GET;
    let mut read = None;
    let mut verified = crate::signature::Verified::default();
    if !greets {
        if receiver.signs_in_body() {
            read = Some(body::read(spec, &request.headers, &request.body).await?);
        }
        let proof = Received {
            method: request.method.as_str(),
            url: &request.url,
            headers: &request.headers,
            body: &request.body,
            form: read.as_ref().and_then(|read| read.form.as_deref()),
        };
        verified = receiver.verify(&proof, now)?;
    }
    let read = match read {
        Some(read) => read,
        None if greets => Body::default(),
        None => body::read(spec, &request.headers, &request.body).await?,
    };
    let query = body::query(&request.query);
    let document = receiver.document(request.method.as_str(), query, &request.headers, read.value);
    match receiver.handshake(&request.method, &document)? {
        Greeting::Answer(content_type, text) => return Ok(Understood::Greeting(content_type, text)),
        Greeting::Refused => return Err(ReceiveError::WrongToken),
        Greeting::None if greets => return Err(ReceiveError::NoHandshake),
        Greeting::None => {}
    }
    let delivery = receiver.delivery_id(&document, &request.body, &verified);
    Ok(Understood::Events { events: receiver.events(document, context)?, delivery })
}

impl Gateway {
    /// Takes a request to a source; returns when what is in it is durable.
    pub async fn receive(&self, live: &LiveSource, request: &Request) -> Result<Response, ReceiveError> {
        let received = self.receive_in(live, request).await;
        if let Err(reason @ (ReceiveError::Unverified(_) | ReceiveError::WrongToken)) = &received {
            tracing::info!(source = %live.record.id, %reason, "a delivery was refused");
        }
        self.metrics.received(match &received {
            Ok((counted, _)) => *counted,
            Err(ReceiveError::Unverified(_) | ReceiveError::WrongToken) => Counted::Unverified,
            Err(
                ReceiveError::Body(_)
                | ReceiveError::Understand(_)
                | ReceiveError::Event(_)
                | ReceiveError::NoHandshake,
            ) => Counted::Invalid,
            Err(ReceiveError::Limited(_) | ReceiveError::QueueFull(_)) => Counted::RateLimited,
            Err(ReceiveError::Broken(_) | ReceiveError::Paused | ReceiveError::Store(_)) => {
                Counted::Unavailable
            }
        });
        received.map(|(_, response)| response)
    }

    async fn receive_in(
        &self,
        live: &LiveSource,
        request: &Request,
    ) -> Result<(Counted, Response), ReceiveError> {
        let record = &live.record;
        let receiver = live.works.as_ref().map_err(|reason| ReceiveError::Broken(reason.clone()))?;
        if matches!(record.state, SourceState::Paused { .. }) {
            return Err(ReceiveError::Paused);
        }
        let now = self.clock.now();
        let context = Context { tenant_id: record.tenant.as_str(), now, ..Context::empty() };
        let (mut events, delivery) = match understand(receiver, request, &context, now).await? {
            Understood::Events { events, delivery } => (events, delivery),
            Understood::Greeting(content_type, body) => {
                let response = Response { status: StatusCode::OK, content_type: Some(content_type), body };
                return Ok((Counted::Handshake, response));
            }
        };
        if let Some(standing) = self.source_rates.take(&[(record.id, 1)], now)
            && !standing.wait.is_zero()
        {
            return Err(ReceiveError::Limited(standing));
        }
        let spec = receiver.spec();
        if events.is_empty() {
            return Ok((Counted::Ignored, answer(&spec.ignored, 0, 0)));
        }
        for event in &mut events {
            place(live, event);
        }
        // Whoever sends to a source is a stranger: his trace is not continued, and his sampling not obeyed.
        let span = self.traces.begin_request(None);
        let new = self.check(live, &events, span.map(|span| span.context()))?;
        let repeats = delivery.map(|id| {
            let owner = record.id.to_string();
            Dedupe { key: digest(&[b"delivery", owner.as_bytes(), &id]), content: digest(&[b"delivery"]) }
        });
        let total = new.len();
        let jobs = new.iter().map(|new| new.jobs.len()).sum();
        let ingested = self.store.ingest(Ingest { idempotency: repeats, events: new }).await;
        let tenant = Some(&record.tenant);
        let brought = Brought { tenant, events: total, jobs, failed: ingested.is_err() };
        self.traces.end_request(span, brought, &self.metrics);
        let taken = match ingested? {
            Ingested::Stored(accepted) => {
                let fresh = |one: &&Accepted| matches!(one, Accepted::Stored { duplicate: false, .. });
                accepted.iter().filter(fresh).count()
            }
            Ingested::Repeated(_) | Ingested::KeyReused => 0,
        };
        let counted = if taken == 0 { Counted::Duplicate } else { Counted::Accepted };
        Ok((counted, answer(&spec.accepted, taken, total - taken)))
    }

    /// The events as they are to be stored, known by their source and id.
    fn check(
        &self,
        live: &LiveSource,
        events: &[Value],
        trace: Option<TraceContext>,
    ) -> Result<Vec<NewEvent>, ReceiveError> {
        let record = &live.record;
        let incoming: Vec<Incoming> = events
            .iter()
            .map(|event| read_plain(event, ""))
            .collect::<Result<_, _>>()
            .map_err(ReceiveError::Event)?;
        let count = u32::try_from(incoming.len()).unwrap_or(u32::MAX);
        if let Some(standing) = self.rates.take(&[(record.tenant.clone(), count)], self.clock.now())
            && !standing.wait.is_zero()
        {
            return Err(ReceiveError::Limited(standing));
        }
        if let Some(most) = self.backlogs.full(&record.tenant) {
            return Err(ReceiveError::QueueFull(most));
        }
        let owner = record.id.to_string();
        let complete = |incoming| {
            let mut new = self.complete(incoming, record.tenant.clone(), trace);
            if let Some(dedupe) = &mut new.dedupe {
                dedupe.key = digest(&[b"source", owner.as_bytes(), new.event.id.as_bytes()]);
            }
            new
        };
        Ok(incoming.into_iter().map(complete).collect())
    }
}

/// An event comes from its source's agent; else from where the mapping says; else from the source.
fn place(live: &LiveSource, event: &mut Value) {
    if let Some(agent) = &live.record.agent {
        event["source"] = json!(agent);
    } else if event.get("source").is_none_or(Value::is_null) {
        event["source"] = json!(live.record.id);
    }
}

/// The answer that a connector's file asks for.
fn answer(reply: &Reply, accepted: usize, duplicates: usize) -> Response {
    match &reply.body {
        None => Response {
            status: reply.status,
            content_type: Some(HeaderValue::from_static("application/json")),
            body: json!({ "accepted": accepted, "duplicates": duplicates }).to_string(),
        },
        Some(body) => Response {
            status: reply.status,
            content_type: (!body.is_empty()).then(|| reply.content_type.clone()),
            body: body.clone(),
        },
    }
}
