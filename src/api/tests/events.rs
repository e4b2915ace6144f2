//! Events in.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::{Got, TestApi};
use crate::service::Settings;

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

async fn send(api: &TestApi, key: &str, headers: Headers<'_>, body: impl Into<Body>) -> Got {
    let mut request = Request::post("/v1/events").header("authorization", format!("Bearer {key}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(body.into()).unwrap()).await
}

fn lead(id: &str) -> Value {
    json!({ "type": "lead.captured", "id": id, "source": "bot", "data": { "n": 1 } })
}

#[tokio::test]
async fn an_event_goes_to_each_connection_that_wants_it() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let other = api.full_tenant("other").await;
    api.connection(&key, json!({ "events": ["lead.captured", "x.*"] })).await;
    api.connection(&key, json!({ "events": ["lead.*", "lead.captured"] })).await;
    api.connection(&key, json!({ "events": ["rating.given"] })).await;
    let closed = api.connection(&key, json!({})).await;
    let paused = api.connection(&key, json!({})).await;
    api.connection(&other, json!({})).await;
    let none = json!({ "path": "$.data.n", "op": "gt", "value": 5 });
    api.connection(&key, json!({ "filter": none })).await;
    api.post(&format!("/v1/connections/{paused}/pause"), &key, &json!({})).await;
    api.call("DELETE", &format!("/v1/connections/{closed}"), &key, None).await;
    let sent = api.post("/v1/events", &key, &lead("1")).await;
    assert_eq!(sent.body, json!({ "id": "1", "jobs": 3 }), "{sent:?}");
    let event = api.get("/v1/events/1", &key).await.body["event"].clone();
    let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "type", "time", "tenant", "source", "data"]);
    assert_eq!((&event["tenant"], &event["time"]), (&json!("acme"), &json!("2026-05-03T14:22:08Z")));
}

