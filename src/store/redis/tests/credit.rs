//! Jobs that are leased in the step that accepts them: to whoever has room, in order, and never lost.

use super::bounds::calls;
use super::*;
use crate::domain::id::JobId;

/// Room that a process has here.
const ROOM: usize = 4;

/// Has a process wait for work, with room for [`ROOM`] jobs, for as long as the answer is kept.
pub(super) async fn wait(store: &RedisStore) -> super::super::credit::Waiting<'_> {
    while !store.lease(ROOM, SPAN).await.unwrap().is_empty() || !store.core.wake.is_quiet() {}
    store.core.credit.wait()
}

#[tokio::test]
async fn a_job_is_leased_in_the_step_that_accepts_it() {
    let bench = Bench::new().await.without_beat();
    let lane = bench.connection("acme", 16).await;
    for count in 1..=2 {
        let waiting = wait(&bench.store).await;
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let event = bench.event("acme", &[lane]);
        let named = (event.event.key, event.event.document.text().clone());
        bench.store.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
        bench.store.wait_for_work().await;
        let lease = bench.lease(ROOM).await.remove(0);
        let calls = calls(&bench.server).await;
        if count == 2 {
            assert_eq!(calls.get("evalsha"), Some(&1), "{calls:?}");
        }
        drop(waiting);
        assert_eq!(bench.store.stats().await.unwrap().leased, 1);
        assert_eq!((lease.event.key, lease.event.document.text().clone()), named);
        // As whoever leases it in the usual way finds it.
        bench.store.release(&[lease.reference()]).await.unwrap();
        let again = bench.lease(ROOM).await.remove(0);
        assert!(again.token > lease.token);
        let lease = Lease { token: again.token, ..lease };
        assert_eq!((&again.job, &again.event, again.deadline), (&lease.job, &lease.event, lease.deadline));
        assert_eq!(
            (again.batch, again.doubtful, again.failing),
            (lease.batch, lease.doubtful, lease.failing)
        );
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
        assert_eq!(bench.store.stats().await.unwrap().open, 0);
    }
}

#[tokio::test]
async fn no_job_is_leased_before_those_that_wait() {
    let bench = Bench::new().await;
    let strict = bench.connection("acme", 1).await;
    let (paused, wide) = (bench.connection("acme", 16).await, bench.connection("acme", 16).await);
    bench
        .set_state(paused, ConnectionState::Paused { reason: "r".to_owned(), by: "b".to_owned(), at: START })
        .await;
    let waiting = wait(&bench.store).await;
    let leased = async || bench.store.stats().await.unwrap().leased;
    bench.ingest("acme", &[paused]).await;
    assert_eq!(leased().await, 0, "its lane gives nothing");
    bench.ingest("acme", &[strict]).await;
    bench.ingest("acme", &[strict]).await;
    assert_eq!(leased().await, 1, "one at a time");
    let first = bench.lease(ROOM).await.remove(0);
    bench.settle(&first, Next::Due(bench.later(60))).await;
    drop(waiting);
    let waiting = wait(&bench.store).await;
    bench.ingest("acme", &[strict]).await;
    assert_eq!(leased().await, 0, "a retry holds back what stands behind it");
    for _ in 0..ROOM + 2 {
        bench.ingest("acme", &[wide]).await;
    }
    assert_eq!(leased().await, ROOM as u64, "as many as there is room for");
    let mut jobs: Vec<JobId> = bench.lease(ROOM).await.iter().map(|lease| lease.job.id).collect();
    bench.ingest("acme", &[wide]).await;
    assert_eq!(leased().await, ROOM as u64, "others wait in the ring");
    drop(waiting);
    jobs.extend(bench.lease(100).await.iter().map(|lease| lease.job.id));
    assert_eq!(jobs.len(), ROOM + 3);
    assert!(jobs.is_sorted(), "in the order in which they came");
}

#[tokio::test]
async fn what_a_process_accepted_and_leased_before_it_died_comes_again() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    let dying = bench.another().await;
    // The other knows of no leases here.
    assert!(bench.lease(ROOM).await.is_empty());
    let waiting = wait(&dying).await;
    let event = bench.event("acme", &[lane]);
    dying.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
    drop(waiting);
    assert_eq!(bench.store.stats().await.unwrap().leased, 1);
    let began = std::time::Instant::now();
    drop(dying);
    let lease = loop {
        assert!(began.elapsed() < COMES_AGAIN, "it did not come again");
        if let Some(lease) = bench.lease(ROOM).await.pop() {
            break lease;
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), bench.store.wait_for_work()).await;
    };
    assert!(lease.doubtful, "nobody knows what was done with it");
    assert_eq!(bench.settle(&lease, delivered()).await, 1);
}

#[tokio::test]
async fn what_nobody_takes_goes_back_to_its_lane() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    let idle = bench.another().await;
    for closes in [false, true] {
        let waiting = wait(&idle).await;
        let event = bench.event("acme", &[lane]);
        idle.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
        drop(waiting);
        assert_eq!(bench.store.stats().await.unwrap().leased, 1);
        if closes {
            idle.close().await;
        }
        let began = std::time::Instant::now();
        let lease = loop {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not come back");
            if let Some(lease) = bench.lease(ROOM).await.pop() {
                break lease;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), bench.store.wait_for_work()).await;
        };
        assert!(!lease.doubtful, "nothing was done with it");
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
    }
}

#[tokio::test]
async fn a_job_whose_lane_was_closed_meanwhile_is_not_made() {
    let bench = Bench::new().await;
    let (open, closed) = (bench.connection("acme", 16).await, bench.connection("acme", 16).await);
    bench.ingest("acme", &[open, closed]).await;
    bench.set_state(closed, ConnectionState::Closed { reason: "over".to_owned(), at: START }).await;
    let events = vec![bench.event("acme", &[closed, open]), bench.event("acme", &[closed])];
    let Ingested::Stored(accepted) = bench.store.ingest(Ingest { idempotency: None, events }).await.unwrap()
    else {
        panic!()
    };
    let jobs = accepted.iter().map(|one| match one {
        Accepted::Stored { jobs, duplicate: false, .. } => *jobs,
        other => panic!("{other:?}"),
    });
    assert_eq!(jobs.collect::<Vec<_>>(), [1, 0]);
    let leases = bench.lease(100).await;
    assert_eq!(leases.iter().filter(|lease| lease.job.connection == open).count(), 2);
}
