//! Lanes: what is leased in which order, what a settlement does, who gets what back.

use super::*;
use crate::domain::id::JobId;
use crate::store::types::Retried;

#[tokio::test]
async fn an_event_goes_in_and_its_jobs_come_out_whole() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connection("acme", 16).await, bench.connection("acme", 16).await);
    let new = bench.event("acme", &[one, two]);
    let ingested = bench.store.ingest(Ingest { idempotency: None, events: vec![new.clone()] }).await.unwrap();
    let accepted = Accepted::Stored { id: new.event.id.clone(), jobs: 2, duplicate: false };
    assert_eq!(ingested, Ingested::Stored(vec![accepted]));
    bench.store.wait_for_work().await;
    let leases = bench.lease(10).await;
    assert_eq!(leases.len(), 2);
    for lease in &leases {
        assert_eq!(*lease.event, *new.event);
        assert_eq!(lease.job.created, START);
        assert_eq!((lease.job.attempts, lease.job.tries), (0, 0));
        assert_eq!(lease.rendered, None);
    }
    assert_eq!((leases[0].job.connection, leases[1].job.connection), (one, two));
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.open, stats.leased, stats.oldest), (2, 2, Some(START)));
    assert!(bench.lease(10).await.is_empty());
    for lease in &leases {
        assert_eq!(bench.settle(lease, delivered()).await, 1);
        assert_eq!(bench.settle(lease, delivered()).await, 0, "a settlement counts once");
    }
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.open, stats.leased, stats.oldest), (0, 0, None));
    assert_eq!(stats.lanes, crate::store::LaneCounts::default());
    assert_eq!(bench.store.event(&tenant("acme"), &new.event.id).await.unwrap().as_ref(), Some(&*new.event));
    let delivery = bench.store.delivery(leases[0].job.id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len()), (JobState::Delivered, 1));
    assert_eq!((delivery.job.attempts, delivery.job.tries), (1, 1));
}

#[tokio::test]
async fn lanes_and_tenants_take_turns() {
    let bench = Bench::new().await;
    // Two tenants of one partition: one floods, the other has a little.
    let quiet_tenant = (0..10_000)
        .map(|at| format!("quiet{at}"))
        .find(|name| {
            bench.store.core.keys.partition(&tenant(name)) == bench.store.core.keys.partition(&tenant("loud"))
        })
        .unwrap();
    let loud = [bench.connection("loud", 256).await, bench.connection("loud", 256).await];
    let quiet = bench.connection(&quiet_tenant, 256).await;
    for _ in 0..100 {
        bench.ingest("loud", &loud).await;
    }
    for _ in 0..4 {
        bench.ingest(&quiet_tenant, &[quiet]).await;
    }
    let leases = bench.lease(28).await;
    let mut counts: BTreeMap<ConnectionId, usize> = BTreeMap::new();
    for lease in &leases {
        *counts.entry(lease.job.connection).or_default() += 1;
    }
    assert_eq!(counts.get(&quiet), Some(&4), "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), 28);
    assert!(loud.iter().all(|lane| counts[lane] >= 8), "{counts:?}");
}

#[tokio::test]
async fn a_lane_keeps_its_order_and_its_cap() {
    let bench = Bench::new().await;
    let strict = bench.connection("acme", 1).await;
    let wide = bench.connection("acme", 3).await;
    for _ in 0..5 {
        bench.ingest("acme", &[strict, wide]).await;
    }
    let leases = bench.lease(100).await;
    let of = |lane| leases.iter().filter(|lease| lease.job.connection == lane).collect::<Vec<_>>();
    assert_eq!((of(strict).len(), of(wide).len()), (1, 3));
    assert!(of(wide).is_sorted_by(|left, right| left.job.id < right.job.id));
    // The first of the strict lane must be tried again: those behind it wait.
    let first = of(strict)[0];
    bench.settle(first, Next::Due(bench.later(5))).await;
    assert!(bench.lease(100).await.iter().all(|lease| lease.job.connection == wide));
    bench.advance(5);
    let again: Vec<Lease> =
        bench.lease(100).await.into_iter().filter(|lease| lease.job.connection == strict).collect();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].job.id, first.job.id);
    assert_eq!((again[0].job.attempts, again[0].job.tries), (1, 1));
    // A job given back stands where it stood.
    bench.store.release(&[again[0].reference()]).await.unwrap();
    let back = bench.lease(100).await;
    assert_eq!(back[0].job.id, first.job.id);
    let mut order = vec![first.job.id];
    bench.settle(&back[0], delivered()).await;
    for _ in 0..4 {
        let next: Vec<Lease> =
            bench.lease(100).await.into_iter().filter(|lease| lease.job.connection == strict).collect();
        assert_eq!(next.len(), 1);
        order.push(next[0].job.id);
        bench.settle(&next[0], delivered()).await;
    }
    assert!(order.is_sorted(), "{order:?}");
}

