//! Replays: counted and shown, run at their pace, seen, cancelled; each delivery once.

use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use super::deliveries::{deliver_all, lease, settle};
use crate::domain::job::{JobState, Outcome};

const OWNER: u128 = 1;

/// One turn at every replay, as each second brings.
async fn turn(api: &TestApi) {
    api.gateway.tend_chores(OWNER).await;
    api.clock.advance(Duration::from_secs(1));
}

/// Makes a replay and lets it run to its end; how it ended.
async fn replay(api: &TestApi, key: &str, body: &Value) -> Value {
    let made = api.post("/v1/replays", key, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/v1/replays/{}", made.body["id"].as_str().unwrap());
    for _ in 0..100 {
        turn(api).await;
        let now = api.get(&path, key).await;
        assert_eq!(now.status, 200, "{now:?}");
        if now.body["status"] != "running" {
            return now.body;
        }
    }
    panic!("it never ends");
}

async fn publish(api: &TestApi, key: &str, count: usize, kind: &str) {
    for _ in 0..count {
        let sent = api.post("/v1/events", key, &json!({ "type": kind, "data": {} })).await;
        assert_eq!(sent.status, 202, "{sent:?}");
    }
}

async fn dry(api: &TestApi, key: &str, mut body: Value) -> Value {
    body["dry_run"] = true.into();
    let got = api.post("/v1/replays", key, &body).await;
    assert_eq!((got.status, &got.body["complete"]), (200, &json!(true)), "{got:?}");
    got.body
}

#[tokio::test]
async fn what_failed_by_its_mapping_is_replayed_after_the_mend() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let mapping = |path: &str| {
        json!({ "version": 1, "fields": [
        { "to": "email", "from": path, "required": true }, { "to": "at", "value": "", "apply": ["now"] },
    ] })
    };
    let target = json!({ "url": "http://127.0.0.1:9/hook" });
    let id = api.connection(&key, json!({ "target": target, "mapping": mapping("$.data.emial") })).await;
    for number in 0..5 {
        let data = if number == 2 { json!({}) } else { json!({ "email": format!("{number}@b.example") }) };
        let event = json!({ "type": "lead.captured", "id": format!("e{number}"), "data": data });
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
        api.clock.advance(Duration::from_millis(2));
    }
    deliver_all(&api).await;
    let failed = format!("/v1/deliveries?connection={id}&state=mapping_failed");
    let items = api.get(&failed, &key).await.body["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 5);
    let first = items[0]["id"].as_str().unwrap();
    let reason = items[0]["reason"].as_str().unwrap();
    assert!(reason.contains("\"email\"") && reason.contains("$.data.emial"), "{reason}");
    let shown = api.get(&format!("/v1/deliveries/{first}"), &key).await.body;
    assert_eq!(shown["attempts"][0]["outcome"], "mapping_failed");
    let job = api.gateway.store.delivery(first.parse().unwrap()).await.unwrap().unwrap().job;
    assert_eq!((job.attempts, job.tries), (0, 1), "no attempt of the schedule is spent");

    // Not mended yet: a dry run says so.
    let wanted = json!({ "connection": id, "state": "mapping_failed" });
    let mut two = wanted.clone();
    two["samples"] = 2.into();
    let got = dry(&api, &key, two).await;
    assert_eq!((&got["count"], got["sample"].as_array().unwrap().len()), (&json!(5), 2), "{got}");
    assert_eq!(got["sample"][0]["error"]["path"], "$.data.emial");
    assert_eq!((&got["sample"][0]["before"], &got["sample"][0]["request"]), (&json!(reason), &Value::Null));

    // The moment that a mapping sees is the event's, however late it runs.
    let received = api.gateway.store.event(&"acme".parse().unwrap(), "e4").await.unwrap().unwrap().received;
    api.clock.advance(Duration::from_mins(5));
    let mend = json!({ "mapping": mapping("$.data.email") });
    let mended = api.call("PATCH", &format!("/v1/connections/{id}"), &key, Some(&mend)).await;
    assert_eq!(mended.status, 200, "{mended:?}");
    let got = dry(&api, &key, wanted.clone()).await;
    let sample = &got["sample"];
    let output = sample[0]["output"].clone();
    assert_eq!(output["email"], "4@b.example", "{got:?}");
    assert_eq!(output["at"].as_str().unwrap()[..19], received.to_string()[..19]);
    assert_eq!(sample[0]["request"]["body"], output.to_string(), "byte for byte");
    assert_eq!((&sample[2]["output"], &sample[2]["error"]["field"]), (&Value::Null, &json!("email")));
    assert!(sample[0]["request"]["headers"].to_string().contains("[hidden]"), "the signature is not shown");
    assert_eq!(api.get(&failed, &key).await.body["items"].as_array().unwrap().len(), 5, "nothing changed");

    let ended = replay(&api, &key, &wanted).await;
    assert_eq!((&ended["status"], &ended["done"], &ended["left"]), (&json!("done"), &json!(5), &json!(0)));
    let mut left = json!([]);
    // A lane whose endpoint fails gives out one at a time.
    while left.as_array().unwrap().is_empty() {
        deliver_all(&api).await;
        left = api.get(&failed, &key).await.body["items"].clone();
    }
    assert_eq!((left.as_array().unwrap().len(), &left[0]["event"]), (1, &json!("e2")), "{left:?}");
    let sent = api.gateway.store.delivery(first.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(sent.state, JobState::Waiting, "nobody listens there");
}

#[tokio::test]
async fn a_replay_takes_one_state_type_and_span_and_never_what_arrived() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    for kind in ["a", "b", "a"] {
        publish(&api, &key, 1, kind).await;
    }
    settle(&api, JobState::Dead, Outcome::Retry).await;
    api.clock.advance(Duration::from_mins(1));
    let later = api.clock.now().to_string();
    publish(&api, &key, 1, "a").await;
    settle(&api, JobState::Dead, Outcome::Retry).await;
    publish(&api, &key, 1, "a").await;
    settle(&api, JobState::Delivered, Outcome::Delivered).await;

    let count = async |body: Value| dry(&api, &key, body).await["count"].as_u64().unwrap();
    assert_eq!(count(json!({ "connection": id, "state": "dead" })).await, 4);
    assert_eq!(count(json!({ "state": "dead" })).await, 4, "of all of the tenant's connections");
    assert_eq!(count(json!({ "connection": id, "state": "dead", "type": "a" })).await, 3);
    assert_eq!(count(json!({ "connection": id, "state": "dead", "since": later })).await, 1);
    let wanted = json!({ "connection": id, "state": "dead", "type": "a", "until": later });
    let ended = replay(&api, &key, &wanted).await;
    assert_eq!((&ended["done"], &ended["skipped"]), (&json!(2), &json!(0)), "{ended}");
    assert_eq!(count(wanted.clone()).await, 0, "they are open");
    assert_eq!(lease(&api).await.len(), 2);
    for (body, pointer) in [
        (json!({}), "/state"),
        (json!({ "state": "delivered" }), "/state"),
        (json!({ "state": "queued" }), "/state"),
        (json!({ "state": "dead", "missed": true, "connection": id, "since": later }), "/state"),
        (json!({ "missed": true, "since": later }), "/connection"),
        (json!({ "missed": true, "connection": id }), "/since"),
        (json!({ "state": "dead", "since": "now" }), "/since"),
        (json!({ "state": "dead", "type": 1 }), "/type"),
        (json!({ "state": "dead", "per_second": 0 }), "/per_second"),
        (json!({ "state": "dead", "per_second": 10_001 }), "/per_second"),
        (json!({ "state": "dead", "samples": 51 }), "/samples"),
        (json!({ "state": "dead", "connection": "x" }), "/connection"),
        (json!({ "state": "dead", "dryrun": true }), "/dryrun"),
    ] {
        let got = api.post("/v1/replays", &key, &body).await;
        assert_eq!((got.status, got.pointers().first().copied()), (422, Some(pointer)), "{got:?}");
    }
    let other = api.full_tenant("other").await;
    assert_eq!(api.post("/v1/replays", &other, &wanted).await.status, 404);
    assert_eq!(api.post("/v1/replays", &api.operator, &json!({ "state": "dead" })).await.status, 400);
}

#[tokio::test]
async fn no_delivery_is_sent_twice_unless_that_is_asked_for() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    publish(&api, &key, 3, "a").await;
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let wanted = json!({ "connection": id, "state": "dead" });
    // Two of a kind that were asked for at once, and both before anything failed anew.
    let twin = api.post("/v1/replays", &key, &wanted).await.body;
    assert_eq!(replay(&api, &key, &wanted).await["status"], "done");
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let twin = api.get(&format!("/v1/replays/{}", twin["id"].as_str().unwrap()), &key).await.body;
    let both = twin["done"].as_u64().unwrap();
    assert!(both == 0 || both == 3, "{twin}");
    assert_eq!(twin["status"], "done");

    // One that comes later finds them dead again, and leaves them.
    api.clock.advance(Duration::from_secs(1));
    let later = replay(&api, &key, &wanted).await;
    assert_eq!((&later["done"], &later["skipped"]), (&json!(0), &json!(3)), "{later}");
    assert!(later["reason"].as_str().unwrap().contains("sent again before"), "{later}");
    let mut again = wanted.clone();
    again["again"] = true.into();
    assert_eq!(replay(&api, &key, &again).await["done"], 3);
    settle(&api, JobState::Delivered, Outcome::Delivered).await;
    // What has arrived is sent once more only where that is said.
    api.clock.advance(Duration::from_secs(1));
    let delivered = json!({ "connection": id, "state": "delivered", "again": true });
    assert_eq!(replay(&api, &key, &delivered).await["done"], 3);
    assert_eq!(lease(&api).await.len(), 3);
}

