//! Takes events in: reads them, dedupes them, fans them out, and stores them with their jobs in one durable step.
//!
//! # What holds
//! - An answer without an error means that the event and its jobs are durable.
//! - The same request again (by `Idempotency-Key`, or each event by its source and id) gives the same answer and makes
//!   no second job; a key or an id with other content is refused.
//! - A batch is one write: what is wrong with one item leaves the others alone, but a tenant over its rate, or a store
//!   that fails, refuses the whole request, so that it can be sent again as it is.

mod attributes;
mod identity;
mod parse;

use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use super::Gateway;
use super::metrics::Taken;
use super::rate::Standing;
use super::traces::{self, Brought};
use crate::domain::event::Event;
use crate::domain::fault::Faults;
use crate::domain::id::{EventKey, TenantId};
use crate::domain::json::Object;
use crate::domain::trace::TraceContext;
use crate::store::{Accepted, Ingest, Ingested, NewEvent, StoreError};
pub use attributes::{Incoming, MAX_ID_CHARS, written};
pub use identity::dedupe_of;
use identity::{dedupe, idempotency};
pub(super) use identity::{digest, named};
pub use parse::{MAX_NESTING, ParseError, json};

/// The longest `Idempotency-Key`.
pub const MAX_KEY_CHARS: usize = 255;

/// Room for the attributes of the usual event.
const USUAL_BYTES: usize = 512;

/// One request that sends events.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The tenant of the key that was used; `None` for an operator's.
    pub key_tenant: Option<&'a TenantId>,
    /// The tenant that the query names.
    pub named_tenant: Option<&'a TenantId>,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The request's headers: the content type, and `ce-*`.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// What became of a request's events.
#[derive(Debug)]
pub struct Published {
    /// Whether they came as a list.
    pub batch: bool,
    /// One for each event, in order.
    pub items: Vec<Result<Receipt, ItemError>>,
    /// Whether the request had been answered before.
    pub replay: bool,
    /// Where the tenant stands; `None` without a limit.
    pub standing: Option<Standing>,
}

/// An event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its public id.
    pub id: String,
    /// How many connections it goes to.
    pub jobs: u32,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// Why one event was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// It is not what an event should be.
    #[error("{0}")]
    Invalid(Faults),
    /// Nothing says whose it is.
    #[error("the event names no tenant")]
    MissingTenant,
    /// There is no such tenant.
    #[error("there is no tenant \"{0}\"")]
    UnknownTenant(TenantId),
    /// It says that it belongs to another tenant than the key or the query.
    #[error("the event names another tenant")]
    WrongTenant,
    /// Its source and id stood for another event before.
    #[error("the event's source and id were used for another event")]
    IdReused,
}

/// Why a request was refused as a whole. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing could be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The idempotency key is not one.
    #[error("the idempotency key is not 1 to {MAX_KEY_CHARS} visible ASCII characters")]
    BadKey,
    /// The idempotency key stood for another request before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A request with the same idempotency key is under way.
    #[error("a request with this idempotency key is still running")]
    StillRunning,
    /// A tenant is over its rate.
    #[error("the tenant sends more than it may")]
    Limited(Standing),
    /// A tenant has as many open jobs as it may.
    #[error("the tenant has {0} jobs that wait to be delivered, which is as many as it may have")]
    QueueFull(u64),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a request's span says of it.
fn brought<'a>(publish: &Publish<'a>, published: &Result<Published, PublishError>) -> Brought<'a> {
    let receipts = published.iter().flat_map(|published| published.items.iter().flatten());
    let jobs = receipts.clone().map(|receipt| receipt.jobs as usize).sum();
    Brought {
        tenant: publish.key_tenant.or(publish.named_tenant),
        events: receipts.count(),
        jobs,
        failed: published.is_err(),
    }
}

/// Reads the one event of a request.
pub fn one(headers: &HeaderMap, body: &[u8]) -> Result<Result<Incoming, ItemError>, PublishError> {
    let parsed = parse::parse(headers, body)?;
    if parsed.batch {
        let mut faults = Faults::default();
        faults.at_field("", "expected one event, found a list", None);
        return Ok(Err(ItemError::Invalid(faults)));
    }
    let item = parsed.items.into_iter().next().ok_or(ParseError::BatchSize(0))?;
    Ok(item.map_err(ItemError::Invalid))
}

