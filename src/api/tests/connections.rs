//! Connections over their life.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::TestApi;
use crate::service::Settings;

#[tokio::test]
async fn a_connection_lives() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = json!({
        "name": "CRM",
        "connector": "webhook",
        "events": ["lead.*"],
        "target": { "url": "http://127.0.0.1:9/hook", "headers": { "X-Api-Key": "very secret" } },
        "policy": { "timeout_secs": 10 },
    });
    let made = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!(made.status, 201);
    let secret = made.body["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    let path = format!("/v1/connections/{}", made.body["id"].as_str().unwrap());
    let read = api.get(&path, &key).await;
    assert!(!read.text.contains(secret) && !read.text.contains("very secret"), "{read:?}");
    assert_eq!(read.body["target"]["header_names"], json!(["x-api-key"]));
    assert_eq!(read.body["effective_policy"]["timeout_secs"], 10);

    let change = json!({
        "events": ["rating.given"],
        "target": { "headers": { "x-api-key": null, "x-other": "1" } },
        "policy": { "timeout_secs": null, "concurrency": 1 },
    });
    let changed = api.call("PATCH", &path, &key, Some(&change)).await;
    assert_eq!(changed.body["events"], json!(["rating.given"]), "{changed:?}");
    assert_eq!(
        changed.body["target"],
        json!({ "url": "http://127.0.0.1:9/hook", "header_names": ["x-other"] })
    );
    assert_eq!(changed.body["policy"], json!({ "concurrency": 1 }));
    assert_eq!(changed.body["name"], "CRM");
    let stale = json!({ "name": "x", "revision": read.body["revision"] });
    assert_eq!(api.call("PATCH", &path, &key, Some(&stale)).await.code(), "conflict");
    let fresh = json!({ "name": "x", "revision": changed.body["revision"] });
    assert_eq!(api.call("PATCH", &path, &key, Some(&fresh)).await.body["name"], "x");

    let paused = api.post(&format!("{path}/pause"), &key, &json!({ "reason": "lunch" })).await;
    assert_eq!(
        (&paused.body["state"]["status"], &paused.body["state"]["reason"]),
        (&json!("paused"), &json!("lunch"))
    );
    assert_eq!(
        api.call("POST", &format!("{path}/pause"), &key, None).await.body["state"],
        paused.body["state"]
    );
    let resumed = api.call("POST", &format!("{path}/resume"), &key, None).await;
    assert_eq!(resumed.body["state"]["status"], json!("active"));

    assert_eq!(api.call("DELETE", &path, &key, None).await.status, 204);
    assert_eq!(api.get(&path, &key).await.code(), "not_found");
}

#[tokio::test]
async fn all_faults_of_a_connection_are_told_at_once() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let bad = json!({
        "name": "",
        "connector": "webhok",
        "events": ["lead.*", "a b", "lead.*"],
        "filter": { "path": "$.data.x", "op": "gtt", "value": 1 },
        "mapping": "standard_webhok",
        "target": { "url": "http://10.0.0.1/", "headers": { "x": 1 } },
        "policy": { "timeout_secs": 900, "concurrency": 0 },
        "colour": "red",
    });
    let got = api.post("/v1/connections", &key, &bad).await;
    assert_eq!((got.status, got.code()), (422, "invalid"));
    let mut pointers = got.pointers();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/colour",
            "/connector",
            "/events/1",
            "/events/2",
            "/filter/op",
            "/mapping",
            "/name",
            "/policy/concurrency",
            "/policy/timeout_secs",
            "/target/headers/x",
            "/target/url",
        ]
    );
    let hints: Vec<&Value> =
        got.body["errors"].as_array().unwrap().iter().map(|error| &error["hint"]).collect();
    assert!(hints.contains(&&json!("did you mean \"webhook\"?")), "{hints:?}");
    let cases = [
        (
            json!({ "target": { "url": "http://127.0.0.1/", "headers": { "webhook-id": "x", "host": "y" } } }),
            vec!["/target/headers/host", "/target/headers/webhook-id"],
        ),
        (
            json!({ "mapping": { "version": 1, "fields": [{ "to": "a", "form": "$.x" }] } }),
            vec!["/mapping/fields/0/form"],
        ),
        (json!({ "secret": "too short" }), vec!["/secret"]),
        (json!({ "target": { "url": "http://metadata.google.internal/x" } }), vec!["/target/url"]),
        (json!({ "tenant": "other" }), vec!["/tenant"]),
    ];
    for (more, pointers) in cases {
        let mut wanted = json!({ "name": "x", "connector": "webhook", "events": ["*"], "target": { "url": "http://127.0.0.1/" } });
        for (name, value) in more.as_object().unwrap() {
            wanted[name] = value.clone();
        }
        let got = api.post("/v1/connections", &key, &wanted).await;
        let found = got.pointers();
        assert_eq!(got.status, 422, "{more}: {got:?}");
        assert!(
            pointers.iter().all(|pointer| found.iter().any(|found| found.starts_with(pointer))),
            "{more}: {found:?}"
        );
        assert!(!got.text.contains("too short"), "a secret is not repeated");
    }
}

