//! A person's data and a tenant's, erased; and bodies that a connection keeps off the log.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use super::deliveries::{deliver_all, lease};
use super::receiver::{Receiver, Says};

const PERSON: &str = "planted.person@example.com";

/// Turns until an erasure has ended.
async fn ended(api: &TestApi, id: &str) -> Value {
    for _ in 0..30 {
        api.gateway.tend_chores(1).await;
        // Its jobs go with its lanes.
        while api.gateway.store.sweep().await.unwrap().more {}
        api.clock.advance(Duration::from_secs(1));
        let now = api.get(&format!("/v1/erasures/{id}"), &api.operator).await.body;
        if now["status"] != "running" {
            return now;
        }
    }
    panic!("it never ends");
}

/// Whether a text stands anywhere in a folder's files.
fn is_kept(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

async fn publish(api: &TestApi, key: &str, id: &str, mail: &str) {
    // Long enough to lie on pages of its own, and short ones between.
    let filler = "x".repeat(if id.ends_with('7') { 9_000 } else { 40 });
    let event = json!({ "type": "lead.captured", "id": id, "data": { "email": mail, "note": filler } });
    let sent = api.post("/v1/events", key, &event).await;
    assert_eq!(sent.status, 202, "{sent:?}");
}

#[tokio::test]
async fn a_persons_data_is_erased_and_nothing_else() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let other = api.full_tenant("other").await;
    publish(&api, &other, "e0", PERSON).await;
    for number in 0..40 {
        let mail = if number % 10 == 7 { PERSON } else { "someone.else@example.com" };
        publish(&api, &key, &format!("e{number}"), mail).await;
    }
    deliver_all(&api).await;
    assert!(is_kept(api.folder.path(), PERSON));

    let wanted = json!({ "path": "$.data.email", "equals": PERSON });
    let mut dry = wanted.clone();
    dry["dry_run"] = true.into();
    let made = api.post("/v1/erasures", &key, &dry).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.text.contains(PERSON), "{made:?}");
    let counted = ended(&api, made.body["id"].as_str().unwrap()).await;
    assert_eq!((&counted["events"], &counted["deliveries"]), (&json!(4), &json!(4)), "{counted}");
    let read = async |id: &str| api.get(&format!("/v1/events/{id}"), &key).await.body["event"].clone();
    assert_eq!(read("e7").await["data"]["email"], PERSON, "a dry run only counts");

    let made = api.post("/v1/erasures", &key, &wanted).await.body;
    let id: crate::domain::id::ChoreId = made["id"].as_str().unwrap().parse().unwrap();
    let record = format!("{:?}", api.gateway.directory.chore(id).unwrap());
    assert!(!record.contains(PERSON), "what is looked for is sealed: {record}");
    let done = ended(&api, made["id"].as_str().unwrap()).await;
    assert_eq!((&done["status"], &done["events"]), (&json!("done"), &json!(4)), "{done}");
    assert_eq!((&done["looked_at"], &done["path"]), (&json!(40), &json!("$.data.email")));
    let record = format!("{:?}", api.gateway.directory.chore(id).unwrap());
    assert!(record.contains("value: None"), "and forgotten: {record}");

    for number in 0..40 {
        let id = format!("e{number}");
        let event = read(&id).await;
        assert_eq!(event["data"].is_null(), number % 10 == 7, "{event}");
        let log = api.get(&format!("/v1/deliveries?event={id}"), &key).await.body;
        let erased = log["items"][0]["reason"] == "its event was erased";
        assert_eq!(erased, number % 10 == 7, "{log}");
    }
    let erased = api.get("/v1/deliveries?event=e17", &key).await.body["items"][0].clone();
    let path = format!("/v1/deliveries/{}/retry", erased["id"].as_str().unwrap());
    let refused = api.post(&path, &key, &json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "wrong_state"), "{refused:?}");
    let samples = api.get("/v1/hooks/samples?event=lead.captured&limit=100", &key).await;
    assert!(!samples.text.contains(PERSON), "{samples:?}");

    // The other tenant's event is its own.
    assert_eq!(api.get("/v1/events/e0", &other).await.body["event"]["data"]["email"], PERSON);
    let made = api.post("/v1/erasures?tenant=other", &api.operator, &wanted).await.body;
    assert_eq!(ended(&api, made["id"].as_str().unwrap()).await["events"], 1);
    assert!(!is_kept(api.folder.path(), PERSON), "nothing of it is in any file");

    for (body, pointer) in [
        (json!({ "path": "$.data.email" }), "/equals"),
        (json!({ "equals": "x" }), "/path"),
        (json!({ "path": "$.data[", "equals": "x" }), "/path"),
        (json!({ "path": "$.data", "equals": {} }), "/equals"),
        (json!({ "path": "$.data", "equals": "x".repeat(1_100) }), "/equals"),
        (json!({ "path": "$.data", "equals": "x", "dryrun": true }), "/dryrun"),
    ] {
        let got = api.post("/v1/erasures", &key, &body).await;
        assert_eq!((got.status, got.pointers().first().copied()), (422, Some(pointer)), "{got:?}");
    }
    assert_eq!(api.post("/v1/erasures", &api.operator, &wanted).await.code(), "missing_tenant");
    let third = api.full_tenant("third").await;
    assert_eq!(api.get("/v1/erasures", &third).await.body["items"], json!([]));
    assert_eq!(api.get("/v1/erasures", &key).await.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_deleted_tenant_leaves_no_byte() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let target = json!({ "url": format!("http://127.0.0.1:9/{PERSON}") });
    api.connection(&key, json!({ "name": PERSON, "target": target })).await;
    let other = api.full_tenant("other").await;
    api.connection(&other, json!({})).await;
    for number in 0..60 {
        publish(&api, &key, &format!("{PERSON}-{number}"), PERSON).await;
        publish(&api, &other, &format!("e{number}"), "someone.else@example.com").await;
    }
    // Some were tried, one is under way, the rest wait.
    deliver_all(&api).await;
    api.clock.advance(Duration::from_mins(1));
    let under_way = lease(&api).await;
    let deleted = api.call("DELETE", "/v1/tenants/acme", &api.operator, None).await;
    assert_eq!((deleted.status, &deleted.body["tenant"]), (202, &json!("acme")), "{deleted:?}");
    let id = deleted.body["id"].as_str().unwrap();
    let refused = api.post(&format!("/v1/erasures/{id}/cancel"), &api.operator, &json!({})).await;
    assert_eq!(refused.code(), "wrong_state", "{refused:?}");
    let references: Vec<_> = under_way.iter().map(crate::store::Lease::reference).collect();
    api.gateway.store.release(&references).await.unwrap();
    let done = ended(&api, id).await;
    assert_eq!((&done["status"], &done["events"], &done["skipped"]), (&json!("done"), &json!(60), &json!(0)));
    assert!(!is_kept(api.folder.path(), PERSON), "not in the database, nor in its log");
    assert_eq!(api.get("/v1/deliveries?tenant=acme", &api.operator).await.body["items"], json!([]));
    assert_eq!(api.get("/v1/deliveries?limit=200", &other).await.body["items"].as_array().unwrap().len(), 60);
    assert_eq!(api.call("DELETE", "/v1/tenants/acme", &api.operator, None).await.status, 404);
}

