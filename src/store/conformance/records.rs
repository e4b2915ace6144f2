//! Records, their revisions and the change feed; mappings.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::domain::account::{ApiKey, Tenant};
use crate::domain::connection::{MappingChoice, SigningSecret};
use crate::domain::id::{KeyId, MappingVersion, SourceId};
use crate::domain::secret::Sealed;
use crate::domain::source::{Source, SourceState};
use crate::store::{Expected, Record, RecordId, StoreError};

use super::world::{World, tenant_id};

fn tenant(name: &str, world: &World) -> Record {
    Record::Tenant(Tenant { id: tenant_id("acme"), name: name.to_owned(), created: world.now() })
}

fn source(bits: u128, owner: &str, world: &World) -> Source {
    Source {
        id: SourceId::from_bits(bits),
        tenant: tenant_id(owner),
        name: "payments".to_owned(),
        connector: "stripe".to_owned(),
        agent: Some("agt_1".to_owned()),
        channel: None,
        public: false,
        mapping: MappingChoice::Named("stripe_in".to_owned()),
        options: [("region".to_owned(), "eu".to_owned())].into(),
        credentials: [("verify_token".to_owned(), Sealed("c2VhbGVk".to_owned()))].into(),
        secrets: vec![SigningSecret { sealed: Sealed("c2VhbGVk".to_owned()), expires: Some(world.now()) }],
        state: SourceState::Paused { at: world.now() },
        created: world.now(),
        updated: world.now(),
    }
}

pub async fn a_source_is_a_record_like_any_other(world: World) {
    let first = Record::Source(Box::new(source(7, "acme", &world)));
    let revision = world.store.put(first.clone(), Expected::Absent).await.unwrap();
    assert_eq!(world.store.put(first.clone(), Expected::Absent).await, Err(StoreError::Conflict));
    let mut active = source(7, "acme", &world);
    active.state = SourceState::Active;
    let active = Record::Source(Box::new(active));
    world.store.put(active.clone(), Expected::At(revision)).await.unwrap();
    let world = world.crash().await;
    let changes = world.store.changes(0, 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].record, Some(active));
    assert_eq!(world.store.delete(RecordId::Source(SourceId::from_bits(7))).await, Ok(true));
    let changes = world.store.changes(changes[0].revision, 10).await.unwrap();
    assert_eq!((&changes[0].id, &changes[0].record), (&RecordId::Source(SourceId::from_bits(7)), &None));
    assert_eq!(world.store.delete(RecordId::Source(SourceId::from_bits(7))).await, Ok(false));
}

