//! A replay outlives the process that is at it, on either store, and sends nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{Door, Process, client};
use crate::support::receiver::{Receiver, Reply};
use crate::support::redis::Server;
use crate::support::within;

const EVENTS: usize = 60;
const PER_SECOND: usize = 10;

/// Asks until the answer is as wanted.
async fn until(door: &Door, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let client = client();
    within(what, async {
        loop {
            if let Some((200, answer)) = door.call(&client, "GET", path, None).await
                && wanted(&answer)
            {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn a_killed_replay_goes_on(start: impl Fn(&Path, &Door) -> Process) {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, door, client) = (Receiver::start().await, Door::default(), client());
    let process = start(folder.path(), &door);
    let post = async |path: &str, body: Value| door.call(&client, "POST", path, Some(&body)).await.unwrap();
    assert_eq!(post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    receiver.otherwise(Reply::status(500));
    let connection = json!({ "tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
        "mapping": { "version": 1, "fields": [{ "to": "id", "from": "$.id" }] },
        "target": { "url": receiver.url },
        "policy": { "retry_delays_secs": [], "breaker_failures": 1_000 } });
    let (status, made) = post("/v1/connections", connection).await;
    assert_eq!(status, 201, "{made}");
    let connection = made["id"].as_str().unwrap().to_owned();
    let events: Vec<Value> = (0..EVENTS)
        .map(|number| json!({ "tenant": "acme", "type": "x", "id": format!("e{number}"), "data": null }))
        .collect();
    assert_eq!(post("/v1/events", Value::Array(events)).await.0, 202);
    let totals = format!("/v1/connections/{connection}/stats");
    until(&door, &totals, "all to end", |stats| stats["totals"]["dead"] == EVENTS).await;
    assert_eq!(receiver.arrivals().len(), EVENTS);

    // While the connection is paused, what is sent again stands in its lane: a kill interrupts no request.
    receiver.otherwise(Reply::status(200));
    assert_eq!(post(&format!("/v1/connections/{connection}/pause"), json!({})).await.0, 200);
    let replay = json!({ "connection": connection, "state": "dead", "per_second": PER_SECOND });
    let (status, made) = post("/v1/replays", replay).await;
    assert_eq!((status, &made["left"]), (201, &json!(EVENTS)), "{made}");
    let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
    let seen = until(&door, &path, "it to be on its way", |replay| replay["done"] != 0).await;
    assert_eq!(seen["status"], "running", "{seen}");
    let (place, door) = process.kill();
    let process = start(&place, &door);
    let done = until(&door, &path, "it to end in another process", |replay| replay["status"] == "done").await;
    let counted = done["done"].as_u64().unwrap() + done["skipped"].as_u64().unwrap();
    assert!(counted <= EVENTS as u64, "{done}");
    let queued = "/v1/deliveries?tenant=acme&state=waiting&limit=200";
    let waiting = until(&door, queued, "all to wait", |page| page["items"].is_array()).await;
    assert_eq!(waiting["items"].as_array().unwrap().len(), EVENTS);

    assert_eq!(post(&format!("/v1/connections/{connection}/resume"), json!({})).await.0, 200);
    until(&door, &totals, "all to arrive", |stats| stats["totals"]["delivered"] == EVENTS).await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for arrival in receiver.arrivals() {
        *times.entry(arrival.json()["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(times.len() == EVENTS && times.values().all(|count| *count == 2), "{times:?}");
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_goes_on_where_it_was_on_the_embedded_store() {
    a_killed_replay_goes_on(Process::start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_goes_on_where_it_was_on_redis() {
    let server = Server::start();
    a_killed_replay_goes_on(|folder, door| Process::start_on(&server.url(), folder, door, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_leaves_nothing_in_the_files_and_nothing_in_the_log() {
    const PERSON: &str = "planted.person@example.com";
    let (folder, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (receiver, door, client) = (Receiver::start().await, Door::default(), client());
    let log = logs.path().join("log");
    let process = Process::start_logged(folder.path(), &door, &log);
    let post = async |path: &str, body: Value| door.call(&client, "POST", path, Some(&body)).await.unwrap();
    assert_eq!(post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    let connection = json!({ "tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
        "target": { "url": receiver.url } });
    assert_eq!(post("/v1/connections", connection).await.0, 201);
    receiver.otherwise(Reply::Text(200, PERSON));
    let event = |id: usize| json!({ "tenant": "acme", "type": "x", "id": format!("e{id}"), "data": { "mail": PERSON } });
    assert_eq!(post("/v1/events", Value::Array((0..20).map(event).collect())).await.0, 202);
    receiver.wait_for(20).await;
    let erasure = json!({ "path": "$.data.mail", "equals": PERSON });
    let (status, made) = post("/v1/erasures?tenant=acme", erasure).await;
    assert_eq!(status, 201, "{made}");
    let path = format!("/v1/erasures/{}", made["id"].as_str().unwrap());
    let done = until(&door, &path, "the erasure to end", |erasure| erasure["status"] == "done").await;
    assert_eq!(done["events"], 20, "{done}");
    // While it runs, and after it ended.
    let absent = |place: &Path| {
        for entry in std::fs::read_dir(place).unwrap() {
            let file = entry.unwrap().path();
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(PERSON.len()).any(|part| part == PERSON.as_bytes());
            assert!(!found, "{} tells of the person", file.display());
        }
    };
    absent(folder.path());
    process.terminate();
    tokio::task::spawn_blocking(move || process.wait()).await.unwrap();
    absent(folder.path());
    absent(logs.path());
}