#[tokio::test]
async fn a_replay_keeps_its_pace_is_seen_and_can_be_cancelled() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    publish(&api, &key, 12, "a").await;
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let body = json!({ "connection": id, "state": "dead", "per_second": 5 });
    let made = api.post("/v1/replays", &key, &body).await.body;
    assert_eq!((&made["status"], &made["left"], &made["done"]), (&json!("running"), &json!(12), &json!(0)));
    assert!(made["by"].as_str().unwrap().starts_with("key_"), "{made}");
    let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
    turn(&api).await;
    let now = api.get(&path, &key).await.body;
    assert_eq!((&now["done"], &now["left"], &now["status"]), (&json!(5), &json!(7), &json!("running")));
    assert_eq!(lease(&api).await.len(), 5, "no more than its pace stand in the lane");

    // Another process has its turn only when the first one fell silent.
    api.gateway.tend_chores(OWNER + 1).await;
    assert_eq!(api.get(&path, &key).await.body["done"], 5);
    api.clock.advance(Duration::from_mins(1));
    api.gateway.tend_chores(OWNER + 1).await;
    assert_eq!(api.get(&path, &key).await.body["done"], 10, "it went on where that one was");

    let other = api.full_tenant("other").await;
    let cancel = format!("{path}/cancel");
    assert_eq!(api.post(&cancel, &other, &json!({})).await.status, 404);
    let reader = api.tenant("acme", &["read"]).await;
    assert_eq!(api.post(&cancel, &reader, &json!({})).await.status, 403);
    let ended = api.post(&cancel, &key, &json!({})).await.body;
    assert_eq!((&ended["status"], &ended["done"]), (&json!("cancelled"), &json!(10)), "{ended}");
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by key_"), "{ended}");
    api.clock.advance(Duration::from_mins(1));
    turn(&api).await;
    assert_eq!(api.get(&path, &key).await.body, ended, "nothing more is sent");

    let list = api.get("/v1/replays", &key).await.body;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]), (1, &ended));
    assert_eq!(api.get("/v1/replays", &other).await.body["items"], json!([]));
    assert_eq!(api.get("/v1/replays/cho_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q", &key).await.status, 404);
    assert_eq!(api.get(&path.replace("replays", "erasures"), &key).await.status, 404, "it is no erasure");

    // Its record goes after a week.
    api.clock.advance(Duration::from_hours(7 * 24));
    turn(&api).await;
    assert_eq!(api.get(&path, &key).await.status, 404);
}

