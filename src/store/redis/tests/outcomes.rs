//! What is written of an outcome is the same whether its process knows what was there (then it puts it together) or not.

use super::*;
use crate::domain::id::JobId;

/// What the log says of a job, but for what names it.
async fn told(bench: &Bench, job: JobId) -> String {
    let mut delivery = bench.store.delivery(job).await.unwrap().unwrap();
    delivery.event_id = String::new();
    delivery.job.id = JobId::from_bits(0);
    delivery.job.name = JobId::from_bits(0);
    delivery.job.connection = ConnectionId::from_bits(0);
    delivery.job.event = EventKey::from_bits(0);
    format!("{delivery:?}")
}

#[tokio::test]
async fn a_plain_outcome_is_written_as_any_other() {
    let bench = Bench::new().await;
    let mut all = Vec::new();
    for is_known in [true, false] {
        let lane = bench.connection("acme", 16).await;
        // Two jobs of one event, and one of another.
        bench.ingest("acme", &[lane, lane]).await;
        bench.ingest("acme", &[lane]).await;
        let leases = bench.lease(3).await;
        let references: Vec<_> = leases.iter().map(Lease::reference).collect();
        if !is_known {
            // Its process was told that it holds them and not what of.
            bench.store.core.held.note(leases.iter().map(|lease| lease.job.id), bench.later(90));
        }
        let known = bench.store.core.held.new_mappings(&references);
        assert_eq!(known.iter().flatten().count(), if is_known { 3 } else { 0 });
        let settlements: Vec<_> = leases.iter().map(|lease| settlement(lease, delivered())).collect();
        assert_eq!(bench.store.settle(settlements.clone()).await.unwrap(), 3);
        assert_eq!(bench.store.settle(settlements).await.unwrap(), 0, "their leases are over");
        let stats = bench.store.stats().await.unwrap();
        assert_eq!((stats.open, stats.leased), (0, 0));
        let mut written = Vec::new();
        for lease in &leases {
            written.push(told(&bench, lease.job.id).await);
        }
        let tally = bench.store.tally(&tenant("acme"), lane).await.unwrap();
        assert_eq!(tally.totals().ended(JobState::Delivered), 3);
        all.push((written, tally));
    }
    assert_eq!(all[0], all[1]);
}

#[tokio::test]
async fn outcomes_of_a_lane_count_in_their_order() {
    for (outcomes, failures) in [([true, false, true], 0), ([true, true, false], 1), ([false, true, true], 0)]
    {
        let bench = Bench::new().await;
        let lane = bench.connection("acme", 16).await;
        for _ in outcomes {
            bench.ingest("acme", &[lane]).await;
        }
        let leases = bench.lease(3).await;
        let settlements = leases.iter().zip(outcomes).map(|(lease, is_good)| {
            settlement(lease, if is_good { delivered() } else { Next::Due(bench.later(60)) })
        });
        assert_eq!(bench.store.settle(settlements.collect()).await.unwrap(), 3);
        bench.ingest("acme", &[lane]).await;
        let next = bench.lease(1).await.remove(0);
        assert_eq!(next.failing.count, failures, "{outcomes:?}");
    }
}