pub async fn a_write_needs_the_revision_it_read(world: World) {
    let store = &world.store;
    assert_eq!(store.put(tenant("a", &world), Expected::At(1)).await, Err(StoreError::Conflict));
    let first = store.put(tenant("a", &world), Expected::Absent).await.unwrap();
    assert_eq!(store.put(tenant("b", &world), Expected::Absent).await, Err(StoreError::Conflict));
    let second = store.put(tenant("b", &world), Expected::At(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(store.put(tenant("c", &world), Expected::At(first)).await, Err(StoreError::Conflict));
    let changes = store.changes(0, 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].record, Some(tenant("b", &world)));
    assert_eq!(store.delete(RecordId::Tenant(tenant_id("acme"))).await, Ok(true));
    assert_eq!(store.delete(RecordId::Tenant(tenant_id("acme"))).await, Ok(false));
    assert_eq!(store.put(tenant("d", &world), Expected::At(second)).await, Err(StoreError::Conflict));
    assert!(store.put(tenant("d", &world), Expected::Absent).await.unwrap() > second);
}

pub async fn changes_tell_all_in_order(world: World) {
    let mut wanted = Vec::new();
    for n in 0..25 {
        let connection = world.connection("acme", n + 1);
        wanted.push(RecordId::Connection(connection.id));
        world.store.put(Record::Connection(Box::new(connection)), Expected::Absent).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut since = 0;
    loop {
        let page = world.store.changes(since, 10).await.unwrap();
        assert!(page.len() <= 10 && page.is_sorted_by_key(|change| change.revision));
        let Some(last) = page.last() else { break };
        since = last.revision;
        seen.extend(page.into_iter().map(|change| change.id));
    }
    assert_eq!(seen, wanted);
    assert_eq!(world.store.delete(wanted[3].clone()).await, Ok(true));
    let world = world.crash().await;
    let page = world.store.changes(since, 10).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!((&page[0].id, &page[0].record), (&wanted[3], &None));
    let all = world.store.changes(0, 100).await.unwrap();
    assert_eq!(all.iter().filter(|change| change.record.is_some()).count(), 24);
}

pub async fn deleting_a_tenant_takes_all_that_is_its(world: World) {
    world.put_tenant("acme").await;
    world.put_tenant("other").await;
    let mine = world.connect("acme", 2).await;
    let theirs = world.connect("other", 2).await;
    for (bits, owner) in [(1, Some("acme")), (2, Some("other")), (3, None)] {
        let key = ApiKey {
            id: KeyId::from_bits(bits),
            tenant: owner.map(tenant_id),
            scopes: Vec::new(),
            name: "a key".to_owned(),
            hash: "00".to_owned(),
            created: world.now(),
        };
        world.store.put(Record::Key(key), Expected::Absent).await.unwrap();
    }
    for (bits, owner) in [(4, "acme"), (5, "other")] {
        let source = Record::Source(Box::new(source(bits, owner, &world)));
        world.store.put(source, Expected::Absent).await.unwrap();
    }
    world.ingest(vec![world.event("acme", &[mine]), world.event("other", &[theirs])]).await;
    assert_eq!(world.store.delete(RecordId::Tenant(tenant_id("acme"))).await, Ok(true));
    let live: Vec<RecordId> = world
        .store
        .changes(0, 100)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|change| change.record.map(|record| record.id()))
        .collect();
    let wanted = [
        RecordId::Tenant(tenant_id("other")),
        RecordId::Connection(theirs),
        RecordId::Key(KeyId::from_bits(2)),
        RecordId::Key(KeyId::from_bits(3)),
        RecordId::Source(SourceId::from_bits(5)),
    ];
    assert_eq!(live, wanted);
    let leases = world.lease(9).await;
    assert_eq!(leases.iter().map(|lease| lease.job.connection).collect::<Vec<_>>(), [theirs]);
    assert_eq!(world.sweep().await.cancelled, 1);
    assert_eq!(world.stats().await.open, 1);
}

pub async fn waiting_for_a_change_ends_when_there_is_one(world: World) {
    world.store.wait_for_change(0).now_or_pending().await;
    let first = world.store.put(tenant("a", &world), Expected::Absent).await.unwrap();
    world.store.wait_for_change(first - 1).await;
    let waiter = tokio::spawn({
        let store = Arc::clone(&world.store);
        async move { store.wait_for_change(first).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waiter.is_finished());
    world.store.put(tenant("b", &world), Expected::At(first)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), waiter).await.expect("it waits on").unwrap();
}

pub async fn mappings_are_kept_by_version(world: World) {
    let version = MappingVersion::from_bits(9);
    assert_eq!(world.store.mapping(version).await, Ok(None));
    let source = json!({"fields": [{"to": "a", "from": "$.b"}]});
    world.store.put_mapping(version, &source).await.unwrap();
    world.store.put_mapping(version, &source).await.unwrap();
    let world = world.crash().await;
    assert_eq!(world.store.mapping(version).await, Ok(Some(source)));
}

/// Looks once at a future that must not be ready.
trait NowOrPending: Future<Output = ()> + Sized {
    async fn now_or_pending(self) {
        let ready = futures::FutureExt::now_or_never(self);
        assert!(ready.is_none(), "there was no change to tell of");
    }
}

impl<F: Future<Output = ()>> NowOrPending for F {}

pub async fn nothing_is_written_again_where_nothing_is_missing(world: World) {
    let revision = world.store.put(tenant("a", &world), Expected::Absent).await.unwrap();
    let stale = vec![tenant("stale", &world), Record::Connection(Box::new(world.connection("acme", 1)))];
    assert_eq!(world.store.rebuild(stale, revision + 7).await, Ok(false));
    let changes = world.store.changes(0, 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].revision, &changes[0].record), (revision, &Some(tenant("a", &world))));
}
