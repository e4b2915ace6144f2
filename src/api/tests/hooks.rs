//! Programs that subscribe by themselves.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Got, TestApi};
use crate::service::Settings;

const ZAP: &str = "https://hooks.zapier.com/fake-subscription-url";
pub(super) const EVENT: &str = "lead.captured";

fn wanted(more: &Value) -> Value {
    let mut wanted = json!({ "targetUrl": ZAP, "event": EVENT });
    for (name, value) in more.as_object().unwrap() {
        wanted[name] = value.clone();
    }
    wanted
}

impl TestApi {
    /// Subscribes to an event; answers the hook.
    pub(super) async fn hook(&self, key: &str, more: Value) -> Value {
        let made = self.post("/v1/hooks", key, &wanted(&more)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body
    }

    async fn hooks(&self, key: &str) -> Vec<Value> {
        self.get("/v1/hooks", key).await.body["items"].as_array().unwrap().clone()
    }

    /// Sends an event; answers how many jobs it makes.
    pub(super) async fn jobs(&self, key: &str, kind: &str, id: &str) -> u64 {
        let event =
            json!({ "type": kind, "id": id, "source": "bot_1", "data": { "lead": { "name": "Ada" } } });
        let sent = self.post("/v1/events", key, &event).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        sent.body["jobs"].as_u64().unwrap()
    }
}

pub(super) fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_hook_lives_under_every_name_of_its_url_and_leaves_twice() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    for name in ["targetUrl", "target_url", "hookUrl", "url"] {
        let made = api.post("/v1/hooks", &key, &json!({ name: ZAP, "event": EVENT })).await;
        assert_eq!(made.status, 201, "{made:?}");
        let path = format!("/v1/hooks/{}", made.body["id"].as_str().unwrap());
        let read = api.get(&path, &key).await;
        assert_eq!(read.body, made.body, "nothing is shown only once");
        assert_eq!((&read.body["target_url"], &read.body["event"]), (&json!(ZAP), &json!(EVENT)));
        assert_eq!(api.jobs(&key, EVENT, name).await, 1);
        assert_eq!(api.call("DELETE", &path, &key, None).await.status, 204);
        assert_eq!(api.call("DELETE", &path, &key, None).await.status, 204, "gone already");
        assert_eq!(api.get(&path, &key).await.code(), "not_found");
        assert_eq!(api.jobs(&key, EVENT, &format!("{name}-2")).await, 0);
    }
}

#[tokio::test]
async fn two_zaps_on_one_event_are_two_also_at_one_url() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    let (one, two) = (api.hook(&key, json!({})).await, api.hook(&key, json!({})).await);
    assert_ne!(one["id"], two["id"]);
    assert_eq!(api.jobs(&key, EVENT, "e1").await, 2);
    assert_eq!(api.jobs(&key, "rating.given", "e2").await, 0, "another event");
    let path = format!("/v1/hooks/{}", one["id"].as_str().unwrap());
    api.call("DELETE", &path, &key, None).await;
    assert_eq!(ids(&api.hooks(&key).await), [two["id"].as_str().unwrap()]);
    assert_eq!(api.jobs(&key, EVENT, "e3").await, 1);
}