impl Gateway {
    /// Takes a request's events; returns when they are durable.
    pub async fn publish(&self, publish: Publish<'_>) -> Result<Published, PublishError> {
        let caller = traces::caller(publish.headers);
        let span = self.traces.begin_request(caller);
        let published = self.take_in(&publish, span.map(|span| span.context()).or(caller)).await;
        if span.is_some() {
            self.traces.end_request(span, brought(&publish, &published), &self.metrics);
        }
        match &published {
            Ok(published) => self.count(published),
            Err(PublishError::Parse(_) | PublishError::BadKey) => self.metrics.events(Taken::Invalid, 1),
            Err(PublishError::KeyReused | PublishError::StillRunning) => {
                self.metrics.events(Taken::Conflict, 1);
            }
            Err(PublishError::Limited(_)) => self.metrics.events(Taken::RateLimited, 1),
            Err(PublishError::QueueFull(_)) => self.metrics.events(Taken::QueueFull, 1),
            Err(PublishError::Store(error)) => {
                self.store_failed(error);
                self.metrics.events(Taken::Unavailable, 1);
            }
        }
        published
    }

    fn count(&self, published: &Published) {
        let count = |wanted: fn(&Result<Receipt, ItemError>) -> bool| {
            published.items.iter().filter(|item| wanted(item)).count()
        };
        let repeated = if published.replay { Taken::Duplicate } else { Taken::Accepted };
        self.metrics.events(repeated, count(|item| item.as_ref().is_ok_and(|receipt| !receipt.duplicate)));
        self.metrics
            .events(Taken::Duplicate, count(|item| item.as_ref().is_ok_and(|receipt| receipt.duplicate)));
        self.metrics.events(Taken::Conflict, count(|item| *item == Err(ItemError::IdReused)));
        self.metrics.events(
            Taken::Invalid,
            count(|item| item.as_ref().is_err_and(|error| *error != ItemError::IdReused)),
        );
    }

    async fn take_in(
        &self,
        publish: &Publish<'_>,
        trace: Option<TraceContext>,
    ) -> Result<Published, PublishError> {
        let idempotency = idempotency(publish)?;
        let _turn = match idempotency {
            Some(dedupe) => Some(self.running.begin(dedupe.key).ok_or(PublishError::StillRunning)?),
            None => None,
        };
        let parsed = parse::parse(publish.headers, publish.body)?;
        let mut items: Vec<Result<Receipt, ItemError>> = Vec::with_capacity(parsed.items.len());
        let mut sound: Vec<(usize, Incoming, TenantId)> = Vec::with_capacity(parsed.items.len());
        for (index, item) in parsed.items.into_iter().enumerate() {
            let owned = item.map_err(ItemError::Invalid).and_then(|incoming| {
                let tenant = self.owner(publish, incoming.tenant.as_ref())?;
                Ok((incoming, tenant))
            });
            match owned {
                Ok((incoming, tenant)) => {
                    items.push(Err(ItemError::MissingTenant));
                    sound.push((index, incoming, tenant));
                }
                Err(error) => items.push(Err(error)),
            }
        }
        if sound.is_empty() {
            return Ok(Published { batch: parsed.batch, items, replay: false, standing: None });
        }
        let standing = self.within_rate(&sound)?;
        let mut places = Vec::with_capacity(sound.len());
        let mut events = Vec::with_capacity(sound.len());
        for (index, incoming, tenant) in sound {
            places.push(index);
            events.push(self.complete(incoming, tenant, trace));
        }
        let (accepted, replay) = match self.store.ingest(Ingest { idempotency, events }).await? {
            Ingested::Stored(accepted) => (accepted, false),
            Ingested::Repeated(accepted) => (accepted, true),
            Ingested::KeyReused => return Err(PublishError::KeyReused),
        };
        // The same bytes mean other events when a tenant came or went in between: another request, then.
        if accepted.len() != places.len() {
            return Err(PublishError::KeyReused);
        }
        for (index, accepted) in places.into_iter().zip(accepted) {
            items[index] = match accepted {
                Accepted::Stored { id, jobs, duplicate } => Ok(Receipt { id, jobs, duplicate }),
                Accepted::IdReused { .. } => Err(ItemError::IdReused),
            };
        }
        Ok(Published { batch: parsed.batch, items, replay, standing })
    }

