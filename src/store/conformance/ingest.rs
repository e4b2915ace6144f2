//! Taking events in: dedupe, idempotency, fan-out.

use crate::domain::id::ConnectionId;
use crate::store::{Accepted, Dedupe, Ingest, Ingested, NewEvent, RecordId};

use super::world::{World, ids_of, tenant_id};

fn key(key: u8, content: u8) -> Dedupe {
    Dedupe { key: [key; 16], content: [content; 16] }
}

fn stored(event: &NewEvent, jobs: u32, duplicate: bool) -> Accepted {
    Accepted::Stored { id: event.event.id.clone(), jobs, duplicate }
}

pub async fn a_repeat_gets_the_first_answer_and_writes_nothing(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.dedupe = Some(key(1, 1));
    let other = world.event("acme", &[to, to]);
    let both = vec![event.clone(), event.clone(), other.clone()];
    let first = vec![stored(&event, 1, false), stored(&event, 1, true), stored(&other, 2, false)];
    let ingest = Ingest { idempotency: Some(key(2, 2)), events: both };
    assert_eq!(world.store.ingest(ingest.clone()).await, Ok(Ingested::Stored(first.clone())));
    assert_eq!(world.store.ingest(ingest).await, Ok(Ingested::Repeated(first)));
    assert_eq!(world.ingest(vec![event.clone()]).await, [stored(&event, 1, true)]);
    assert_eq!(world.stats().await.open, 3);
    assert_eq!(world.lease(10).await.len(), 3);
}

pub async fn a_large_batch_tells_its_repeats(world: World) {
    const EVENTS: u32 = 300;
    let to = world.connect("acme", 256).await;
    let named = |number: u32, content: u8| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let dedupe = Some(Dedupe { key, content: [content; 16] });
        NewEvent { dedupe, ..world.event_named("acme", &format!("event-{number}"), &[to]) }
    };
    world.ingest(vec![named(3, 1), named(200, 1)]).await;
    let mut events: Vec<NewEvent> = (0..EVENTS).map(|number| named(number, 1)).collect();
    // One that was known before with other content; two that come twice, one of them with other content.
    events[200] = named(200, 2);
    events[250] = named(10, 1);
    events[290] = named(20, 2);
    let id = |event: &NewEvent| event.event.id.clone();
    let expected: Vec<Accepted> = (0..)
        .zip(&events)
        .map(|(at, event)| match at {
            3 | 250 => stored(event, 1, true),
            200 | 290 => Accepted::IdReused { id: id(event) },
            _ => stored(event, 1, false),
        })
        .collect();
    let ingest = Ingest { idempotency: Some(key(9, 1)), events: events.clone() };
    assert_eq!(world.store.ingest(ingest.clone()).await, Ok(Ingested::Stored(expected.clone())));
    assert_eq!(world.stats().await.open, u64::from(EVENTS) - 4 + 2);
    assert_eq!(world.store.ingest(ingest).await, Ok(Ingested::Repeated(expected)));
    // One by one and all at once, without a key of the request.
    assert_eq!(world.ingest(vec![events[10].clone()]).await, [stored(&events[10], 1, true)]);
    let again = world.ingest(events).await;
    let is_known = |one: &Accepted| {
        matches!(one, Accepted::Stored { jobs: 1, duplicate: true, .. } | Accepted::IdReused { .. })
    };
    assert!(again.iter().all(is_known), "{again:?}");
    assert_eq!(world.stats().await.open, u64::from(EVENTS) - 4 + 2);
    assert_eq!(world.lease(500).await.len(), 256);
}

pub async fn the_same_key_with_other_content_is_refused(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.dedupe = Some(key(1, 1));
    world.ingest(vec![event.clone()]).await;
    event.dedupe = Some(key(1, 9));
    let id = event.event.id.clone();
    assert_eq!(world.ingest(vec![event]).await, [Accepted::IdReused { id }]);

    let ingest =
        |content| Ingest { idempotency: Some(key(5, content)), events: vec![world.event("acme", &[to])] };
    assert!(matches!(world.store.ingest(ingest(1)).await, Ok(Ingested::Stored(_))));
    assert_eq!(world.store.ingest(ingest(2)).await, Ok(Ingested::KeyReused));
    assert_eq!(world.stats().await.open, 2);
}

pub async fn keys_are_forgotten_after_a_day(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.dedupe = Some(key(1, 1));
    world.ingest(vec![event.clone()]).await;
    world.advance_secs(24 * 3_600 - 1);
    assert_eq!(world.ingest(vec![event.clone()]).await, [stored(&event, 1, true)]);
    world.advance_secs(1);
    assert_eq!(world.ingest(vec![event.clone()]).await, [stored(&event, 1, false)]);
    assert_eq!(world.ingest(vec![event.clone()]).await, [stored(&event, 1, true)], "remembered anew");
    assert_eq!(world.stats().await.open, 2);
}

pub async fn an_event_fans_out_and_reads_back(world: World) {
    let mut to = Vec::new();
    for _ in 0..10 {
        to.push(world.connect("acme", 4).await);
    }
    let new = world.event("acme", &to);
    world.ingest(vec![new.clone(), world.event("acme", &[])]).await;
    let leases = world.lease(20).await;
    let mut lanes: Vec<ConnectionId> = leases.iter().map(|lease| lease.job.connection).collect();
    lanes.sort_unstable();
    to.sort_unstable();
    assert_eq!(lanes, to);
    for lease in &leases {
        assert_eq!(*lease.event, *new.event);
        assert_eq!((lease.job.event, &lease.job.tenant), (new.event.key, &new.event.tenant));
        assert_eq!((lease.job.attempts, lease.job.tries, &lease.rendered), (0, 0, &None));
        assert_eq!(lease.job.created, world.now());
    }
    let tenant = tenant_id("acme");
    assert_eq!(world.store.event(&tenant, &new.event.id).await, Ok(Some((*new.event).clone())));
    assert_eq!(world.store.event(&tenant, "none").await, Ok(None));
    assert_eq!(world.store.event(&tenant_id("other"), &new.event.id).await, Ok(None));
    // The newest of that id.
    let again = world.event_called("acme", &new.event.id, &[], crate::domain::id::EventKey::from_bits(5));
    world.ingest(vec![again.clone()]).await;
    assert_eq!(world.store.event(&tenant, &new.event.id).await, Ok(Some((*again.event).clone())));
    assert_eq!(ids_of(&world.lease(20).await), []);
}

pub async fn closed_and_unknown_connections_get_no_jobs(world: World) {
    let closed = world.connect("acme", 4).await;
    let deleted = world.connect("acme", 4).await;
    let open = world.connect("acme", 4).await;
    let unknown = ConnectionId::from_bits(1);
    world.close_connection(closed).await;
    assert_eq!(world.store.delete(RecordId::Connection(deleted)).await, Ok(true));
    let event = world.event("acme", &[closed, deleted, unknown, open]);
    assert_eq!(world.ingest(vec![event.clone()]).await, [stored(&event, 1, false)]);
    let leases = world.lease(9).await;
    assert_eq!(leases.iter().map(|lease| lease.job.connection).collect::<Vec<_>>(), [open]);
    assert_eq!(world.deliveries().await.len(), 1);
}
