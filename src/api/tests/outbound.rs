//! What goes out and what comes back: deactivation, refused credentials, required fields, secrets in answers, rotated
//! refresh tokens.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::TestApi;
use super::deliveries::deliver_all;
use super::receiver::{Receiver, Says};
use crate::domain::id::ConnectionId;

async fn publish(api: &TestApi, key: &str, id: &str, data: Value) {
    let event = json!({ "type": "lead.captured", "id": id, "data": data });
    assert_eq!(api.post("/v1/events", key, &event).await.status, 202);
}

fn lead() -> Value {
    json!({ "lead": { "name": "Jane Smith", "email": "jane@example.com" },
        "messages": [{ "time": "2026-05-03T14:20:00Z", "role": "user", "text": "hi" }] })
}

/// State and reason of each delivery, oldest first.
async fn states(api: &TestApi, key: &str) -> Vec<(String, String)> {
    let listed = api.get("/v1/deliveries", key).await;
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = listed.body["items"].as_array().unwrap();
    items.iter().rev().map(|item| (text(item, "state"), text(item, "reason"))).collect()
}

#[tokio::test]
async fn fetchply_tries_after_1_5_and_30_minutes_then_deactivates_until_it_is_subscribed_again() {
    for by_subscription in [true, false] {
        let api = TestApi::start().await;
        let key = api.full_tenant("acme").await;
        let receiver = Receiver::start((0..4).map(|_| Says::status(500))).await;
        let wanted = json!({ "connector": "fetchply", "events": ["lead.captured"],
            "target": { "url": receiver.url }, "policy": { "concurrency": 1 } });
        let id = api.connection(&key, wanted).await;
        let path = format!("/v1/connections/{id}");
        publish(&api, &key, "e1", lead()).await;
        publish(&api, &key, "e2", lead()).await;
        assert_eq!(deliver_all(&api).await, 1);
        for secs in [60, 300, 1_800] {
            api.clock.advance(Duration::from_secs(secs - 1));
            assert_eq!(deliver_all(&api).await, 0, "not before {secs} s");
            api.clock.advance(Duration::from_secs(1));
            assert_eq!(deliver_all(&api).await, 1, "after {secs} s");
        }
        assert_eq!(receiver.came().len(), 4);
        let shown = api.get(&path, &key).await;
        assert_eq!(
            (&shown.body["state"]["status"], &shown.body["state"]["by"]),
            (&json!("paused"), &json!("retries_ended"))
        );
        publish(&api, &key, "e3", lead()).await;
        api.clock.advance(Duration::from_hours(24));
        assert_eq!(deliver_all(&api).await, 0, "deactivated");
        let found = states(&api, &key).await;
        let found: Vec<&str> = found.iter().map(|(state, _)| state.as_str()).collect();
        assert_eq!(found, ["dead", "queued", "queued"], "what came meanwhile is kept");

        if by_subscription {
            let tenant = "acme".parse().unwrap();
            let live = api.gateway.reactivate_connection(Some(&tenant), id.parse().unwrap()).await.unwrap();
            assert!(live.record.state.is_active());
        } else {
            let resumed = api.post(&format!("{path}/resume"), &key, &json!({})).await;
            assert_eq!(resumed.body["state"]["status"], json!("active"));
        }
        assert_eq!(deliver_all(&api).await, 2);
        let sent: Vec<Value> = receiver.came().iter().map(super::receiver::Came::json).collect();
        assert!(sent.len() == 2 && sent.iter().all(|body| body["event"] == "new_lead"), "{sent:?}");

        // What a person paused stays paused.
        api.post(&format!("{path}/pause"), &key, &json!({})).await;
        let live = api.gateway.reactivate_connection(None, id.parse().unwrap()).await.unwrap();
        assert!(!live.record.state.is_active());
    }
}

