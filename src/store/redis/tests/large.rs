//! Requests larger than one script call: whole or not at all, in bounded steps.

use super::*;
use crate::store::redis::keys::{BASE, Base};
use crate::store::{DeliveryQuery, StoreError};

impl Bench {
    async fn connections(&self, tenant: &str, count: usize) -> Vec<ConnectionId> {
        let mut lanes = Vec::new();
        for _ in 0..count {
            lanes.push(self.connection(tenant, 16).await);
        }
        lanes
    }

    fn batch(&self, tenant: &str, events: usize, lanes: &[ConnectionId]) -> Ingest {
        let events = (0..events).map(|_| self.event(tenant, lanes)).collect();
        Ingest { idempotency: None, events }
    }

    /// Leases and delivers all there is; of each lane its jobs in the order in which they came.
    async fn deliver_all(&self) -> BTreeMap<ConnectionId, Vec<(EventKey, crate::domain::id::JobId)>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        loop {
            let leases = self.lease(256).await;
            if leases.is_empty() {
                return found;
            }
            for lease in &leases {
                found.entry(lease.job.connection).or_default().push((lease.event.key, lease.job.id));
            }
            let outcomes: Vec<_> = leases.iter().map(|lease| settlement(lease, delivered())).collect();
            assert_eq!(self.store.settle(outcomes).await.unwrap(), leases.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_goes_in_whole_and_every_job_comes_out_once_in_order() {
    let bench = Bench::new().await;
    let lanes = bench.connections("acme", 150).await;
    let closed = bench.connection("acme", 16).await;
    bench.set_state(closed, ConnectionState::Closed { reason: "over".to_owned(), at: START }).await;
    // A process that knows none of the lanes' partition, and one lane that does not exist.
    let mut wanted = lanes.clone();
    wanted.insert(70, closed);
    wanted.push(ConnectionId::from_bits(77));
    let batch = bench.batch("acme", 20, &wanted);
    let keys: Vec<EventKey> = batch.events.iter().map(|event| event.event.key).collect();
    let Ingested::Stored(accepted) = bench.store.ingest(batch.clone()).await.unwrap() else { panic!() };
    applied(&bench.store).await;
    assert!(accepted.iter().all(|one| matches!(one, Accepted::Stored { jobs: 150, duplicate: false, .. })));
    assert_eq!(bench.on_their_way().await, (0, 0), "nothing is left where it was staged");
    assert_eq!(bench.store.stats().await.unwrap().open, 20 * 150);
    let event = bench.store.event(&tenant("acme"), &batch.events[3].event.id).await.unwrap().unwrap();
    assert_eq!(event.document, batch.events[3].event.document);
    let query = DeliveryQuery { event: Some(event.id), limit: 1_000, ..DeliveryQuery::default() };
    let query = DeliveryQuery { tenant: Some(tenant("acme")), ..query };
    assert_eq!(bench.store.deliveries(query).await.unwrap().items.len(), 150);
    let found = bench.deliver_all().await;
    assert_eq!(found.len(), 150);
    for jobs in found.values() {
        let order: Vec<EventKey> = jobs.iter().map(|(event, _)| *event).collect();
        assert_eq!(order, keys, "a lane gives its jobs in the order of the batch");
    }
    // It goes as it came: whole, and in steps.
    bench.advance(8 * 24 * 3_600);
    let wide = bench.batch("acme", 1, &bench.connections("acme", 450).await);
    bench.store.ingest(wide).await.unwrap();
    bench.deliver_all().await;
    bench.advance(8 * 24 * 3_600);
    let mut removed = 0;
    loop {
        let sweep = bench.store.sweep().await.unwrap();
        removed += sweep.removed;
        if !sweep.more {
            break;
        }
    }
    assert_eq!(removed, 20 * 151 + 451);
    let logs = bench.server.command(&[
        "EVAL",
        "return #redis.call('KEYS', '*:c:*') + #redis.call('KEYS', '*:e:*')",
        "0",
    ]);
    assert_eq!(logs.await, redis::Value::Int(0), "nothing is left of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_is_known_again() {
    let bench = Bench::new().await;
    let lanes = bench.connections("acme", 60).await;
    let request = |content: u8| {
        let mut ingest = bench.batch("acme", 5, &lanes);
        ingest.idempotency = Some(Dedupe { key: [1; 16], content: [content; 16] });
        ingest
    };
    let Ingested::Stored(first) = bench.store.ingest(request(1)).await.unwrap() else { panic!() };
    assert_eq!(bench.store.ingest(request(1)).await, Ok(Ingested::Repeated(first)));
    assert_eq!(bench.store.ingest(request(2)).await, Ok(Ingested::KeyReused));
    // A batch in which some events were sent before, one of them with other content.
    let named = |at: u8, content: u8| {
        let mut event = bench.event("acme", &lanes);
        event.dedupe = Some(Dedupe { key: [at; 16], content: [content; 16] });
        event
    };
    let before = Ingest { idempotency: None, events: vec![named(10, 1), named(11, 1)] };
    bench.store.ingest(before).await.unwrap();
    let events = vec![named(10, 1), named(11, 2), named(12, 1), named(12, 1)];
    let answer = bench.store.ingest(Ingest { idempotency: None, events }).await.unwrap();
    let Ingested::Stored(answer) = answer else { panic!("{answer:?}") };
    assert!(matches!(answer[0], Accepted::Stored { jobs: 60, duplicate: true, .. }));
    assert!(matches!(answer[1], Accepted::IdReused { .. }));
    assert!(matches!(answer[2], Accepted::Stored { jobs: 60, duplicate: false, .. }));
    assert!(matches!(answer[3], Accepted::Stored { jobs: 60, duplicate: true, .. }));
    applied(&bench.store).await;
    assert_eq!(bench.store.stats().await.unwrap().open, (5 + 2 + 1) * 60);
    assert_eq!(bench.on_their_way().await, (0, 0));
    let found = bench.deliver_all().await;
    assert!(found.values().all(|jobs| jobs.len() == 8));
}

#[test]
fn a_process_that_dies_in_the_middle_of_a_large_request_leaves_all_of_it_or_nothing() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let main = runtime();
    let bench = main.block_on(Bench::new());
    let lanes = main.block_on(bench.connections("acme", 100));
    let (mut whole, mut nothing, mut answered, mut halfway) = (0, 0, 0, 0);
    let usual = main.block_on(async {
        let (store, began) = (bench.another().await, std::time::Instant::now());
        assert!(store.ingest(bench.batch("acme", 8, &lanes)).await.is_ok());
        let took = began.elapsed();
        applied(&store).await;
        assert_eq!(bench.deliver_all().await.len(), 100);
        took
    });
    // Up to twice as long as it took undisturbed, and longer where that was never enough.
    let mut rounds = 0;
    while rounds < 40 || (rounds < 400 && whole == 0) {
        let span = usual * rounds / 20;
        rounds += 1;
        let batch = bench.batch("acme", 8, &lanes);
        // A process of its own, which ends at some moment without a word.
        let process = runtime();
        let store = process.block_on(bench.another());
        let sent = process.spawn(async move { store.ingest(batch).await.is_ok() });
        let answer = main.block_on(async { tokio::time::timeout(span, sent).await });
        // Its threads have ended before others look.
        process.shutdown_timeout(Duration::from_secs(30));
        main.block_on(async {
            let open = bench.store.stats().await.unwrap().open;
            halfway += usize::from(bench.on_their_way().await != (0, 0) || !matches!(open, 0 | 800));
            // Upkeep of another process comes by.
            bench.advance(6);
            while bench.store.sweep().await.unwrap().more {}
            assert_eq!(bench.on_their_way().await, (0, 0));
            let open = bench.store.stats().await.unwrap().open;
            assert!(matches!(open, 0 | 800), "{open} of 800");
            if matches!(answer, Ok(Ok(true))) {
                answered += 1;
                assert_eq!(open, 800, "what was accepted is there");
            }
            if open == 0 {
                nothing += 1;
            } else {
                whole += 1;
            }
            let found = bench.deliver_all().await;
            let jobs: std::collections::BTreeSet<_> = found.values().flatten().map(|(_, job)| *job).collect();
            assert_eq!(jobs.len() as u64, open, "each once");
        });
    }
    println!(
        "of {rounds} killed: {whole} whole ({answered} answered), {nothing} nothing; {halfway} were left to upkeep"
    );
    assert!(whole > 0 && nothing > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_staged_and_never_accepted_is_removed() {
    let bench = Bench::new().await;
    let lanes = bench.connections("acme", 100).await;
    let core = &bench.store.core;
    let partition = core.keys.partition(&tenant("acme"));
    // Staged and never accepted: another process that begins to commit later is told to begin anew.
    let name: Base = *b"somebody---";
    let staging = String::from_utf8_lossy(&core.keys.staging(partition, &name)).into_owned();
    let staged = String::from_utf8_lossy(&core.keys.staged(partition)).into_owned();
    bench.server.command(&["HSET", &staging, "0", "part", "1", "part"]).await;
    let now = bench.clock.now().millis().to_string();
    bench.server.command(&["ZADD", &staged, &now, "somebody---"]).await;
    bench.store.sweep().await.unwrap();
    assert_eq!(bench.on_their_way().await, (1, 0), "it may still be on its way");
    bench.advance(5);
    bench.store.sweep().await.unwrap();
    assert_eq!(bench.on_their_way().await, (0, 0));
    assert_eq!(bench.server.command(&["EXISTS", &staging]).await, redis::Value::Int(0));
    assert_eq!(name.len(), BASE);
    // A server that is full takes nothing of it.
    bench.server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let refused = bench.store.ingest(bench.batch("acme", 5, &lanes)).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    bench.server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!((bench.on_their_way().await, bench.store.stats().await.unwrap().open), ((0, 0), 0));
}
