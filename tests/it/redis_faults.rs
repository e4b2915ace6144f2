//! Redis fails under gateways that run: it stands still, is killed, or is full. Nothing accepted is lost, nobody waits for
//! long, and all goes on by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;

use crate::support::fleet::{Fleet, event};
use crate::support::process::Door;
use crate::support::receiver::Reply;
use crate::support::redis::Server;
use crate::support::{is_soak, within};

/// How long a request may wait for a store that does not answer; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(2 + 2);

/// Sends an event that must be refused in good time; answers the problem's code.
async fn refused(fleet: &Fleet, door: &Door, id: &str) -> String {
    let asked = Instant::now();
    let (status, headers, problem) = door.ask(&fleet.client, "/v1/events", &event(id)).await.unwrap();
    assert!(asked.elapsed() < PATIENCE, "took {:?}", asked.elapsed());
    assert_eq!((status, &headers["content-type"]), (503, &"application/problem+json".parse().unwrap()));
    let secs: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&secs), "{secs}");
    problem["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_and_comes_back() {
    let away = Duration::from_secs(if is_soak() { 30 } else { 5 });
    let mut fleet = Fleet::on(Server::durable()).await;
    let (api, worker) = (fleet.start(&["--role", "api"]), fleet.start(&["--role", "worker"]));
    let door = api.door().clone();
    fleet.connect(&door, 1).await;
    assert_eq!(fleet.publish(&door, "lead-0").await, 202);
    fleet.receiver.wait_for(1).await;
    fleet.wait_until_settled(&door).await;

    fleet.server.pause(true);
    let stopped = Instant::now();
    let mut waited = 0;
    while stopped.elapsed() < away {
        assert_eq!(refused(&fleet, &door, "lead-1").await, "store_unavailable");
        waited += 1;
    }
    assert!(waited > 1);
    let (status, problem) = fleet.call(worker.door(), "GET", "/readyz", None).await;
    assert_eq!((status, &problem["code"]), (503, &json!("not_ready")));
    fleet.server.pause(false);
    let back = Instant::now();
    within("the event to be taken", async {
        while fleet.publish(&door, "lead-1").await != 202 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let taken = back.elapsed();
    fleet.receiver.wait_for(2).await;
    let delivered = back.elapsed();
    println!("Redis stood still for {away:?}: taken {taken:?} and delivered {delivered:?} after it was back");
    assert!(delivered < Duration::from_secs(2), "took {delivered:?}");
    fleet.wait_until_settled(&door).await;
    let tally = fleet.tally("Redis stood still", 2);
    assert_eq!((tally.lost, tally.duplicated), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_and_comes_back() {
    let away = Duration::from_secs(if is_soak() { 30 } else { 4 });
    let mut fleet = Fleet::on(Server::durable()).await;
    let (api, worker) = (fleet.start(&["--role", "api"]), fleet.start(&["--role", "worker"]));
    let door = api.door().clone();
    fleet.connect(&door, 1).await;
    assert_eq!(fleet.publish(&door, "lead-0").await, 202);
    fleet.receiver.wait_for(1).await;
    fleet.wait_until_settled(&door).await;
    fleet.server.kill();
    let stopped = Instant::now();
    while stopped.elapsed() < away {
        assert_eq!(refused(&fleet, &door, "lead-1").await, "store_unavailable");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fleet.server.launch();
    let back = Instant::now();
    within("the event to be taken", async {
        while fleet.publish(&door, "lead-1").await != 202 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    fleet.receiver.wait_for(2).await;
    let delivered = back.elapsed();
    println!("Redis was gone for {away:?}: delivered {delivered:?} after it was back");
    assert!(delivered < Duration::from_secs(2), "took {delivered:?}");
    fleet.wait_until_settled(worker.door()).await;
    assert_eq!(fleet.tally("Redis was gone", 2).lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_killed_under_load_loses_nothing_accepted() {
    let (events, kills) = if is_soak() { (10_000, 8) } else { (600, 3) };
    let mut fleet = Fleet::on(Server::durable()).await;
    let processes = [fleet.start(&[]), fleet.start(&[])];
    let doors = processes.each_ref().map(|process| process.door().clone());
    fleet.connect(&doors[0], 1).await;
    let load = fleet.load(&doors, 0..events).await;
    for kill in 1..=kills {
        load.wait_for(events * kill / (kills + 1)).await;
        fleet.server.kill();
        fleet.server.launch();
    }
    let accepted = load.finish().await;
    for door in &doors {
        fleet.wait_until_settled(door).await;
    }
    assert_eq!(fleet.delivered(&doors[0]).await.len(), accepted);
    assert_eq!(fleet.tally(&format!("Redis killed {kills} times"), accepted).lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_takes_nothing_and_delivers_what_it_has() {
    const EVENTS: usize = 40;
    let mut fleet = Fleet::on(Server::durable()).await;
    let (api, _worker) = (fleet.start(&["--role", "api"]), fleet.start(&["--role", "worker"]));
    let door = api.door().clone();
    fleet.connect(&door, 1).await;
    let answer = Arc::new(Notify::new());
    fleet.receiver.otherwise(Reply::After(Arc::clone(&answer), 200));
    for number in 0..EVENTS {
        assert_eq!(fleet.publish(&door, &format!("lead-{number}")).await, 202);
    }
    fleet.receiver.wait_for(1).await;
    fleet.server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let next = format!("lead-{EVENTS}");
    assert_eq!(refused(&fleet, &door, &next).await, "store_full");
    assert_eq!(fleet.delivered(&door).await.len(), 0, "all is left to deliver");
    fleet.receiver.otherwise(Reply::status(200));
    within("what was accepted to be delivered by a full Redis", async {
        while fleet.delivered(&door).await.len() < EVENTS {
            answer.notify_waiters();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let missing = format!("/v1/events/{next}?tenant=acme");
    assert_eq!(fleet.call(&door, "GET", &missing, None).await.0, 404);
    assert_eq!(fleet.call(&door, "GET", "/readyz", None).await.0, 503);

    fleet.server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(fleet.publish(&door, &next).await, 202);
    fleet.wait_until_settled(&door).await;
    assert_eq!(fleet.call(&door, "GET", "/readyz", None).await.0, 200);
    let tally = fleet.tally("Redis was full", EVENTS + 1);
    assert_eq!((tally.lost, tally.duplicated), (0, 0));
}