#[tokio::test]
async fn refused_credentials_pause_at_once_keep_the_jobs_and_say_what_to_do() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let taken = || Says::body(200, r#"{"status": "200", "message": "Lead received successfully"}"#);
    let receiver = Receiver::start([Says::status(401), taken(), taken(), taken()]).await;
    let wanted = json!({ "connector": "conversica", "events": ["lead.captured"], "target": { "url": receiver.url },
        "credentials": { "user": "user-17", "password": "wrong-17" }, "policy": { "concurrency": 1 } });
    let path = format!("/v1/connections/{}", api.connection(&key, wanted).await);
    for id in ["e1", "e2", "e3"] {
        publish(&api, &key, id, lead()).await;
    }
    assert_eq!(deliver_all(&api).await, 1, "no second try with what was refused");
    let shown = api.get(&path, &key).await;
    assert_eq!(
        (&shown.body["state"]["status"], &shown.body["state"]["by"]),
        (&json!("paused"), &json!("auth_failed"))
    );
    let reason = shown.body["state"]["reason"].as_str().unwrap();
    assert!(reason.contains("401") && reason.contains("check them, then resume the connection"), "{reason}");
    api.clock.advance(Duration::from_hours(48));
    assert_eq!(deliver_all(&api).await, 0);
    assert!(states(&api, &key).await.iter().all(|(state, _)| state == "queued"));

    let change = json!({ "credentials": { "password": "right-17" } });
    assert_eq!(api.call("PATCH", &path, &key, Some(&change)).await.status, 200);
    assert_eq!(deliver_all(&api).await, 0, "a person says when");
    assert_eq!(api.post(&format!("{path}/resume"), &key, &json!({})).await.status, 200);
    assert_eq!(deliver_all(&api).await, 3);
    assert!(states(&api, &key).await.iter().all(|(state, _)| state == "delivered"));
}

#[tokio::test]
async fn a_lead_without_a_required_field_fails_with_its_name_and_no_request() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let receiver = Receiver::start([]).await;
    let wanted = json!({ "connector": "conversica", "events": ["lead.captured"], "target": { "url": receiver.url },
        "credentials": { "user": "user-17", "password": "pass-17" } });
    api.connection(&key, wanted).await;
    let mut without = lead();
    without["lead"].as_object_mut().unwrap().remove("email");
    publish(&api, &key, "e1", without).await;
    assert_eq!(deliver_all(&api).await, 1);
    let found = states(&api, &key).await;
    assert_eq!(found[0].0, "mapping_failed");
    assert!(found[0].1.contains("email"), "{found:?}");
    api.clock.advance(Duration::from_hours(48));
    assert_eq!(deliver_all(&api).await, 0);
    assert!(receiver.came().is_empty(), "no request went out");
}

#[tokio::test]
async fn what_an_answer_repeats_of_a_secret_is_kept_nowhere() {
    const SIGNING: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    // The example of RFC 7617, section 2.
    let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    let echo = json!({ "status": 400, "message": format!("you said {basic}, so Aladdin:open sesame"),
        "form": "open+sesame" });
    let echoes = || {
        let body = format!("{echo} {SIGNING} header-secret-1");
        Says(400, vec![("x-echo", format!("{basic} {SIGNING} header-secret-1"))], body)
    };
    let receiver = Receiver::start([echoes(), echoes(), echoes()]).await;
    let target = json!({ "url": receiver.url, "headers": { "x-api-key": "header-secret-1" } });
    let conversica = json!({ "connector": "conversica", "target": target, "events": ["lead.captured"],
        "credentials": { "user": "Aladdin", "password": "open sesame" } });
    let webhook = json!({ "target": target, "secret": SIGNING, "policy": { "retry_delays_secs": [] } });
    let first = api.connection(&key, conversica).await;
    publish(&api, &key, "e1", lead()).await;
    deliver_all(&api).await;
    let tried = api.post(&format!("/v1/connections/{first}/test"), &key, &json!({})).await;
    assert_eq!((tried.status, &tried.body["attempt"]["status"]), (200, &json!(400)));
    assert_eq!(api.call("DELETE", &format!("/v1/connections/{first}"), &key, None).await.status, 204);
    api.connection(&key, webhook).await;
    publish(&api, &key, "e2", lead()).await;
    deliver_all(&api).await;

    let listed = api.get("/v1/deliveries", &key).await;
    let mut texts = vec![tried.text, listed.text.clone()];
    for item in listed.body["items"].as_array().unwrap() {
        let path = format!("/v1/deliveries/{}", item["id"].as_str().unwrap());
        texts.push(api.get(&path, &key).await.text);
    }
    assert_eq!(texts.len(), 4);
    for (index, text) in texts.iter().enumerate() {
        let of_webhook = index == 2;
        let secrets: &[&str] = if of_webhook {
            &[SIGNING, "header-secret-1"]
        } else {
            &["QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Aladdin", "open sesame", "open+sesame", "header-secret-1"]
        };
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        assert!(text.contains("[hidden]") || index == 1, "{text}");
    }
}

