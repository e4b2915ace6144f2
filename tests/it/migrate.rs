//! `patchbay store migrate`: a small installation moves to Redis, goes on there, and can move on or back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{Door, Process, SECRET_KEY, client};
use crate::support::receiver::{Receiver, Reply};
use crate::support::redis::Server;
use crate::support::within;

/// Runs the program; its exit code, and what it said on both outputs.
fn migrate(arguments: &[&str]) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .current_dir(folder.path())
        .env_clear()
        .args(["store", "migrate", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), told, String::from_utf8(output.stderr).unwrap())
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.display())
}

/// A gateway on the embedded store with something in every state.
struct Old {
    folder: tempfile::TempDir,
    door: Door,
    client: reqwest::Client,
    receiver: Receiver,
    /// By event type.
    connections: BTreeMap<&'static str, (String, String)>,
}

impl Old {
    async fn fill() -> (Self, Process) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret.key"), SECRET_KEY).unwrap();
        let (door, client, receiver) = (Door::default(), client(), Receiver::start().await);
        let process = Process::start(folder.path(), &door);
        let mut old = Self { folder, door, client, receiver, connections: BTreeMap::new() };
        assert_eq!(old.call("POST", "/v1/tenants", Some(&json!({"id": "acme"}))).await.0, 201);
        for (kind, retries) in
            [("fine", json!(null)), ("dying", json!([])), ("later", json!([3])), ("held", json!(null))]
        {
            let connection = json!({"tenant": "acme", "name": kind, "connector": "webhook", "events": [kind],
                "mapping": {"version": 1, "fields": [{"to": "id", "from": "$.id"}]},
                "policy": {"retry_delays_secs": retries}, "target": {"url": old.receiver.url}});
            let (status, made) = old.call("POST", "/v1/connections", Some(&connection)).await;
            assert_eq!(status, 201, "{made}");
            let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
            old.connections.insert(kind, (text("id"), text("secret")));
        }
        let pause = format!("/v1/connections/{}/pause", old.connections["held"].0);
        assert_eq!(old.call("POST", &pause, Some(&json!({"reason": "by hand"}))).await.0, 200);
        let source = json!({"tenant": "acme", "name": "Bot", "connector": "fusionchatalyst", "secret": "word",
            "agent": "agt_1", "public": true});
        assert_eq!(old.call("POST", "/v1/sources", Some(&source)).await.0, 201);
        for number in 0..5 {
            assert!(!old.publish("fine", &format!("fine-{number}")).await);
        }
        old.wait_for("delivered", 5).await;
        old.receiver.script([Reply::status(500), Reply::status(503)]);
        old.publish("dying", "dying-0").await;
        old.wait_for("dead", 1).await;
        for number in 0..2 {
            old.publish("held", &format!("held-{number}")).await;
        }
        (old, process)
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.door.call(&self.client, method, path, body).await.unwrap()
    }

    /// Sends an event; whether it was known already.
    async fn publish(&self, kind: &str, id: &str) -> bool {
        let event = json!({"tenant": "acme", "type": kind, "source": "bot", "id": id, "data": {"n": 1.5}});
        let (status, headers, receipt) = self.door.ask(&self.client, "/v1/events", &event).await.unwrap();
        assert_eq!((status, &receipt["jobs"]), (202, &json!(1)), "{receipt}");
        headers.contains_key("idempotent-replay")
    }

    /// Deliveries in a state, once there are so many.
    async fn wait_for(&self, state: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/deliveries?limit=200&state={state}");
        within(&format!("{count} {state}"), async {
            loop {
                let (_, page) = self.call("GET", &path, None).await;
                let items = page["items"].as_array().unwrap();
                if items.len() == count {
                    return items.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// The ids under which an event's delivery arrived.
    fn names(&self, event: &str) -> Vec<String> {
        let arrivals = self.receiver.arrivals();
        let arrivals = arrivals.iter().filter(|arrival| arrival.json()["id"] == event);
        arrivals.map(|arrival| arrival.header("webhook-id").to_owned()).collect()
    }
}

fn stop(process: Process) {
    process.terminate();
    assert_eq!(process.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_installation_moves_to_redis_and_on_and_back() {
    let (old, process) = Old::fill().await;
    let (server, from) = (Server::durable(), sqlite(old.folder.path()));
    let url = server.url();
    let (code, _, text) = migrate(&["--from", &from, "--to", &url]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another gateway runs on"), "{text}");
    // It is stopped before the retry is due.
    old.publish("later", "later-0").await;
    old.wait_for("waiting", 1).await;
    stop(process);

    let (code, told, text) = migrate(&["--from", &from, "--to", &url]);
    assert_eq!(code, 0, "{text}");
    assert_eq!((&told["equal"], &told["source"]), (&json!(true), &told["target"]));
    let wanted = json!({"tenants": 1, "keys": 1, "connections": 4, "sources": 1, "events": 9, "jobs": 9, "attempts": 7,
        "jobs delivered": 5, "jobs dead": 1, "jobs waiting": 1, "jobs queued": 2});
    for (name, count) in wanted.as_object().unwrap() {
        assert_eq!(&told["target"][name], count, "{name}");
    }

    // Once more is refused; going on finds all of it there.
    let (code, _, text) = migrate(&["--from", &from, "--to", &url]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the target is not empty") && text.contains("--resume"), "{text}");
    let (code, _, text) = migrate(&["--from", &from, "--to", &url, "--resume"]);
    assert_eq!(code, 0, "{text}");

    // The same key opens it, and what was open goes on under the names that receivers know.
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_on(&url, folder.path(), &old.door, &[]);
    old.wait_for("delivered", 6).await;
    let (_, sources) = old.call("GET", "/v1/sources", None).await;
    let source = &sources["items"][0];
    assert_eq!((&source["agent"], &source["public"]), (&json!("agt_1"), &json!(true)), "{sources}");
    assert_eq!((&source["has_secret"], &source["broken"]), (&json!(true), &Value::Null), "its secret opens");
    let later = old.names("later-0");
    assert_eq!(later.len(), 2);
    assert_eq!(later[0], later[1], "the same id on every try");
    let arrivals = old.receiver.arrivals();
    let last = arrivals.iter().rfind(|arrival| arrival.json()["id"] == "later-0").unwrap();
    assert!(last.is_signed_by(&old.connections["later"].1), "signed with the secret that was moved");
    let resume = format!("/v1/connections/{}/resume", old.connections["held"].0);
    assert_eq!(old.call("POST", &resume, None).await.0, 200);
    old.wait_for("delivered", 8).await;
    let dead = old.wait_for("dead", 1).await.remove(0);
    let id = dead["id"].as_str().unwrap();
    let (_, shown) = old.call("GET", &format!("/v1/deliveries/{id}"), None).await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(old.call("POST", &format!("/v1/deliveries/{id}/retry"), None).await.0, 202);
    old.wait_for("delivered", 9).await;
    let dying = old.names("dying-0");
    assert_eq!((dying.len(), &dying[0]), (2, &dying[1]));
    assert!(old.publish("fine", "fine-0").await, "a repeat is still known");
    assert_eq!(old.receiver.arrivals().len(), 11);
    stop(process);

    // To more partitions, under another prefix; and back to one folder.
    let wide = ["--to-prefix", "wide", "--to-partitions", "64"];
    let (code, told, text) = migrate(&[&["--from", &url, "--to", &url][..], &wide].concat());
    assert_eq!(code, 0, "{text}");
    assert_eq!(told["target"]["jobs delivered"], 9);
    let back = tempfile::tempdir().unwrap();
    let to = sqlite(back.path());
    let wide = ["--from-prefix", "wide", "--from-partitions", "64"];
    let (code, _, text) = migrate(&[&["--from", &url, "--to", &to][..], &wide].concat());
    assert_eq!(code, 0, "{text}");
    std::fs::write(back.path().join("secret.key"), SECRET_KEY).unwrap();
    let _process = Process::start(back.path(), &old.door);
    old.wait_for("delivered", 9).await;
    assert!(old.publish("fine", "fine-1").await);
    assert!(!old.publish("fine", "fine-9").await);
    old.wait_for("delivered", 10).await;
}

#[test]
fn a_move_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let (code, _, text) = migrate(&["--from", &sqlite(&nowhere), "--to", "redis://127.0.0.1:1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("holds no store"), "{text}");
    assert!(!nowhere.exists());
    let (code, _, text) = migrate(&["--from", "postgres://u:hunter2@h", "--to", "redis://127.0.0.1:1"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--from") && !text.contains("hunter2"), "{text}");
}
