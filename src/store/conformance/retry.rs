//! Retrying by hand.

use crate::domain::id::{JobId, MappingVersion};
use crate::domain::job::{JobState, Outcome};
use crate::store::{RecordId, Retried};

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
