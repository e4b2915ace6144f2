//! Jobs that are leased in the step that writes outcomes, and events that are not read again by who was sent them: what is
//! leased so is what a lease would give, and nobody goes without.

use super::bounds::calls;
use super::credit::wait;
use super::kept::events;
use super::*;
use crate::store::Kept;

/// Room that a process has.
const ROOM: usize = 4;

/// Has a process with room for some jobs take a lease, when there is one before long.
async fn lease_one(store: &RedisStore) -> Option<Lease> {
    for _ in 0..100 {
        let mut leases = store.lease(ROOM, SPAN).await.unwrap();
        assert!(leases.len() <= 1, "{leases:?}");
        if let Some(lease) = leases.pop() {
            return Some(lease);
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), store.wait_for_work()).await;
    }
    None
}

#[tokio::test]
async fn an_outcome_brings_the_next_job_of_its_lane() {
    let bench = Bench::new().await.without_beat();
    for concurrency in [1, 2] {
        let lane = bench.connection("acme", concurrency).await;
        let waiting = wait(&bench.store).await;
        let (mut under_way, mut jobs) = (std::collections::VecDeque::new(), Vec::new());
        for _ in 0..concurrency {
            bench.ingest("acme", &[lane]).await;
            under_way.push_back(lease_one(&bench.store).await.unwrap());
        }
        for _ in 0..4 {
            bench.ingest("acme", &[lane]).await;
        }
        for round in 0..4 {
            bench.server.command(&["CONFIG", "RESETSTAT"]).await;
            let done = under_way.pop_front().unwrap();
            assert_eq!(bench.settle(&done, delivered()).await, 1);
            let mut lease = lease_one(&bench.store).await.unwrap();
            let calls = calls(&bench.server).await;
            // The first time the server is told the script.
            if round > 0 {
                // Leases and lanes were looked up; nothing was read of the job or of its event.
                let read = ["evalsha", "hmget", "hget"].map(|name| calls.get(name).copied());
                assert_eq!(read, [Some(1), Some(2), None], "{calls:?}");
            }
            if round == 2 {
                // As whoever leases it in the usual way finds it.
                bench.store.release(&[lease.reference()]).await.unwrap();
                let again = lease_one(&bench.store).await.unwrap();
                assert!(again.token > lease.token);
                lease.token = again.token;
                assert_eq!(format!("{again:?}"), format!("{lease:?}"));
            }
            jobs.push(done.job.id);
            under_way.push_back(lease);
        }
        for lease in under_way {
            assert_eq!(bench.settle(&lease, delivered()).await, 1);
            jobs.push(lease.job.id);
        }
        assert!(jobs.is_sorted(), "each once, in the order in which they came: {jobs:?}");
        assert_eq!(bench.store.stats().await.unwrap().open, 0);
        drop(waiting);
    }
}

#[tokio::test]
async fn a_lane_that_may_not_give_gives_nothing_for_an_outcome() {
    let bench = Bench::new().await;
    let (held, paused) = (bench.connection("acme", 1).await, bench.connection("acme", 1).await);
    for lane in [held, paused] {
        let waiting = wait(&bench.store).await;
        bench.ingest("acme", &[lane]).await;
        bench.ingest("acme", &[lane]).await;
        let lease = lease_one(&bench.store).await.unwrap();
        let mut outcome = settlement(&lease, delivered());
        if lane == held {
            outcome.effect.wait_until = Some(bench.later(60));
        } else {
            outcome.effect.pause = Some(("auth_failed", "401".to_owned()));
        }
        assert_eq!(bench.store.settle(vec![outcome]).await.unwrap(), 1);
        assert_eq!(bench.store.stats().await.unwrap().leased, 0);
        drop(waiting);
    }
    bench.advance(61);
    let lease = bench.lease(10).await.remove(0);
    assert_eq!(lease.job.connection, held, "when its time has come it gives by itself");
}