#[tokio::test]
async fn hooks_are_listed_apart_from_what_people_made() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let by_hand = api.connection(&key, json!({})).await;
    let hook = api.hook(&key, json!({})).await;
    let connections = |query: &'static str| {
        let (api, key) = (&api, &key);
        async move { api.get(&format!("/v1/connections{query}"), key).await.body["items"].clone() }
    };
    for query in ["", "?hooks=false"] {
        assert_eq!(ids(connections(query).await.as_array().unwrap()), [by_hand.as_str()]);
    }
    let all = connections("?hooks=true").await;
    assert_eq!(ids(all.as_array().unwrap()), [by_hand.as_str(), hook["id"].as_str().unwrap()]);
    let subscription = &all[1]["subscription"];
    assert_eq!((&subscription["event"], &subscription["key"]), (&json!(EVENT), &hook["key"]));
    assert_eq!(ids(&api.hooks(&key).await), [hook["id"].as_str().unwrap()]);
    assert_eq!(api.get("/v1/connections?hooks=maybe", &key).await.code(), "invalid_parameter");
    let path = format!("/v1/hooks/{by_hand}");
    assert_eq!(api.call("DELETE", &path, &key, None).await.code(), "not_found", "a person made it");
    assert_eq!(connections("").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_may_subscribe_may_do_nothing_else_and_who_may_change_connections_may_subscribe() {
    let api = TestApi::start().await;
    let zapier = api.tenant("acme", &["subscribe"]).await;
    let manage = api.tenant("acme", &["manage"]).await;
    let read = api.tenant("acme", &["read", "publish"]).await;
    let hook = api.hook(&zapier, json!({})).await;
    assert_eq!(api.hooks(&manage).await.len(), 1);
    for path in ["/v1/connections", "/v1/deliveries", "/v1/connectors"] {
        assert_eq!(api.get(path, &zapier).await.code(), "missing_scope", "{path}");
    }
    let path = format!("/v1/connections/{}", hook["id"].as_str().unwrap());
    assert_eq!(api.call("DELETE", &path, &zapier, None).await.code(), "missing_scope");
    assert_eq!(api.post("/v1/hooks", &read, &wanted(&json!({}))).await.code(), "missing_scope");
    // An operator says for whom.
    let named = api.post("/v1/hooks?tenant=acme", &api.operator, &wanted(&json!({}))).await;
    assert_eq!((named.status, &named.body["tenant"]), (201, &json!("acme")));
    let nobody = api.post("/v1/hooks", &api.operator, &wanted(&json!({}))).await;
    assert_eq!((nobody.status, nobody.pointers()), (422, vec!["/tenant"]));
}

#[tokio::test]
async fn another_tenant_sees_and_ends_nothing() {
    let api = TestApi::start().await;
    let acme = api.tenant("acme", &["subscribe", "publish"]).await;
    let other = api.tenant("other", &["subscribe", "publish"]).await;
    let hook = api.hook(&acme, json!({})).await;
    let path = format!("/v1/hooks/{}", hook["id"].as_str().unwrap());
    assert_eq!(api.call("DELETE", &path, &other, None).await.status, 204, "there is none of theirs");
    assert_eq!(api.get(&path, &other).await.code(), "not_found");
    assert_eq!(api.hooks(&other).await, Vec::<Value>::new());
    assert_eq!(api.jobs(&other, EVENT, "e1").await, 0);
    assert_eq!(api.jobs(&acme, EVENT, "e1").await, 1);
    let sampled = format!("/v1/hooks/samples?event={EVENT}&hook={}", hook["id"].as_str().unwrap());
    assert_eq!(api.get(&sampled, &other).await.code(), "not_found");
}

#[tokio::test]
async fn what_can_not_be_subscribed_to_is_told_by_field_with_a_hint() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe"]).await;
    let long_event = "x".repeat(200);
    let long_url = format!("https://example.com/{}", "x".repeat(2_100));
    let cases = [
        (json!({ "targetUrl": "not a URL" }), "/targetUrl", "is not a URL", "write it in full"),
        (json!({ "targetUrl": "" }), "/targetUrl", "missing", "say where"),
        (json!({ "targetUrl": 7 }), "/targetUrl", "expected a text", ""),
        (
            json!({ "targetUrl": null, "hookUrl": "ftp://example.com/" }),
            "/hookUrl",
            "cannot be called",
            "use https://",
        ),
        (
            json!({ "targetUrl": "http://10.0.0.1/hook" }),
            "/targetUrl",
            "is not a public address",
            "public internet",
        ),
        (
            json!({ "targetUrl": "https://[::ffff:169.254.169.254]/" }),
            "/targetUrl",
            "not a public address",
            "operator",
        ),
        (
            json!({ "targetUrl": "https://metadata.google.internal/" }),
            "/targetUrl",
            "local name",
            "public internet",
        ),
        (json!({ "targetUrl": "https://a:b@example.com/" }), "/targetUrl", "password", "credentials"),
        (json!({ "targetUrl": long_url }), "/targetUrl", "bytes long", "shorter"),
        (json!({ "url": "https://example.com/other" }), "/url", "is there twice", "targetUrl"),
        (
            json!({ "event": "lead.capturd" }),
            "/event",
            "no event \"lead.capturd\"",
            "did you mean \"lead.captured\"?",
        ),
        (
            json!({ "event": "nothing" }),
            "/event",
            "no event",
            "known here: lead.captured, escalation.requested",
        ),
        (json!({ "event": long_event }), "/event", "no event", "known here"),
        (json!({ "event": "a\u{0}b" }), "/event", "no event", "known here"),
        (json!({ "event": null }), "/event", "", ""),
        (json!({ "connector": "webhook" }), "/connector", "can't be subscribed to", "fetchply, zapier"),
        (json!({ "mapping": "nope" }), "/mapping", "no mapping", ""),
        (
            json!({ "mapping": { "version": 1, "fields": [{ "to": "id", "value": 1 }] } }),
            "/mapping/fields/0/to",
            "itself",
            "reserved",
        ),
        (json!({ "expiration_date": "tomorrow" }), "/expiration_date", "is no time", "RFC 3339"),
        (json!({ "expiration_date": "2020-01-01T00:00:00Z" }), "/expiration_date", "is over", "2026"),
        (json!({ "secret": "x" }), "/secret", "has no secret", "leave it out"),
        (json!({ "colour": "red" }), "/colour", "unknown key", ""),
    ];
    for (more, pointer, message, hint) in cases {
        let got = api.post("/v1/hooks", &key, &wanted(&more)).await;
        assert_eq!((got.status, got.code()), (422, "invalid"), "{more}: {got:?}");
        let errors = got.body["errors"].as_array().unwrap();
        let told = errors.iter().find(|error| error["pointer"] == pointer);
        let told = told.unwrap_or_else(|| panic!("{more}: nothing at {pointer}: {got:?}"));
        assert!(told["message"].as_str().unwrap().contains(message), "{more}: {told}");
        assert!(told["hint"].as_str().unwrap_or_default().contains(hint), "{more}: {told}");
        assert!(errors.iter().all(|error| error["pointer"] == pointer), "{more} tells more: {got:?}");
    }
    for body in [json!({}), json!({ "targetUrl": "x", "event": "x", "expiration_date": 1 })] {
        let got = api.post("/v1/hooks", &key, &body).await;
        assert!(got.pointers().len() >= 2, "all at once: {got:?}");
    }
    assert_eq!(api.hooks(&key).await, Vec::<Value>::new());
}

