//! Many processes on one Redis: what each does, what all see, and what happens when one is stopped or killed.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fleet::{Fleet, event};
use crate::support::process::{Door, Process, SECRET_KEY};
use crate::support::receiver::Reply;
use crate::support::redis::Server;
use crate::support::{is_soak, within};

/// What every process must know of a change that one of them took.
const SEEN: Duration = Duration::from_secs(1);

/// Waits for what must hold within [`SEEN`].
async fn is_seen(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < SEEN, "not seen within a second: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_does_what_its_role_says() {
    let mut fleet = Fleet::on(Server::durable()).await;
    let api = fleet.start(&["--role", "api"]);
    let door = api.door().clone();
    fleet.connect(&door, 1).await;
    let (status, ready) = fleet.call(&door, "GET", "/readyz", None).await;
    assert_eq!(
        (status, &ready["store"]),
        (200, &json!({"engine": "redis", "durability": "fsync", "note": null}))
    );
    assert_eq!(fleet.publish(&door, "lead-0").await, 202);

    let worker = fleet.start(&["--role", "worker"]);
    let probes = worker.door().clone();
    fleet.receiver.wait_for(1).await;
    fleet.wait_until_settled(&probes).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(fleet.call(&probes, "GET", path, None).await.0, 200, "{path}");
    }
    for path in ["/v1/events", "/v1/tenants", "/openapi.json", "/docs"] {
        let (status, problem) = fleet.call(&probes, "GET", path, None).await;
        assert_eq!((status, &problem["code"]), (404, &json!("no_such_route")), "{path}");
    }

    // Without a worker an event is kept and nothing is sent.
    worker.terminate();
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(fleet.publish(&door, "lead-1").await, 202);
    assert_eq!(fleet.metric(&door, "patchbay_queue_depth").await, Some(1));
    let _both = fleet.start(&[]);
    fleet.receiver.wait_for(2).await;
    fleet.wait_until_settled(&door).await;
    let tally = fleet.tally("roles", 2);
    assert_eq!((tally.lost, tally.duplicated), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_through_one_process_is_seen_by_all_within_a_second() {
    let mut fleet = Fleet::on(Server::start()).await;
    let (one, two) = (fleet.start(&["--role", "api"]), fleet.start(&["--role", "api"]));
    let _worker = fleet.start(&["--role", "worker"]);
    let (one, two) = (one.door().clone(), two.door().clone());
    let connection = fleet.connect(&one, 1).await.remove(0);
    let mut asked = 0;
    is_seen("a connection that was made", async || {
        // A new one each time: an event that was accepted keeps the jobs it was accepted with.
        asked += 1;
        let event = event(&format!("lead-0-{asked}"));
        let (status, receipt) = fleet.call(&two, "POST", "/v1/events", Some(&event)).await;
        status == 202 && receipt["jobs"] == 1
    })
    .await;
    fleet.receiver.wait_for(1).await;

    let path = format!("/v1/connections/{connection}");
    let paused =
        fleet.call(&one, "POST", &format!("{path}/pause"), Some(&json!({"reason": "by hand"}))).await;
    assert_eq!(paused.0, 200, "{}", paused.1);
    let state = async |door: &Door| fleet.call(door, "GET", &path, None).await.1["state"].clone();
    let told = state(&one).await;
    is_seen("a pause", async || state(&two).await == told).await;
    assert_eq!(fleet.publish(&two, "lead-1").await, 202);
    assert_eq!(fleet.call(&two, "POST", &format!("{path}/resume"), None).await.0, 200);
    is_seen("a resume", async || state(&one).await != told).await;
    fleet.receiver.wait_for(2).await;

    let wanted = json!({"tenant": "acme", "name": "reader", "scopes": ["read"]});
    let (status, key) = fleet.call(&one, "POST", "/v1/keys", Some(&wanted)).await;
    assert_eq!(status, 201, "{key}");
    let other = two.with_key(key["token"].as_str().unwrap());
    is_seen("a key", async || fleet.call(&other, "GET", "/v1/deliveries", None).await.0 == 200).await;
    let revoke = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(fleet.call(&one, "DELETE", &revoke, None).await.0, 204);
    is_seen("a revoked key", async || fleet.call(&other, "GET", "/v1/deliveries", None).await.0 == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_make_one_operator_key() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let starting: Vec<_> = (0..3)
        .map(|number| {
            let (url, folder) = (server.url(), folder.path().join(number.to_string()));
            tokio::task::spawn_blocking(move || Process::start_on(&url, &folder, &Door::default(), &[]))
        })
        .collect();
    let mut keys = BTreeSet::new();
    for process in starting {
        let process = within("a process", process).await.unwrap();
        keys.insert(process.door().key());
    }
    keys.remove("");
    assert_eq!(keys.len(), 1, "one of them shows a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_fit_the_others_does_not_start() {
    let mut fleet = Fleet::on(Server::start()).await;
    let process = fleet.start(&["--role", "api"]);
    fleet.connect(process.door(), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let start = |key: &str, partitions: &str, store: &str, role: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
            .current_dir(folder.path())
            .env_clear()
            .envs([("PATCHBAY_STORE", store), ("PATCHBAY_SECRET_KEY", key)])
            .env("PATCHBAY_REDIS_PARTITIONS", partitions)
            .args(["serve", "--listen", "127.0.0.1:0", "--role", role])
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let url = fleet.server.url();
    let another = "YW5vdGhlciBrZXkgdGhhbiBhbGwgdGhlIG90aGVycyE=";
    let (code, text) = start(another, "16", &url, "worker");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("secret key is not the one") && text.contains("PATCHBAY_SECRET_KEY"), "{text}");
    let (code, text) = start(SECRET_KEY, "8", &url, "worker");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("16 partitions") && text.contains("patchbay store migrate"), "{text}");
    let (code, text) = start(SECRET_KEY, "16", "sqlite", "api");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--role: \"api\" needs Redis as the store") && text.contains("hint: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_is_killed_under_load_and_its_jobs_come_again_within_ten_seconds() {
    let events = if is_soak() { 1_250 } else { 100 };
    let mut fleet = Fleet::on(Server::durable()).await;
    let mut processes = vec![fleet.start(&[]), fleet.start(&[]), fleet.start(&[])];
    let doors: Vec<Door> = processes.iter().map(|process| process.door().clone()).collect();
    fleet.connect(&doors[0], 8).await;
    let accepted = fleet.load(&doors, 0..events / 2).await.finish().await;
    fleet.wait_until_settled(&doors[1]).await;
    let settled: BTreeSet<String> = fleet.delivered(&doors[1]).await.into_iter().collect();
    assert_eq!(settled.len(), accepted * 8);
    // Slow enough to be killed while some are under way.
    fleet.receiver.otherwise(Reply::Slow(Duration::from_secs(1)));
    let load = fleet.load(&doors, events / 2..events).await;
    fleet.receiver.wait_for(settled.len() + events).await;
    let victim = fleet.one_at_work(&doors).await;
    processes.remove(victim).kill();
    let killed = Instant::now();
    let accepted = accepted + load.finish().await;
    fleet.wait_until_settled(processes[0].door()).await;

    let (mut first, mut again) = (BTreeSet::new(), Vec::new());
    for arrival in fleet.receiver.arrivals() {
        let job = arrival.header("webhook-id").to_owned();
        if arrival.at > killed {
            assert!(!settled.contains(&job), "settled before the kill and sent again: {job}");
        }
        if !first.insert(job) {
            again.push(arrival.at.saturating_duration_since(killed));
        }
    }
    let latest = again.iter().max().copied().unwrap_or_default();
    println!(
        "one of three killed: accepted {accepted} events with 8 jobs each, delivered {}, lost {}, duplicated {}, the \
         last of those {latest:?} after the kill",
        first.len(),
        accepted * 8 - first.len(),
        again.len(),
    );
    assert_eq!(first.len(), accepted * 8, "lost");
    assert!(!again.is_empty(), "the killed process had jobs under way");
    assert!(latest < Duration::from_secs(10), "the last came again {latest:?} after the kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_fan_out_of_ten_only_the_unsettled_come_again() {
    let mut fleet = Fleet::on(Server::start()).await;
    let first = fleet.start(&[]);
    fleet.connect(first.door(), 10).await;
    fleet.receiver.script((0..6).map(|_| Reply::status(200)));
    fleet.receiver.otherwise(Reply::Silence);
    assert_eq!(fleet.publish(first.door(), "lead-0").await, 202);
    let before = fleet.receiver.wait_for(10).await;
    within("six to be settled", async {
        while fleet.delivered(first.door()).await.len() < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let settled: BTreeSet<String> = fleet.delivered(first.door()).await.into_iter().collect();
    let second = fleet.start(&[]);
    first.kill();
    let killed = Instant::now();
    fleet.receiver.otherwise(Reply::status(200));
    fleet.receiver.wait_for(14).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "took {:?}", killed.elapsed());
    fleet.wait_until_settled(second.door()).await;
    let arrivals = fleet.receiver.arrivals();
    let again: BTreeSet<String> =
        arrivals[10..].iter().map(|arrival| arrival.header("webhook-id").to_owned()).collect();
    let all: BTreeSet<String> =
        before.iter().map(|arrival| arrival.header("webhook-id").to_owned()).collect();
    println!("fan-out of ten: settled 6, again {:?} after the kill: {}", killed.elapsed(), again.len());
    assert_eq!((arrivals.len(), again.len()), (14, 4));
    assert_eq!(again, all.difference(&settled).cloned().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_attempts_are_not_taken_from_a_process_that_lives() {
    // Longer than a silent process keeps its leases.
    let slow = if is_soak() { Duration::from_secs(14) } else { Duration::from_secs(9) };
    let mut fleet = Fleet::on(Server::start()).await;
    let processes = [fleet.start(&[]), fleet.start(&[])];
    fleet.connect(processes[0].door(), 2).await;
    fleet.receiver.otherwise(Reply::Slow(slow));
    let load = fleet.load(&[processes[0].door().clone()], 0..8).await;
    let accepted = load.finish().await;
    fleet.receiver.wait_for(accepted * 2).await;
    fleet.wait_until_settled(processes[1].door()).await;
    assert_eq!(fleet.receiver.arrivals().len(), accepted * 2, "each is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_repeats_nothing() {
    let events = if is_soak() { 10_000 } else { 600 };
    let mut fleet = Fleet::on(Server::durable()).await;
    let mut processes = vec![fleet.start(&[]), fleet.start(&[])];
    let doors: Vec<Door> = processes.iter().map(|process| process.door().clone()).collect();
    fleet.connect(&doors[0], 1).await;
    let load = fleet.load(&doors, 0..events).await;
    for round in 0..2 {
        load.wait_for(events * (round + 1) / 4).await;
        let old = processes.remove(0);
        let door = old.door().clone();
        old.terminate();
        let ended = within("the end", tokio::task::spawn_blocking(move || old.wait())).await.unwrap();
        assert_eq!(ended, Some(0));
        processes.push(fleet.start_at(&door, &[]));
    }
    let accepted = load.finish().await;
    fleet.wait_until_settled(processes[0].door()).await;
    let tally = fleet.tally("rolling restart", accepted);
    assert_eq!((tally.lost, tally.duplicated), (0, 0));
}

#[test]
fn the_bench_measures_a_gateway_on_redis() {
    let (server, folder) = (Server::durable(), tempfile::tempdir().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .current_dir(folder.path())
        .env_clear()
        .args(["bench", "--json", "--events", "200", "--rate", "200", "--concurrency", "8", "--fan-out", "2"])
        .args(["--store", &server.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["full"]["accepted"], &report["full"]["delivered"]), (&json!(200), &json!(400)));
}
