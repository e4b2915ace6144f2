//! Resuming without the backlog: what nobody wants is cancelled before the lane gives anything, whatever its length.

use std::time::Duration;

use crate::domain::connection::{ConnectionState, unwanted};
use crate::domain::id::ConnectionId;
use crate::domain::job::{JobState, Outcome};
use crate::domain::time::Timestamp;
use crate::store::{Delivery, Record, RecordId, Retried};

use super::world::{World, ids_of};

/// Jobs that take several steps of any engine.
const LONG: usize = 1_300;

async fn resume_without(world: &World, id: ConnectionId, before: Timestamp) {
    world
        .change(id, |connection| {
            connection.state = ConnectionState::Active;
            connection.unwanted_before = Some(before);
        })
        .await;
}

async fn is_clearing(world: &World, id: ConnectionId) -> bool {
    let changes = world.store.changes(0, usize::MAX).await.unwrap();
    let found = changes.into_iter().find(|change| change.id == RecordId::Connection(id)).unwrap();
    let Some(Record::Connection(connection)) = found.record else { panic!("{id} is gone") };
    connection.unwanted_before.is_some()
}

async fn cancelled(world: &World) -> Vec<Delivery> {
    let all = world.deliveries().await;
    all.into_iter().filter(|delivery| delivery.state == JobState::Cancelled).collect()
}

pub async fn what_is_not_wanted_is_cancelled_in_steps(world: World) {
    let (to, other) = (world.connect("acme", 8).await, world.connect("acme", 8).await);
    world.fill("acme", to, 1).await;
    let waits = world.lease(1).await;
    assert_eq!(world.settle(&waits, Outcome::Retry).await, 1);
    world.pause(to).await;
    world.fill("acme", to, LONG).await;
    world.advance_secs(60);
    let before = world.now();
    world.fill("acme", to, 20).await;
    world.advance_secs(60);
    resume_without(&world, to, before).await;
    world.fill("acme", to, 1).await;
    world.fill("acme", other, 1).await;
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 1, "it gives nothing before the rest is cancelled");
    assert_eq!(leases[0].job.connection, other, "and disturbs nobody");
    assert_eq!(world.stats().await.lanes.paused, 1);
    let step = world.store.sweep().await.unwrap();
    assert!(step.more && step.cancelled > 0 && step.cancelled <= 500, "one bounded step: {step:?}");
    assert!(world.lease(9).await.is_empty(), "half done is not done");
    // A crash in between loses neither what is done nor what is left.
    let world = world.crash().await;
    assert_eq!(step.cancelled + world.sweep().await.cancelled, LONG + 1);
    assert!(!is_clearing(&world, to).await);
    let gone = cancelled(&world).await;
    assert_eq!(gone.len(), LONG + 1);
    assert!(gone.iter().all(|delivery| delivery.job.created < before && delivery.reason == unwanted(before)));
    let leases = world.lease(90).await;
    let given = leases.iter().filter(|lease| lease.job.connection == to);
    assert!(given.clone().count() == 8 && given.clone().all(|lease| lease.job.created >= before));
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
    // Who wants one after all replays it, and it stays wanted.
    let again = gone[0].job.id;
    assert_eq!(world.store.retry(again, None).await, Ok(Retried::Queued));
    assert_eq!(world.sweep().await.cancelled, 0);
    world.change(to, |connection| connection.name = "renamed".to_owned()).await;
    assert_eq!(world.sweep().await.cancelled, 0);
    let mut given = Vec::new();
    loop {
        let leases = world.lease(90).await;
        if leases.is_empty() {
            break;
        }
        given.extend(ids_of(&leases));
        world.settle(&leases, Outcome::Delivered).await;
    }
    assert!(given.contains(&again));
    assert_eq!(world.stats().await.open, 0);
}

pub async fn what_was_under_way_is_cancelled_when_it_comes_back(world: World) {
    let to = world.connect("acme", 8).await;
    world.fill("acme", to, 6).await;
    let leases = world.lease(4).await;
    world.pause(to).await;
    world.advance_secs(1);
    resume_without(&world, to, world.now()).await;
    world.sweep().await;
    assert!(is_clearing(&world, to).await, "what is under way may come back");
    world.fill("acme", to, 1).await;
    assert!(world.lease(9).await.is_empty());
    assert_eq!(world.settle(&leases[..1], Outcome::Delivered).await, 1);
    assert_eq!(world.settle(&leases[1..2], Outcome::Retry).await, 1);
    assert_eq!(world.settle(&leases[2..3], Outcome::Throttled).await, 1);
    world.sweep().await;
    assert!(is_clearing(&world, to).await);
    world.store.release(&[leases[3].reference()]).await.unwrap();
    world.sweep().await;
    assert!(!is_clearing(&world, to).await);
    assert_eq!(cancelled(&world).await.len(), 5);
    world.advance(Duration::from_hours(1));
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 1, "what came since");
    assert_eq!(world.delivery(leases[0].job.id).await.state, JobState::Queued);
}

pub async fn an_empty_backlog_holds_nobody_back(world: World) {
    let to = world.connect("acme", 1).await;
    world.pause(to).await;
    world.advance_secs(1);
    resume_without(&world, to, world.now()).await;
    assert_eq!(world.sweep().await.cancelled, 0);
    assert!(!is_clearing(&world, to).await);
    world.fill("acme", to, 1).await;
    assert_eq!(world.lease(9).await.len(), 1);
}

pub async fn a_pause_in_between_and_a_closing_are_no_obstacle(world: World) {
    for closes in [false, true] {
        let to = world.connect("acme", 8).await;
        world.pause(to).await;
        world.fill("acme", to, LONG).await;
        world.advance_secs(1);
        resume_without(&world, to, world.now()).await;
        let first = world.store.sweep().await.unwrap().cancelled;
        if closes {
            world.close_connection(to).await;
        } else {
            world.pause(to).await;
        }
        assert_eq!(first + world.sweep().await.cancelled, LONG);
        assert_eq!(world.stats().await.open, 0);
        if !closes {
            assert!(!is_clearing(&world, to).await);
            world.resume(to).await;
            world.fill("acme", to, 1).await;
            assert_eq!(world.lease(9).await.len(), 1);
            world.pause(to).await;
        }
        let leased = world.stats().await.leased;
        assert_eq!(leased, u64::from(!closes));
        world.store.delete(RecordId::Connection(to)).await.unwrap();
        world.advance(Duration::from_hours(1));
        world.lease(9).await;
        world.sweep().await;
    }
}
