//! Breakers: what failures in a row do to a lane, and what they leave alone.

use std::time::Duration;

use crate::domain::breaker::{BREAKER, BreakerPolicy, Failing, LONGEST_PROBE, probe_delay};
use crate::domain::connection::ConnectionState;
use crate::domain::id::ConnectionId;
use crate::domain::job::{JobState, Outcome};
use crate::store::{Lease, Record};

use super::world::World;

/// Fails until the breaker has just opened.
async fn open(world: &World) -> u32 {
    let opens_after = BreakerPolicy::default().opens_after;
    for failures in 0..opens_after {
        let lease = world.lease(1).await;
        assert_eq!(lease[0].failing.count, failures);
        assert_eq!(world.settle(&lease, Outcome::Retry).await, 1);
    }
    assert!(world.lease(9).await.is_empty(), "the breaker is open");
    opens_after
}

/// Waits for the next probe, and gives it.
async fn probe(world: &World, failures: u32) -> Vec<Lease> {
    let delay = probe_delay(&BreakerPolicy::default(), failures, 0.0);
    world.advance(delay.saturating_sub(Duration::from_millis(1)));
    assert!(world.lease(9).await.is_empty(), "it waits {delay:?} after {failures} failures");
    world.advance(Duration::from_millis(1));
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 1, "one probe");
    assert_eq!(leases[0].failing.count, failures);
    assert!(world.lease(9).await.is_empty(), "one probe at a time");
    leases
}

async fn state(world: &World, id: ConnectionId) -> ConnectionState {
    let changes = world.store.changes(0, 1_000).await.unwrap();
    let found = changes.into_iter().rev().find_map(|change| match change.record {
        Some(Record::Connection(connection)) if connection.id == id => Some(connection.state),
        _ => None,
    });
    found.unwrap()
}

pub async fn failures_in_a_row_open_it_and_it_probes_one_at_a_time(world: World) {
    for concurrency in [1, 8] {
        let to = world.connect("acme", concurrency).await;
        let jobs = 40;
        world.fill("acme", to, jobs).await;
        let mut failures = if concurrency == 1 {
            // A strict lane also waits for its first job's retry.
            for count in 0..5 {
                let lease = world.lease(1).await;
                assert_eq!(lease[0].failing.count, count);
                assert_eq!(world.settle(&lease, Outcome::Ambiguous).await, 1);
                world.store.retry(lease[0].job.id, None).await.unwrap();
            }
            5
        } else {
            open(&world).await
        };
        for _ in 0..9 {
            let leases = probe(&world, failures).await;
            assert_eq!(world.settle(&leases, Outcome::Retry).await, 1);
            world.store.retry(leases[0].job.id, None).await.unwrap();
            failures += 1;
        }
        assert_eq!(probe_delay(&BreakerPolicy::default(), failures, 0.0), LONGEST_PROBE);
        let spent: u32 = world.deliveries().await.iter().map(|delivery| delivery.job.tries).sum();
        assert_eq!(spent, failures, "who waits behind it spends nothing");
        // A success ends it, and the lane widens one by one.
        let mut leases = probe(&world, failures).await;
        let mut ended = 0;
        for width in 2..=concurrency.min(5) {
            assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
            ended += leases.len();
            leases = world.lease(90).await;
            assert!(leases.len() >= width as usize && leases.len() <= concurrency as usize);
            assert!(leases.iter().all(|lease| lease.failing.count == 0));
        }
        while !leases.is_empty() {
            ended += leases.len();
            assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
            leases = world.lease(90).await;
        }
        assert_eq!(ended, jobs);
        world.store.delete(crate::store::RecordId::Connection(to)).await.unwrap();
        world.sweep().await;
        world.advance(super::world::RETENTION * 2);
        world.sweep().await;
    }
}

