//! Settling: what each outcome leaves behind.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::connection::ConnectionState;
use crate::domain::job::{JobState, Outcome};
use crate::store::{KEPT_ATTEMPTS, Lease, Record};

use super::world::{SPAN, World, ids_of};

async fn one(world: &World, concurrency: u32) -> (crate::domain::id::ConnectionId, Lease) {
    let to = world.connect("acme", concurrency).await;
    world.fill("acme", to, 1).await;
    (to, world.lease(1).await.remove(0))
}

pub async fn each_outcome_leaves_the_job_where_it_says(world: World) {
    let cases = [
        (Outcome::Delivered, JobState::Delivered, 1, 1),
        (Outcome::Retry, JobState::Waiting, 1, 1),
        (Outcome::Ambiguous, JobState::Waiting, 1, 1),
        (Outcome::Throttled, JobState::Queued, 0, 1),
        (Outcome::AuthFailed, JobState::Queued, 0, 1),
        (Outcome::Rejected, JobState::Rejected, 1, 1),
        (Outcome::Gone, JobState::Gone, 1, 1),
        (Outcome::MappingFailed, JobState::MappingFailed, 0, 1),
    ];
    let mut open = 0;
    for (outcome, state, attempts, tries) in cases {
        let (_, lease) = one(&world, 2).await;
        let settlement = world.settlement(&lease, outcome, None);
        let attempt = settlement.attempt.clone().unwrap();
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
        let delivery = world.delivery(lease.job.id).await;
        assert_eq!(
            (delivery.state, delivery.job.attempts, delivery.job.tries),
            (state, attempts, tries),
            "{outcome:?}"
        );
        assert_eq!(delivery.attempts, [attempt]);
        assert_eq!(delivery.reason, "because");
        assert_eq!(delivery.finished, (!state.is_open()).then(|| world.now()));
        let due = world.now().plus(Duration::from_secs(5));
        assert_eq!(delivery.due, (state == JobState::Waiting).then_some(due));
        open += u64::from(state.is_open());
        let stats = world.stats().await;
        assert_eq!((stats.open, stats.leased), (open, 0), "{outcome:?}");
    }
    // Untried: its connection had gone meanwhile, say.
    let (_, lease) = one(&world, 2).await;
    let mut settlement = world.settlement(&lease, Outcome::Rejected, None);
    settlement.attempt = None;
    assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
    let delivery = world.delivery(lease.job.id).await;
    assert_eq!((delivery.job.attempts, delivery.job.tries, delivery.attempts.len()), (0, 0, 0));
}

pub async fn a_settlement_counts_once_and_only_for_the_newest_lease(world: World) {
    let (_, lease) = one(&world, 2).await;
    let settlement = world.settlement(&lease, Outcome::Retry, None);
    assert_eq!(world.store.settle(vec![settlement.clone(), settlement.clone()]).await, Ok(1));
    assert_eq!(world.store.settle(vec![settlement]).await, Ok(0));
    world.advance_secs(5);
    let second = world.lease(1).await;
    assert_eq!((second[0].job.attempts, second[0].job.tries), (1, 1));
    assert_eq!(world.settle(std::slice::from_ref(&lease), Outcome::Delivered).await, 0);
    world.advance_secs(SPAN.as_secs());
    let third = world.lease(1).await;
    assert_eq!((third[0].job.attempts, third[0].job.tries), (1, 1), "a lost lease spends nothing");
    assert_eq!(world.settle(&second, Outcome::Delivered).await, 0);
    assert_eq!(world.settle(&third, Outcome::Delivered).await, 1);
    assert_eq!(world.settle(&third, Outcome::Rejected).await, 0);
    assert_eq!(world.store.settle(Vec::new()).await, Ok(0));
    let delivery = world.delivery(lease.job.id).await;
    assert_eq!((delivery.state, delivery.job.attempts), (JobState::Delivered, 2));
    assert_eq!(delivery.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
}

pub async fn retry_after_holds_back_the_lane(world: World) {
    let to = world.connect("acme", 4).await;
    let other = world.connect("acme", 4).await;
    world.fill("acme", to, 3).await;
    let lease = world.lease(1).await;
    let settlement = world.settlement(&lease[0], Outcome::Throttled, Some(60));
    assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
    world.fill("acme", other, 1).await;
    let elsewhere = world.lease(9).await;
    assert_eq!(elsewhere.iter().map(|lease| lease.job.connection).collect::<Vec<_>>(), [other]);
    assert_eq!(world.settle(&elsewhere, Outcome::Delivered).await, 1);
    world.advance_secs(59);
    assert!(world.lease(9).await.is_empty());
    assert_eq!(world.stats().await.lanes.waiting, 1);
    world.advance_secs(1);
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 3);
    assert_eq!(leases[0].job.id, lease[0].job.id);
    // A shorter wait never cuts a longer one.
    let long = world.settlement(&leases[0], Outcome::Throttled, Some(100));
    let short = world.settlement(&leases[1], Outcome::Throttled, Some(10));
    assert_eq!(world.store.settle(vec![long, short]).await, Ok(2));
    assert_eq!(world.settle(&leases[2..], Outcome::Delivered).await, 1);
    world.advance_secs(99);
    assert!(world.lease(9).await.is_empty());
    world.advance_secs(1);
    assert_eq!(world.lease(9).await.len(), 2);
}

