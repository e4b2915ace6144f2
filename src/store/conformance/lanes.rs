//! Leasing: order, deadlines, caps, pauses, fairness, waking.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::job::Outcome;
use crate::store::LeaseRef;

use super::world::{SPAN, World, ids_of};

pub async fn jobs_come_in_the_order_of_writing(world: World) {
    let to = world.connect("acme", 100).await;
    world.fill("acme", to, 50).await;
    let leases = world.lease(100).await;
    assert_eq!(leases.len(), 50);
    assert!(ids_of(&leases).is_sorted());
    assert!(world.store.lease(0, SPAN).await.unwrap().is_empty());
}

pub async fn a_lease_hides_a_job_until_it_runs_out(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 2).await;
    let first = world.lease_for(1, Duration::from_secs(10)).await;
    assert_eq!(first[0].deadline, world.now().plus(Duration::from_secs(10)));
    let second = world.lease(5).await;
    assert_ne!(first[0].job.id, second[0].job.id);
    world.advance_secs(9);
    assert!(world.lease(5).await.is_empty());
    let stats = world.stats().await;
    assert_eq!((stats.open, stats.leased), (2, 2));
    world.advance_secs(1);
    let again = world.lease(5).await;
    assert_eq!(ids_of(&again), ids_of(&first));
    assert_ne!(again[0].token, first[0].token);
    assert_eq!(world.settle(&first, Outcome::Delivered).await, 0, "its lease was lost");
    assert_eq!(world.settle(&again, Outcome::Delivered).await, 1);
    assert_eq!(world.settle(&second, Outcome::Delivered).await, 1);
    assert_eq!(world.stats().await.open, 0);
}

pub async fn renewal_moves_the_deadline(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 1).await;
    let lease = world.lease_for(1, Duration::from_secs(10)).await;
    world.advance_secs(9);
    world.store.renew(&[lease[0].reference()], Duration::from_secs(10)).await.unwrap();
    world.advance_secs(9);
    assert!(world.lease(5).await.is_empty());
    let wrong = LeaseRef { token: lease[0].token.wrapping_add(1), ..lease[0].reference() };
    world.store.renew(&[wrong], SPAN).await.unwrap();
    world.advance_secs(1);
    let again = world.lease(5).await;
    assert_eq!(again.len(), 1);
    world.store.renew(&[lease[0].reference()], Duration::from_hours(1)).await.unwrap();
    world.advance_secs(SPAN.as_secs());
    assert_eq!(world.lease(5).await.len(), 1, "the lost lease renewed nothing");
}

pub async fn release_puts_a_job_back_to_its_place(world: World) {
    for concurrency in [1, 3] {
        let to = world.connect("acme", concurrency).await;
        world.fill("acme", to, 6).await;
        let leases = world.lease(concurrency as usize).await;
        let wrong = LeaseRef { token: leases[0].token.wrapping_sub(1), ..leases[0].reference() };
        world.store.release(&[wrong]).await.unwrap();
        assert!(world.lease(9).await.is_empty(), "no lease has that token");
        let refs: Vec<LeaseRef> = leases.iter().rev().map(crate::store::Lease::reference).collect();
        world.store.release(&refs).await.unwrap();
        assert_eq!(world.settle(&leases, Outcome::Delivered).await, 0);
        let again = world.lease(9).await;
        assert_eq!(ids_of(&again), ids_of(&leases));
        assert_eq!(again[0].job.tries, 0);
        world.store.delete(crate::store::RecordId::Connection(to)).await.unwrap();
    }
}

pub async fn concurrency_is_a_cap_that_can_be_changed(world: World) {
    let to = world.connect("acme", 3).await;
    world.fill("acme", to, 60).await;
    let three = world.lease(50).await;
    assert_eq!(three.len(), 3);
    assert_eq!(world.stats().await.lanes.full, 1);
    world.change(to, |connection| connection.concurrency = 2).await;
    assert_eq!(world.settle(&three[..1], Outcome::Delivered).await, 1);
    assert!(world.lease(50).await.is_empty(), "two are under way and two may be");
    world.change(to, |connection| connection.concurrency = 4).await;
    // It may take successes to get there.
    let mut held = three[1..].to_vec();
    let mut most = 0;
    for _ in 0..10 {
        held.extend(world.lease(50).await);
        assert!(held.len() <= 4, "{} under way", held.len());
        most = most.max(held.len());
        assert_eq!(world.settle(&held, Outcome::Delivered).await, held.len());
        held.clear();
    }
    assert_eq!(most, 4);
}

pub async fn a_strict_lane_waits_for_its_first_job(world: World) {
    let to = world.connect("acme", 1).await;
    world.fill("acme", to, 3).await;
    let first = world.lease(9).await;
    assert_eq!(first.len(), 1);
    assert_eq!(world.settle(&first, Outcome::Retry).await, 1);
    assert!(world.lease(9).await.is_empty(), "those behind it wait");
    assert_eq!(world.stats().await.lanes.waiting, 1);
    world.advance_secs(4);
    assert!(world.lease(9).await.is_empty());
    // Neither a pause nor a crash lets another one pass.
    world.pause(to).await;
    world.resume(to).await;
    let world = world.crash().await;
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(1);
    let mut order = Vec::new();
    for _ in 0..3 {
        let leases = world.lease(9).await;
        order.extend(ids_of(&leases));
        assert_eq!(world.settle(&leases, Outcome::Delivered).await, 1);
    }
    assert_eq!(order[0], first[0].job.id);
    assert!(order.is_sorted());
}

