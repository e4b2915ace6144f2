//! A server that was emptied under gateways that run: nothing is taken until its records are there again.

use super::*;
use crate::store::StoreError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_takes_nothing_until_one_process_has_written_the_records_again() {
    let bench = Bench::new().await;
    let mut lanes = Vec::new();
    for at in 0..250 {
        lanes.push(bench.connection(&format!("tenant{}", at % 20), 16).await);
    }
    let paused = ConnectionState::Paused { reason: "holiday".to_owned(), by: "person".to_owned(), at: START };
    bench.set_state(lanes[7], paused).await;
    bench.ingest("tenant0", &lanes[..1]).await;
    let lost = bench.lease(1).await.remove(0);
    let other = bench.another().await;
    let changes = bench.store.changes(0, 1_000).await.unwrap();
    let newest = changes.last().unwrap().revision;
    let records: Vec<Record> = changes.into_iter().filter_map(|change| change.record).collect();

    bench.server.command(&["FLUSHALL"]).await;
    assert_eq!(bench.store.health().await, Err(StoreError::Emptied));
    for store in [&*bench.store, &other] {
        let event = bench.event("tenant0", &lanes[..1]);
        let refused = store.ingest(Ingest { idempotency: None, events: vec![event] }).await;
        assert_eq!(refused, Err(StoreError::Emptied));
        assert_eq!(store.changes(newest, 10).await, Err(StoreError::Emptied));
        // Whoever follows is told at once.
        tokio::time::timeout(Duration::from_secs(1), store.wait_for_change(newest)).await.unwrap();
    }
    let new = Record::Connection(Box::new(connection(&bench.ids, "acme", 1)));
    assert_eq!(bench.store.put(new, Expected::Absent).await, Err(StoreError::Emptied));
    assert_eq!(bench.store.delete(records[0].id()).await, Err(StoreError::Emptied));

    let (one, two) =
        tokio::join!(bench.store.rebuild(records.clone(), newest), other.rebuild(records.clone(), newest));
    assert_eq!([one, two].into_iter().filter(|done| *done == Ok(true)).count(), 1, "once");
    bench.store.health().await.unwrap();
    other.health().await.unwrap();
    assert_eq!(other.rebuild(records.clone(), newest).await, Ok(false), "nothing is missing");
    // The others follow it as any change.
    let again = other.changes(newest, 1_000).await.unwrap();
    let found: Vec<Record> = again.into_iter().filter_map(|change| change.record).collect();
    assert_eq!(found, records);
    assert_eq!(bench.settle(&lost, delivered()).await, 0, "what was lost does not come back half");
    for at in [0, 7, 249] {
        let event = bench.event(&format!("tenant{}", at % 20), &lanes[at..=at]);
        other.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
    }
    let leases = bench.lease(10).await;
    assert_eq!(leases.len(), 2, "the paused lane still is");
    for lease in leases {
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
    }
    let open = bench.another().await.stats().await.unwrap().open;
    assert_eq!(open, 1);
}

#[tokio::test]
async fn a_server_emptied_while_its_records_are_written_again_is_not_taken_into_use() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    let (record, revision) = bench.record(lane).await;
    bench.server.command(&["FLUSHALL"]).await;
    // Another process had begun and died.
    let rebuilder = String::from_utf8(bench.store.core.keys.rebuilder()).unwrap();
    bench.server.command(&["SET", &rebuilder, "somebody"]).await;
    let records = vec![Record::Connection(Box::new(record))];
    assert_eq!(bench.store.rebuild(records.clone(), revision).await, Ok(false));
    let ids = Ids::new(bench.clock.clone(), Entropy::system());
    let early = RedisStore::open(RedisSettings::new(bench.server.url()), bench.clock.clone(), ids).await;
    assert!(early.unwrap_err().to_string().contains("writing its records again"));
    bench.server.command(&["PEXPIRE", &rebuilder, "1"]).await;
    let began = std::time::Instant::now();
    while bench.store.rebuild(records.clone(), revision).await != Ok(true) {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Another gateway that began anew on an emptied server: nothing is mixed into its store.
    bench.server.command(&["FLUSHALL"]).await;
    let _other = bench.another().await;
    let refused = bench.store.health().await.unwrap_err().to_string();
    assert!(refused.contains("restart"), "{refused}");
    assert!(bench.store.rebuild(records, revision).await.is_err());
}