#[tokio::test]
async fn a_replaced_secret_is_valid_for_a_day() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    let rotate = format!("/v1/connections/{id}/rotate-secret");
    let first = api.call("POST", &rotate, &key, None).await;
    assert_eq!(first.body["previous_secret_until"], "2026-05-04T14:22:08Z");
    let own = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let second = api.post(&rotate, &key, &json!({ "secret": own })).await;
    assert_eq!((second.status, second.body.get("secret")), (200, None), "only a secret made here is shown");
    let live = api.gateway.directory.connection(id.parse().unwrap()).unwrap();
    assert_eq!(live.record.signing.len(), 3);
    api.clock.advance(Duration::from_hours(25));
    api.call("POST", &rotate, &key, None).await;
    let live = api.gateway.directory.connection(id.parse().unwrap()).unwrap();
    assert_eq!(live.record.signing.len(), 2, "those of yesterday are gone");
    assert_eq!(api.post(&rotate, &key, &json!({ "secret": "x" })).await.pointers(), ["/secret"]);
}

#[tokio::test]
async fn a_limit_on_connections_holds() {
    let api = TestApi::with(Settings { connections_per_tenant: 1, ..Settings::default() }).await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    let wanted = json!({ "name": "x", "connector": "webhook", "events": ["*"], "target": { "url": "http://127.0.0.1/" } });
    let got = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!((got.status, got.code()), (409, "limit_reached"));
}

#[tokio::test]
async fn a_test_shows_what_was_sent_and_what_came_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let receiver = axum::Router::new().fallback(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") });
    let serving = tokio::spawn(async move { axum::serve(listener, receiver).await });
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let target = json!({ "url": url, "headers": { "x-api-key": "very secret" } });
    let id = api.connection(&key, json!({ "target": target, "events": ["lead.*"] })).await;
    let got = api.call("POST", &format!("/v1/connections/{id}/test"), &key, None).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.body["event"]["type"], "lead.captured", "the sample of the first type it wants");
    assert_eq!(
        (&got.body["attempt"]["status"], &got.body["attempt"]["body"]),
        (&json!(418), &json!("short and stout"))
    );
    let headers = got.body["request"]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["x-patchbay-test", "true"])), "{headers:?}");
    assert!(headers.contains(&json!(["x-api-key", "[hidden]"])), "{headers:?}");
    assert!(!got.text.contains("very secret"));
    assert_eq!(api.get("/v1/deliveries", &key).await.body["items"], json!([]), "a test is kept nowhere");
    serving.abort();
}

#[tokio::test]
async fn preview_gives_the_output_and_a_trace() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let event = json!({ "type": "lead.captured", "id": "e1", "data": { "email": "JANE@example.com" } });
    let mapping =
        json!({ "version": 1, "fields": [{ "to": "email", "from": "$.data.email", "apply": ["lower"] }] });
    let got = api.post("/v1/mappings/preview", &key, &json!({ "mapping": mapping, "event": event })).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(got.body["output"], json!({ "email": "jane@example.com" }));
    assert_eq!(got.body["fields"][0]["raw"], "JANE@example.com");
    api.post("/v1/events", &key, &event).await;
    let id = api.connection(&key, json!({})).await;
    let stored = api.post("/v1/mappings/preview", &key, &json!({ "connection": id, "event_id": "e1" })).await;
    assert_eq!(stored.body["output"]["type"], "lead.captured", "{stored:?}");
    let bad =
        json!({ "mapping": { "version": 1, "fields": [{ "to": "a" }] }, "event": { "type": 7, "data": 1 } });
    let got = api.post("/v1/mappings/preview", &key, &bad).await;
    assert!(
        got.pointers().contains(&"/event/type") && got.pointers().iter().any(|at| at.starts_with("/mapping")),
        "{got:?}"
    );
}

