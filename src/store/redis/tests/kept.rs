//! What is left in the server after an erasure: no byte of it in any key.

use super::*;
use crate::domain::id::ChoreId;
use crate::store::{EventWalk, Kept, PlacedEvent, RecordId, Retried};

const PLANTED: &str = "planted.person@example.com";

/// Every key and everything in it.
async fn everything(server: &Server) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = redis::from_redis_value(server.command(&["KEYS", "*"]).await).unwrap();
    let mut all = Vec::new();
    for key in keys {
        all.extend_from_slice(&key);
        let kind: String =
            redis::from_redis_value(server.run(redis::cmd("TYPE").arg(&key)).await.unwrap()).unwrap();
        let mut read = match kind.as_str() {
            "string" => redis::cmd("GET"),
            "hash" => redis::cmd("HGETALL"),
            "set" => redis::cmd("SMEMBERS"),
            "zset" => redis::cmd("ZRANGE"),
            other => panic!("a key of kind {other}"),
        };
        read.arg(&key);
        if kind == "zset" {
            read.arg(0).arg(-1);
        }
        let parts: Vec<Vec<u8>> = match server.run(&read).await.unwrap() {
            redis::Value::Map(pairs) => pairs
                .into_iter()
                .flat_map(|(name, value)| [name, value])
                .map(|part| redis::from_redis_value(part).unwrap())
                .collect(),
            redis::Value::BulkString(text) => vec![text],
            list => redis::from_redis_value(list).unwrap(),
        };
        all.extend(parts.concat());
    }
    all
}

async fn is_kept(bench: &Bench, text: &str) -> bool {
    everything(&bench.server).await.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Writes events that tell of the person, tried and untried, and one that does not.
async fn plant(bench: &Bench, lane: ConnectionId) {
    for number in 0..6 {
        let key = EventKey::from_bits(bench.ids.next());
        let mut new = named_event(key, &format!("e{number}"), "acme", bench.clock.now(), &[lane]);
        let event = Arc::make_mut(&mut new.event);
        let mut document = event.document.tree().clone();
        document["data"] = json!({ "email": if number == 5 { "someone@example.com" } else { PLANTED } });
        event.document = document.into();
        let ingest = Ingest { idempotency: None, events: vec![new] };
        assert!(matches!(bench.store.ingest(ingest).await, Ok(Ingested::Stored(_))));
    }
    let leases = bench.lease(4).await;
    for (number, lease) in leases.iter().take(3).enumerate() {
        let next = if number == 0 { Next::Done(JobState::Dead) } else { Next::Due(bench.later(60)) };
        let mut settlement = settlement(lease, next);
        settlement.rendered = Some(Bytes::from(PLANTED));
        settlement.reason = format!("it said {PLANTED}");
        if let Some(attempt) = &mut settlement.attempt {
            attempt.body = PLANTED.to_owned();
        }
        assert_eq!(bench.store.settle(vec![settlement]).await, Ok(1));
    }
}

pub(super) async fn events(bench: &Bench) -> Vec<PlacedEvent> {
    let until = bench.later(1);
    let walk = EventWalk { tenant: tenant("acme"), after: None, since: None, until, limit: 100 };
    bench.store.events(walk).await.unwrap().items
}

#[tokio::test]
async fn an_erased_event_is_in_no_key() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 8).await;
    plant(&bench, lane).await;
    assert!(is_kept(&bench, PLANTED).await);
    let found = events(&bench).await;
    assert_eq!(found.len(), 6);
    for placed in found.iter().filter(|placed| placed.event.document.tree()["data"]["email"] == PLANTED) {
        assert_eq!(bench.store.erase(placed).await.unwrap().jobs, 1);
    }
    assert!(!is_kept(&bench, PLANTED).await);
    assert!(is_kept(&bench, "someone@example.com").await);
    let replay = ChoreId::from_bits(9);
    let retried = bench.store.replay(found[0].jobs[0].job.id, None, replay, false).await;
    assert_eq!(retried, Ok(Retried::Erased));
}

#[tokio::test]
async fn a_purged_tenant_is_in_no_key() {
    let bench = Bench::new().await;
    let record = Tenant { id: tenant("acme"), name: PLANTED.to_owned(), created: bench.clock.now() };
    bench.store.put(Record::Tenant(record), Expected::Absent).await.unwrap();
    let mut record = connection(&bench.ids, "acme", 8);
    record.name = PLANTED.to_owned();
    let lane = record.id;
    bench.store.put(Record::Connection(Box::new(record)), Expected::Absent).await.unwrap();
    plant(&bench, lane).await;
    bench.advance(200);
    assert!(bench.store.lease(9, SPAN).await.is_ok(), "what was leased went back");
    bench.store.delete(RecordId::Tenant(tenant("acme"))).await.unwrap();
    bench.advance(200);
    for _ in 0..100 {
        // Leases end by their deadline, and the lane's jobs are cancelled.
        bench.store.lease(9, SPAN).await.unwrap();
        while bench.store.sweep().await.unwrap().more {}
        let purged = bench.store.purge(&tenant("acme"), bench.later(1), None).await.unwrap();
        if purged.waiting == 0 && purged.removed == 0 {
            break;
        }
        bench.advance(10);
    }
    assert!(!is_kept(&bench, PLANTED).await);
    assert!(!is_kept(&bench, "someone@example.com").await);
    let keys: Vec<String> = {
        let keys: Vec<Vec<u8>> = redis::from_redis_value(bench.server.command(&["KEYS", "*"]).await).unwrap();
        keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    };
    let of_events = |key: &&String| {
        ["e:", "t:", "c:", "i:", "n:", "k:"].iter().any(|kind| key.contains(&format!("}}:{kind}")))
    };
    assert!(!keys.iter().any(|key| of_events(&key)), "nothing of its events is left: {keys:?}");
}
