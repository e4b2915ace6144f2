//! The world of a case: a store, its clock, and short words for what cases do with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::clock::{Clock, Entropy, Ids};
use crate::domain::account::Tenant;
use crate::domain::breaker::weigh;
use crate::domain::connection::{Connection, ConnectionState, MappingChoice, Target};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, EventKey, JobId, MappingVersion, TenantId};
use crate::domain::job::{Attempt, Outcome};
use crate::domain::policy::{DeliveryPolicy, PolicyOverrides};
use crate::domain::retention::Retention;
use crate::domain::settle::decide;
use crate::domain::time::Timestamp;
use crate::store::{
    Accepted, Delivery, DeliveryQuery, Expected, Ingest, Ingested, Lease, NewEvent, NewJob, Record, RecordId,
    Retried, Settlement, Stats, Store, Sweep,
};

/// The span of a lease where a case doesn't care.
pub(super) const SPAN: Duration = Duration::from_mins(1);
/// How long ended deliveries are kept.
pub(super) const RETENTION: Duration = Duration::from_hours(7 * 24);
/// How long those of types that begin with `short.` are.
pub(super) const SHORT: Duration = Duration::from_hours(24);
pub(super) const MAPPING: MappingVersion = MappingVersion::from_bits(7);
/// How often a lease comes back empty before a case believes that there is nothing.
const EMPTY_ROUNDS: usize = 3;

/// What an engine keeps, and for how long.
pub(in crate::store) fn retention() -> Retention {
    Retention::new(RETENTION, vec![("short.*".parse().unwrap(), SHORT)])
}

/// How an engine is opened.
#[async_trait]
pub(in crate::store) trait Engine: Send + Sync {
    /// Opens the store over whatever data there is, waiting for the end of one that was dropped.
    async fn open(&self, clock: Clock, ids: Ids) -> Arc<dyn Store>;
}

/// A store and what belongs to it.
pub(in crate::store) struct World {
    engine: Box<dyn Engine>,
    pub clock: Clock,
    pub ids: Ids,
    pub store: Arc<dyn Store>,
}

impl World {
    /// An empty store.
    pub async fn open(engine: impl Engine + 'static) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_777_000_000_000));
        let ids = Ids::new(clock.clone(), Entropy::seeded(1));
        let store = engine.open(clock.clone(), ids.clone()).await;
        Self { engine: Box::new(engine), clock, ids, store }
    }