    /// Whose an event is.
    fn owner(&self, publish: &Publish<'_>, said: Option<&TenantId>) -> Result<TenantId, ItemError> {
        let mut named = [publish.key_tenant, publish.named_tenant, said].into_iter().flatten();
        let tenant = named.next().ok_or(ItemError::MissingTenant)?;
        if named.any(|other| other != tenant) {
            return Err(ItemError::WrongTenant);
        }
        if self.directory.tenant(tenant).is_none() {
            return Err(ItemError::UnknownTenant(tenant.clone()));
        }
        Ok(tenant.clone())
    }

    fn within_rate(&self, sound: &[(usize, Incoming, TenantId)]) -> Result<Option<Standing>, PublishError> {
        let mut wanted: Vec<(TenantId, u32)> = Vec::with_capacity(1);
        for (_, _, tenant) in sound {
            match wanted.iter_mut().find(|(known, _)| known == tenant) {
                Some((_, count)) => *count += 1,
                None => wanted.push((tenant.clone(), 1)),
            }
        }
        if let Some(most) = wanted.iter().find_map(|(tenant, _)| self.backlogs.full(tenant)) {
            return Err(PublishError::QueueFull(most));
        }
        let standing = self.rates.take(&wanted, self.clock.now());
        match standing {
            Some(standing) if !standing.wait.is_zero() => Err(PublishError::Limited(standing)),
            _ => Ok(standing),
        }
    }

    /// Where a tenant stands now; `None` without a limit.
    pub fn standing(&self, tenant: &TenantId) -> Option<Standing> {
        self.rates.take(&[(tenant.clone(), 0)], self.clock.now())
    }

    /// An event as it is kept, with the jobs it makes.
    pub(super) fn complete(
        &self,
        mut incoming: Incoming,
        tenant: TenantId,
        trace: Option<TraceContext>,
    ) -> NewEvent {
        incoming.carry(trace);
        let has_id = incoming.id.is_some();
        let event = self.unstored_event(incoming, tenant);
        let dedupe = if has_id { dedupe(&event) } else { None };
        let jobs = self.directory.fan_out(&event);
        NewEvent { event: Arc::new(event), dedupe, jobs }
    }

    /// An event that is not stored yet, or never.
    pub fn unstored_event(&self, incoming: Incoming, tenant: TenantId) -> Event {
        let now = self.clock.now();
        let key = EventKey::from_bits(self.ids.next());
        let id = incoming.id.unwrap_or_else(|| key.to_string());
        let mut document = Writer { text: Vec::with_capacity(USUAL_BYTES + incoming.data.len()) };
        document.string("id", &id);
        document.string("type", &incoming.kind);
        document.string("time", &incoming.time.unwrap_or_else(|| now.to_string()));
        document.string("tenant", tenant.as_str());
        if let Some(source) = &incoming.source {
            document.string("source", source);
        }
        for (name, value) in &incoming.others {
            document.json(name, value);
        }
        document.json("data", &incoming.data);
        Event {
            key,
            id,
            kind: incoming.kind,
            tenant,
            source: incoming.source,
            received: now,
            document: document.end(),
        }
    }
}

/// Writes an event's document, member by member.
struct Writer {
    text: Vec<u8>,
}

impl Writer {
    fn name(&mut self, name: &str) {
        let begin: &[u8] = if self.text.is_empty() { b"{\"" } else { b",\"" };
        self.text.extend_from_slice(begin);
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        // Writing to a Vec does not fail.
        let _ = serde_json::to_writer(&mut self.text, value);
    }

    fn json(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.text.extend_from_slice(value);
    }

    fn end(mut self) -> Object {
        self.text.push(b'}');
        Object::of_compact(self.text.into()).unwrap_or_else(|| Object::from(Value::Null))
    }
}

/// Reads one plain event that is not to be stored; `at` is its path.
pub fn read_plain(value: &Value, at: &str) -> Result<Incoming, Faults> {
    attributes::Draft::plain(written(value), at)
}

#[cfg(test)]
mod tests;