#[tokio::test]
async fn https_is_asked_for_unless_the_operator_allows_http() {
    let (gateway, _clock, _folder) = crate::service::testing::gateway_over_https().await;
    let tenant = "acme".parse().unwrap();
    gateway.make_tenant("acme".parse().unwrap(), "Acme").await.unwrap();
    let key = crate::domain::id::KeyId::from_bits(1);
    let wanted = json!({ "hookUrl": "http://example.com/hook", "event": EVENT });
    let error = gateway.subscribe(Some(&tenant), key, "zapier", &wanted).await.unwrap_err();
    assert_eq!(error.to_string(), "hookUrl: plain http is not allowed here\n  hint: use https://");
}

#[tokio::test]
async fn a_limit_on_subscriptions_holds_and_those_that_ended_do_not_count() {
    let api = TestApi::with(Settings { connections_per_tenant: 1, ..Settings::default() }).await;
    let key = api.tenant("acme", &["subscribe", "manage"]).await;
    api.hook(&key, json!({ "expiration_date": "2026-05-03T15:00:00Z" })).await;
    let over = api.post("/v1/hooks", &key, &wanted(&json!({}))).await;
    assert_eq!((over.status, over.code(), over.pointers()), (409, "limit_reached", vec!["/tenant"]));
    let told = &over.body["errors"][0];
    assert!(told["message"].as_str().unwrap().contains("1 connections"), "{told}");
    assert!(told["hint"].as_str().unwrap().contains("limits.connections_per_tenant"), "{told}");
    api.clock.advance(Duration::from_hours(1));
    api.gateway.tend_hooks().await;
    api.hook(&key, json!({})).await;
    assert_eq!(api.hooks(&key).await.len(), 2, "the one that ended is still shown");
}

