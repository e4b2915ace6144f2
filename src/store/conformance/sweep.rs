//! Upkeep: retention and closed lanes.

use std::time::Duration;

use crate::domain::job::{JobState, Outcome};
use crate::store::{DeliveryQuery, RecordId};

use super::world::{RETENTION, SHORT, SPAN, World, of_type, tenant_id};

pub async fn what_ended_long_ago_is_removed(world: World) {
    let to = world.connect("acme", 2_000).await;
    world.fill("acme", to, 1_200).await;
    let lonely = world.event("acme", &[]);
    world.ingest(vec![lonely.clone()]).await;
    let leases = world.lease(1_200).await;
    assert_eq!(world.settle(&leases[2..], Outcome::Delivered).await, 1_198);
    world.clock.advance(RETENTION);
    world.advance_secs(1);
    let again = world.lease(1).await;
    assert_eq!(world.settle(&again, Outcome::Retry).await, 1);
    // 1,198 jobs with their events and the one without jobs; the two open ones stay.
    assert_eq!(world.sweep().await.removed, 2 * 1_198 + 1);
    assert_eq!(world.deliveries().await.len(), 2);
    assert_eq!(world.store.event(&tenant_id("acme"), &lonely.event.id).await, Ok(None));
    assert_eq!(world.store.delivery(leases[5].job.id).await, Ok(None));
    // What ends late is kept from then on, whenever it was made.
    world.advance_secs(10);
    let late = world.lease(2).await;
    assert_eq!(world.settle(&late, Outcome::Rejected).await, 2);
    assert_eq!(world.sweep().await.removed, 0);
    assert_eq!(world.deliveries().await.len(), 2);
    world.clock.advance(RETENTION);
    world.advance_secs(1);
    assert_eq!(world.sweep().await.removed, 4);
    assert_eq!(world.deliveries().await.len(), 0);
}

pub async fn types_are_kept_for_their_own_time(world: World) {
    let to = world.connect("acme", 50).await;
    let of = |kind: &str, to: &[_]| of_type(world.event("acme", to), kind);
    // Of each type one with a job and one without; and one that is still open when its time comes.
    let events = ["short.one", "long.one"].map(|kind| [of(kind, &[to]), of(kind, &[])]).concat();
    world.ingest(events).await;
    let leases = world.lease(2).await;
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 2);
    world.ingest(vec![of("short.two", &[to])]).await;
    assert_eq!(world.sweep().await.removed, 0);
    world.advance(SHORT + Duration::from_secs(1));
    world.sweep().await;
    let kinds = async || {
        let events = world.store.export(None, 10).await.unwrap().events;
        let mut kinds: Vec<String> = events.iter().map(|kept| kept.event.kind.clone()).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(kinds().await, ["long.one", "long.one", "short.two"]);
    assert_eq!(world.deliveries().await.len(), 2);
    // What ended late goes a day after that, and at the next round.
    let late = world.lease(1).await;
    assert_eq!(world.settle(&late, Outcome::Delivered).await, 1);
    world.sweep().await;
    world.advance(SHORT + Duration::from_secs(1));
    world.sweep().await;
    assert_eq!(kinds().await, ["long.one", "long.one"]);
    world.advance(RETENTION);
    world.sweep().await;
    assert_eq!(kinds().await, [""; 0]);
}

pub async fn a_closed_lane_is_cancelled_in_steps(world: World) {
    world.put_tenant("acme").await;
    let mut lanes = Vec::new();
    for _ in 0..4 {
        let to = world.connect("acme", 4).await;
        world.fill("acme", to, 700).await;
        lanes.push(to);
    }
    let survivor = world.connect("other", 4).await;
    world.fill("other", survivor, 5).await;
    world.close_connection(lanes[0]).await;
    world.store.delete(RecordId::Tenant(tenant_id("acme"))).await.unwrap();
    assert_eq!(world.stats().await.open, 4 * 700 + 5);
    let step = world.store.sweep().await.unwrap();
    assert!(step.more && step.cancelled < 700, "one step is bounded: {step:?}");
    // A crash in the middle forgets nothing.
    let world = world.crash().await;
    assert_eq!(world.sweep().await.cancelled + step.cancelled, 4 * 700);
    assert_eq!(world.stats().await.open, 5);
    let query = DeliveryQuery { state: Some(JobState::Cancelled), limit: 5_000, ..DeliveryQuery::default() };
    let cancelled = world.store.deliveries(query).await.unwrap().items;
    assert_eq!(cancelled.len(), 4 * 700);
    assert!(cancelled.iter().all(|delivery| !delivery.reason.is_empty() && delivery.finished.is_some()));
}

pub async fn a_lease_that_outlives_its_connection_is_cancelled(world: World) {
    let to = world.connect("acme", 3).await;
    world.fill("acme", to, 3).await;
    let leases = world.lease(3).await;
    world.store.delete(RecordId::Connection(to)).await.unwrap();
    assert_eq!(world.sweep().await.cancelled, 0, "they may still be delivered");
    assert_eq!(world.settle(&leases[..1], Outcome::Delivered).await, 1);
    world.store.release(&[leases[1].reference()]).await.unwrap();
    world.clock.advance(SPAN + Duration::from_secs(1));
    assert!(world.lease(9).await.is_empty());
    assert_eq!(world.sweep().await.cancelled, 2);
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 0);
    assert_eq!(world.stats().await, crate::store::Stats::default());
}

pub async fn upkeep_is_called_for_in_time(world: World) {
    let to = world.connect("acme", 3).await;
    world.fill("acme", to, 3).await;
    called_for(&world).await;
    world.sweep().await;
    world.close_connection(to).await;
    called_for(&world).await;
    assert_eq!(world.sweep().await.cancelled, 3);
}

/// Waits while its clock goes on; a process that is not called in some seconds would leave things undone.
async fn called_for(world: &World) {
    let store = std::sync::Arc::clone(&world.store);
    let waiting = tokio::spawn(async move { store.wait_for_upkeep().await });
    for _ in 0..100 {
        if waiting.is_finished() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.advance_secs(1);
    }
    panic!("nobody was called");
}
