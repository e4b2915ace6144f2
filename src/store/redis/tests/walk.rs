//! The walk through the leases, in steps, that finds those which ended, those of the silent and those that nobody knows of.

use super::bounds::fill;
use super::*;
use crate::domain::id::JobId;

/// More than three steps go through.
const MANY: usize = 900;

fn jobs(leases: &[Lease]) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = leases.iter().map(|lease| lease.job.id).collect();
    jobs.sort();
    jobs
}

/// So many jobs of a lane of its own, leased for a span.
async fn leased(bench: &Bench, store: &RedisStore, count: usize, span: Duration) -> Vec<Lease> {
    let lane = bench.connection("acme", 10_000).await;
    fill(bench, "acme", &[lane], count).await;
    let mut leases = Vec::new();
    while leases.len() < count {
        leases.extend(store.lease(count - leases.len(), span).await.unwrap());
    }
    leases
}

/// Leases all that comes until nothing waits any more.
async fn lease_all(bench: &Bench) -> Vec<Lease> {
    let mut leases = Vec::new();
    loop {
        let some = bench.lease(256).await;
        if some.is_empty() && bench.store.core.wake.is_quiet() {
            return leases;
        }
        leases.extend(some);
    }
}

#[tokio::test]
async fn of_many_leases_those_come_again_that_ended() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    let short = leased(&bench, &other, MANY, SPAN).await;
    let long = leased(&bench, &other, 100, 3 * SPAN).await;
    let renewed = &short[..50];
    let references: Vec<_> = renewed.iter().map(Lease::reference).collect();
    bench.advance(60);
    other.renew(&references, SPAN).await.unwrap();
    assert!(lease_all(&bench).await.is_empty(), "all are held");
    bench.advance(31);
    let found = lease_all(&bench).await;
    assert_eq!(jobs(&found), jobs(&short[50..]));
    let settle = async |leases: &[Lease]| {
        other.settle(leases.iter().map(|lease| settlement(lease, delivered())).collect()).await.unwrap()
    };
    assert_eq!(settle(&short[50..]).await, 0, "their leases are over");
    assert_eq!(settle(&long).await, 100);
    assert_eq!(bench.store.stats().await.unwrap().leased, u64::try_from(MANY).unwrap());
    // What was renewed ends later, and what came again later still: each is looked for in its time.
    bench.advance(60);
    assert_eq!(jobs(&lease_all(&bench).await), jobs(renewed));
    bench.advance(31);
    assert_eq!(jobs(&lease_all(&bench).await), jobs(&short[50..]));
}

#[tokio::test]
async fn a_walk_that_another_process_began_goes_on() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    let lost = leased(&bench, &other, MANY, SPAN).await;
    bench.advance(91);
    // Each takes what one step finds, in turn.
    let (mut found, began) = (Vec::new(), std::time::Instant::now());
    while found.len() < MANY {
        assert!(began.elapsed() < Duration::from_secs(20), "{} of {MANY}", found.len());
        for store in [&other, &*bench.store] {
            store.core.wake.mark_all();
            found.extend(store.lease(64, SPAN).await.unwrap());
        }
    }
    assert_eq!(jobs(&found), jobs(&lost));
}

#[tokio::test]
async fn leases_that_their_process_does_not_know_are_given_back_however_many() {
    let bench = Bench::new().await.without_beat();
    let own = leased(&bench, &bench.store, MANY, SPAN).await;
    let other = bench.another().await;
    let others = leased(&bench, &other, 10, SPAN).await;
    let (known, unknown) = own.split_at(100);
    bench.store.core.held.forget(unknown.iter().map(|lease| lease.job.id));
    bench.store.core.doubt(bench.store.core.keys.partition_of(own[0].job.id));
    bench.store.core.reclaim().await.unwrap();
    let left = u64::try_from(known.len() + others.len()).unwrap();
    assert_eq!(bench.store.stats().await.unwrap().leased, left);
    assert_eq!(jobs(&lease_all(&bench).await), jobs(unknown));
}
