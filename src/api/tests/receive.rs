//! Deliveries of other systems to sources. Signatures are computed here by the HMAC crate, not by the gateway's own module.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Got, TestApi};
use crate::service::Settings;

const BODY: &str =
    r#"{"action":"opened","issue":{"number":1},"repository":{"full_name":"octocat/Hello-World"}}"#;

fn sha256(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn deliver(api: &TestApi, path: &str, secret: &str, body: &str, delivery: &str) -> Got {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header("x-github-event", "issues")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", format!("sha256={}", sha256(secret, body)))
        .body(Body::from(body.to_owned()))
        .unwrap();
    api.send(request).await
}

/// A source of GitHub with a connection for all events: the key, the source's path and its id.
async fn github(api: &TestApi, more: Value) -> (String, String, String) {
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let mut wanted = json!({ "name": "Repo", "connector": "github", "secret": "s3cret" });
    for (name, value) in more.as_object().unwrap() {
        wanted[name] = value.clone();
    }
    let made = api.post("/v1/sources", &key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_str().unwrap().to_owned();
    (key, format!("/v1/sources/{id}"), id)
}

async fn deliveries(api: &TestApi, key: &str) -> Vec<Value> {
    api.get("/v1/deliveries", key).await.body["items"].as_array().unwrap().clone()
}

async fn counted(api: &TestApi, result: &str) -> u64 {
    let text = api.get("/metrics", "").await.text;
    let start = format!("patchbay_received_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_signed_delivery_becomes_an_event_and_its_jobs() {
    let api = TestApi::start().await;
    let (key, path, id) = github(&api, json!({})).await;
    let got = deliver(&api, &path, "s3cret", BODY, "d-1").await;
    assert_eq!((got.status, got.text.as_str()), (200, r#"{"accepted":1,"duplicates":0}"#), "{got:?}");
    let jobs = deliveries(&api, &key).await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let event = api.get("/v1/events/d-1", &key).await;
    let event = &event.body["event"];
    assert_eq!((&event["type"], &event["tenant"]), (&json!("github.issues.opened"), &json!("acme")));
    assert_eq!(event["source"], "octocat/Hello-World");
    assert_eq!(event["data"], serde_json::from_str::<Value>(BODY).unwrap());
    assert!(!event.to_string().contains("sha256="), "no signature gets into an event");
    // Where the mapping names no source, the event comes from the source itself.
    let bare = deliver(&api, &path, "s3cret", "{}", "d-2").await;
    assert_eq!(bare.status, 200, "{bare:?}");
    assert_eq!(api.get("/v1/events/d-2", &key).await.body["event"]["source"], id);
    assert_eq!(counted(&api, "accepted").await, 2);
}

#[tokio::test]
async fn a_bad_signature_is_refused_counted_and_never_stored() {
    let api = TestApi::start().await;
    let (key, path, _) = github(&api, json!({})).await;
    let got = deliver(&api, &path, "another", BODY, "d-1").await;
    assert_eq!((got.status, got.code()), (401, "unverified"), "{got:?}");
    assert!(!got.text.contains("octocat"), "the body is not sent back");
    let unsigned = api.post(&path, "", &json!({})).await;
    assert_eq!((unsigned.status, unsigned.code()), (401, "unverified"));
    for key in ["detail", "hint"] {
        assert_eq!(got.body[key], unsigned.body[key], "what did not fit is not told");
    }
    assert_eq!(counted(&api, "unverified").await, 2);
    assert!(deliveries(&api, &key).await.is_empty());
    assert_eq!(api.get("/v1/events/d-1", &key).await.status, 404);
    // It was not remembered either.
    assert_eq!(deliver(&api, &path, "s3cret", BODY, "d-1").await.body["accepted"], 1);
}

#[tokio::test]
async fn a_repeat_is_acknowledged_and_not_taken_twice() {
    let api = TestApi::start().await;
    let (key, path, _) = github(&api, json!({})).await;
    deliver(&api, &path, "s3cret", BODY, "d-1").await;
    // The same, and the same under an id that nobody signed.
    for delivery in ["d-1", "d-2"] {
        let got = deliver(&api, &path, "s3cret", BODY, delivery).await;
        assert_eq!((got.status, &got.body), (200, &json!({ "accepted": 0, "duplicates": 1 })), "{got:?}");
    }
    // Other content under an id that was there.
    let changed = BODY.replace("\"number\":1", "\"number\":2");
    let got = deliver(&api, &path, "s3cret", &changed, "d-1").await;
    assert_eq!((got.status, &got.body["accepted"]), (200, &json!(0)), "{got:?}");
    assert_eq!(deliveries(&api, &key).await.len(), 1);
    assert_eq!(counted(&api, "duplicate").await, 3);
    // The same ids at another source are others.
    let other = json!({ "name": "Other", "connector": "github", "secret": "s3cret" });
    let other = api.post("/v1/sources", &key, &other).await;
    let path = format!("/v1/sources/{}", other.body["id"].as_str().unwrap());
    assert_eq!(deliver(&api, &path, "s3cret", BODY, "d-1").await.body["accepted"], 1);
}

#[tokio::test]
async fn both_secrets_are_good_while_one_is_replaced() {
    let api = TestApi::start().await;
    let (key, path, _) = github(&api, json!({})).await;
    let rotated = api.post(&format!("{path}/rotate-secret"), &key, &json!({})).await;
    let new = rotated.body["secret"].as_str().unwrap().to_owned();
    assert_eq!(deliver(&api, &path, "s3cret", BODY, "d-1").await.status, 200);
    assert_eq!(deliver(&api, &path, &new, r#"{"a":1}"#, "d-2").await.status, 200);
    api.clock.advance(Duration::from_hours(24));
    assert_eq!(deliver(&api, &path, "s3cret", r#"{"a":2}"#, "d-3").await.code(), "unverified");
    assert_eq!(deliver(&api, &path, &new, r#"{"a":2}"#, "d-3").await.status, 200);
}

#[tokio::test]
async fn a_sender_is_told_what_keeps_us_from_taking_it() {
    let settings = Settings { deliveries_per_second: 1, body_bytes: 2_000, ..Settings::default() };
    let api = TestApi::with(settings).await;
    let (key, path, _) = github(&api, json!({})).await;
    assert_eq!(
        deliver(&api, "/v1/sources/src_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q", "s3cret", BODY, "d").await.status,
        404
    );
    assert_eq!(deliver(&api, "/v1/sources/nonsense", "s3cret", BODY, "d").await.status, 404);
    assert_eq!(counted(&api, "unknown_source").await, 2);
    assert_eq!(deliver(&api, &path, "s3cret", &"x".repeat(3_000), "d").await.code(), "too_large");
    assert_eq!(deliver(&api, &path, "s3cret", "{", "d").await.code(), "malformed_json");
    for number in 0..2 {
        assert_eq!(
            deliver(&api, &path, "s3cret", &format!("{{\"n\":{number}}}"), &number.to_string()).await.status,
            200
        );
    }
    let limited = deliver(&api, &path, "s3cret", r#"{"n":2}"#, "2").await;
    assert_eq!((limited.code(), limited.header("retry-after")), ("rate_limited", Some("1")), "{limited:?}");
    // Whoever has no secret can't use the rate up, and is told nothing of it.
    assert_eq!(deliver(&api, &path, "another", r#"{"n":2}"#, "2").await.code(), "unverified");
    api.clock.advance(Duration::from_secs(1));
    assert_eq!(deliver(&api, &path, "s3cret", r#"{"n":2}"#, "2").await.status, 200);
    let paused = api.call("PATCH", &path, &key, Some(&json!({ "paused": true }))).await;
    assert_eq!(paused.status, 200);
    let got = deliver(&api, &path, "s3cret", r#"{"n":3}"#, "3").await;
    assert_eq!((got.status, got.code(), got.header("retry-after")), (503, "source_unavailable", Some("300")));
}

#[tokio::test]
async fn a_store_that_fails_makes_the_sender_come_again() {
    let api = TestApi::start().await;
    let (_, path, _) = github(&api, json!({})).await;
    api.gateway.store.close().await;
    let got = deliver(&api, &path, "s3cret", BODY, "d-1").await;
    assert_eq!((got.status, got.code()), (503, "store_unavailable"), "{got:?}");
    assert!(got.header("retry-after").is_some());
    assert_eq!(
        api.gateway.metrics.expose(None, false, api.clock.now()).matches("result=\"unavailable\"} 1").count(),
        1
    );
}

#[tokio::test]
async fn a_mapping_of_its_own_that_does_not_fit_refuses_the_delivery() {
    let api = TestApi::start().await;
    let mapping = json!({ "mapping": { "version": 1, "fields": [
        { "to": "type", "value": "x" }, { "to": "id", "from": "$.body.id", "required": true } ] } });
    let (key, path, _) = github(&api, mapping).await;
    let got = deliver(&api, &path, "s3cret", BODY, "d-1").await;
    assert_eq!((got.status, got.code()), (422, "invalid"), "{got:?}");
    assert!(got.body["detail"].as_str().unwrap().contains("\"id\""), "{got:?}");
    let got = deliver(&api, &path, "s3cret", r#"{"id":7}"#, "d-1").await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/id"]), "{got:?}");
    assert!(deliveries(&api, &key).await.is_empty());
    assert_eq!(deliver(&api, &path, "s3cret", r#"{"id":"7"}"#, "d-1").await.status, 200);
}

#[tokio::test]
async fn a_handshake_needs_no_key_and_shows_nothing_else() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = json!({ "name": "Chat", "connector": "whatsapp", "secret": "app", "agent": "agt_1",
        "credentials": { "verify_token": "meatyhamhock" } });
    let made = api.post("/v1/sources", &key, &wanted).await;
    let path = format!("/v1/sources/{}", made.body["id"].as_str().unwrap());
    let asks = |word: &str| format!("?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={word}");
    let agents = "/api/v1/agents/agt_1/chat/whatsapp";
    for path in [path.as_str(), agents] {
        let got = api.get(&format!("{path}{}", asks("meatyhamhock")), "").await;
        assert_eq!((got.status, got.text.as_str()), (200, "1158201444"), "{got:?}");
        assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(api.get(&format!("{path}{}", asks("wrong")), "").await.code(), "unverified");
    }
    assert_eq!(api.get(&path, "").await.code(), "missing_key");
    assert_eq!(api.get("/v1/sources/src_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q", "").await.code(), "missing_key");
    assert_eq!(api.get(agents, "").await.status, 400);
    assert_eq!(api.get(&format!("{path}?tenant=acme"), &key).await.body["connector"], "whatsapp");
    assert_eq!(counted(&api, "handshake").await, 2);
}

#[tokio::test]
async fn an_agent_s_channel_leads_to_its_source() {
    let api = TestApi::start().await;
    let (key, _, _) = github(&api, json!({ "agent": "agt_1", "channel": "code" })).await;
    let got = deliver(&api, "/api/v1/agents/agt_1/chat/code", "s3cret", BODY, "d-1").await;
    assert_eq!((got.status, &got.body["accepted"]), (200, &json!(1)), "{got:?}");
    assert_eq!(api.get("/v1/events/d-1", &key).await.body["event"]["source"], "agt_1");
    for path in ["/api/v1/agents/agt_1/chat/github", "/api/v1/agents/agt_2/chat/code"] {
        assert_eq!(deliver(&api, path, "s3cret", BODY, "d-2").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn many_events_of_one_request_are_bounded_by_number_and_together() {
    let api = TestApi::with(Settings { body_bytes: 2 << 20, ..Settings::default() }).await;
    let key = api.full_tenant("acme").await;
    let repeats = json!({ "version": 1, "fields": [
        { "to": "type", "value": "x" }, { "to": "data.all", "from": "$.body.entry" } ] });
    let wanted = json!({ "name": "Chat", "connector": "whatsapp", "secret": "app", "mapping": repeats,
        "credentials": { "verify_token": "word" } });
    let made = api.post("/v1/sources", &key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/v1/sources/{}", made.body["id"].as_str().unwrap());
    let body = |count: usize, text: &str| {
        let messages = vec![json!({ "id": "m" }); count];
        json!({ "entry": [{ "text": text, "changes": [{ "value": { "messages": messages } }] }] }).to_string()
    };
    let fits = deliver(&api, &path, "app", &body(5, "a"), "1").await;
    assert_eq!((fits.status, &fits.body["accepted"]), (200, &json!(5)), "{fits:?}");
    for (count, text, why) in
        [(1_001, String::new(), "1000 are the most"), (50, "a".repeat(500_000), "bytes together")]
    {
        let got = deliver(&api, &path, "app", &body(count, &text), "1").await;
        assert_eq!((got.status, got.code()), (422, "invalid"), "{why}");
        assert!(got.body["detail"].as_str().unwrap().contains(why), "{got:?}");
    }
}

#[tokio::test]
async fn a_signed_id_that_is_written_twice_is_the_same_delivery() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = json!({ "name": "Mail", "connector": "mailgun", "secret": "key" });
    let made = api.post("/v1/sources", &key, &wanted).await;
    let path = format!("/v1/sources/{}", made.body["id"].as_str().unwrap());
    let seconds = api.clock.now().seconds().to_string();
    let signature = sha256("key", &format!("{seconds}tok-1"));
    let form =
        format!("recipient=a%40b.c&sender=d%40e.f&timestamp={seconds}&token=tok-1&signature={signature}");
    for (body, accepted) in
        [(form.clone(), 1), (form.clone(), 0), (format!("{form}&token=tok-2&subject=other"), 0)]
    {
        let request = Request::post(&path).header("content-type", "application/x-www-form-urlencoded");
        let got = api.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!((got.status, &got.body["accepted"]), (200, &json!(accepted)), "{got:?}");
    }
    let many = (0..1_001).map(|number| format!("f{number}=1&")).collect::<Vec<_>>().concat();
    let request = Request::post(&path).header("content-type", "application/x-www-form-urlencoded");
    let got = api.send(request.body(Body::from(many)).unwrap()).await;
    assert_eq!((got.status, got.code()), (400, "malformed_form"), "{got:?}");
}
