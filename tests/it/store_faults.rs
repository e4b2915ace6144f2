//! A store that can't be written to: whoever sends an event is told so, nothing counts as accepted, and all goes on by itself
//! when the fault is over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Client;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::process::{Door, Process, client};
use crate::support::receiver::{Receiver, Reply};
use crate::support::within;

/// A gateway in a process of its own with one connection for everything.
struct Scene {
    folder: TempDir,
    door: Door,
    client: Client,
    process: Process,
    receiver: Receiver,
}

impl Scene {
    async fn start(start: impl FnOnce(&Path, &Door) -> Process) -> Self {
        let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
        let (door, client) = (Door::default(), client());
        let process = start(folder.path(), &door);
        let scene = Self { folder, door, client, process, receiver };
        scene.call("POST", "/v1/tenants", Some(&json!({"id": "acme"}))).await;
        let connection = json!({"tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
                                "target": {"url": scene.receiver.url}});
        assert_eq!(scene.call("POST", "/v1/connections", Some(&connection)).await.0, 201);
        scene
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.door.call(&self.client, method, path, body).await.unwrap()
    }

    async fn publish(&self, id: &str, bytes: usize) -> (u16, Value) {
        let data = "x".repeat(bytes);
        let event = json!({"tenant": "acme", "type": "lead.captured", "id": id, "data": data});
        self.call("POST", "/v1/events", Some(&event)).await
    }

    /// Seconds after which `POST /v1/events` asks to be called again, and the code of the problem.
    async fn refused(&self, id: &str, bytes: usize) -> (u64, String) {
        let data = "x".repeat(bytes);
        let event = json!({"tenant": "acme", "type": "lead.captured", "id": id, "data": data});
        let (status, headers, body) = self.door.ask(&self.client, "/v1/events", &event).await.unwrap();
        assert_eq!((status, &headers["content-type"]), (503, &"application/problem+json".parse().unwrap()));
        let secs = headers["retry-after"].to_str().unwrap().parse().unwrap();
        (secs, body["code"].as_str().unwrap().to_owned())
    }

    fn database(&self) -> Connection {
        Connection::open(self.folder.path().join("patchbay.db")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_gives_an_error_and_no_202() {
    let scene = Scene::start(Process::start).await;
    let other = scene.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (secs, code) = scene.refused("lead-1", 1).await;
    assert!((1..=60).contains(&secs));
    assert_eq!(code, "store_unavailable");
    let (status, ready) = scene.call("GET", "/readyz", None).await;
    assert_eq!((status, &ready["errors"][0]["pointer"]), (503, &json!("/store")));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(scene.call("GET", "/v1/events/lead-1?tenant=acme", None).await.0, 404);
    assert!(scene.receiver.arrivals().is_empty());
    let (status, accepted) = scene.publish("lead-1", 1).await;
    assert_eq!((status, &accepted["jobs"]), (202, &json!(1)), "a retry of the id is taken");
    scene.receiver.wait_for(1).await;
    assert_eq!(scene.call("GET", "/readyz", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_ends_in_time_though_its_store_does_not_write() {
    let scene = Scene::start(Process::start).await;
    let answer = Arc::new(Notify::new());
    scene.receiver.script([Reply::After(Arc::clone(&answer), 200)]);
    assert_eq!(scene.publish("lead-1", 1).await.0, 202);
    scene.receiver.wait_for(1).await;
    let other = scene.database();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    answer.notify_one();
    let asked = Instant::now();
    scene.process.terminate();
    let Scene { folder, door, process, receiver, .. } = scene;
    let ended = within("the end", tokio::task::spawn_blocking(move || process.wait())).await.unwrap();
    assert_eq!(ended, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "took {:?}", asked.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
    let _again = Process::start(folder.path(), &door);
    receiver.wait_for(2).await;
}

/// Limits how large a file of the process may grow: what a full disk does to a writer.
#[cfg(target_os = "linux")]
fn limit_files(process: &Process, bytes: &str) {
    let limit = format!("--fsize={bytes}:");
    let pid = process.id().to_string();
    let done = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn a_full_disk_gives_an_error_and_no_202() {
    let scene = Scene::start(Process::start_with_file_limits).await;
    limit_files(&scene.process, "3000000");
    let mut accepted = 0;
    let refused = within("the disk to be full", async {
        loop {
            let (status, _) = scene.publish(&format!("lead-{accepted}"), 100_000).await;
            if status != 202 {
                break format!("lead-{accepted}");
            }
            accepted += 1;
        }
    })
    .await;
    assert!(accepted > 0);
    let (secs, code) = scene.refused(&refused, 100_000).await;
    assert!((1..=60).contains(&secs) && code.starts_with("store_"), "{secs} {code}");
    let missing = format!("/v1/events/{refused}?tenant=acme");
    assert_eq!(scene.call("GET", &missing, None).await.0, 404);

    limit_files(&scene.process, "unlimited");
    let (status, receipt) = scene.publish(&refused, 100_000).await;
    assert_eq!((status, &receipt["jobs"]), (202, &json!(1)), "a retry of the id is taken");
    within("all that was accepted to be delivered", async {
        loop {
            let (_, page) = scene.call("GET", "/v1/deliveries?state=delivered&limit=200", None).await;
            if page["items"].as_array().unwrap().len() == accepted + 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