#[tokio::test]
async fn recent_events_tell_what_a_filter_and_a_mapping_would_do() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    for (number, kind, score) in
        [(1, "rating.given", 5), (2, "rating.given", 2), (3, "lead.captured", 9), (4, "rating.given", 4)]
    {
        let event = json!({ "type": kind, "id": format!("e{number}"), "data": { "score": score } });
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
        api.clock.advance(Duration::from_millis(2));
    }
    let filter = json!({ "path": "$.data.score", "op": "gte", "value": 4 });
    let path = "/v1/filters/preview";
    let got = api.post(path, &key, &json!({ "filter": filter, "events": ["rating.*"] })).await;
    assert_eq!((&got.body["looked_at"], &got.body["matched"]), (&json!(3), &json!(2)), "{got:?}");
    let ids: Vec<&Value> = got.body["events"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert_eq!(ids, ["e4", "e2", "e1"]);
    assert_eq!(got.body["events"][1]["why_not"], "$.data.score gte 4: the event has 2");
    assert_eq!((&got.body["events"][0]["why_not"], &got.body["warnings"]), (&Value::Null, &json!([])));
    let all = api.post(path, &key, &json!({ "filter": filter })).await;
    assert_eq!((&all.body["looked_at"], &all.body["matched"]), (&json!(4), &json!(3)));
    let odd = json!({ "path": "$.data.scor", "op": "exists" });
    let got = api.post(path, &key, &json!({ "filter": odd })).await;
    let warning = json!({ "field": "filter.path", "message": "no recent event has $.data.scor", "hint": "did you mean \"score\"?" });
    assert_eq!((&got.body["matched"], &got.body["warnings"]), (&json!(0), &json!([warning])), "{got:?}");
    let wrong =
        api.post(path, &key, &json!({ "filter": { "path": "x", "op": "eqq" }, "events": ["a b"] })).await;
    assert_eq!(wrong.pointers(), ["/filter/path", "/filter/op", "/events/0"], "{wrong:?}");
    assert_eq!(api.post(path, &api.operator, &json!({ "filter": filter })).await.code(), "missing_tenant");

    // What is saved answers the same.
    let mapping = json!({ "score": "$.data.score", "note": "$.data.coment" });
    let wanted = json!({
        "name": "x", "connector": "webhook", "events": ["rating.given"], "filter": filter, "mapping": mapping,
        "target": { "url": "http://127.0.0.1:9/hook" },
    });
    let made = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let recent = &made.body["recent"];
    assert_eq!((&recent["looked_at"], &recent["matched"]), (&json!(3), &json!(2)), "{recent}");
    assert_eq!(recent["matched_ids"], json!(["e4", "e1"]));
    assert_eq!(recent["warnings"][0]["field"], "mapping.fields[1].from", "{recent}");
    assert_eq!(recent["warnings"][0]["message"], "no recent event has $.data.coment");
    // The short form is shown as rows.
    assert_eq!(made.body["mapping"]["fields"][0], json!({ "to": "score", "from": "$.data.score" }));
    let id = made.body["id"].as_str().unwrap();
    let change = json!({ "filter": odd });
    let changed = api.call("PATCH", &format!("/v1/connections/{id}"), &key, Some(&change)).await;
    assert_eq!(
        (&changed.body["recent"]["matched"], &changed.body["recent"]["warnings"]),
        (&json!(0), &json!([warning]))
    );
    // A preview goes by the recent events of its event's type, else by the sample.
    let wanted = json!({ "mapping": mapping, "event": { "type": "rating.given", "data": {} } });
    let got = api.post("/v1/mappings/preview", &key, &wanted).await;
    assert_eq!(got.body["warnings"][0]["message"], "no recent event has $.data.coment", "{got:?}");
    let wanted = json!({ "mapping": { "mail": "$.data.customer.emial" }, "event": "conversation.ended" });
    let got = api.post("/v1/mappings/preview", &key, &wanted).await;
    assert_eq!(got.body["warnings"][0]["hint"], "did you mean \"email\"?", "{got:?}");
    assert!(got.body["warnings"][0]["message"].as_str().unwrap().starts_with("no sample"), "{got:?}");
}
