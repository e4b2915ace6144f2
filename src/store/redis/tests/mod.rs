//! The store against real servers of its own.

mod bounds;
mod claims;
mod cluster;
mod conformance;
mod credit;
mod cut;
mod emptied;
mod fault;
mod kept;
mod lanes;
mod large;
mod log;
mod outcomes;
mod records;
pub(crate) mod server;
mod steps;
mod storms;
mod straight;
mod syncs;
mod tls;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{RedisSettings, RedisStore};
use crate::clock::{Clock, Entropy, Ids};
use crate::domain::account::Tenant;
use crate::domain::connection::{Connection, ConnectionState, MappingChoice, Target};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, EventKey, MappingVersion, TenantId};
use crate::domain::job::{Attempt, JobState, Outcome};
use crate::domain::policy::PolicyOverrides;
use crate::domain::settle::{LaneEffect, Next};
use crate::domain::time::Timestamp;
use crate::store::{
    Accepted, Dedupe, Expected, Ingest, Ingested, Lease, NewEvent, NewJob, Record, Settlement, Store,
};
use server::Server;

const START: Timestamp = Timestamp::from_millis(1_777_777_777_000);
const SPAN: Duration = Duration::from_secs(90);

/// Whether the long variants run as well, which take minutes: `tests/run --soak` asks for them.
fn is_soak() -> bool {
    std::env::var_os("PATCHBAY_SOAK").is_some_and(|value| value == "1")
}

/// A store on a server of its own, under a clock that a test moves.
struct Bench {
    server: Server,
    store: Arc<RedisStore>,
    clock: Clock,
    ids: Ids,
}

/// After so long at the most what a dead process had leased comes again: it is silent for six seconds, which are counted
/// anew where a busy machine spoke to nobody for a while, and looked for every two.
const COMES_AGAIN: Duration = Duration::from_secs(20);

impl Bench {
    async fn new() -> Self {
        Self::on(Server::start()).await
    }

    async fn on(server: Server) -> Self {
        let clock = Clock::manual(START);
        let ids = Ids::new(clock.clone(), Entropy::system());
        let store = Arc::new(open(&server, &clock).await);
        Self { server, store, clock, ids }
    }

    /// Another process on the same server.
    async fn another(&self) -> RedisStore {
        open(&self.server, &self.clock).await
    }

    /// Has its process say no more by itself that it lives: for counting what else is asked of the server.
    fn without_beat(self) -> Self {
        self.store.tasks.lock()[2].abort();
        self
    }

    async fn connection(&self, tenant: &str, concurrency: u32) -> ConnectionId {
        let connection = connection(&self.ids, tenant, concurrency);
        let id = connection.id;
        self.store.put(Record::Connection(Box::new(connection)), Expected::Absent).await.unwrap();
        id
    }

    fn event(&self, tenant: &str, connections: &[ConnectionId]) -> NewEvent {
        let key = EventKey::from_bits(self.ids.next());
        named_event(key, &key.to_string(), tenant, self.clock.now(), connections)
    }

    async fn ingest(&self, tenant: &str, connections: &[ConnectionId]) {
        let ingest = Ingest { idempotency: None, events: vec![self.event(tenant, connections)] };
        match self.store.ingest(ingest).await.unwrap() {
            Ingested::Stored(accepted) => assert_eq!(accepted.len(), 1),
            other => panic!("{other:?}"),
        }
    }

    async fn lease(&self, room: usize) -> Vec<Lease> {
        self.store.lease(room, SPAN).await.unwrap()
    }

    async fn settle(&self, lease: &Lease, next: Next) -> usize {
        self.store.settle(vec![settlement(lease, next)]).await.unwrap()
    }

    async fn record(&self, id: ConnectionId) -> (Connection, u64) {
        let changes = self.store.changes(0, 10_000).await.unwrap();
        changes
            .into_iter()
            .find_map(|change| match change.record {
                Some(Record::Connection(connection)) if connection.id == id => {
                    Some((*connection, change.revision))
                }
                _ => None,
            })
            .unwrap()
    }

    async fn set_state(&self, id: ConnectionId, state: ConnectionState) {
        let (mut connection, revision) = self.record(id).await;
        connection.state = state;
        self.store.put(Record::Connection(Box::new(connection)), Expected::At(revision)).await.unwrap();
    }

    fn later(&self, secs: u64) -> Timestamp {
        self.clock.now().plus(Duration::from_secs(secs))
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }
}

/// Waits until what a large request left behind is in its lanes: it is answered once it is accepted.
async fn applied(store: &RedisStore) {
    let began = std::time::Instant::now();
    while store.core.large.available_permits() < super::ingest::LARGE {
        assert!(began.elapsed() < Duration::from_secs(30), "what was accepted is not in its lanes");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn open(server: &Server, clock: &Clock) -> RedisStore {
    let ids = Ids::new(clock.clone(), Entropy::system());
    RedisStore::open(RedisSettings::new(server.url()), clock.clone(), ids).await.unwrap()
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn connection(ids: &Ids, owner: &str, concurrency: u32) -> Connection {
    Connection {
        id: ConnectionId::from_bits(ids.next()),
        tenant: tenant(owner),
        name: "test".to_owned(),
        connector: "webhook".to_owned(),
        events: vec![EventPattern::All],
        filter: None,
        mapping: MappingChoice::Default,
        target: Target { url: "https://example.com".to_owned(), headers: BTreeMap::new() },
        signing: Vec::new(),
        policy: PolicyOverrides::default(),
        options: BTreeMap::new(),
        credentials: BTreeMap::new(),
        concurrency,
        batch: 1,
        state: ConnectionState::Active,
        history: Vec::new(),
        unproven: false,
        unwanted_before: None,
        subscription: None,
        created: START,
        updated: START,
    }
}

fn named_event(
    key: EventKey,
    id: &str,
    owner: &str,
    received: Timestamp,
    connections: &[ConnectionId],
) -> NewEvent {
    let document = json!({
        "id": id, "type": "lead.captured", "time": received.to_string(), "tenant": owner, "source": "agent-7",
        "data": {"lead": {"name": "Ada", "email": "ada@example.com", "phone": "+49301234567", "note": "call me"}},
    });
    NewEvent {
        event: Arc::new(Event {
            key,
            id: id.to_owned(),
            kind: "lead.captured".to_owned(),
            tenant: tenant(owner),
            source: Some("agent-7".to_owned()),
            received,
            document: document.into(),
        }),
        dedupe: None,
        jobs: connections
            .iter()
            .map(|connection| NewJob {
                connection: *connection,
                mapping: MappingVersion::from_bits(1),
                triggered: false,
            })
            .collect(),
    }
}

fn settlement(lease: &Lease, next: Next) -> Settlement {
    let outcome = match next {
        Next::Done(JobState::Delivered) => Outcome::Delivered,
        Next::Requeue => Outcome::Throttled,
        _ => Outcome::Retry,
    };
    Settlement {
        lease: lease.reference(),
        attempt: Some(Attempt {
            number: lease.job.tries + 1,
            at: lease.job.created,
            duration_ms: 5,
            status: Some(200),
            remote_id: None,
            outcome,
            reason: "because".to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }),
        effect: LaneEffect {
            healthy: match next {
                Next::Done(JobState::Delivered) => Some(true),
                Next::Due(_) => Some(false),
                _ => None,
            },
            ..LaneEffect::default()
        },
        next,
        reason: "because".to_owned(),
        rendered: None,
        forget: false,
    }
}

fn delivered() -> Next {
    Next::Done(JobState::Delivered)
}