#[tokio::test]
async fn an_expired_subscription_stops_says_so_and_is_forgotten() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "publish"]).await;
    let hook = api.hook(&key, json!({ "expiration_date": "2026-05-03T17:00:00+02:00" })).await;
    assert_eq!(hook["expiration_date"], "2026-05-03T15:00:00Z");
    let lasting = api.hook(&key, json!({ "expiration_date": null })).await;
    assert_eq!(api.jobs(&key, EVENT, "e1").await, 2);
    api.clock.advance(Duration::from_hours(1));
    assert_eq!(api.jobs(&key, EVENT, "e2").await, 1, "before anything tended it");
    assert_eq!(api.gateway.tend_hooks().await, 1);
    let path = format!("/v1/hooks/{}", hook["id"].as_str().unwrap());
    let state = api.get(&path, &key).await.body["state"].clone();
    assert_eq!(state["status"], "closed");
    assert_eq!(state["reason"], "the subscription's time was up at 2026-05-03T15:00:00Z");
    while api.gateway.store.sweep().await.unwrap().more {}
    let deliveries = api.get("/v1/deliveries?event=e1&tenant=acme", &api.operator).await;
    let waiting =
        deliveries.body["items"].as_array().unwrap().iter().find(|item| item["connection"] == hook["id"]);
    assert_eq!(waiting.unwrap()["state"], "cancelled", "what waited for it is cancelled");

    // Its URL can't be told; after the last try, and a week, it is forgotten.
    for _ in 0..10 {
        api.clock.advance(Duration::from_hours(25));
        api.gateway.tend_hooks().await;
    }
    assert_eq!(ids(&api.hooks(&key).await), [lasting["id"].as_str().unwrap()]);
}

#[tokio::test]
async fn an_account_has_a_label_and_a_key_is_never_shown() {
    let api = TestApi::start().await;
    api.post("/v1/tenants", &api.operator, &json!({ "id": "acme", "name": "Acme Plumbing" })).await;
    for scope in ["publish", "manage", "read", "subscribe"] {
        let key = api.tenant("acme", &[scope]).await;
        let me = api.get("/v1/me", &key).await;
        assert_eq!((me.status, &me.body["label"]), (200, &json!("Acme Plumbing (test)")), "{me:?}");
        assert_eq!((&me.body["tenant"]["id"], &me.body["key"]["scopes"]), (&json!("acme"), &json!([scope])));
        assert!(!me.text.contains(&key));
    }
    let me = api.get("/v1/me", &api.operator).await;
    assert_eq!(
        (&me.body["label"], &me.body["tenant"]),
        (&json!("Operator (first operator key)"), &Value::Null)
    );
    for (key, code) in [("", "missing_key"), ("pb_wrong", "invalid_key")] {
        let got = api.get("/v1/me", key).await;
        assert_eq!((got.status, got.code()), (401, code));
    }
}