#[tokio::test]
async fn a_connection_keeps_bodies_off_the_log() {
    const ANSWER: &str = "planted words of the answer";
    let api = TestApi::start().await;
    let receiver = Receiver::start([Says::body(500, ANSWER), Says::body(500, ANSWER)]).await;
    let key = api.full_tenant("acme").await;
    let target = json!({ "url": receiver.url });
    let policy = json!({ "log_bodies": false, "retry_delays_secs": [5] });
    let id = api.connection(&key, json!({ "target": target, "policy": policy })).await;
    let shown = api.get(&format!("/v1/connections/{id}"), &key).await.body;
    assert_eq!(shown["effective_policy"]["log_bodies"], false, "{shown}");
    let event = json!({ "type": "lead.captured", "id": "e1", "data": { "email": PERSON } });
    assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    deliver_all(&api).await;
    let log = api.get("/v1/deliveries?event=e1", &key).await.body["items"][0].clone();
    let path = format!("/v1/deliveries/{}", log["id"].as_str().unwrap());
    let first = api.get(&path, &key).await;
    assert_eq!(first.body["state"], "waiting", "{first:?}");
    assert_eq!(first.body["attempts"][0]["status"], 500);
    assert!(first.body["attempts"][0]["body"].is_null() && first.body["attempts"][0]["headers"].is_null());
    assert!(!first.text.contains("planted"), "{first:?}");
    let job = log["id"].as_str().unwrap().parse().unwrap();
    api.clock.advance(Duration::from_mins(1));
    let again = lease(&api).await.remove(0);
    assert_eq!(again.job.id, job);
    assert!(again.rendered.is_some(), "a retry sends the same bytes");
    api.gateway.store.release(&[again.reference()]).await.unwrap();
    deliver_all(&api).await;
    let last = api.get(&path, &key).await;
    assert_eq!((&last.body["state"], last.text.contains("planted")), (&json!("dead"), false), "{last:?}");
    assert_eq!(last.body["reason"], "the endpoint answered 500 Internal Server Error", "{last:?}");
    // What was kept for the retries has gone: whoever sends it once more makes it anew.
    api.gateway.store.retry(job, None).await.unwrap();
    assert!(lease(&api).await[0].rendered.is_none());
    assert!(!is_kept(api.folder.path(), ANSWER));
}