/// `HubSpot` over a refresh token, its API and token endpoint at the receiver.
async fn hubspot(api: &TestApi, key: &str, receiver: &Receiver) -> String {
    let wanted = json!({ "connector": "hubspot", "options": { "base_url": receiver.url }, "events": ["lead.captured"],
        "name": "CRM",
        "credentials": { "client_id": "client-17", "client_secret": "secret-17", "refresh_token": "refresh-1" } });
    let made = api.post("/v1/connections", key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_refresh_token_that_the_endpoint_replaces_is_written_back_sealed() {
    let token = |access: &str, refresh: &str| {
        Says::body(
            200,
            json!({ "access_token": access, "expires_in": 1800, "refresh_token": refresh }).to_string(),
        )
    };
    let made = || Says::body(201, r#"{"id": "7"}"#);
    let answers = [token("access-1", "refresh-2"), made(), made(), token("access-2", "refresh-3"), made()];
    let receiver = Receiver::start(answers).await;
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = hubspot(&api, &key, &receiver).await;
    let kept = || {
        let live = api.gateway.directory.connection(id.parse::<ConnectionId>().unwrap()).unwrap();
        let sealed = &live.record.credentials["refresh_token"];
        assert!(!sealed.0.contains("refresh"), "sealed");
        api.gateway.vault.open(&id, sealed).unwrap().reveal().to_owned()
    };
    publish(&api, &key, "e1", lead()).await;
    assert_eq!(deliver_all(&api).await, 1);
    assert_eq!(kept(), "refresh-2");
    publish(&api, &key, "e2", lead()).await;
    assert_eq!(deliver_all(&api).await, 1);
    let paths: Vec<String> = receiver.came().into_iter().map(|came| came.path).collect();
    let (fetch, create) = ("/oauth/v1/token", "/crm/v3/objects/contacts");
    assert_eq!(paths, [fetch, create, create], "writing the new one back leaves the access token as it is");

    api.clock.advance(Duration::from_mins(30));
    publish(&api, &key, "e3", lead()).await;
    assert_eq!(deliver_all(&api).await, 1);
    let came = receiver.came();
    assert!(came[0].body.contains("refresh_token=refresh-2"), "{came:?}");
    assert_eq!(kept(), "refresh-3");
    assert!(states(&api, &key).await.iter().all(|(state, _)| state == "delivered"));
}

#[tokio::test]
async fn a_token_endpoint_is_looked_at_like_any_other_address() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = json!({ "name": "CRM", "connector": "zoho", "events": ["*"],
        "options": { "api_domain": "http://127.0.0.1:9", "accounts_url": "http://169.254.169.254" },
        "credentials": { "client_id": "client-17", "client_secret": "secret-17", "refresh_token": "refresh-1" } });
    let got = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/options"]), "{got:?}");
}

#[tokio::test]
async fn what_is_too_long_ahead_of_the_body_is_a_problem_too() {
    let api = TestApi::start().await;
    let send = |path: String, header: String| {
        let request = Request::get(path).header("x-long", header).body(Body::empty()).unwrap();
        api.send(request)
    };
    let got = send(format!("/v1/nothing?a={}", "b".repeat(9_000)), String::new()).await;
    assert_eq!((got.status, got.code()), (414, "uri_too_long"));
    let got = send("/v1/nothing".to_owned(), "b".repeat(40_000)).await;
    assert_eq!((got.status, got.code()), (431, "headers_too_large"));
}
