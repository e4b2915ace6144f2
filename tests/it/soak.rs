//! Steady load for a long time: nothing is lost or late, and memory does not grow.
//!
//! Under `PATCHBAY_SOAK=1` it takes ten minutes on each store, or `SOAK_SECS`; without it a few seconds, in which everything is
//! done and checked once. The figures are printed.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::is_soak;
use crate::support::process::{Door, Process, client, resident_kib};
use crate::support::receiver::{Receiver, Reply};
use crate::support::redis::Server;
use crate::support::within;

/// Events a second, in so many requests.
const RATE: usize = 200;
const REQUESTS: usize = 20;
const CONNECTIONS: usize = 10;
/// What memory may grow by between the second quarter and the last: a tenth and 8 MiB.
const SLACK_KIB: u64 = 8 * 1_024;

fn span() -> Duration {
    let secs = std::env::var("SOAK_SECS").ok().and_then(|secs| secs.parse().ok());
    Duration::from_secs(secs.unwrap_or(if is_soak() { 600 } else { 8 }))
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

async fn soak(store: &str, process: &Process, door: &Door) {
    let (receiver, client) = (Receiver::forgetful().await, client());
    let call = async |method: &str, path: &str, body: &serde_json::Value| {
        let (status, answer) = door.call(&client, method, path, Some(body)).await.expect("an answer");
        assert!((200..300).contains(&status), "{status}: {answer}");
    };
    call("POST", "/v1/tenants", &json!({"id": "acme"})).await;
    for number in 0..CONNECTIONS {
        let connection = json!({"tenant": "acme", "name": number.to_string(), "connector": "webhook",
            "events": [format!("type.{number}")], "policy": {"retry_delays_secs": [1, 1, 1]},
            "target": {"url": receiver.url}});
        call("POST", "/v1/connections", &connection).await;
    }
    let (began, mut sent, mut samples) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < span() {
        let second = Instant::now();
        // Now and then an answer that makes work of another kind.
        receiver.script([Reply::status(503), Reply::status(500)]);
        for _ in 0..REQUESTS {
            let events: Vec<_> = (0..RATE / REQUESTS)
                .map(|_| {
                    sent += 1;
                    json!({"tenant": "acme", "type": format!("type.{}", sent % CONNECTIONS),
                           "id": format!("e-{sent}"), "data": {"text": "x".repeat(500)}})
                })
                .collect();
            call("POST", "/v1/events", &json!(events)).await;
        }
        samples.push(resident_kib(process.id()));
        tokio::time::sleep_until(second + Duration::from_secs(1)).await;
    }
    within("every job to be delivered", async {
        let open = async || {
            let url = format!("http://{}/metrics", door.address());
            let text = client.get(url).send().await.ok()?.text().await.ok()?;
            text.lines().find_map(|line| line.strip_prefix("patchbay_queue_depth ")?.parse::<u64>().ok())
        };
        while open().await != Some(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(receiver.count() >= sent, "{} of {sent} arrived", receiver.count());
    let quarter = samples.len() / 4;
    let (early, late) = (median(&samples[quarter..2 * quarter]), median(&samples[3 * quarter..]));
    println!(
        "{store}: {sent} events in {} s, {} requests to the receiver, memory {} KiB in the second quarter, {} KiB in the last",
        began.elapsed().as_secs(),
        receiver.count(),
        early,
        late
    );
    assert!(late <= early + early / 10 + SLACK_KIB, "memory grew from {early} to {late} KiB: {samples:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_under_steady_load_on_the_embedded_store() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let process = Process::start(folder.path(), &door);
    soak("sqlite", &process, &door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_under_steady_load_on_redis() {
    let (server, folder, door) = (Server::start(), tempfile::tempdir().unwrap(), Door::default());
    let process = Process::start_on(&server.url(), folder.path(), &door, &[]);
    soak("redis", &process, &door).await;
}