pub async fn a_strict_lane_lets_nobody_pass_who_comes_later(world: World) {
    let to = world.connect("acme", 1).await;
    world.fill("acme", to, 1).await;
    let first = world.lease(9).await;
    assert_eq!(world.settle(&first, Outcome::Retry).await, 1);
    // Whatever made the engine forget that the first one waits.
    world.pause(to).await;
    world.resume(to).await;
    world.fill("acme", to, 1).await;
    assert!(world.lease(9).await.is_empty());
    let world = world.crash().await;
    world.fill("acme", to, 1).await;
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(5);
    assert_eq!(ids_of(&world.lease(9).await), ids_of(&first));
}

pub async fn a_paused_lane_keeps_its_jobs_and_its_order(world: World) {
    let to = world.connect("acme", 5).await;
    world.fill("acme", to, 3).await;
    let lease = world.lease(1).await;
    world.pause(to).await;
    world.fill("acme", to, 2).await;
    assert!(world.lease(9).await.is_empty());
    let stats = world.stats().await;
    assert_eq!((stats.open, stats.lanes.paused), (5, 1));
    assert_eq!(world.settle(&lease, Outcome::Retry).await, 1, "what was under way is settled");
    let world = world.crash().await;
    world.advance_secs(100);
    assert!(world.lease(9).await.is_empty());
    world.resume(to).await;
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 5);
    let fresh: Vec<_> =
        leases.iter().filter(|lease| lease.job.tries == 0).map(|lease| lease.job.id).collect();
    assert!(fresh.is_sorted() && fresh.len() == 4);
}

pub async fn a_flood_does_not_starve_others(world: World) {
    let flood = world.connect("big", 256).await;
    world.fill("big", flood, 3_000).await;
    let mut small = Vec::new();
    for tenant in ["a", "b", "c"] {
        let to = world.connect(tenant, 256).await;
        world.fill(tenant, to, 60).await;
        small.push(to);
    }
    let mut got: HashMap<_, usize> = HashMap::new();
    for _ in 0..8 {
        let leases = world.lease(60).await;
        assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
        for lease in leases {
            *got.entry(lease.job.connection).or_default() += 1;
        }
    }
    for to in small {
        assert_eq!(got.get(&to), Some(&60), "480 leases over four lanes hold all 60 of each small one");
    }
    assert_eq!(got[&flood], 300);
}

pub async fn waiting_for_work_ends_when_there_is_some(world: World) {
    let to = world.connect("acme", 1).await;
    let wait = |world: &World| {
        let store = Arc::clone(&world.store);
        tokio::spawn(async move {
            loop {
                let leases = store.lease(1, SPAN).await.unwrap();
                if let Some(lease) = leases.into_iter().next() {
                    return lease;
                }
                store.wait_for_work().await;
            }
        })
    };
    let waiter = wait(&world);
    yield_some().await;
    assert!(!waiter.is_finished());
    world.fill("acme", to, 2).await;
    let first = waiter.await.unwrap();

    // Woken by a settlement that makes room, by the time of a retry, by the end of a lease, by a release, by a resume.
    let waiter = wait(&world);
    yield_some().await;
    assert_eq!(world.settle(std::slice::from_ref(&first), Outcome::Retry).await, 1);
    yield_some().await;
    assert!(!waiter.is_finished());
    world.advance_secs(6);
    let again = waiter.await.unwrap();
    assert_eq!(again.job.id, first.job.id);

    let waiter = wait(&world);
    yield_some().await;
    world.advance_secs(SPAN.as_secs());
    let lost = waiter.await.unwrap();
    assert_eq!(lost.job.id, first.job.id);

    let waiter = wait(&world);
    yield_some().await;
    world.store.release(&[lost.reference()]).await.unwrap();
    let released = waiter.await.unwrap();
    assert_eq!(released.job.id, first.job.id);

    world.pause(to).await;
    assert_eq!(world.settle(&[released], Outcome::Delivered).await, 1);
    let waiter = wait(&world);
    yield_some().await;
    assert!(!waiter.is_finished());
    world.resume(to).await;
    assert_ne!(waiter.await.unwrap().job.id, first.job.id);
}

pub async fn every_sleeper_is_woken_while_work_remains(world: World) {
    let to = world.connect("acme", 64).await;
    let sleepers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&world.store);
            tokio::spawn(async move {
                loop {
                    if let Some(lease) = store.lease(1, SPAN).await.unwrap().pop() {
                        return lease.job.id;
                    }
                    store.wait_for_work().await;
                }
            })
        })
        .collect();
    yield_some().await;
    // One write, one signal: each of them must still find its job.
    world.fill("acme", to, 8).await;
    let mut found = Vec::new();
    for sleeper in sleepers {
        found.push(
            tokio::time::timeout(Duration::from_secs(30), sleeper).await.expect("it sleeps on").unwrap(),
        );
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 8);
}

/// Lets other tasks run; real threads of an engine may still be behind, so nothing may rest on it but a negative.
async fn yield_some() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