pub async fn the_newest_attempts_are_kept(world: World) {
    let (_, mut lease) = one(&world, 1).await;
    let tries = KEPT_ATTEMPTS + 5;
    for _ in 0..tries {
        let settlement = world.settlement(&lease, Outcome::Throttled, Some(1));
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
        world.advance_secs(1);
        lease = world.lease(1).await.remove(0);
    }
    let delivery = world.delivery(lease.job.id).await;
    let kept: Vec<u32> = delivery.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(delivery.job.tries, tries);
    assert_eq!(kept, (tries - KEPT_ATTEMPTS + 1..=tries).collect::<Vec<_>>());
}

pub async fn the_last_bytes_are_kept(world: World) {
    for concurrency in [1, 4] {
        let (_, lease) = one(&world, concurrency).await;
        let with = |lease: &Lease, outcome, body: &'static str| {
            let rendered = (!body.is_empty()).then(|| Bytes::from(body));
            crate::store::Settlement { rendered, ..world.settlement(lease, outcome, None) }
        };
        assert_eq!(world.store.settle(vec![with(&lease, Outcome::Throttled, "first")]).await, Ok(1));
        world.advance_secs(2);
        let lease = world.lease(1).await.remove(0);
        assert_eq!(lease.rendered.as_deref(), Some(&b"first"[..]));
        assert_eq!(world.store.settle(vec![with(&lease, Outcome::Retry, "second")]).await, Ok(1));
        world.advance_secs(5);
        let lease = world.lease(1).await.remove(0);
        assert_eq!(lease.rendered.as_deref(), Some(&b"second"[..]));
        assert_eq!(world.store.settle(vec![with(&lease, Outcome::Retry, "")]).await, Ok(1));
        world.advance_secs(30);
        let lease = world.lease(1).await.remove(0);
        assert_eq!(lease.rendered.as_deref(), Some(&b"second"[..]));
        assert_eq!(world.settle(&[lease], Outcome::Delivered).await, 1);
    }
}

pub async fn gone_closes_the_lane_and_cancels_the_rest(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 10).await;
    let leases = world.lease(4).await;
    assert_eq!(world.settle(&leases[..1], Outcome::Gone).await, 1);
    let changes = world.store.changes(0, 100).await.unwrap();
    let Some(Record::Connection(connection)) = &changes.last().unwrap().record else { panic!() };
    assert!(matches!(&connection.state, ConnectionState::Closed { reason, .. } if reason == "because"));
    assert!(world.lease(9).await.is_empty());
    // Under way when it closed: delivered is delivered, anything else is not tried again.
    assert_eq!(world.settle(&leases[1..2], Outcome::Delivered).await, 1);
    assert_eq!(world.settle(&leases[2..3], Outcome::Retry).await, 1);
    assert_eq!(world.settle(&leases[3..], Outcome::Throttled).await, 1);
    assert_eq!(world.sweep().await.cancelled, 6);
    let mut states: Vec<JobState> = world.deliveries().await.iter().map(|delivery| delivery.state).collect();
    states.reverse();
    let mut wanted = vec![JobState::Gone, JobState::Delivered];
    wanted.resize(10, JobState::Cancelled);
    assert_eq!(states, wanted);
    assert!(world.deliveries().await.iter().all(|delivery| !delivery.reason.is_empty()));
    assert_eq!(world.stats().await, crate::store::Stats::default());
}

pub async fn refused_credentials_pause_the_lane(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 3).await;
    let leases = world.lease(2).await;
    assert_eq!(world.settle(&leases, Outcome::AuthFailed).await, 2);
    let changes = world.store.changes(0, 100).await.unwrap();
    let Some(Record::Connection(connection)) = &changes.last().unwrap().record else { panic!() };
    assert!(matches!(&connection.state, ConnectionState::Paused { by, .. } if by == "auth_failed"));
    assert!(world.lease(9).await.is_empty());
    world.resume(to).await;
    let again = world.lease(9).await;
    assert_eq!(again.len(), 3);
    assert_eq!(ids_of(&again)[..2], ids_of(&leases));
}
