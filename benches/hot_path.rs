//! What every event passes through, stage by stage: read, map and render, sign, and the store's ingest, lease and settle.
//!
//! The stores are real: the embedded one in a temporary folder, and Redis where `PATCHBAY_BENCH_REDIS` has its URL. A store's
//! stages take [`JOBS`] jobs at once, as they do under load, so one wait for the disk is shared by that many.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use patchbay::clock::{Clock, Entropy, Ids};
use patchbay::connector::{Endpoint, Given, Key, Names, check_settings};
use patchbay::domain::account::Tenant;
use patchbay::domain::connection::{Connection, ConnectionState, MappingChoice, Target};
use patchbay::domain::event::{Event, EventPattern};
use patchbay::domain::id::{ConnectionId, EventKey, MappingVersion, TenantId};
use patchbay::domain::job::{Attempt, JobState, Outcome};
use patchbay::domain::json::Object;
use patchbay::domain::policy::PolicyOverrides;
use patchbay::domain::settle::{LaneEffect, Next};
use patchbay::domain::time::Timestamp;
use patchbay::mapping::Context;
use patchbay::service::ingest;
use patchbay::signature::Message;
use patchbay::spec::{Catalogue, ConnectorSpec};
use patchbay::store::redis::{RedisSettings, RedisStore};
use patchbay::store::sqlite::SqliteStore;
use patchbay::store::{Dedupe, Expected, Ingest, Lease, NewEvent, NewJob, Record, Settlement, Store};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Jobs that a store's stage takes at once.
const JOBS: usize = 64;
const SPAN: Duration = Duration::from_mins(2);
const TENANT: &str = "bench";

/// A lead of about 600 bytes, as a platform sends it.
fn lead() -> Value {
    json!({
        "type": "lead.captured", "id": "lead_7f3a9c21", "source": "bot_acme_plumbing", "time": "2026-05-03T14:22:08Z",
        "data": {
            "lead": {"name": "Jane Smith", "email": "jane@example.com", "phone": "+15555550123", "status": "new"},
            "agent": {"id": "bot_xyz", "name": "Acme Plumbing Bot"},
            "intent": "request_quote", "conversation_id": "conv_abc",
            "notes": "A leaking pipe under the sink, since Monday. ".repeat(6)
        }
    })
}

fn webhook() -> (Catalogue, Arc<ConnectorSpec>) {
    let catalogue = Catalogue::load(None).expect("what is built in is sound");
    let spec = Arc::clone(catalogue.connector("webhook").expect("it is built in"));
    (catalogue, spec)
}

fn endpoint(spec: &Arc<ConnectorSpec>) -> Endpoint {
    let (url, nothing, none) = ("https://crm.example/hook", BTreeMap::new(), BTreeMap::new());
    let given = Given { url, options: &nothing, credentials: &none };
    let settings = check_settings(spec, &given).expect("nothing is missing");
    let key = spec.signature.key("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").expect("it is a secret");
    let keys = vec![Key { key, expires: None }];
    Endpoint::compile(Arc::clone(spec), url, settings, &HeaderMap::new(), keys, Duration::from_secs(15))
        .expect("it is sound")
}

fn stages(bench: &mut Criterion) {
    let body = lead().to_string();
    bench.bench_function("read a plain event", |run| {
        run.iter(|| ingest::one(&HeaderMap::new(), black_box(body.as_bytes())).expect("it is JSON"));
    });

    let (catalogue, spec) = webhook();
    let endpoint = endpoint(&spec);
    let mapping = catalogue.mapping(&spec.mapping).expect("it is built in");
    let mut event = lead();
    event["tenant"] = TENANT.into();
    let event = Object::from(event);
    let now = Timestamp::from_millis(1_777_818_128_000);
    let context = Context {
        event_id: "lead_7f3a9c21",
        event_type: "lead.captured",
        event_time: "2026-05-03T14:22:08Z",
        source: Some("bot_acme_plumbing"),
        tenant_id: TENANT,
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now,
    };
    bench.bench_function("map and render a body", |run| {
        run.iter(|| endpoint.render(mapping, black_box(&event), &context).expect("it maps"));
    });
    let rendered = endpoint.render(mapping, &event, &context).expect("it maps");
    let names = Names { event_type: "lead.captured", event_id: "lead_7f3a9c21", job_id: "job_1" };
    bench.bench_function("make the signed request", |run| {
        run.iter(|| endpoint.request(&names, black_box(&rendered).clone(), now));
    });
    let key = spec.signature.key("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").expect("it is a secret");
    let url = "https://crm.example/hook";
    let message = Message {
        id: "job_1",
        timestamp: now,
        event_type: "lead.captured",
        method: "POST",
        url,
        body: &rendered,
    };
    bench.bench_function("sign", |run| run.iter(|| spec.signature.sign(&[&key], black_box(&message))));
}

/// A store with one connection.
struct Bench {
    store: Arc<dyn Store>,
    clock: Clock,
    ids: Ids,
    connection: ConnectionId,
    document: Value,
}

