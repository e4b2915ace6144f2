//! Many at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::id::JobId;
use crate::domain::job::{JobState, Outcome};
use crate::store::{Accepted, Dedupe, Expected, Ingested, StoreError};

use super::world::World;

const INGESTERS: usize = 8;
const WORKERS: usize = 6;
const EVENTS_EACH: usize = 60;

pub async fn nothing_is_lost_or_settled_twice_by_many_at_once(world: World) {
    let world = Arc::new(world);
    let mut lanes = Vec::new();
    for n in 0..6_u32 {
        lanes.push(world.connect(["a", "b", "c"][n as usize % 3], [1, 4, 32][n as usize / 2]).await);
    }
    let caps: HashMap<_, _> =
        lanes.iter().zip([1, 1, 4, 4, 32, 32]).map(|(lane, cap)| (*lane, cap)).collect();
    let total = INGESTERS * EVENTS_EACH * lanes.len();
    let under_way: Arc<Mutex<HashMap<_, usize>>> = Arc::default();
    let ended: Arc<Mutex<HashMap<JobId, usize>>> = Arc::default();
    let mut tasks = Vec::new();
    for _ in 0..INGESTERS {
        let (world, lanes) = (Arc::clone(&world), lanes.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..EVENTS_EACH {
                world.ingest(vec![world.event("a", &lanes)]).await;
            }
        }));
    }
    for worker in 0..WORKERS {
        let (world, under_way, ended) = (Arc::clone(&world), Arc::clone(&under_way), Arc::clone(&ended));
        let caps = caps.clone();
        tasks.push(tokio::spawn(async move {
            while ended.lock().len() < total {
                let leases =
                    world.store.lease(1 + worker * 3, Duration::from_hours(1_000_000)).await.unwrap();
                if leases.is_empty() {
                    // A strict lane may wait for its first job's time.
                    world.clock.advance(Duration::from_millis(100));
                    tokio::task::yield_now().await;
                    continue;
                }
                for lease in &leases {
                    let mut under_way = under_way.lock();
                    let count = under_way.entry(lease.job.connection).or_default();
                    *count += 1;
                    assert!(*count <= caps[&lease.job.connection], "more under way than its cap");
                }
                tokio::task::yield_now().await;
                // Some are given back, some fail once, the rest arrive.
                let (back, tried): (Vec<_>, Vec<_>) =
                    leases.iter().partition(|lease| lease.token % 11 == 0 && lease.job.tries == 0);
                for lease in &leases {
                    *under_way.lock().entry(lease.job.connection).or_default() -= 1;
                }
                let refs: Vec<_> = back.iter().map(|lease| lease.reference()).collect();
                world.store.release(&refs).await.unwrap();
                let settlements = tried
                    .iter()
                    .map(|lease| {
                        let fails = lease.token % 7 == 0 && lease.job.tries == 0;
                        world.settlement(lease, if fails { Outcome::Retry } else { Outcome::Delivered }, None)
                    })
                    .collect::<Vec<_>>();
                let delivered: Vec<JobId> = settlements
                    .iter()
                    .filter(|settlement| !matches!(settlement.next, crate::domain::settle::Next::Due(_)))
                    .map(|settlement| settlement.lease.job)
                    .collect();
                assert_eq!(world.store.settle(settlements).await, Ok(tried.len()));
                for job in delivered {
                    *ended.lock().entry(job).or_default() += 1;
                }
                world.advance_secs(1);
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_mins(1), task).await.expect("a job is not coming").unwrap();
    }
    assert!(ended.lock().values().all(|times| *times == 1));
    let stats = world.stats().await;
    assert_eq!((stats.open, stats.leased), (0, 0));
    let deliveries = world.deliveries().await;
    assert_eq!(deliveries.len(), total);
    assert!(deliveries.iter().all(|delivery| delivery.state == JobState::Delivered));
}

pub async fn concurrent_repeats_store_one_event(world: World) {
    let to = world.connect("acme", 4).await;
    let mut event = world.event("acme", &[to]);
    event.dedupe = Some(Dedupe { key: [3; 16], content: [4; 16] });
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (store, event) = (Arc::clone(&world.store), event.clone());
            tokio::spawn(async move {
                let ingest = crate::store::Ingest { idempotency: None, events: vec![event] };
                store.ingest(ingest).await.unwrap()
            })
        })
        .collect();
    let mut firsts = 0;
    for task in tasks {
        let Ingested::Stored(accepted) = task.await.unwrap() else { panic!("it had no key") };
        let [Accepted::Stored { jobs: 1, duplicate, .. }] = accepted[..] else { panic!("{accepted:?}") };
        firsts += usize::from(!duplicate);
    }
    assert_eq!(firsts, 1);
    assert_eq!(world.stats().await.open, 1);
}

pub async fn one_record_has_one_winner(world: World) {
    let connection = world.connection("acme", 4);
    let record = crate::store::Record::Connection(Box::new(connection));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (store, record) = (Arc::clone(&world.store), record.clone());
            tokio::spawn(async move { store.put(record, Expected::Absent).await })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error, StoreError::Conflict),
        }
    }
    assert_eq!(winners, 1);
}