#[tokio::test]
async fn failures_narrow_a_lane_and_success_widens_it() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 4).await;
    for _ in 0..20 {
        bench.ingest("acme", &[lane]).await;
    }
    let leases = bench.lease(100).await;
    assert_eq!(leases.len(), 4);
    for lease in &leases {
        bench.settle(lease, Next::Due(bench.later(3_600))).await;
    }
    let probe = bench.lease(100).await;
    assert_eq!(probe.len(), 1, "after four failures one at a time");
    let mut well = settlement(&probe[0], delivered());
    well.effect.healthy = Some(true);
    bench.store.settle(vec![well]).await.unwrap();
    assert_eq!(bench.lease(100).await.len(), 2);
}

#[tokio::test]
async fn retry_after_holds_the_lane_and_spends_nothing() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 4).await;
    for _ in 0..3 {
        bench.ingest("acme", &[lane]).await;
    }
    let leases = bench.lease(1).await;
    let mut wait = settlement(&leases[0], Next::Requeue);
    wait.effect.wait_until = Some(bench.later(60));
    wait.rendered = Some(Bytes::from_static(b"body"));
    bench.store.settle(vec![wait]).await.unwrap();
    assert!(bench.lease(100).await.is_empty());
    assert_eq!(bench.store.stats().await.unwrap().lanes.waiting, 1);
    bench.advance(60);
    bench.store.wait_for_work().await;
    let again = bench.lease(100).await;
    assert_eq!(again.len(), 3);
    assert_eq!(again[0].job.id, leases[0].job.id, "back in its place");
    assert_eq!((again[0].job.attempts, again[0].job.tries), (0, 1));
    assert_eq!(again[0].rendered.as_deref(), Some(&b"body"[..]));
}

#[tokio::test]
async fn a_lost_lease_comes_back_and_its_settlement_counts_for_nothing() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 4).await;
    bench.ingest("acme", &[lane]).await;
    let lost = bench.lease(1).await;
    bench.advance(60);
    bench.store.renew(&[lost[0].reference()], SPAN).await.unwrap();
    bench.advance(60);
    assert!(bench.lease(1).await.is_empty(), "renewed");
    bench.advance(31);
    let found = bench.lease(1).await;
    assert_eq!(found[0].job.id, lost[0].job.id);
    assert_ne!(found[0].token, lost[0].token);
    assert_eq!(bench.settle(&lost[0], delivered()).await, 0);
    assert_eq!(bench.settle(&found[0], delivered()).await, 1);
}

#[tokio::test]
async fn the_jobs_of_a_dead_process_come_again_within_seconds() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    for _ in 0..10 {
        bench.ingest("acme", &[lane]).await;
    }
    let dying = bench.another().await;
    let lost = dying.lease(6, SPAN).await.unwrap();
    assert_eq!(lost.len(), 6);
    assert_eq!(dying.settle(vec![settlement(&lost[0], delivered())]).await.unwrap(), 1);
    let began = std::time::Instant::now();
    drop(dying);
    let mut found: Vec<JobId> = Vec::new();
    while found.len() < 9 {
        assert!(began.elapsed() < COMES_AGAIN, "only {} came again", found.len());
        for lease in bench.lease(100).await {
            found.push(lease.job.id);
            bench.settle(&lease, delivered()).await;
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), bench.store.wait_for_work()).await;
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 9);
    assert!(!found.contains(&lost[0].job.id), "what was settled stays so");
    assert_eq!(bench.store.stats().await.unwrap().open, 0);
}

