//! Crashes and ends.

use std::time::Duration;

use crate::domain::job::Outcome;
use crate::store::{Expected, Ingest, Record, StoreError};

use super::world::{SPAN, World};

pub async fn everything_accepted_is_there_again(world: World) {
    let strict = world.connect("acme", 1).await;
    let wide = world.connect("acme", 50).await;
    world.fill("acme", strict, 5).await;
    world.fill("acme", wide, 5).await;
    let leases = world.lease(20).await;
    assert_eq!(leases.len(), 6);
    let delivered = leases[0].job.id;
    assert_eq!(world.settle(&leases[..1], Outcome::Delivered).await, 1);
    let stats = world.stats().await;
    assert_eq!((stats.open, stats.leased), (9, 5));
    let world = world.crash().await;
    assert_eq!(world.stats().await.open, 9);
    // Once every old lease has run out, its settlement counts for nothing.
    world.clock.advance(SPAN);
    let again = world.lease(20).await;
    assert_eq!(again.len(), 6);
    assert!(again.iter().all(|lease| lease.job.id != delivered));
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 0);
    assert_eq!(world.settle(&again, Outcome::Delivered).await, 6);
    // Ids go on rising, whatever was written before.
    let newest = world.deliveries().await[0].job.id;
    world.fill("acme", wide, 1).await;
    assert!(world.deliveries().await[0].job.id > newest);
}

pub async fn waits_and_pauses_outlive_a_crash(world: World) {
    let waiting = world.connect("acme", 2).await;
    let paused = world.connect("acme", 2).await;
    let due = world.connect("acme", 2).await;
    for to in [waiting, paused, due] {
        world.fill("acme", to, 1).await;
    }
    for lease in world.lease(3).await {
        let settlement = if lease.job.connection == waiting {
            world.settlement(&lease, Outcome::Throttled, Some(100))
        } else if lease.job.connection == paused {
            world.settlement(&lease, Outcome::AuthFailed, None)
        } else {
            world.settlement(&lease, Outcome::Retry, None)
        };
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
    }
    let world = world.crash().await;
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(5);
    let leases = world.lease(9).await;
    assert_eq!(leases.iter().map(|lease| lease.job.connection).collect::<Vec<_>>(), [due]);
    assert_eq!((leases[0].job.attempts, leases[0].job.tries), (1, 1));
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 1);
    world.advance_secs(94);
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(1);
    assert_eq!(world.lease(9).await[0].job.connection, waiting);
    world.resume(paused).await;
    assert_eq!(world.lease(9).await[0].job.connection, paused);
}

pub async fn a_clock_set_back_after_a_crash_finds_the_wait_again(world: World) {
    let to = world.connect("acme", 2).await;
    world.fill("acme", to, 2).await;
    let lease = world.lease(1).await;
    let throttled = world.settlement(&lease[0], Outcome::Throttled, Some(1));
    assert_eq!(world.store.settle(vec![throttled]).await, Ok(1));
    world.advance_secs(1);
    world.sweep().await;
    let world = world.crash().await;
    world.clock.set(world.now().minus(Duration::from_millis(1)));
    assert!(world.lease(9).await.is_empty());
    world.advance(Duration::from_millis(1));
    assert_eq!(world.lease(9).await.len(), 2);
}

pub async fn a_closed_store_says_so(world: World) {
    let to = world.connect("acme", 2).await;
    world.fill("acme", to, 2).await;
    let lease = world.lease(1).await;
    let store = world.store.clone();
    assert_eq!(store.health().await, Ok(()));
    store.close().await;
    store.close().await;
    let closed = StoreError::Closed;
    let refs = [lease[0].reference()];
    let settlement = world.settlement(&lease[0], Outcome::Delivered, None);
    let connection = Record::Connection(Box::new(world.connection("acme", 1)));
    let ingest = Ingest { idempotency: None, events: vec![world.event("acme", &[to])] };
    assert_eq!(store.ingest(ingest).await, Err(closed.clone()));
    assert_eq!(store.lease(1, SPAN).await.map(|leases| leases.len()), Err(closed.clone()));
    assert_eq!(store.settle(vec![settlement]).await, Err(closed.clone()));
    assert_eq!(store.renew(&refs, SPAN).await, Err(closed.clone()));
    assert_eq!(store.release(&refs).await, Err(closed.clone()));
    assert_eq!(store.put(connection, Expected::Absent).await, Err(closed.clone()));
    assert_eq!(store.changes(0, 1).await, Err(closed.clone()));
    assert_eq!(store.delivery(lease[0].job.id).await, Err(closed.clone()));
    assert_eq!(store.retry(lease[0].job.id, None).await, Err(closed.clone()));
    assert_eq!(store.sweep().await, Err(closed.clone()));
    assert_eq!(store.stats().await, Err(closed.clone()));
    assert_eq!(store.health().await, Err(closed));
    // Nobody is left waiting.
    store.wait_for_work().await;
    store.wait_for_change(u64::MAX >> 1).await;
    drop(store);
    let world = world.crash().await;
    assert_eq!(world.stats().await.open, 2);
}