#[tokio::test]
async fn what_was_erased_meanwhile_is_read() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 1).await;
    let waiting = wait(&bench.store).await;
    for _ in 0..3 {
        bench.ingest("acme", &[lane]).await;
    }
    let other = bench.another().await;
    for erases in [true, false] {
        let lease = lease_one(&bench.store).await.unwrap();
        if erases {
            let next = events(&bench).await.into_iter().find(|placed| placed.event.key > lease.event.key);
            assert_eq!(other.erase(&next.unwrap()).await.unwrap().jobs, 1);
        }
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
        let lease = lease_one(&bench.store).await.unwrap();
        assert_eq!(lease.event.is_erased(), erases);
        assert_eq!(lease.event.document.has("data"), !erases);
        bench.store.release(&[lease.reference()]).await.unwrap();
    }
    drop(waiting);
}

#[tokio::test]
async fn what_another_process_tried_is_read() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 1).await;
    let waiting = wait(&bench.store).await;
    bench.ingest("acme", &[lane]).await;
    bench.ingest("acme", &[lane]).await;
    let first = lease_one(&bench.store).await.unwrap();
    drop(waiting);
    // Nobody waits any more, so that the other process may have the next.
    assert!(bench.lease(1).await.is_empty());
    let other = bench.another().await;
    assert_eq!(other.settle(vec![settlement(&first, delivered())]).await.unwrap(), 1);
    let tried = lease_one(&other).await.unwrap();
    let outcome =
        Settlement { rendered: Some(Bytes::from_static(b"kept")), ..settlement(&tried, Next::Requeue) };
    assert_eq!(other.settle(vec![outcome]).await.unwrap(), 1);
    let lease = lease_one(&bench.store).await.unwrap();
    assert_eq!(lease.job.id, tried.job.id);
    assert_eq!((lease.job.tries, lease.rendered.as_deref()), (1, Some(&b"kept"[..])));
    // What comes of it stands beside what the other wrote.
    assert_eq!(bench.settle(&lease, delivered()).await, 1);
    let delivery = bench.store.delivery(lease.job.id).await.unwrap().unwrap();
    assert_eq!(delivery.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((delivery.job.tries, delivery.state), (2, JobState::Delivered));
}

#[tokio::test]
async fn an_idle_process_comes_to_have_a_share() {
    const JOBS: usize = 1_000;
    let bench = Bench::new().await;
    let idle = bench.another().await;
    drop(wait(&idle).await);
    let lane = bench.connection("acme", 1).await;
    let waiting = wait(&bench.store).await;
    for _ in 0..JOBS / 100 {
        let events = (0..100).map(|_| bench.event("acme", &[lane])).collect();
        bench.store.ingest(Ingest { idempotency: None, events }).await.unwrap();
    }
    let (mut own, mut share) = (0, 0);
    while own + share < JOBS {
        if let Some(lease) = lease_one(&bench.store).await {
            own += bench.settle(&lease, delivered()).await;
        }
        // The idle one asks when it hears of work that the other left, which it did where its outcome brought no other.
        let is_left = own + share < JOBS && !bench.store.core.credit.has_leases();
        let patience = Duration::from_millis(if is_left { 10_000 } else { 1 });
        if tokio::time::timeout(patience, idle.wait_for_work()).await.is_ok() {
            for lease in idle.lease(1, SPAN).await.unwrap() {
                share += idle.settle(vec![settlement(&lease, delivered())]).await.unwrap();
            }
        }
    }
    drop(waiting);
    assert!(share >= 3, "{share}");
    assert!(own > 10 * share, "{own} and {share}: what goes straight on is no news for others");
}

#[tokio::test]
async fn who_closes_gives_back_what_came_with_its_last_outcome() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 1).await;
    let other = bench.another().await;
    let waiting = wait(&bench.store).await;
    bench.ingest("acme", &[lane]).await;
    bench.ingest("acme", &[lane]).await;
    let first = lease_one(&bench.store).await.unwrap();
    assert_eq!(bench.settle(&first, delivered()).await, 1);
    assert_eq!(bench.store.stats().await.unwrap().leased, 1, "the next job came with the outcome");
    drop(waiting);
    bench.store.close().await;
    // Sooner than the other process would be taken for dead, and with a clock that stands still.
    let lease = lease_one(&other).await.unwrap();
    assert!(lease.job.id > first.job.id);
    assert_eq!(lease.job.tries, 0);
}