#[tokio::test]
async fn records_of_replays_are_bounded() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    let body = json!({ "connection": id, "state": "dead" });
    for _ in 0..11 {
        for _ in 0..10 {
            assert_eq!(api.post("/v1/replays", &key, &body).await.status, 201);
        }
        let refused = api.post("/v1/replays", &key, &body).await;
        assert_eq!(refused.code(), "limit_reached", "{refused:?}");
        turn(&api).await;
    }
    turn(&api).await;
    let page = api.get("/v1/replays?limit=200", &key).await.body;
    assert_eq!(page["items"].as_array().unwrap().len(), 100);
    let next = api.get("/v1/replays?limit=60", &key).await.body;
    let rest = format!("/v1/replays?limit=60&cursor={}", next["next_cursor"].as_str().unwrap());
    assert_eq!(api.get(&rest, &key).await.body["items"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn what_a_connection_missed_is_made_good() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let early = api.clock.now().to_string();
    // Before the connection: one that it wants, one that its filter holds back, one of another type.
    let event = |kind: &str, score: u8| json!({ "type": kind, "data": { "score": score } });
    for event in [event("lead.captured", 9), event("lead.captured", 1), event("rating.given", 9)] {
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    }
    api.clock.advance(Duration::from_secs(1));
    let filter = json!({ "path": "$.data.score", "op": "gte", "value": 5 });
    let id = api.connection(&key, json!({ "events": ["lead.*"], "filter": filter })).await;
    // One that it got, and one that was cancelled when it was closed.
    assert_eq!(api.post("/v1/events", &key, &event("lead.captured", 8)).await.status, 202);
    settle(&api, JobState::Delivered, Outcome::Delivered).await;
    assert_eq!(api.post("/v1/events", &key, &event("lead.captured", 7)).await.status, 202);
    settle(&api, JobState::Cancelled, Outcome::Gone).await;
    api.clock.advance(Duration::from_secs(1));

    let wanted = json!({ "connection": id, "missed": true, "since": early });
    let shown = dry(&api, &key, wanted.clone()).await;
    assert_eq!(shown["count"], 2, "{shown}");
    assert_eq!((&shown["sample"][0]["id"], shown["sample"][1]["id"].is_string()), (&Value::Null, true));
    assert!(shown["sample"][0]["request"]["body"].as_str().unwrap().contains('9'), "{shown}");
    let ended = replay(&api, &key, &wanted).await;
    assert_eq!((&ended["done"], &ended["missed"], &ended["state"]), (&json!(2), &json!(true), &Value::Null));
    let mut leases = Vec::new();
    while leases.len() < 2 {
        leases.extend(lease(&api).await);
    }
    let mut scores: Vec<_> =
        leases.iter().map(|lease| lease.event.document.tree()["data"]["score"].clone()).collect();
    scores.sort_by_key(Value::as_u64);
    assert_eq!(scores, [json!(7), json!(9)]);
    let again = replay(&api, &key, &wanted).await;
    assert_eq!((&again["done"], &again["skipped"]), (&json!(0), &json!(0)), "each once: {again}");

    // A closed connection is to be opened first.
    let closed = api.connection(&key, json!({})).await;
    let record = api.gateway.directory.connection(closed.parse().unwrap()).unwrap();
    let mut connection = record.record.clone();
    connection.state =
        crate::domain::connection::ConnectionState::Closed { reason: "410".to_owned(), at: api.clock.now() };
    let put = crate::store::Record::Connection(Box::new(connection));
    api.gateway.store.put(put, crate::store::Expected::At(record.revision)).await.unwrap();
    api.gateway.directory.catch_up(api.gateway.store.as_ref()).await.unwrap();
    let refused = api.post("/v1/replays", &key, &json!({ "connection": closed, "state": "dead" })).await;
    assert_eq!((refused.status, refused.code()), (409, "wrong_state"), "{refused:?}");
}

#[tokio::test]
async fn a_process_that_dies_between_a_page_and_its_record_sends_nothing_twice() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    publish(&api, &key, 6, "a").await;
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let body = json!({ "connection": id, "state": "dead", "per_second": 3 });
    let made = api.post("/v1/replays", &key, &body).await.body;
    let chore: crate::domain::id::ChoreId = made["id"].as_str().unwrap().parse().unwrap();
    let before = api.gateway.directory.chore(chore).unwrap();
    turn(&api).await;
    settle(&api, JobState::Dead, Outcome::Retry).await;
    // The record as it was before the turn: what a process leaves that died after its page.
    let after = api.gateway.directory.chore(chore).unwrap();
    let record = crate::store::Record::Chore(Box::new(before.record.clone()));
    api.gateway.store.put(record, crate::store::Expected::At(after.revision)).await.unwrap();
    api.gateway.directory.catch_up(api.gateway.store.as_ref()).await.unwrap();
    for _ in 0..5 {
        api.clock.advance(Duration::from_mins(1));
        turn(&api).await;
    }
    let ended = api.get(&format!("/v1/replays/{chore}"), &key).await.body;
    assert_eq!(ended["status"], "done", "{ended}");
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let log = api.get("/v1/deliveries", &key).await.body;
    let tries: Vec<_> = log["items"].as_array().unwrap().iter().map(|item| item["tries"].clone()).collect();
    assert_eq!(tries, vec![json!(2); 6], "each once by its own lane and once by the replay");
}
