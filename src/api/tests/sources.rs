//! Sources made, changed, shown and deleted.

use serde_json::{Value, json};

use super::TestApi;
use crate::service::Settings;

#[tokio::test]
async fn a_source_is_made_shown_changed_and_deleted() {
    let settings =
        Settings { public_url: Some("https://hooks.example.com".to_owned()), ..Settings::default() };
    let api = TestApi::with(settings).await;
    let key = api.full_tenant("acme").await;
    let made = api.post("/v1/sources", &key, &json!({ "name": "Repo", "connector": "github" })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert_eq!(made.body["url"], format!("https://hooks.example.com/v1/sources/{id}"));
    assert_eq!(made.body["secret"].as_str().unwrap().len(), 64);
    let path = format!("/v1/sources/{id}");
    let shown = api.get(&path, &key).await;
    assert_eq!(
        (shown.status, &shown.body["secret"], &shown.body["has_secret"]),
        (200, &Value::Null, &json!(true))
    );
    assert_eq!(api.get("/v1/sources", &key).await.body["items"][0]["id"], id);
    let change = json!({ "agent": "agt_1", "paused": true, "name": "Repos", "mapping": {
        "version": 1, "fields": [{ "to": "type", "value": "push" }] } });
    let changed = api.call("PATCH", &path, &key, Some(&change)).await;
    assert_eq!((changed.status, &changed.body["channel"]), (200, &json!("github")), "{changed:?}");
    assert_eq!(changed.body["state"]["status"], "paused");
    let stale = json!({ "revision": made.body["revision"], "name": "x" });
    assert_eq!(api.call("PATCH", &path, &key, Some(&stale)).await.code(), "conflict");
    let reset = json!({ "agent": null, "paused": false, "mapping": null });
    let reset = api.call("PATCH", &path, &key, Some(&reset)).await;
    assert_eq!((&reset.body["agent"], &reset.body["mapping"]), (&Value::Null, &Value::Null));
    let rotated = api.post(&format!("{path}/rotate-secret"), &key, &json!({})).await;
    assert_ne!(rotated.body["secret"], made.body["secret"]);
    assert!(rotated.body["previous_secret_until"].is_string());
    assert_eq!(api.call("DELETE", &path, &key, None).await.status, 204);
    assert_eq!(api.get(&path, &key).await.status, 404);
}

#[tokio::test]
async fn what_a_source_lacks_is_told_at_once() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let cases: [(Value, &[&str]); 8] = [
        (json!({}), &["/name", "/connector", "/name"]),
        (json!({ "name": "x", "connector": "conversica" }), &["/connector"]),
        (json!({ "name": "x", "connector": "githb" }), &["/connector"]),
        // The other system makes the secret, and the word is missing too.
        (json!({ "name": "x", "connector": "whatsapp" }), &["/credentials/verify_token"]),
        (json!({ "name": "x", "connector": "stripe" }), &["/secret"]),
        (json!({ "name": "x", "connector": "webhook", "secret": "short" }), &["/secret"]),
        (
            json!({ "name": "x", "connector": "github", "channel": "a b", "public": true }),
            &["/channel", "/channel", "/public"],
        ),
        (
            json!({ "name": "x", "connector": "github", "mapping": "lead_flat", "colour": 1 }),
            &["/colour", "/mapping"],
        ),
    ];
    for (wanted, pointers) in cases {
        let got = api.post("/v1/sources", &key, &wanted).await;
        assert_eq!(got.status, 422, "{wanted}: {got:?}");
        let mut found = got.pointers();
        found.dedup();
        for pointer in pointers {
            assert!(found.contains(pointer), "{wanted}: {found:?}");
        }
    }
    let connection = json!({ "name": "x", "connector": "github", "events": ["*"] });
    let got = api.post("/v1/connections", &key, &connection).await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/connector"]), "{got:?}");
    let one = json!({ "name": "x", "connector": "github", "agent": "agt_1" });
    assert_eq!(api.post("/v1/sources", &key, &one).await.status, 201);
    let two = api.post("/v1/sources", &key, &one).await;
    assert_eq!((two.status, two.pointers()), (422, vec!["/channel"]), "one source a channel");
}

#[tokio::test]
async fn secrets_are_sealed_and_a_tenant_s_end_is_its_sources_end() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = json!({ "name": "x", "connector": "whatsapp", "secret": "app-secret-in-clear",
        "credentials": { "verify_token": "word-in-clear" } });
    let made = api.post("/v1/sources", &key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.text.contains("in-clear"), "{}", made.text);
    assert_eq!(made.body["credential_names"], json!(["verify_token"]));
    let records = api.gateway.store.changes(0, 100).await.unwrap();
    assert!(!format!("{records:?}").contains("in-clear"));
    assert_eq!(api.call("DELETE", "/v1/tenants/acme", &api.operator, None).await.status, 202);
    assert_eq!(api.get("/v1/sources", &api.operator).await.body["items"], json!([]));
    let gone = api.post(&format!("/v1/sources/{}", made.body["id"].as_str().unwrap()), "", &json!({})).await;
    assert_eq!(gone.status, 404);
}
