//! What a chat's visitors may do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Got, TestApi};
use crate::api::Peer;
use crate::domain::secret::Secret;
use crate::service::Settings;
use crate::service::public::ChatSettings;

const CHAT: &str = "/api/public/system-chat";
const RATE: &str = "/api/public/conversations/conv_1/rate";

async fn send(api: &TestApi, path: &str, from: &str, forwarded: Option<&str>, body: &Value) -> Got {
    let peer: SocketAddr = format!("{from}:1").parse().unwrap();
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    let request = request.extension(ConnectInfo(Peer(peer))).body(Body::from(body.to_string())).unwrap();
    api.send(request).await
}

/// A tenant with a public chat of `agt_1` and a connection for all events; its key.
async fn public(api: &TestApi) -> String {
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let wanted = json!({ "name": "Site", "connector": "fusionchatalyst", "agent": "agt_1", "public": true });
    assert_eq!(api.post("/v1/sources", &key, &wanted).await.status, 201);
    key
}

/// The types of the events that were kept, oldest first, each with its document.
async fn kept(api: &TestApi, key: &str) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let jobs = api.get("/v1/deliveries", key).await;
    for job in jobs.body["items"].as_array().unwrap().iter().rev() {
        let id = job["event"].as_str().unwrap_or_else(|| panic!("{job}"));
        let event = api.get(&format!("/v1/events/{id}"), key).await.body["event"].clone();
        all.push((event["type"].as_str().unwrap().to_owned(), event));
    }
    all
}

#[tokio::test]
async fn a_rating_becomes_an_event_of_the_agent_s_tenant() {
    let api = TestApi::start().await;
    let key = public(&api).await;
    let body =
        json!({ "chatbotId": "agt_1", "messageId": "msg_4", "rating": "thumbs_down", "comment": "No." });
    let got = send(&api, RATE, "203.0.113.9", None, &body).await;
    assert_eq!(got.status, 202, "{got:?}");
    let event = api.get(&format!("/v1/events/{}", got.body["id"].as_str().unwrap()), &key).await;
    let event = &event.body["event"];
    assert_eq!((&event["type"], &event["source"]), (&json!("rating.given"), &json!("agt_1")));
    let data =
        json!({ "conversation_id": "conv_1", "message_id": "msg_4", "rating": "down", "comment": "No." });
    assert_eq!(event["data"], data);
    let other = json!({ "agentId": "agt_2", "messageId": "m", "rating": "up" });
    assert_eq!(
        send(&api, RATE, "203.0.113.9", None, &other).await.status,
        404,
        "no public chat of this agent"
    );
    let wrong = send(&api, RATE, "203.0.113.9", None, &json!({ "rating": "five", "stars": 5 })).await;
    assert_eq!((wrong.status, wrong.pointers().len()), (422, 4), "{wrong:?}");
    assert_eq!(kept(&api, &key).await.len(), 1);
}

#[tokio::test]
async fn any_page_may_ask_and_reads_every_answer() {
    let api = TestApi::start().await;
    public(&api).await;
    for path in [CHAT, RATE] {
        let request = Request::options(path).header("origin", "https://shop.example").body(Body::empty());
        let got = api.send(request.unwrap()).await;
        assert_eq!((got.status, got.header("access-control-allow-origin")), (204, Some("*")), "{got:?}");
        assert_eq!(got.header("access-control-allow-headers"), Some("content-type"));
        let got = send(&api, path, "203.0.113.9", None, &json!({})).await;
        assert_eq!((got.status, got.header("access-control-allow-origin")), (422, Some("*")));
        assert!(got.header("ratelimit").unwrap().starts_with("\"visits\";r="), "{got:?}");
    }
}

