//! Secrets and personal data, planted everywhere that a caller can put them, and looked for everywhere that they must not be.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{Door, Process, client};
use crate::support::receiver::{Receiver, Reply};
use crate::support::within;

const PERSON: &str = "canary.person@example.com";
const SIGNING: &str = "whsec_Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LTAxMjM0NTY3ODk=";
const HEADER: &str = "canary-header-credential-4711";
const QUERY: &str = "canary-url-token-4712";
const WRONG_KEY: &str = "pb_canary_wrong_key_4713";
const SEARCHED: &str = "canary-searched-text-4714";

/// Sends requests that are answered well and badly, and deliveries that arrive and fail.
async fn plant(door: &Door, receiver: &Receiver) -> String {
    let client = client();
    let post = async |path: &str, body: Value| door.call(&client, "POST", path, Some(&body)).await.unwrap();
    assert_eq!(post("/v1/tenants", json!({"id": "acme", "name": "Acme"})).await.0, 201);
    let key =
        post("/v1/keys", json!({"tenant": "acme", "name": "all", "scopes": ["publish", "manage", "read"]}))
            .await
            .1;
    let key = key["token"].as_str().unwrap().to_owned();
    let acme = door.with_key(&key);
    let connection = json!({"name": "all", "connector": "webhook", "events": ["*"], "mapping": "standard_webhook",
        "secret": SIGNING,
        "target": {"url": format!("{}/hook?token={QUERY}", receiver.url), "headers": {"x-api-key": HEADER}}});
    let made = acme.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    assert_eq!(made.0, 201, "{}", made.1);
    let id = made.1["id"].as_str().unwrap().to_owned();

    // The receiver repeats what it got; one delivery is refused, one fails, the rest arrive.
    let echo = |status| Reply::Status(status, vec![("x-echo", format!("{PERSON} {HEADER}"))]);
    receiver.script([echo(422), echo(500)]);
    for number in 0..4 {
        let event = json!({"type": "lead.captured", "id": format!("e{number}"), "data": {"email": PERSON}});
        let sent = acme.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap();
        assert_eq!(sent.0, 202, "{}", sent.1);
    }
    // Faults with the person in them: a wrong type, a bad document, an unknown key, a search, a path that is none.
    for (path, body) in [
        ("/v1/events", json!({"type": PERSON, "data": {"email": PERSON}})),
        ("/v1/events", json!({"typ": "x", "email": PERSON})),
        ("/v1/connections", json!({"name": PERSON, "secret": SIGNING, "target": {"url": QUERY}})),
        ("/v1/mappings/preview", json!({"mapping": PERSON, "event": {"type": "x", "data": PERSON}})),
        (&format!("/v1/connections/{id}/test"), json!({})),
        (&format!("/v1/nothing/{PERSON}"), json!({})),
    ] {
        acme.call(&client, "POST", path, Some(&body)).await.unwrap();
    }
    door.with_key(WRONG_KEY).call(&client, "GET", "/v1/deliveries", None).await.unwrap();
    acme.call(&client, "GET", &format!("/v1/deliveries?text={SEARCHED}&event={PERSON}"), None).await.unwrap();
    within("three deliveries to end", async {
        loop {
            let log = acme.call(&client, "GET", "/v1/deliveries?limit=200", None).await.unwrap().1;
            let ended =
                log["items"].as_array().unwrap().iter().filter(|item| !item["finished"].is_null()).count();
            if ended >= 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    key
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn assert_without(place: &str, bytes: &[u8], canaries: &[&str]) {
    for canary in canaries {
        let found = bytes.windows(canary.len()).position(|part| part == canary.as_bytes());
        let around = |at: usize| {
            let part = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
            String::from_utf8_lossy(part).into_owned()
        };
        assert!(found.is_none(), "{canary} is in {place}: …{}…", around(found.unwrap_or_default()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_person_is_where_it_must_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let door = Door::default();
    let log = logs.path().join("log");
    let process = Process::start_logged(folder.path(), &door, &log);
    let key = plant(&door, &receiver).await;
    let client = client();
    let metrics = client.get(format!("http://{}/metrics", door.address())).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let openapi = client.get(format!("http://{}/openapi.json", door.address())).send().await.unwrap();
    let openapi = openapi.text().await.unwrap();
    let operator = door.key();
    process.terminate();
    tokio::task::spawn_blocking(move || process.wait()).await.unwrap();

    let place = receiver.url.trim_start_matches("http://").to_owned();
    let all = [PERSON, SIGNING, HEADER, QUERY, WRONG_KEY, SEARCHED, &key, &operator, &place, "/hook?"];
    let log = std::fs::read(&log).unwrap();
    assert_without("the log", &log, &all);
    assert_without("the metrics", metrics.as_bytes(), &[&all[..], &["acme", "lead.captured"]].concat());
    for mail in openapi.split('"').filter(|text| text.contains('@') && !text.contains(' ')) {
        assert!(mail.contains("@example.") || mail.starts_with("$."), "{mail} in the document of the API");
    }

    // One line a request and an attempt, with what they came to.
    let log = String::from_utf8(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let (requests, attempts) = (of("request"), of("attempt"));
    let published = requests.iter().filter(|line| line["route"] == "/v1/events").count();
    assert_eq!(published, 6, "{log}");
    assert!(requests.iter().all(|line| line["status"].is_u64() && line["duration_ms"].is_number()), "{log}");
    assert!(attempts.len() >= 4, "{log}");
    assert!(attempts.iter().all(|line| line["outcome"].is_string() && line["job"].is_string()), "{log}");

    // The event itself is stored as it came; secrets never are.
    let stored = files(folder.path());
    assert!(stored.iter().any(|(name, _)| name.ends_with("patchbay.db")));
    for (name, bytes) in &stored {
        assert_without(name, bytes, &[SIGNING, HEADER, WRONG_KEY, &key, &operator]);
    }
}