#[tokio::test]
async fn a_repeat_gives_the_same_answer_and_no_second_job() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let first = api.post("/v1/events", &key, &lead("1")).await;
    assert_eq!((first.status, first.header("idempotent-replay")), (202, None));
    let again = api.post("/v1/events", &key, &lead("1")).await;
    assert_eq!((again.status, again.header("idempotent-replay")), (202, Some("true")));
    assert_eq!(again.body, first.body);
    let mut changed = lead("1");
    changed["data"] = json!({ "n": 2 });
    assert_eq!(api.post("/v1/events", &key, &changed).await.code(), "event_id_reused");
    changed["source"] = json!("another bot");
    assert_eq!(api.post("/v1/events", &key, &changed).await.header("idempotent-replay"), None);
    let deliveries = api.get("/v1/deliveries", &key).await;
    assert_eq!(deliveries.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_idempotency_key_stands_for_one_request() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let other = api.full_tenant("other").await;
    api.connection(&key, json!({})).await;
    let json_type = ("content-type", "application/json");
    let with = |value| [json_type, ("idempotency-key", value)];
    let body = json!([{ "type": "a", "data": 1 }, { "type": "b" }, { "type": "c", "data": 2 }]).to_string();
    let first = send(&api, &key, &with("k1"), body.clone()).await;
    let again = send(&api, &key, &with("k1"), body.clone()).await;
    let statuses: Vec<&Value> =
        first.body["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!((first.status, statuses), (202, vec![&json!(202), &json!(400), &json!(202)]));
    assert_eq!(again.header("idempotent-replay"), Some("true"));
    for index in [0, 2] {
        assert_eq!(again.body["results"][index], first.body["results"][index]);
    }
    assert_eq!(send(&api, &key, &with("k1"), "[]").await.code(), "batch_size");
    let conflict = send(&api, &key, &with("k1"), json!({ "type": "a", "data": 1 }).to_string()).await;
    assert_eq!((conflict.status, conflict.code()), (422, "idempotency_key_reused"));
    assert_eq!(
        send(&api, &other, &with("k1"), body.clone()).await.status,
        202,
        "each tenant has its own keys"
    );
    for bad in ["", "a b", "ä", &"x".repeat(256)] {
        let got = send(&api, &key, &with(bad), body.clone()).await;
        assert_eq!((got.status, got.code()), (400, "invalid_idempotency_key"), "{bad}");
    }
    let jobs = api.get("/v1/deliveries?limit=200", &key).await;
    assert_eq!(jobs.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn two_requests_with_one_key_at_once_store_one_event() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
    let body = json!({ "type": "x", "data": 1 }).to_string();
    let again = || send(&api, &key, &headers, body.clone());
    // The first waits for the store when the second comes.
    let (first, second) = tokio::join!(again(), again());
    assert_eq!((first.status, second.status, second.code()), (202, 409, "still_running"));
    assert_eq!(second.header("retry-after"), Some("1"));
    let third = again().await;
    assert_eq!(
        (third.status, &third.body, third.header("idempotent-replay")),
        (202, &first.body, Some("true"))
    );
    assert_eq!(api.gateway.store.stats().await.unwrap().open, 1);
}

#[tokio::test]
async fn the_operator_names_the_tenant() {
    let api = TestApi::start().await;
    api.full_tenant("acme").await;
    let event = json!({ "type": "x", "data": 1 });
    let operator = api.operator.clone();
    assert_eq!(api.post("/v1/events", &operator, &event).await.code(), "missing_tenant");
    assert_eq!(api.post("/v1/events?tenant=acme", &operator, &event).await.status, 202);
    assert_eq!(api.post("/v1/events?tenant=nobody", &operator, &event).await.code(), "unknown_tenant");
    let named =
        json!([{ "type": "x", "tenant": "acme", "data": 1 }, { "type": "x", "tenant": "nobody", "data": 1 }]);
    let batch = api.post("/v1/events", &operator, &named).await;
    assert_eq!((batch.status, &batch.body["results"][1]["problem"]["code"]), (202, &json!("unknown_tenant")));
    let wrong = api
        .post("/v1/events?tenant=acme", &operator, &json!({ "type": "x", "tenant": "b", "data": 1 }))
        .await;
    assert_eq!((wrong.status, wrong.code()), (403, "wrong_tenant"));
    assert_eq!(api.get("/v1/events/1", &operator).await.code(), "missing_tenant");
}

#[tokio::test]
async fn every_fault_of_a_request_has_its_own_answer() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let json_type: &[_] = &[("content-type", "application/json")];
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let large = format!("{{\"type\":\"x\",\"data\":\"{}\"}}", "x".repeat(1 << 20));
    let cases: [(Headers<'_>, String, u16, &str); 8] = [
        (json_type, "{".to_owned(), 400, "malformed_json"),
        (json_type, deep, 400, "too_deep"),
        (json_type, large, 413, "too_large"),
        (json_type, r#"{"type":"x"}"#.to_owned(), 400, "invalid_event"),
        (json_type, r#"[{"type":"x"},7]"#.to_owned(), 422, "batch_rejected"),
        (json_type, r#"{"type":"x","tenant":"other","data":1}"#.to_owned(), 403, "wrong_tenant"),
        (&[("content-type", "text/plain")], "hello".to_owned(), 415, "unsupported_media_type"),
        (
            &[
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-type", "x"),
                ("ce-id", "%"),
                ("ce-source", "s"),
            ],
            "{}".to_owned(),
            400,
            "invalid_event",
        ),
    ];
    for (headers, body, status, code) in cases {
        let shown: String = body.chars().take(40).collect();
        let got = send(&api, &key, headers, body).await;
        assert_eq!((got.status, got.code()), (status, code), "{shown}: {got:?}");
        assert!(got.header("ratelimit").is_some() || status == 413, "{shown}");
    }
    let stated = [("content-type", "application/json"), ("content-length", "99999999")];
    assert_eq!(send(&api, &key, &stated, "{}").await.status, 413, "before the body is read");
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let endless = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let sending = send(&api, &key, &[("content-type", "application/json")], endless);
    let passing = async {
        for _ in 0..40 {
            tokio::task::yield_now().await;
            api.clock.advance(std::time::Duration::from_secs(1));
        }
    };
    let (got, ()) = tokio::join!(sending, passing);
    assert_eq!((got.status, got.code()), (408, "body_timeout"));
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_when_to_come_again() {
    let api = TestApi::with(Settings { events_per_second: 10, ..Settings::default() }).await;
    let (key, other) = (api.full_tenant("acme").await, api.full_tenant("other").await);
    let batch: Vec<Value> = (0..990).map(|_| json!({ "type": "x", "data": 1 })).collect();
    let first = api.post("/v1/events", &key, &json!(batch)).await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"events\";q=1000;w=100"));
    assert_eq!(first.header("ratelimit"), Some("\"events\";r=10;t=99"));
    let over = api.post("/v1/events", &key, &json!(batch[..25])).await;
    assert_eq!((over.status, over.code(), over.header("retry-after")), (429, "rate_limited", Some("2")));
    assert!(over.header("ratelimit").is_some());
    assert_eq!(api.post("/v1/events", &other, &batch[0]).await.status, 202);
    api.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(api.post("/v1/events", &key, &json!(batch[..25])).await.status, 202);
}

#[tokio::test]
async fn an_event_is_found_whatever_its_id() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let event = json!({ "type": "x", "id": "a/b ü?#%", "data": 12.5 });
    assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    let found = api.get("/v1/events/a%2Fb%20%C3%BC%3F%23%25", &key).await;
    assert_eq!((found.status, &found.body["event"]["data"]), (200, &json!(12.5)), "{found:?}");
    let own = api.post("/v1/events", &key, &json!({ "type": "x", "data": [] })).await;
    let path = format!("/v1/events/{}", own.body["id"].as_str().unwrap());
    assert_eq!(api.get(&path, &key).await.body["event"]["id"], own.body["id"]);
    assert_eq!(api.get("/v1/events/nothing", &key).await.code(), "not_found");
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_answered_item_by_item() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let mut batch: Vec<Value> = (0..1_000).map(|n| lead(&n.to_string())).collect();
    batch[7] = json!({ "type": "a b", "data": 1 });
    batch[999] = json!(7);
    let sent = api.post("/v1/events", &key, &json!(batch)).await;
    let results = sent.body["results"].as_array().unwrap();
    assert_eq!((sent.status, results.len()), (202, 1_000));
    for (index, result) in results.iter().enumerate() {
        let wanted = match index {
            7 => (400, &json!("/7/type"), &Value::Null),
            999 => (400, &json!("/999"), &Value::Null),
            _ => (202, &Value::Null, &json!(1)),
        };
        let pointer = &result["problem"]["errors"][0]["pointer"];
        assert_eq!((result["status"].as_u64().unwrap(), pointer, &result["jobs"]), wanted, "{result}");
    }
    assert_eq!(api.gateway.store.stats().await.unwrap().open, 998);
    batch.push(lead("one too many"));
    let over = api.post("/v1/events", &key, &json!(batch)).await;
    assert_eq!((over.status, over.code()), (400, "batch_size"));
    assert_eq!(api.gateway.store.stats().await.unwrap().open, 998, "nothing of it was taken");
}

#[tokio::test]
async fn an_event_is_the_same_in_every_form() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let event = |id: &str| {
        json!({ "type": "lead.captured", "id": id, "source": "bot ü", "time": "2026-05-03T14:22:08Z",
                "data": { "n": 1 } })
    };
    let cloud = |id: &str| {
        let mut cloud = event(id);
        cloud["specversion"] = json!("1.0");
        cloud
    };
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-type", "lead.captured"),
        ("ce-id", "binary"),
        ("ce-source", "bot%20%C3%BC"),
        ("ce-time", "2026-05-03T14:22:08Z"),
    ];
    let batch = json!([cloud("batch")]).to_string();
    let cases: [(&str, Headers<'_>, String); 4] = [
        ("plain", &[("content-type", "application/json")], event("plain").to_string()),
        ("structured", &[("content-type", "application/cloudevents+json")], cloud("structured").to_string()),
        ("batch", &[("content-type", "application/cloudevents-batch+json")], batch),
        ("binary", &binary, json!({ "n": 1 }).to_string()),
    ];
    for (form, headers, body) in cases {
        let sent = send(&api, &key, headers, body).await;
        assert_eq!(sent.status, 202, "{form}: {sent:?}");
        let mut kept = api.get(&format!("/v1/events/{form}"), &key).await.body["event"].clone();
        assert_eq!(kept.as_object_mut().unwrap().remove("tenant"), Some(json!("acme")));
        assert_eq!(kept, event(form));
    }
}

#[tokio::test]
async fn what_is_just_within_the_bounds_is_taken() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let json_type: &[_] = &[("content-type", "application/json")];
    let nested =
        |levels: usize| format!("{{\"type\":\"x\",\"data\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(send(&api, &key, json_type, nested(63)).await.status, 202);
    let deep = send(&api, &key, json_type, nested(64)).await;
    assert_eq!((deep.status, deep.code()), (400, "too_deep"));
    let long = |bytes: usize| format!("{{\"type\":\"x\",\"data\":\"{}\"}}", "x".repeat(bytes - 22));
    assert_eq!(long(1 << 20).len(), 1 << 20);
    assert_eq!(send(&api, &key, json_type, long(1 << 20)).await.status, 202);
    assert_eq!(send(&api, &key, json_type, long((1 << 20) + 1)).await.status, 413);
    let parts = long((1 << 20) + 1).into_bytes();
    let parts: Vec<_> = parts.chunks(1_000).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
    let streamed = send(&api, &key, json_type, Body::from_stream(futures::stream::iter(parts))).await;
    assert_eq!((streamed.status, streamed.code()), (413, "too_large"));
}

#[tokio::test]
async fn a_coded_body_is_refused() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    for (coding, status) in [("gzip", 415), ("br, gzip", 415), ("Identity", 202)] {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        let got = send(&api, &key, &headers, lead(coding).to_string()).await;
        assert_eq!(got.status, status, "{coding}: {got:?}");
    }
}

#[tokio::test]
async fn an_answer_does_not_grow_with_what_is_wrong() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let many: serde_json::Map<String, Value> = (0..60_000).map(|n| (format!("k{n}"), json!(1))).collect();
    let long = json!({ "type": "x", "data": 1, "connector": "y".repeat(900_000) });
    for (path, body) in [
        ("/v1/events", Value::Object(many.clone())),
        ("/v1/connections", Value::Object(many)),
        ("/v1/connections", long),
    ] {
        let got = api.post(path, &key, &body).await;
        assert!([400, 422].contains(&got.status), "{}", got.status);
        assert!(!got.pointers().is_empty() && got.text.len() < 64 << 10, "{path}: {} bytes", got.text.len());
    }
}