#[tokio::test]
async fn each_visitor_has_a_rate_of_its_own() {
    let settings = Settings {
        visitor_requests_per_minute: 2,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let api = TestApi::with(settings).await;
    public(&api).await;
    let body = json!({ "agentId": "agt_1", "messageId": "m", "rating": "up" });
    for _ in 0..2 {
        assert_eq!(send(&api, RATE, "203.0.113.9", None, &body).await.status, 202);
    }
    let over = send(&api, RATE, "203.0.113.9", Some("198.51.100.7"), &body).await;
    assert_eq!((over.status, over.header("retry-after")), (429, Some("30")), "{over:?}");
    assert_eq!(over.header("access-control-allow-origin"), Some("*"));
    // Behind a trusted proxy the visitor is whom it names.
    assert_eq!(send(&api, RATE, "10.0.0.1", Some("198.51.100.7"), &body).await.status, 202);
    assert_eq!(send(&api, RATE, "10.0.0.1", Some("203.0.113.9"), &body).await.status, 429);
    // A network of IPv6 is one visitor.
    for (host, status) in [("1", 202), ("2", 202), ("3", 429)] {
        let from = format!("[2001:db8:0:1::{host}]");
        assert_eq!(send(&api, RATE, &from, None, &body).await.status, status);
    }
    api.clock.advance(Duration::from_secs(30));
    assert_eq!(send(&api, RATE, "203.0.113.9", None, &body).await.status, 202);
}

#[tokio::test]
async fn a_message_without_an_upstream_is_kept_and_the_answer_says_so() {
    let api = TestApi::start().await;
    let key = public(&api).await;
    let got = send(&api, CHAT, "203.0.113.9", None, &json!({ "agentId": "agt_1", "message": "Hello" })).await;
    assert_eq!((got.status, got.code()), (503, "chat_unavailable"), "{got:?}");
    let kept = kept(&api, &key).await;
    let kinds: Vec<&str> = kept.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["conversation.started", "message.received"]);
    assert_eq!(kept[1].1["data"]["message"]["text"], "Hello");
}

/// An upstream that answers with these, in turn, and keeps what it was asked.
async fn upstream(answers: Vec<(u16, &'static str)>) -> (ChatSettings, Arc<Mutex<Vec<Value>>>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/reply", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (Arc::clone(&asked), Arc::new(Mutex::new(answers.into_iter())));
    let answer = move |headers: HeaderMap, body: String| {
        assert_eq!(headers["authorization"], "Bearer k-1");
        seen.lock().push(serde_json::from_str(&body).unwrap());
        let (status, text) = answers.lock().next().unwrap();
        async move { (StatusCode::from_u16(status).unwrap(), text) }
    };
    tokio::spawn(axum::serve(listener, Router::new().route("/reply", post(answer))).into_future());
    (ChatSettings { url, key: Some(Secret::new("k-1")), timeout: Duration::from_secs(5) }, asked)
}

#[tokio::test]
async fn a_message_is_answered_by_the_upstream() {
    let answers =
        vec![(200, r#"{"reply":"Hi there"}"#), (500, "{}"), (200, "<html>"), (200, r#"{"text":7}"#)];
    let (chat, asked) = upstream(answers).await;
    assert!(!format!("{chat:?}").contains("k-1"), "the key is not shown");
    let api = TestApi::with(Settings { chat: Some(chat), ..Settings::default() }).await;
    let key = public(&api).await;
    let got = send(&api, CHAT, "203.0.113.9", None, &json!({ "agentId": "agt_1", "message": "Hello" })).await;
    assert_eq!((got.status, &got.body["reply"]), (200, &json!("Hi there")), "{got:?}");
    let conversation = got.body["conversationId"].as_str().unwrap();
    assert_eq!(
        asked.lock()[0],
        json!({ "agentId": "agt_1", "conversationId": conversation, "messageId": got.body["messageId"], "message": "Hello" })
    );
    let more = json!({ "agentId": "agt_1", "message": "More", "conversationId": conversation });
    for _ in 0..3 {
        let failed = send(&api, CHAT, "203.0.113.9", None, &more).await;
        assert_eq!((failed.status, failed.code()), (502, "chat_failed"), "{failed:?}");
    }
    let kinds: Vec<String> = kept(&api, &key).await.into_iter().map(|(kind, _)| kind).collect();
    let received = "message.received";
    assert_eq!(kinds, ["conversation.started", received, "message.sent", received, received, received]);
}
