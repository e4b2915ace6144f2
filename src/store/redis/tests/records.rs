//! Records, and the lanes that follow them.

use super::*;
use crate::store::{RecordId, StoreError};

#[tokio::test]
async fn a_record_is_written_only_over_what_was_expected() {
    let bench = Bench::new().await;
    let record = Record::Tenant(Tenant { id: tenant("acme"), name: "Acme".to_owned(), created: START });
    let first = bench.store.put(record.clone(), Expected::Absent).await.unwrap();
    assert_eq!(bench.store.put(record.clone(), Expected::Absent).await, Err(StoreError::Conflict));
    let second = bench.store.put(record.clone(), Expected::At(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(bench.store.put(record.clone(), Expected::At(first)).await, Err(StoreError::Conflict));
    let changes = bench.store.changes(0, 10).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].revision, changes[0].record.as_ref()), (second, Some(&record)));
    assert_eq!(bench.store.delete(RecordId::Tenant(tenant("acme"))).await, Ok(true));
    assert_eq!(bench.store.delete(RecordId::Tenant(tenant("acme"))).await, Ok(false));
    let changes = bench.store.changes(second, 10).await.unwrap();
    assert_eq!((changes.len(), changes[0].record.as_ref()), (1, None));
    assert_eq!(bench.store.put(record, Expected::At(second)).await, Err(StoreError::Conflict));
}

#[tokio::test]
async fn a_change_reaches_another_process_within_a_second() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    let seen = bench.store.changes(0, 10).await.unwrap().last().map_or(0, |change| change.revision);
    let waiting = tokio::spawn(async move {
        other.wait_for_change(seen).await;
        other.changes(seen, 10).await.unwrap().len()
    });
    tokio::task::yield_now().await;
    bench.connection("acme", 1).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_paused_lane_keeps_its_jobs_and_a_closed_one_loses_them() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 2).await;
    let paused = ConnectionState::Paused { reason: "holiday".to_owned(), by: "person".to_owned(), at: START };
    bench.set_state(lane, paused).await;
    for _ in 0..3 {
        bench.ingest("acme", &[lane]).await;
    }
    assert!(bench.lease(10).await.is_empty());
    assert_eq!(bench.store.stats().await.unwrap().lanes.paused, 1);
    bench.set_state(lane, ConnectionState::Active).await;
    let leases = bench.lease(1).await;
    assert_eq!(leases.len(), 1);
    bench.set_state(lane, ConnectionState::Closed { reason: "over".to_owned(), at: START }).await;
    assert!(bench.lease(10).await.is_empty());
    let sweep = bench.store.sweep().await.unwrap();
    assert_eq!((sweep.cancelled, sweep.more), (2, false));
    assert_eq!(bench.store.stats().await.unwrap().open, 1, "the leased one ends by its settlement");
    bench.settle(&leases[0], Next::Due(bench.later(5))).await;
    let delivery = bench.store.delivery(leases[0].job.id).await.unwrap().unwrap();
    assert_eq!(delivery.state, JobState::Cancelled);
    assert_eq!(delivery.reason, "because; then its connection was closed");
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.open, stats.oldest), (0, None));
    let event = bench.event("acme", &[lane]);
    let ingested = bench.store.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
    assert!(
        matches!(ingested, Ingested::Stored(accepted) if matches!(accepted[0], Accepted::Stored { jobs: 0, .. }))
    );
}

#[tokio::test]
async fn an_outcome_pauses_or_closes_its_connection() {
    let bench = Bench::new().await;
    let (refused, gone) = (bench.connection("acme", 2).await, bench.connection("acme", 2).await);
    for _ in 0..3 {
        bench.ingest("acme", &[refused, gone]).await;
    }
    let leases = bench.lease(10).await;
    for lease in &leases {
        let mut outcome = settlement(lease, Next::Requeue);
        if lease.job.connection == refused {
            outcome.effect.pause = Some(("auth_failed", "401".to_owned()));
        } else {
            outcome.effect.close = Some("410".to_owned());
            outcome.next = Next::Done(JobState::Gone);
        }
        bench.store.settle(vec![outcome]).await.unwrap();
    }
    let (record, _) = bench.record(refused).await;
    assert_eq!(
        record.state,
        ConnectionState::Paused { reason: "401".to_owned(), by: "auth_failed".to_owned(), at: START }
    );
    let (record, _) = bench.record(gone).await;
    assert_eq!(record.state, ConnectionState::Closed { reason: "410".to_owned(), at: START });
    assert!(bench.lease(10).await.is_empty());
    assert_eq!(bench.store.sweep().await.unwrap().cancelled, 1);
    bench.set_state(refused, ConnectionState::Active).await;
    assert_eq!(bench.lease(10).await.len(), 2);
}