#[tokio::test]
async fn fetchply_subscribes_and_leaves_by_event_and_url() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe", "manage", "publish"]).await;
    let path = "/api/v1/hooks/subscribe";
    let wanted = json!({ "url": "http://127.0.0.1:9/hooks/42", "event": "new_lead" });
    let made = api.post(path, &key, &wanted).await;
    assert_eq!((made.status, &made.body["connector"]), (201, &json!("fetchply")), "{made:?}");
    assert!(made.body["secret"].is_string(), "what signs is shown once");
    assert_eq!(api.jobs(&key, EVENT, "e1").await, 1);
    assert_eq!(api.jobs(&key, "new_lead", "e2").await, 1, "a platform may use its own name");
    assert_eq!(api.jobs(&key, "rating.given", "e3").await, 0);

    let again = api.post(path, &key, &wanted).await;
    assert_eq!((again.status, &again.body["id"], again.body.get("secret")), (200, &made.body["id"], None));
    let id = made.body["id"].as_str().unwrap();
    // What the end of retries does; see the test of deliveries.
    api.post(&format!("/v1/connections/{id}/pause"), &key, &json!({ "reason": "deactivated" })).await;
    let active = api.post(path, &key, &wanted).await;
    assert_eq!((active.status, &active.body["state"]["status"]), (200, &json!("active")), "{active:?}");
    let other = json!({ "url": "http://127.0.0.1:9/hooks/42", "event": "feedback_received" });
    assert_eq!(api.post(path, &key, &other).await.status, 201, "another event is another hook");

    for _ in 0..2 {
        assert_eq!(api.call("DELETE", path, &key, Some(&wanted)).await.status, 204);
    }
    let nowhere = json!({ "url": "no url", "event": "new_lead" });
    assert_eq!(api.call("DELETE", path, &key, Some(&nowhere)).await.status, 204, "it was never there");
    let left = api.hooks(&key).await;
    assert_eq!(
        left.iter().map(|hook| hook["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["feedback_received"]
    );
    let got = api.post(path, &key, &json!({ "url": "http://127.0.0.1:9/", "event": "new_leed" })).await;
    assert!(got.body["errors"][0]["hint"].as_str().unwrap().contains("new_lead, new_message"), "{got:?}");
    assert_eq!(api.call("DELETE", path, &key, Some(&json!({}))).await.status, 422);
}

/// What becomes of a secret on its way back.
type Back = fn(&str) -> Option<String>;

/// A URL that answers with this status and the secret changed by `back`; keeps what it was asked.
async fn handshaker(status: StatusCode, back: Back) -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
    let asked: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let keep = Arc::clone(&asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move |headers: HeaderMap| async move {
        let secret =
            headers.get("x-hook-secret").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        keep.lock().push(headers);
        let mut answer = HeaderMap::new();
        if let Some(back) = back(&secret) {
            answer.insert("x-hook-secret", back.parse().unwrap());
        }
        (status, answer)
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

#[tokio::test]
async fn a_url_confirms_where_the_subscriber_asks_for_it_and_only_there() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["subscribe"]).await;
    let same = |secret: &str| Some(secret.to_owned());
    let (url, asked) = handshaker(StatusCode::OK, same).await;
    api.hook(&key, json!({ "targetUrl": url })).await;
    assert_eq!(asked.lock().len(), 0, "off unless asked for");
    api.hook(&key, json!({ "targetUrl": url, "handshake": true })).await;
    let secret = asked.lock()[0]["x-hook-secret"].to_str().unwrap().to_owned();
    assert_eq!(secret.len(), 64);
    api.hook(&key, json!({ "targetUrl": url, "handshake": true })).await;
    assert_ne!(asked.lock()[1]["x-hook-secret"], secret.as_str(), "fresh each time");

    let unsure: [(StatusCode, Back, &str); 3] = [
        (StatusCode::OK, |_| None, "its answer has no X-Hook-Secret"),
        (StatusCode::OK, |secret| Some(secret.to_uppercase() + "x"), "or another one"),
        (StatusCode::BAD_REQUEST, |secret| Some(secret.to_owned()), "it answered 400"),
    ];
    for (status, back, message) in unsure {
        let (url, _) = handshaker(status, back).await;
        let got = api.post("/v1/hooks", &key, &wanted(&json!({ "targetUrl": url, "handshake": true }))).await;
        assert_eq!((got.status, got.pointers()), (422, vec!["/targetUrl"]), "{got:?}");
        let told: &Got = &got;
        assert!(told.body["detail"].as_str().unwrap().contains(message), "{told:?}");
    }
    assert_eq!(api.hooks(&key).await.len(), 3);
}