pub async fn what_was_under_way_when_it_opened_says_nothing_new(world: World) {
    let to = world.connect("acme", 16).await;
    world.fill("acme", to, 40).await;
    let leases = world.lease(16).await;
    assert_eq!(leases.len(), 16);
    assert_eq!(world.settle(&leases, Outcome::Retry).await, 16);
    let opens_after = BreakerPolicy::default().opens_after;
    let leases = probe(&world, opens_after).await;
    assert_eq!(leases[0].failing, Failing { count: opens_after, since: leases[0].failing.since });
    // A refusal is an answer: no failure, and no proof that the next one is taken.
    assert_eq!(world.settle(&leases, Outcome::Rejected).await, 1);
    let leases = world.lease(9).await;
    assert_eq!((leases.len(), leases[0].failing.count), (1, opens_after), "it stays open");
}

pub async fn a_run_of_failures_outlives_a_crash_and_ends_with_a_resume(world: World) {
    let to = world.connect("acme", 8).await;
    world.fill("acme", to, 20).await;
    let began = world.now();
    let failures = open(&world).await;
    let world = world.crash().await;
    let leases = probe(&world, failures).await;
    assert_eq!(leases[0].failing.since, began);
    assert_eq!(world.settle(&leases, Outcome::Throttled).await, 1, "says nothing of the endpoint's health");
    world.advance_secs(2);
    let leases = world.lease(9).await;
    assert_eq!((leases.len(), leases[0].failing.count), (1, failures));
    world.pause(to).await;
    assert_eq!(world.settle(&leases, Outcome::Retry).await, 1);
    world.resume(to).await;
    world.advance_secs(700);
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 8, "whoever resumes it says that it works");
    assert!(leases.iter().all(|lease| lease.failing.count == 0));
    let world = world.crash().await;
    world.advance_secs(120);
    assert!(world.lease(9).await.iter().all(|lease| lease.failing.count == 0));
}

pub async fn outcomes_of_one_step_count_in_their_order(mut world: World) {
    for (outcomes, left) in [
        (&[Outcome::Delivered, Outcome::Retry, Outcome::Delivered][..], 0),
        (&[Outcome::Delivered, Outcome::Delivered, Outcome::Retry], 1),
        (&[Outcome::Retry, Outcome::Delivered, Outcome::Retry, Outcome::Retry], 2),
    ] {
        let to = world.connect("acme", 8).await;
        world.fill("acme", to, 8).await;
        let leases = world.lease(outcomes.len()).await;
        let settlements: Vec<_> = leases
            .iter()
            .zip(outcomes)
            .map(|(lease, outcome)| world.settlement(lease, *outcome, None))
            .collect();
        assert_eq!(world.store.settle(settlements).await.unwrap(), outcomes.len());
        world = world.crash().await;
        let leases = world.lease(1).await;
        assert_eq!(leases[0].failing.count, left, "{outcomes:?}");
        world.close_connection(to).await;
    }
}

pub async fn a_day_of_failures_pauses_the_connection(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 6).await;
    let policy = BreakerPolicy::default();
    let began = world.now();
    let mut failures = open(&world).await;
    while world.now() < began.plus(policy.pauses_after_span) {
        assert!(
            state(&world, to).await.is_active(),
            "{failures} failures since {began}, and now it is {}",
            world.now()
        );
        world.advance(LONGEST_PROBE);
        let leases = world.lease(9).await;
        assert_eq!(leases.len(), 1);
        assert_eq!(world.settle(&leases, Outcome::Retry).await, 1);
        let _ = world.store.retry(leases[0].job.id, None).await.unwrap();
        failures += 1;
    }
    assert!(failures > policy.pauses_after);
    let ConnectionState::Paused { by, reason, at } = state(&world, to).await else {
        panic!("it delivers on")
    };
    assert_eq!((by.as_str(), at), (BREAKER, world.now()));
    assert!(reason.contains("attempts in a row failed since"), "{reason}");
    assert!(world.lease(9).await.is_empty());
    let open = world.deliveries().await.iter().filter(|delivery| delivery.state.is_open()).count();
    assert_eq!(open, 6, "what it has is kept");
    assert!(world.deliveries().await.iter().all(|delivery| delivery.state != JobState::Cancelled));
}
