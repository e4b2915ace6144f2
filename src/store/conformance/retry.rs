//! Retrying by hand.

use crate::domain::connection::ConnectionState;
use crate::domain::id::{JobId, MappingVersion};
use crate::domain::job::{Attempt, JobState, Outcome};
use crate::domain::settle::LaneEffect;
use crate::store::{Record, RecordId, Recorded, Retried, UNANSWERED};

use super::world::{MAPPING, World};

pub async fn an_ended_job_runs_again_with_a_fresh_schedule(world: World) {
    for concurrency in [1, 4] {
        for (outcome, mended) in [(Outcome::Rejected, false), (Outcome::MappingFailed, true)] {
            let to = world.connect("acme", concurrency).await;
            world.fill("acme", to, 1).await;
            let lease = world.lease(1).await;
            assert_eq!(world.settle(&lease, outcome).await, 1);
            let id = lease[0].job.id;
            let version = MappingVersion::from_bits(99);
            assert_eq!(world.store.retry(id, Some(version)).await, Ok(Retried::Queued));
            let delivery = world.delivery(id).await;
            assert_eq!((delivery.state, delivery.finished), (JobState::Waiting, None));
            assert_eq!(world.stats().await.open, 1);
            let world = &world;
            let again = world.lease(5).await;
            assert_eq!(again.len(), 1);
            assert_eq!((again[0].job.id, again[0].job.attempts, again[0].job.tries), (id, 0, 1));
            let wanted = if mended { version } else { MAPPING };
            assert_eq!(again[0].job.mapping, wanted, "only a mapping that failed is replaced");
            assert_eq!(world.settle(&again, Outcome::Delivered).await, 1);
            assert_eq!(world.delivery(id).await.attempts.len(), 2, "what happened before stays on record");
            assert_eq!(world.store.retry(id, None).await, Ok(Retried::Queued), "delivered ones too");
            let again = world.lease(5).await;
            assert_eq!(world.settle(&again, Outcome::Delivered).await, 1);
        }
    }
}

pub async fn only_what_makes_sense_is_retried(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 3).await;
    let leases = world.lease(2).await;
    let waiting = world.deliveries().await[0].job.id;
    assert_eq!(world.store.retry(JobId::from_bits(1), None).await, Ok(Retried::Missing));
    assert_eq!(world.store.retry(waiting, None).await, Ok(Retried::Open), "queued");
    assert_eq!(world.store.retry(leases[0].job.id, None).await, Ok(Retried::Open), "leased");
    assert_eq!(world.settle(&leases, Outcome::Rejected).await, 2);
    assert_eq!(world.store.retry(leases[0].job.id, None).await, Ok(Retried::Queued));
    world.store.delete(RecordId::Connection(to)).await.unwrap();
    assert_eq!(world.store.retry(leases[1].job.id, None).await, Ok(Retried::Closed));
    assert_eq!(world.sweep().await.cancelled, 2);
    assert_eq!(world.delivery(leases[0].job.id).await.state, JobState::Cancelled);
}