impl Bench {
    async fn over(store: Arc<dyn Store>, clock: Clock, ids: Ids) -> Self {
        let tenant: TenantId = TENANT.parse().expect("it is an id");
        let (now, connection) = (clock.now(), ConnectionId::from_bits(ids.next()));
        let record = Tenant { id: tenant.clone(), name: "Bench".to_owned(), created: now };
        store.put(Record::Tenant(record), Expected::Absent).await.expect("it is written");
        let record = Connection {
            id: connection,
            tenant,
            name: "bench".to_owned(),
            connector: "webhook".to_owned(),
            events: vec![EventPattern::All],
            filter: None,
            mapping: MappingChoice::Default,
            options: BTreeMap::new(),
            credentials: BTreeMap::new(),
            target: Target { url: "https://crm.example/hook".to_owned(), headers: BTreeMap::new() },
            signing: Vec::new(),
            policy: PolicyOverrides::default(),
            concurrency: 1_000,
            batch: 1,
            state: ConnectionState::Active,
            subscription: None,
            history: Vec::new(),
            unproven: false,
            unwanted_before: None,
            created: now,
            updated: now,
        };
        store.put(Record::Connection(Box::new(record)), Expected::Absent).await.expect("it is written");
        let mut document = lead();
        document["tenant"] = TENANT.into();
        Self { store, clock, ids, connection, document }
    }

    fn events(&self) -> Vec<NewEvent> {
        (0..JOBS)
            .map(|_| {
                let bits = self.ids.next();
                let key = EventKey::from_bits(bits);
                let event = Event {
                    key,
                    id: format!("bench-{key}"),
                    kind: "lead.captured".to_owned(),
                    tenant: TENANT.parse().expect("it is an id"),
                    source: Some("bench".to_owned()),
                    received: self.clock.now(),
                    document: self.document.clone().into(),
                };
                NewEvent {
                    event: Arc::new(event),
                    dedupe: Some(Dedupe { key: bits.to_be_bytes(), content: [7; 16] }),
                    jobs: vec![NewJob {
                        connection: self.connection,
                        mapping: MappingVersion::from_bits(7),
                        triggered: false,
                    }],
                }
            })
            .collect()
    }

    async fn ingest(&self, events: Vec<NewEvent>) {
        self.store.ingest(Ingest { idempotency: None, events }).await.expect("it is stored");
    }

    async fn lease(&self) -> Vec<Lease> {
        let mut leases = Vec::with_capacity(JOBS);
        while leases.len() < JOBS {
            leases.extend(self.store.lease(JOBS, SPAN).await.expect("the store answers"));
        }
        leases
    }

    fn settlements(&self, leases: &[Lease]) -> Vec<Settlement> {
        let settlement = |lease: &Lease| Settlement {
            lease: lease.reference(),
            attempt: Some(Attempt {
                number: 1,
                at: self.clock.now(),
                duration_ms: 1,
                status: Some(200),
                outcome: Outcome::Delivered,
                reason: "200 OK".to_owned(),
                remote_id: None,
                headers: vec![("content-length".to_owned(), "2".to_owned())],
                body: "ok".to_owned(),
            }),
            next: Next::Done(JobState::Delivered),
            reason: "200 OK".to_owned(),
            effect: LaneEffect { healthy: Some(true), ..LaneEffect::default() },
            rendered: None,
            forget: false,
        };
        leases.iter().map(settlement).collect()
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        self.store.settle(settlements).await.expect("it is settled");
    }

    /// How long each of the stages takes, summed over `rounds`.
    async fn rounds(&self, rounds: u64) -> [Duration; 3] {
        let mut taken = [Duration::ZERO; 3];
        for _ in 0..rounds {
            let events = self.events();
            let began = Instant::now();
            self.ingest(events).await;
            taken[0] += began.elapsed();
            let began = Instant::now();
            let leases = self.lease().await;
            taken[1] += began.elapsed();
            let settlements = self.settlements(&leases);
            let began = Instant::now();
            self.settle(settlements).await;
            taken[2] += began.elapsed();
        }
        taken
    }
}

fn stages_of(bench: &mut Criterion, engine: &str, runtime: &Runtime, store: &Bench) {
    let mut group = bench.benchmark_group(engine);
    group.throughput(Throughput::Elements(JOBS as u64)).sample_size(20);
    for (stage, name) in ["ingest", "lease", "settle"].into_iter().enumerate() {
        group.bench_function(BenchmarkId::new(name, JOBS), |run| {
            run.iter_custom(|rounds| runtime.block_on(store.rounds(rounds))[stage]);
        });
    }
    group.finish();
}

fn stores(bench: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a folder is made");
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let prefix = format!("bench-{}", hex::encode(entropy.bytes::<6>()));
    let ids = Ids::new(clock.clone(), entropy);
    let store = runtime.block_on(async {
        let opened =
            SqliteStore::open(folder.path(), clock.clone(), ids.clone(), SPAN).await.expect("it opens");
        Bench::over(Arc::new(opened), clock.clone(), ids.clone()).await
    });
    stages_of(bench, "sqlite", &runtime, &store);
    runtime.block_on(store.store.close());

    let Ok(url) = std::env::var("PATCHBAY_BENCH_REDIS") else {
        eprintln!("redis is left out: PATCHBAY_BENCH_REDIS has no URL of a server to measure");
        return;
    };
    let settings = RedisSettings { prefix, ..RedisSettings::new(url) };
    let store = runtime.block_on(async {
        let opened = RedisStore::open(settings.clone(), clock.clone(), ids.clone()).await.expect("it opens");
        Bench::over(Arc::new(opened), clock, ids).await
    });
    stages_of(bench, "redis", &runtime, &store);
    runtime.block_on(async {
        store.store.close().await;
        RedisStore::erase(&settings).await.expect("what was stored is removed");
    });
}

criterion_group!(benches, stages, stores);
criterion_main!(benches);