    /// Drops the store without closing it and opens it again.
    pub async fn crash(self) -> Self {
        let Self { engine, clock, ids, store } = self;
        drop(store);
        let store = engine.open(clock.clone(), ids.clone()).await;
        Self { engine, clock, ids, store }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    pub fn advance_secs(&self, secs: u64) {
        self.advance(Duration::from_secs(secs));
    }

    /// Writes an active connection of a tenant.
    pub async fn connect(&self, tenant: &str, concurrency: u32) -> ConnectionId {
        let connection = self.connection(tenant, concurrency);
        let id = connection.id;
        self.store.put(Record::Connection(Box::new(connection)), Expected::Absent).await.unwrap();
        id
    }

    /// Writes an active connection whose jobs are leased in batches.
    pub async fn connect_batched(&self, tenant: &str, batch: u32) -> ConnectionId {
        let connection = Connection { batch, ..self.connection(tenant, 1) };
        let id = connection.id;
        self.store.put(Record::Connection(Box::new(connection)), Expected::Absent).await.unwrap();
        id
    }

    /// A connection that is not written.
    pub fn connection(&self, tenant: &str, concurrency: u32) -> Connection {
        let now = self.now();
        Connection {
            id: ConnectionId::from_bits(self.ids.next()),
            tenant: tenant_id(tenant),
            name: "a connection".to_owned(),
            connector: "webhook".to_owned(),
            events: vec![EventPattern::All],
            filter: None,
            mapping: MappingChoice::Default,
            options: BTreeMap::new(),
            credentials: BTreeMap::new(),
            target: Target { url: "https://example.com/".to_owned(), headers: BTreeMap::new() },
            signing: Vec::new(),
            policy: PolicyOverrides::default(),
            concurrency,
            batch: 1,
            state: ConnectionState::Active,
            history: Vec::new(),
            unproven: false,
            unwanted_before: None,
            subscription: None,
            created: now,
            updated: now,
        }
    }

    pub async fn put_tenant(&self, tenant: &str) {
        let record = Tenant { id: tenant_id(tenant), name: tenant.to_owned(), created: self.clock.now() };
        self.store.put(Record::Tenant(record), Expected::Absent).await.unwrap();
    }

    /// Changes a connection that exists.
    pub async fn change(&self, id: ConnectionId, change: impl FnOnce(&mut Connection)) {
        let changes = self.store.changes(0, usize::MAX).await.unwrap();
        let found = changes.into_iter().find(|change| change.id == RecordId::Connection(id)).unwrap();
        let Some(Record::Connection(mut connection)) = found.record else { panic!("{id} is gone") };
        change(&mut connection);
        self.store.put(Record::Connection(connection), Expected::At(found.revision)).await.unwrap();
    }

    pub async fn pause(&self, id: ConnectionId) {
        let at = self.now();
        let state = ConnectionState::Paused { reason: "by hand".to_owned(), by: "person".to_owned(), at };
        self.change(id, |connection| connection.state = state).await;
    }

    pub async fn resume(&self, id: ConnectionId) {
        self.change(id, |connection| connection.state = ConnectionState::Active).await;
    }

    pub async fn close_connection(&self, id: ConnectionId) {
        let state = ConnectionState::Closed { reason: "by hand".to_owned(), at: self.now() };
        self.change(id, |connection| connection.state = state).await;
    }

    /// An event for these connections, without a dedupe key.
    pub fn event(&self, tenant: &str, to: &[ConnectionId]) -> NewEvent {
        let key = EventKey::from_bits(self.ids.next());
        self.event_called(tenant, &key.to_string(), to, key)
    }

    /// An event of an id that the platform gave.
    pub fn event_named(&self, tenant: &str, id: &str, to: &[ConnectionId]) -> NewEvent {
        self.event_called(tenant, id, to, EventKey::from_bits(self.ids.next()))
    }

    pub fn event_called(&self, tenant: &str, id: &str, to: &[ConnectionId], key: EventKey) -> NewEvent {
        let document =
            json!({"id": id, "type": "lead.captured", "tenant": tenant, "data": {"n": key.to_string()}});
        let event = Event {
            key,
            id: id.to_owned(),
            kind: "lead.captured".to_owned(),
            tenant: tenant_id(tenant),
            source: None,
            received: self.now(),
            document: document.into(),
        };
        let jobs = to
            .iter()
            .map(|connection| NewJob { connection: *connection, mapping: MAPPING, triggered: false })
            .collect();
        NewEvent { event: Arc::new(event), dedupe: None, jobs }
    }

    /// An event of some type that no connection wants.
    pub fn event_of(&self, tenant: &str, kind: &str) -> NewEvent {
        of_type(self.event(tenant, &[]), kind)
    }

    /// The ids of a tenant's newest events.
    pub async fn newest(&self, tenant: &str, patterns: &[&str], limit: usize) -> Vec<String> {
        let patterns: Vec<EventPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let events = self.store.newest_events(&tenant_id(tenant), &patterns, limit).await.unwrap();
        events.into_iter().map(|event| event.id).collect()
    }

    pub async fn ingest(&self, events: Vec<NewEvent>) -> Vec<Accepted> {
        match self.store.ingest(Ingest { idempotency: None, events }).await.unwrap() {
            Ingested::Stored(accepted) => accepted,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Writes so many events for one connection, in batches.
    pub async fn fill(&self, tenant: &str, to: ConnectionId, count: usize) {
        let events: Vec<NewEvent> = (0..count).map(|_| self.event(tenant, &[to])).collect();
        for batch in events.chunks(2_000) {
            self.ingest(batch.to_vec()).await;
        }
    }

    /// Leases until `room` is full or nothing is left to lease; at most 20 calls for each job.
    pub async fn lease(&self, room: usize) -> Vec<Lease> {
        self.lease_for(room, SPAN).await
    }

    pub async fn lease_for(&self, room: usize, span: Duration) -> Vec<Lease> {
        let mut leases: Vec<Lease> = Vec::new();
        let mut empty = 0;
        let mut slots = 0;
        while slots < room && empty < EMPTY_ROUNDS {
            let more = self.store.lease(room - slots, span).await.unwrap();
            slots += slots_of(&more);
            assert!(slots <= room, "more was leased than there is room for");
            empty = if more.is_empty() { empty + 1 } else { 0 };
            if more.is_empty() {
                // Round trips behind whatever an engine does to find more: nothing is left to chance or to time.
                for _ in 0..2 {
                    let nothing = self.store.retry(JobId::from_bits(0), None).await;
                    assert_eq!(nothing, Ok(Retried::Missing));
                }
            }
            leases.extend(more);
        }
        leases
    }

    /// What a worker would write after this outcome, without jitter.
    pub fn settlement(&self, lease: &Lease, outcome: Outcome, retry_after: Option<u64>) -> Settlement {
        let now = self.now();
        let retry_after = retry_after.map(Duration::from_secs);
        let policy = DeliveryPolicy::default();
        let (next, mut effect) =
            decide(outcome, "because", &policy, lease.job.attempts + 1, retry_after, now, 0.0);
        weigh(&mut effect, "because", &policy.breaker, lease.failing, now, 0.0);
        let attempt = Attempt {
            number: lease.job.tries + 1,
            at: now,
            duration_ms: 3,
            status: None,
            outcome,
            remote_id: None,
            reason: "because".to_owned(),
            headers: Vec::new(),
            body: String::new(),
        };
        Settlement {
            lease: lease.reference(),
            attempt: Some(attempt),
            next,
            reason: "because".to_owned(),
            effect,
            rendered: None,
            forget: false,
        }
    }

    /// Settles all with one outcome; how many were taken.
    pub async fn settle(&self, leases: &[Lease], outcome: Outcome) -> usize {
        let settlements = leases.iter().map(|lease| self.settlement(lease, outcome, None)).collect();
        self.store.settle(settlements).await.unwrap()
    }

    pub async fn delivery(&self, id: JobId) -> Delivery {
        self.store.delivery(id).await.unwrap().unwrap()
    }

    pub async fn deliveries(&self) -> Vec<Delivery> {
        self.store
            .deliveries(DeliveryQuery { limit: usize::MAX, ..DeliveryQuery::default() })
            .await
            .unwrap()
            .items
    }

    pub async fn stats(&self) -> Stats {
        self.store.stats().await.unwrap()
    }

    /// Sweeps until there is no more to do; the sum.
    pub async fn sweep(&self) -> Sweep {
        let mut sum = Sweep::default();
        for _ in 0..10_000 {
            let step = self.store.sweep().await.unwrap();
            sum.cancelled += step.cancelled;
            sum.removed += step.removed;
            if !step.more {
                return sum;
            }
        }
        panic!("a sweep never ends");
    }
}

/// The room that leases take: a batch counts as one.
pub(super) fn slots_of(leases: &[Lease]) -> usize {
    let batches: BTreeSet<ConnectionId> =
        leases.iter().filter(|lease| lease.batch).map(|lease| lease.job.connection).collect();
    batches.len() + leases.iter().filter(|lease| !lease.batch).count()
}

pub(super) fn tenant_id(text: &str) -> TenantId {
    text.parse().unwrap()
}

pub(super) fn ids_of(leases: &[Lease]) -> Vec<JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}

/// The event with another document.
pub fn told(mut new: NewEvent, change: impl FnOnce(&mut Value)) -> NewEvent {
    let event = Arc::make_mut(&mut new.event);
    let mut document = event.document.tree().clone();
    change(&mut document);
    event.document = document.into();
    new
}

/// The event as one of another type.
pub fn of_type(mut new: NewEvent, kind: &str) -> NewEvent {
    Arc::make_mut(&mut new.event).kind = kind.to_owned();
    told(new, |document| document["type"] = kind.into())
}