pub async fn a_triggered_job_stands_in_the_log_and_in_no_lane(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.jobs[0].triggered = true;
    let id = event.event.id.clone();
    world.ingest(vec![event]).await;
    assert!(world.lease(1).await.is_empty(), "whoever made it tries it");
    assert_eq!(world.stats().await.open, 0);
    let made = world.deliveries().await.remove(0);
    assert_eq!((made.state, made.reason.as_str(), made.event_id), (JobState::Dead, UNANSWERED, id));
    assert!(made.finished.is_some());

    let world = world.crash().await;
    assert!(world.lease(1).await.is_empty(), "nor does a crash bring it into one");
    let attempt = |number| Attempt {
        number,
        at: world.now(),
        duration_ms: 3,
        status: Some(401),
        outcome: Outcome::AuthFailed,
        remote_id: None,
        reason: "refused".to_owned(),
        headers: Vec::new(),
        body: String::new(),
    };
    let effect = LaneEffect { pause: Some(("auth_failed", "refused".to_owned())), ..LaneEffect::default() };
    let recorded = |number| Recorded {
        job: made.job.id,
        attempt: attempt(number),
        state: JobState::Rejected,
        reason: "refused".to_owned(),
        effect: effect.clone(),
    };
    assert_eq!(world.store.record(recorded(1)).await, Ok(true));
    assert_eq!(world.store.record(recorded(1)).await, Ok(false), "once");
    assert_eq!(world.store.record(recorded(2)).await, Ok(false), "it has ended");
    let other = Recorded { job: JobId::from_bits(5), ..recorded(1) };
    assert_eq!(world.store.record(other).await, Ok(false), "there is none");
    let done = world.delivery(made.job.id).await;
    assert_eq!((done.state, done.reason.as_str(), done.job.tries), (JobState::Rejected, "refused", 1));
    assert_eq!(done.attempts, [attempt(1)]);
    let changes = world.store.changes(0, 100).await.unwrap();
    let Some(Record::Connection(connection)) =
        changes.into_iter().find(|change| change.id == RecordId::Connection(to)).unwrap().record
    else {
        panic!("{to} is gone")
    };
    assert!(
        matches!(connection.state, ConnectionState::Paused { ref by, .. } if by == "auth_failed"),
        "{connection:?}"
    );
    world.fill("acme", to, 1).await;
    assert!(world.lease(1).await.is_empty(), "the lane is paused with its record");

    // By hand it goes into its lane like any other.
    world.resume(to).await;
    assert_eq!(world.store.retry(made.job.id, None).await, Ok(Retried::Queued));
    let leases = world.lease(5).await;
    assert!(leases.iter().any(|lease| (lease.job.id, lease.job.tries) == (made.job.id, 1)), "{leases:?}");
}

pub async fn a_triggered_job_that_went_into_its_lane_meanwhile_is_left_alone(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.jobs[0].triggered = true;
    world.ingest(vec![event]).await;
    let made = world.deliveries().await.remove(0);
    assert_eq!(world.store.retry(made.job.id, None).await, Ok(Retried::Queued));
    let recorded = Recorded {
        job: made.job.id,
        attempt: Attempt {
            number: 1,
            at: world.now(),
            duration_ms: 3,
            status: None,
            outcome: Outcome::Delivered,
            remote_id: None,
            reason: String::new(),
            headers: Vec::new(),
            body: String::new(),
        },
        state: JobState::Delivered,
        reason: String::new(),
        effect: LaneEffect::default(),
    };
    assert_eq!(world.store.record(recorded).await, Ok(false));
    assert_eq!(world.lease(5).await.len(), 1);
}

pub async fn a_waiting_job_becomes_due_at_once(world: World) {
    for concurrency in [1, 4] {
        let to = world.connect("acme", concurrency).await;
        // Where there is an order, it comes before the others; else nobody says which is first.
        let count = if concurrency == 1 { 3 } else { 1 };
        world.fill("acme", to, count).await;
        let mut lease = world.lease(1).await;
        for _ in 0..2 {
            assert_eq!(world.settle(&lease, Outcome::Retry).await, 1);
            assert_eq!(world.store.retry(lease[0].job.id, None).await, Ok(Retried::Queued));
            assert_eq!(world.stats().await.open, count as u64);
            let id = lease[0].job.id;
            lease = world.lease(1).await;
            assert_eq!((lease[0].job.id, lease[0].job.attempts), (id, 0));
        }
        // Its own time has passed and it may be in memory: still it begins anew.
        assert_eq!(world.settle(&lease, Outcome::Retry).await, 1);
        world.advance_secs(10);
        let all = world.lease(1).await;
        world.store.release(&[all[0].reference()]).await.unwrap();
        assert_eq!(world.store.retry(all[0].job.id, None).await, Ok(Retried::Queued));
        let lease = world.lease(1).await;
        assert_eq!((lease[0].job.id, lease[0].job.attempts), (all[0].job.id, 0));
        world.store.delete(RecordId::Connection(to)).await.unwrap();
        assert_eq!(world.settle(&lease, Outcome::Delivered).await, 1);
        world.sweep().await;
    }
}
