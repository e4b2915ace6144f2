//! Buckets of tokens and holds.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Spend, Spent};

use super::world::World;

const MINUTE: Duration = Duration::from_mins(1);

fn spend(bucket: &str, cost: u32, rate: u32, burst: u32) -> Spend {
    Spend { bucket: bucket.to_owned(), cost, rate, per: MINUTE, burst }
}

async fn take(world: &World, spends: &[Spend]) -> Spent {
    world.store.spend("project", spends).await.unwrap()
}

pub async fn a_bucket_gives_no_more_than_its_rate_and_burst(world: World) {
    let one = [spend("writes", 1, 54, 6)];
    let mut granted = 0;
    // A minute and a burst, asked for five times a second.
    for _ in 0..300 {
        granted += usize::from(take(&world, &one).await == Spent::Granted);
        world.advance(Duration::from_millis(200));
    }
    assert_eq!(granted, 59, "six at once, and 54 in each minute");
    // What it says to wait is enough, and no more than that.
    while take(&world, &one).await == Spent::Granted {}
    let Spent::Wait(wait) = take(&world, &one).await else { panic!("granted") };
    assert!(wait <= Duration::from_micros(60_000_000 / 54), "{wait:?}");
    world.advance(wait.saturating_sub(Duration::from_millis(2)));
    assert!(matches!(take(&world, &one).await, Spent::Wait(_)));
    world.advance(Duration::from_millis(3));
    assert_eq!(take(&world, &one).await, Spent::Granted);
    // What costs more than a full bucket holds is had for a full bucket.
    world.advance(MINUTE);
    assert_eq!(take(&world, &[spend("writes", 100, 54, 6)]).await, Spent::Granted);
    assert!(matches!(take(&world, &one).await, Spent::Wait(_)));
    assert_eq!(world.store.spend("another", &one).await, Ok(Spent::Granted), "of another scope");
    assert_eq!(take(&world, &[]).await, Spent::Granted);
}

pub async fn a_call_takes_from_all_its_buckets_or_from_none(world: World) {
    let own = spend("own", 1, 60, 10);
    let shared = spend("shared", 2, 60, 4);
    let both = [own.clone(), shared.clone()];
    assert_eq!(take(&world, &both).await, Spent::Granted);
    assert_eq!(take(&world, &both).await, Spent::Granted);
    for _ in 0..20 {
        assert_eq!(take(&world, &both).await, Spent::Wait(Duration::from_secs(2)), "the shared one is empty");
    }
    for left in (0..8).rev() {
        assert_eq!(take(&world, std::slice::from_ref(&own)).await, Spent::Granted, "{left}");
    }
    assert_eq!(take(&world, std::slice::from_ref(&own)).await, Spent::Wait(Duration::from_secs(1)));
    // A bucket named twice is charged twice.
    world.advance(MINUTE);
    let twice = [shared.clone(), shared.clone(), shared.clone()];
    assert_eq!(take(&world, &twice).await, Spent::Wait(Duration::from_secs(2)));
    assert_eq!(take(&world, &twice[..2]).await, Spent::Granted);
}

pub async fn many_at_once_never_overspend(world: World) {
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&world.store);
            tokio::spawn(async move {
                let mut granted = 0;
                for _ in 0..20 {
                    let spends = [spend("a", 1, 60, 50), spend("b", 1, 60, 30)];
                    granted += usize::from(store.spend("s", &spends).await.unwrap() == Spent::Granted);
                }
                granted
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    assert_eq!(granted, 30);
}

pub async fn a_broken_clock_blocks_no_bucket(world: World) {
    let one = [spend("writes", 1, 60, 2)];
    let right = world.now();
    world.advance(Duration::from_hours(24));
    assert_eq!(take(&world, &one).await, Spent::Granted);
    world.clock.set(right);
    assert_eq!(take(&world, &one).await, Spent::Granted);
    assert_eq!(take(&world, &one).await, Spent::Granted);
    assert!(matches!(take(&world, &one).await, Spent::Wait(_)));
}

pub async fn a_hold_has_one_owner_until_it_ends(world: World) {
    let span = Duration::from_secs(30);
    let hold = async |name: &str, owner| world.store.hold(name, owner, span).await.unwrap();
    assert!(hold("sheet", 1).await);
    assert!(!hold("sheet", 2).await);
    assert!(hold("another", 2).await);
    // Extended by its owner, let go by nobody else.
    world.advance_secs(20);
    assert!(hold("sheet", 1).await);
    world.advance_secs(29);
    world.store.let_go("sheet", 2).await.unwrap();
    assert!(!hold("sheet", 2).await);
    // Over when its time is: whoever crashed with it blocks nobody for ever.
    world.advance_secs(1);
    assert!(hold("sheet", 2).await);
    assert!(!hold("sheet", 1).await);
    world.store.let_go("sheet", 1).await.unwrap();
    assert!(!hold("sheet", 1).await);
    world.store.let_go("sheet", 2).await.unwrap();
    assert!(hold("sheet", 1).await);
}