#[tokio::test]
async fn a_tenant_goes_with_all_that_it_owns() {
    let bench = Bench::new().await;
    let record = Record::Tenant(Tenant { id: tenant("acme"), name: "Acme".to_owned(), created: START });
    bench.store.put(record, Expected::Absent).await.unwrap();
    let mut lanes = Vec::new();
    for _ in 0..250 {
        lanes.push(bench.connection("acme", 1).await);
    }
    bench.ingest("acme", &lanes).await;
    let kept = bench.connection("other", 1).await;
    assert_eq!(bench.store.stats().await.unwrap().open, 250);
    assert_eq!(bench.store.delete(RecordId::Tenant(tenant("acme"))).await, Ok(true));
    let alive = bench.store.changes(0, 1_000).await.unwrap();
    let alive: Vec<RecordId> =
        alive.into_iter().filter(|change| change.record.is_some()).map(|change| change.id).collect();
    assert_eq!(alive, [RecordId::Connection(kept)]);
    let mut steps = 0;
    while bench.store.stats().await.unwrap().open > 0 {
        bench.store.sweep().await.unwrap();
        steps += 1;
        assert!(steps <= 300);
    }
    bench.ingest("acme", &[]).await;
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_finished_by_the_next_sweep() {
    let bench = Bench::new().await;
    let core = &bench.store.core;
    // As if a process had died between the record and its lane.
    let paused = {
        let mut connection = connection(&bench.ids, "acme", 1);
        connection.state =
            ConnectionState::Paused { reason: String::new(), by: "person".to_owned(), at: START };
        connection
    };
    let lane = bench.connection("acme", 1).await;
    let (mut record, revision) = bench.record(lane).await;
    record.state = paused.state;
    let forgotten = core.keys.fixed(core.keys.partition(&tenant("acme")))[1].clone();
    let before = bench.server.command(&["HGET", std::str::from_utf8(&forgotten).unwrap(), "x"]).await;
    assert_eq!(before, redis::Value::Nil);
    bench.store.put(Record::Connection(Box::new(record)), Expected::At(revision)).await.unwrap();
    let mut forget = redis::cmd("DEL");
    forget.arg(&forgotten);
    core.link.plain(forget, super::super::REPLY).await.unwrap();
    let mut note = redis::cmd("HSET");
    note.arg(core.keys.unmirrored()).arg(format!("c:{lane}")).arg(format!("{} acme", revision + 1));
    core.link.plain(note, super::super::REPLY).await.unwrap();
    assert_eq!(core.mirror_left_behind().await, Ok(1));
    assert_eq!(core.mirror_left_behind().await, Ok(0));
    bench.ingest("acme", &[lane]).await;
    assert!(bench.lease(1).await.is_empty(), "the lane knows that it is paused");
}

#[tokio::test]
async fn mappings_are_kept() {
    let bench = Bench::new().await;
    let version = MappingVersion::from_bits(5);
    assert_eq!(bench.store.mapping(version).await, Ok(None));
    bench.store.put_mapping(version, &json!({"a": 1})).await.unwrap();
    assert_eq!(bench.store.mapping(version).await, Ok(Some(json!({"a": 1}))));
}

#[tokio::test]
async fn what_another_version_wrote_is_refused() {
    let bench = Bench::new().await;
    bench.server.command(&["HSET", "pb:{c}:layout", "format", "2"]).await;
    let ids = Ids::new(bench.clock.clone(), Entropy::system());
    let refused = RedisStore::open(RedisSettings::new(bench.server.url()), bench.clock.clone(), ids).await;
    let words = refused.unwrap_err().to_string();
    assert!(words.contains("another version") && words.contains("patchbay store migrate"), "{words}");
}