#[tokio::test]
async fn a_live_process_keeps_its_leases_however_long_it_works() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    bench.ingest("acme", &[lane]).await;
    let busy = bench.another().await;
    let leases = busy.lease(1, SPAN).await.unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        assert!(bench.lease(100).await.is_empty());
        let _ = tokio::time::timeout(Duration::from_millis(500), bench.store.wait_for_work()).await;
    }
    assert_eq!(busy.settle(vec![settlement(&leases[0], delivered())]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_for_a_day() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    let named = |content: u8| {
        let key = EventKey::from_bits(bench.ids.next());
        let mut event = named_event(key, "lead-1", "acme", bench.clock.now(), &[lane]);
        event.dedupe = Some(Dedupe { key: [1; 16], content: [content; 16] });
        event
    };
    let send = |event| bench.store.ingest(Ingest { idempotency: None, events: vec![event] });
    let stored = |duplicate| Accepted::Stored { id: "lead-1".to_owned(), jobs: 1, duplicate };
    assert_eq!(send(named(1)).await, Ok(Ingested::Stored(vec![stored(false)])));
    assert_eq!(send(named(1)).await, Ok(Ingested::Stored(vec![stored(true)])));
    let reused = Accepted::IdReused { id: "lead-1".to_owned() };
    assert_eq!(send(named(2)).await, Ok(Ingested::Stored(vec![reused])));
    assert_eq!(bench.lease(10).await.len(), 1);
    bench.advance(24 * 3_600 + 1);
    assert_eq!(send(named(2)).await, Ok(Ingested::Stored(vec![stored(false)])));
}

#[tokio::test]
async fn an_idempotency_key_repeats_a_whole_answer_even_over_tenants() {
    let bench = Bench::new().await;
    let names = ["a", "b", "c", "d", "e"];
    let mut events = Vec::new();
    for name in names {
        let lane = bench.connection(name, 16).await;
        events.push(bench.event(name, &[lane]));
    }
    let request = |content: u8, events: &[NewEvent]| Ingest {
        idempotency: Some(Dedupe { key: [9; 16], content: [content; 16] }),
        events: events.to_vec(),
    };
    let first = bench.store.ingest(request(1, &events)).await.unwrap();
    let Ingested::Stored(accepted) = first else { panic!("{first:?}") };
    let again: Vec<NewEvent> = names.iter().map(|name| bench.event(name, &[])).collect();
    assert_eq!(bench.store.ingest(request(1, &again)).await, Ok(Ingested::Repeated(accepted)));
    assert_eq!(bench.store.ingest(request(2, &again)).await, Ok(Ingested::KeyReused));
    assert_eq!(bench.lease(100).await.len(), 5);
}

#[tokio::test]
async fn an_ended_job_is_retried_and_an_open_one_is_not() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    bench.ingest("acme", &[lane]).await;
    let lease = bench.lease(1).await.remove(0);
    let id = lease.job.id;
    assert_eq!(bench.store.retry(id, None).await, Ok(Retried::Open));
    bench.settle(&lease, Next::Due(bench.later(600))).await;
    assert_eq!(bench.store.retry(id, None).await, Ok(Retried::Queued), "waiting becomes due");
    let lease = bench.lease(1).await.remove(0);
    assert_eq!((lease.job.attempts, lease.job.tries), (0, 1));
    bench.settle(&lease, Next::Done(JobState::MappingFailed)).await;
    let version = MappingVersion::from_bits(77);
    assert_eq!(bench.store.retry(id, Some(version)).await, Ok(Retried::Queued));
    assert_eq!(bench.store.stats().await.unwrap().open, 1);
    let lease = bench.lease(1).await.remove(0);
    assert_eq!(lease.job.mapping, version);
    bench.settle(&lease, delivered()).await;
    assert_eq!(bench.store.retry(JobId::from_bits(7 << 20), None).await, Ok(Retried::Missing));
    bench.set_state(lane, ConnectionState::Closed { reason: "gone".to_owned(), at: START }).await;
    assert_eq!(bench.store.retry(id, None).await, Ok(Retried::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_lane_and_keep_its_cap_and_order() {
    let bench = Bench::new().await;
    for cap in [1_usize, 3] {
        let lane = bench.connection("acme", u32::try_from(cap).unwrap()).await;
        for _ in 0..60 {
            bench.ingest("acme", &[lane]).await;
        }
        let under_way = Arc::new(parking_lot::Mutex::new((0_usize, Vec::new())));
        // More workers than places: each has one job at a time.
        let processes = [Arc::new(bench.another().await), Arc::new(bench.another().await)];
        let workers: Vec<_> = processes
            .iter()
            .chain(&processes)
            .map(|store| {
                let store = Arc::clone(store);
                let under_way = Arc::clone(&under_way);
                tokio::spawn(async move {
                    let mut own = 0;
                    while under_way.lock().1.len() < 60 {
                        for lease in store.lease(1, SPAN).await.unwrap() {
                            own += 1;
                            {
                                let mut state = under_way.lock();
                                state.0 += 1;
                                assert!(state.0 <= cap, "{} at once", state.0);
                            }
                            tokio::task::yield_now().await;
                            {
                                let mut state = under_way.lock();
                                state.0 -= 1;
                                state.1.push(lease.job.id);
                            }
                            store.settle(vec![settlement(&lease, delivered())]).await.unwrap();
                        }
                        let _ = tokio::time::timeout(Duration::from_millis(20), store.wait_for_work()).await;
                    }
                    own
                })
            })
            .collect();
        let mut sum = 0;
        for worker in workers {
            sum += worker.await.unwrap();
        }
        assert_eq!(sum, 60);
        let done = under_way.lock().1.clone();
        assert!(cap > 1 || done.is_sorted(), "{done:?}");
    }
}
