use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::domain::connection::{Connection, ConnectionState, MappingChoice, Target};
use crate::domain::id::EventKey;
use crate::domain::policy::PolicyOverrides;
use crate::domain::time::Timestamp;
use crate::service::live::UNPINNED;
use crate::service::{Gateway, Settings, testing};

fn empty() -> Directory {
    let vault = Vault::new(&[0; 32], crate::clock::Entropy::seeded(1));
    Directory::new(Arc::new(Catalogue::default()), Arc::new(vault), Arc::default(), GoogleSettings::default())
}

/// A connection of a connector that does not exist: broken, and yet it takes jobs.
fn record(id: u128, tenant: &str, events: &[&str], state: ConnectionState) -> Connection {
    Connection {
        id: ConnectionId::from_bits(id),
        tenant: tenant.parse().unwrap(),
        name: "test".to_owned(),
        connector: "none".to_owned(),
        events: events.iter().map(|text| text.parse().unwrap()).collect(),
        filter: None,
        mapping: MappingChoice::Default,
        options: BTreeMap::new(),
        credentials: BTreeMap::new(),
        target: Target { url: String::new(), headers: BTreeMap::new() },
        signing: Vec::new(),
        policy: PolicyOverrides::default(),
        concurrency: 1,
        batch: 1,
        state,
        history: Vec::new(),
        unproven: false,
        unwanted_before: None,
        subscription: None,
        created: Timestamp::default(),
        updated: Timestamp::default(),
    }
}

fn event(tenant: &str, kind: &str) -> Event {
    Event {
        key: EventKey::from_bits(1),
        id: "1".to_owned(),
        kind: kind.to_owned(),
        tenant: tenant.parse().unwrap(),
        source: None,
        received: Timestamp::default(),
        document: json!({}).into(),
    }
}

fn put(directory: &Directory, record: Connection) {
    let live = Arc::new(directory.compile(record));
    directory.put_in_place(vec![Ready::Connection(live)], 1);
}

const TYPES: [&str; 4] = ["lead.captured", "lead.lost", "rating.given", "lead"];
const PATTERNS: [&[&str]; 6] = [
    &["lead.captured"],
    &["lead.captured", "rating.given"],
    &["lead.*"],
    &["lead.*", "lead.captured", "rating.given"],
    &["*"],
    &["nothing.at.all"],
];

