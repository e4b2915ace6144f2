//! Much at once: no step may grow with it.

use std::time::{Duration, Instant};

use crate::domain::job::Outcome;
use crate::store::{Lease, Settlement};

use super::world::{SPAN, World, ids_of};

const STORM: usize = 20_000;
const LONG: usize = 50_000;
const LANES: usize = 1_500;

/// Leases some of what there is. On a busy machine a server's answer may come too late and count as lost; the store gives what
/// it held again within seconds.
async fn some(world: &World, room: usize) -> Vec<Lease> {
    let began = Instant::now();
    loop {
        match world.store.lease(room, SPAN).await {
            Ok(leases) if !leases.is_empty() => return leases,
            other => assert!(began.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes outcomes, until it is answered that they are written: all of them, where the first answer came.
async fn settle(world: &World, settlements: Vec<Settlement>) {
    let wanted = settlements.len();
    match world.store.settle(settlements.clone()).await {
        Ok(taken) => return assert_eq!(taken, wanted),
        Err(error) => println!("an answer was lost: {error}"),
    }
    let began = Instant::now();
    while let Err(error) = world.store.settle(settlements.clone()).await {
        assert!(began.elapsed() < Duration::from_secs(30), "{error:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes that jobs were delivered.
async fn deliver(world: &World, leases: &[Lease]) {
    settle(world, leases.iter().map(|lease| world.settlement(lease, Outcome::Delivered, None)).collect())
        .await;
}

pub async fn a_storm_of_due_retries_is_leased_in_steps(world: World) {
    let to = world.connect("acme", 256).await;
    let other = world.connect("other", 4).await;
    world.fill("acme", to, STORM).await;
    let mut failed = 0;
    while failed < STORM {
        let leases = some(&world, 2_000).await;
        failed += leases.len();
        assert!(leases.len() <= 256);
        // Nothing is said of the endpoint, so that its lane stays wide and the test short.
        let settlements = leases
            .iter()
            .map(|lease| {
                let mut settlement = world.settlement(lease, Outcome::Retry, None);
                settlement.effect.healthy = None;
                settlement
            })
            .collect();
        settle(&world, settlements).await;
    }
    assert!(world.lease(10).await.is_empty());
    world.advance_secs(5);
    world.fill("other", other, 1).await;
    let mut done = 0;
    let mut others_turn = None;
    while done < STORM {
        let leases = some(&world, 256).await;
        if leases.iter().any(|lease| lease.job.connection == other) {
            others_turn.get_or_insert(done);
        }
        done += leases.iter().filter(|lease| lease.job.connection == to).count();
        deliver(&world, &leases).await;
    }
    assert_eq!(others_turn, Some(0), "the storm stays in its lane");
    assert_eq!(world.stats().await.open, 0);
}

pub async fn a_long_lane_gives_all_in_order(world: World) {
    let to = world.connect("acme", 500).await;
    world.fill("acme", to, LONG).await;
    let mut given = Vec::new();
    while given.len() < LONG {
        let leases = some(&world, 500).await;
        given.extend(ids_of(&leases));
        deliver(&world, &leases).await;
    }
    assert!(world.lease(10).await.is_empty());
    // What an answer had that was lost comes later: a wide lane goes on meanwhile.
    let steps_back = given.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(steps_back <= 2, "{steps_back} steps back");
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), LONG);
}

pub async fn many_lanes_come_back_after_a_crash(world: World) {
    let mut lanes = Vec::new();
    for n in 0..LANES {
        lanes.push(world.connect(&format!("t{}", n % 100), 2).await);
    }
    world.ingest(vec![world.event("t0", &lanes), world.event("t0", &lanes)]).await;
    let world = world.crash().await;
    let mut got = Vec::new();
    while got.len() < 2 * LANES {
        let leases = some(&world, 700).await;
        deliver(&world, &leases).await;
        got.extend(ids_of(&leases));
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 2 * LANES);
}
