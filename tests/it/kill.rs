//! Promise 1 and 2, broken on purpose: the gateway is killed at random moments while events flow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use patchbay::clock::{Clock, Entropy, Ids};
use patchbay::domain::id::JobId;
use patchbay::domain::job::JobState;
use patchbay::store::sqlite::SqliteStore;
use patchbay::store::{DeliveryQuery, Store};
use serde_json::json;

use crate::support::process::{Door, Process, client};
use crate::support::receiver::Receiver;
use crate::support::within;

const EVENTS: usize = 2_000;
const SENDERS: usize = 32;
const KILLS: usize = 5;

/// Every job in the store of a stopped gateway, by its event's id.
async fn jobs(folder: &std::path::Path) -> BTreeMap<String, (JobId, JobState)> {
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store = SqliteStore::open_guest(folder, clock, ids).await.unwrap();
    let query = DeliveryQuery { limit: 2 * EVENTS, ..DeliveryQuery::default() };
    let found = store.deliveries(query).await.unwrap().items;
    store.close().await;
    let count = found.len();
    let jobs: BTreeMap<_, _> =
        found.into_iter().map(|found| (found.event_id, (found.job.id, found.state))).collect();
    assert_eq!(jobs.len(), count, "an event made two jobs for one connection");
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_nothing_accepted_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let door = Door::default();
    let client = client();
    let mut process = Process::start(folder.path(), &door);
    door.connect(&client, &receiver.url).await;

    // Each event is sent until it is accepted; its id makes the repeats harmless.
    let accepted = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, door, accepted) = (client.clone(), door.clone(), Arc::clone(&accepted));
            tokio::spawn(async move {
                for number in (sender..EVENTS).step_by(SENDERS) {
                    let event = json!({"tenant": "acme", "type": "lead.captured", "source": "bot",
                                       "id": format!("lead-{number}"), "data": {"number": number}});
                    loop {
                        match door.call(&client, "POST", "/v1/events", Some(&event)).await {
                            Some((202, _)) => break,
                            Some((status @ 400..=499, problem)) => panic!("{status}: {problem}"),
                            _ => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // Kills come after a random share of what each life is expected to accept.
    let entropy = Entropy::system();
    let mut settled_before: Vec<(usize, BTreeSet<String>)> = Vec::new();
    let mut restarted = Instant::now();
    for kill in 1..=KILLS {
        let share = EVENTS * kill / (KILLS + 1);
        let moment = share - usize::from(u8::from_be_bytes(entropy.bytes())) * share / 5 / 255;
        within("enough events to be accepted", async {
            while accepted.load(Ordering::Relaxed) < moment {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let (path, door) = process.kill();
        let delivered = jobs(&path).await;
        let delivered = delivered.into_values().filter(|(_, state)| *state == JobState::Delivered);
        let settled = delivered.map(|(job, _)| job.to_string()).collect();
        settled_before.push((receiver.arrivals().len(), settled));
        process = Process::start(&path, &door);
        restarted = Instant::now();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    within("every job to be settled", async {
        loop {
            let waiting = door.call(&client, "GET", "/v1/deliveries?state=queued&limit=1", None).await;
            if waiting.is_some_and(|(_, page)| page["items"].as_array().is_some_and(Vec::is_empty)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let took = restarted.elapsed();
    let (path, _) = process.kill();

    let arrivals = receiver.arrivals();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for arrival in &arrivals {
        *times.entry(arrival.json()["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let kept = jobs(&path).await;
    let lost = (0..EVENTS).filter(|number| !times.contains_key(&format!("lead-{number}"))).count();
    let duplicates = arrivals.len() - times.len();
    println!(
        "accepted {EVENTS}, delivered {}, lost {lost}, delivered again {duplicates}, kills {KILLS}, settled {took:?} \
         after the last start",
        times.len()
    );
    assert_eq!(lost, 0);
    assert_eq!(kept.len(), EVENTS);
    assert!(kept.values().all(|(_, state)| *state == JobState::Delivered));
    for (already, settled) in settled_before {
        let again: Vec<&str> = arrivals[already..]
            .iter()
            .map(|arrival| arrival.header("webhook-id"))
            .filter(|job| settled.contains(*job))
            .collect();
        assert!(again.is_empty(), "settled before a kill and sent again: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_comes_back_within_ten_seconds_of_a_start() {
    use crate::support::receiver::Reply;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.otherwise(Reply::Silence);
    let door = Door::default();
    let client = client();
    let process = Process::start(folder.path(), &door);
    door.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "acme", "name": "Acme"}))).await.unwrap();
    let connection = json!({"tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
                            "target": {"url": receiver.url}});
    door.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    for number in 0..10 {
        let event = json!({"tenant": "acme", "type": "lead.captured", "data": {"number": number}});
        assert_eq!(door.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap().0, 202);
    }
    receiver.wait_for(10).await;
    let (path, door) = process.kill();
    receiver.otherwise(Reply::status(200));
    let started = Instant::now();
    let _again = Process::start(&path, &door);
    let arrivals = receiver.wait_for(20).await;
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    let first: BTreeSet<&str> = arrivals[..10].iter().map(|arrival| arrival.header("webhook-id")).collect();
    let second: BTreeSet<&str> = arrivals[10..].iter().map(|arrival| arrival.header("webhook-id")).collect();
    assert_eq!(first, second, "the same ids, so that the receiver knows the repeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_attempts_under_way_end_and_a_second_one_ends_at_once() {
    use crate::support::receiver::Reply;
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.otherwise(Reply::Slow(Duration::from_millis(500)));
    let door = Door::default();
    let client = client();
    let process = Process::start(folder.path(), &door);
    door.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "acme", "name": "Acme"}))).await.unwrap();
    let connection = json!({"tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
                            "target": {"url": receiver.url}});
    door.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    let event = json!({"tenant": "acme", "type": "lead.captured", "data": {}});
    door.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap();
    receiver.wait_for(1).await;
    process.terminate();
    assert_eq!(process.wait(), Some(0));
    let kept = jobs(folder.path()).await;
    assert!(kept.values().all(|(_, state)| *state == JobState::Delivered), "{kept:?}");

    receiver.otherwise(Reply::Silence);
    let process = Process::start(folder.path(), &door);
    door.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap();
    receiver.wait_for(2).await;
    process.terminate();
    // It has heard the first one once it takes no more connections.
    within("the door to close", async {
        while tokio::net::TcpStream::connect(door.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let asked = Instant::now();
    process.terminate();
    assert_eq!(process.wait(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(2), "took {:?}", asked.elapsed());
}