proptest! {
    /// Whatever was put and deleted, the index finds what looking at every connection finds.
    #[test]
    fn the_index_finds_what_a_scan_finds(steps in proptest::collection::vec((0_u128..6, 0..2_u8, 0..6_usize, 0..4_u8), 1..60)) {
        let directory = empty();
        let mut model: BTreeMap<u128, Connection> = BTreeMap::new();
        for (id, tenant, pattern, step) in steps {
            let tenant = if tenant == 0 { "a" } else { "b" };
            let closed = ConnectionState::Closed { reason: String::new(), at: Timestamp::default() };
            if step == 0 {
                let gone = Ready::Gone(RecordId::Connection(ConnectionId::from_bits(id)));
                directory.put_in_place(vec![gone], 1);
                model.remove(&id);
            } else {
                let state = if step == 1 { closed } else { ConnectionState::Active };
                let record = record(id, tenant, PATTERNS[pattern], state);
                put(&directory, record.clone());
                model.insert(id, record);
            }
        }
        for tenant in ["a", "b"] {
            let id: TenantId = tenant.parse().unwrap();
            let own: Vec<&Connection> = model.values().filter(|record| record.tenant == id).collect();
            prop_assert_eq!(directory.connection_count(&id), own.len());
            prop_assert_eq!(directory.connections(Some(&id), None, 100).len(), own.len());
            for kind in TYPES {
                let mut found: Vec<_> =
                    directory.fan_out(&event(tenant, kind)).into_iter().map(|job| job.connection).collect();
                found.sort_unstable();
                let wanted: Vec<_> = own
                    .iter()
                    .filter(|record| record.state.takes_jobs())
                    .filter(|record| record.events.iter().any(|pattern| pattern.matches(kind)))
                    .map(|record| record.id)
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
        prop_assert_eq!(directory.connections(None, None, 100).len(), model.len());
    }
}

#[test]
fn a_broken_connection_takes_jobs_and_says_why() {
    let directory = empty();
    put(&directory, record(1, "a", &["*"], ConnectionState::Active));
    let jobs = directory.fan_out(&event("a", "lead"));
    assert_eq!(
        jobs,
        [NewJob { connection: ConnectionId::from_bits(1), mapping: UNPINNED, triggered: false }]
    );
    let live = directory.connection(ConnectionId::from_bits(1)).unwrap();
    assert!(live.works.as_ref().unwrap_err().contains("no connector \"none\""));
}

#[test]
fn deleting_a_tenant_forgets_all_that_was_its() {
    let directory = empty();
    for id in 0..10 {
        put(&directory, record(id, if id < 5 { "a" } else { "b" }, &["*"], ConnectionState::Active));
    }
    directory.put_in_place(vec![Ready::Gone(RecordId::Tenant("a".parse().unwrap()))], 2);
    assert!(directory.connection(ConnectionId::from_bits(1)).is_none());
    assert_eq!(directory.connections(None, None, 100).len(), 5);
    assert_eq!(directory.fan_out(&event("a", "x")), []);
}

async fn connection(gateway: &Gateway) -> ConnectionId {
    let tenant: TenantId = "acme".parse().unwrap();
    if gateway.directory.tenant(&tenant).is_none() {
        gateway.make_tenant(tenant.clone(), "Acme").await.unwrap();
    }
    let wanted = json!({ "name": "x", "connector": "webhook", "events": ["*"], "target": { "url": "http://127.0.0.1/" } });
    gateway.make_connection(Some(&tenant), &wanted).await.unwrap().live.record.id
}

#[tokio::test]
async fn what_one_process_writes_another_knows_within_a_second() {
    let folder = tempfile::TempDir::new().unwrap();
    let start = |owner| testing::gateway_in(folder.path(), Clock::system(), Settings::default(), 7, owner);
    let (owner, guest) = (start(true).await, start(false).await);
    let following = tokio::spawn({
        let owner = Arc::clone(&owner);
        async move { owner.follow().await }
    });
    // The fastest of three counts: a machine that stood still says nothing of the gateway.
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let id = connection(&guest).await;
        let written = std::time::Instant::now();
        let seen = async {
            while owner.directory.connection(id).is_none() {
                owner.store.wait_for_change(owner.directory.revision()).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("not seen");
        fastest = fastest.min(written.elapsed());
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    following.abort();
}

#[tokio::test]
async fn another_secret_key_breaks_connections_and_loses_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let start = |key| {
        testing::gateway_in(folder.path(), Clock::manual(testing::START), Settings::default(), key, true)
    };
    let first = start(7).await;
    let id = connection(&first).await;
    first.store.close().await;
    drop(first);
    let second = start(8).await;
    let live = second.directory.connection(id).unwrap();
    assert!(live.works.as_ref().unwrap_err().contains("secret key"), "{:?}", live.works);
    assert_eq!(second.directory.fan_out(&event("acme", "x")).len(), 1);
}

#[test]
fn subscriptions_are_found_by_url_and_are_due_when_their_key_goes_or_their_time_is_up() {
    use crate::domain::account::ApiKey;
    use crate::domain::subscription::{Over, Subscription};

    let directory = empty();
    let (key, now) = (KeyId::from_bits(7), Timestamp::from_millis(1_000));
    let hook = |id, url: &str, expires, state| {
        let mut record = record(id, "a", &["lead.captured"], state);
        url.clone_into(&mut record.target.url);
        record.subscription =
            Some(Subscription { key, event: "lead.captured".to_owned(), expires, farewell: None });
        record
    };
    let (name, hash) = ("Zapier".to_owned(), String::new());
    let made = ApiKey { id: key, tenant: None, scopes: Vec::new(), name, hash, created: now };
    directory.put_in_place(vec![Ready::Key(Arc::new(made))], 1);
    put(&directory, hook(1, "https://one.example/", None, ConnectionState::Active));
    put(&directory, hook(2, "https://one.example/", Some(now), ConnectionState::Active));
    put(&directory, record(3, "a", &["*"], ConnectionState::Active));
    let tenant = "a".parse().unwrap();
    let at = |url: &str| {
        directory.hooks_at(&tenant, url).iter().map(|live| live.record.id.bits()).collect::<Vec<_>>()
    };
    assert_eq!(at("https://one.example/"), [1, 2]);
    let due = |now| directory.due_hooks(now, 10).iter().map(|id| id.bits()).collect::<Vec<_>>();
    assert_eq!((due(Timestamp::from_millis(999)), due(now)), (vec![], vec![2]));
    let over = |id| directory.over(&directory.connection(ConnectionId::from_bits(id)).unwrap(), now);
    assert_eq!((over(1), over(2), over(3)), (None, Some(Over::Expired(now)), None));

    directory.put_in_place(vec![Ready::Gone(RecordId::Key(key))], 2);
    assert_eq!(due(Timestamp::from_millis(0)), [1, 2]);
    assert_eq!((over(1), over(2), over(3)), (Some(Over::Revoked), Some(Over::Revoked), None));
    assert_eq!(directory.fan_out(&event("a", "lead.captured")).len(), 1, "the one that a person made");
    assert_eq!(directory.connection_count(&tenant), 3);
    let closed = ConnectionState::Closed { reason: String::new(), at: now };
    put(&directory, hook(1, "https://two.example/", None, closed));
    assert_eq!((at("https://one.example/"), at("https://two.example/")), (vec![2], vec![1]));
    assert_eq!(directory.connection_count(&tenant), 2);
    directory.put_in_place(vec![Ready::Gone(RecordId::Tenant(tenant.clone()))], 3);
    assert_eq!((at("https://one.example/"), due(Timestamp::from_millis(i64::MAX))), (vec![], vec![]));
}
