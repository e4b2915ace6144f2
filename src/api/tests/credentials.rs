//! Options and credentials: checked, sealed, sent, and never shown.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::TestApi;
use super::deliveries::lease;
use crate::service::deliver::deliver;

/// A conversica connection to nowhere, with what `more` says.
fn conversica(more: &Value) -> Value {
    let mut wanted = json!({
        "name": "CRM",
        "connector": "conversica",
        "events": ["lead.captured"],
        "target": { "url": "http://127.0.0.1:9/leads" },
    });
    for (name, value) in more.as_object().unwrap() {
        wanted[name] = value.clone();
    }
    wanted
}

/// Whether a text stands in any file of the store.
fn stored(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return stored(&path, text);
        }
        fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn missing_and_misplaced_settings_are_refused_by_name() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let both = json!({ "user": "u-17", "password": "p-4711" });
    let salesforce = |more: Value| {
        let mut wanted = conversica(&more);
        wanted["connector"] = json!("salesforce");
        wanted.as_object_mut().unwrap().remove("target");
        wanted
    };
    let client = json!({ "client_id": "u-17", "client_secret": "p-4711" });
    let cases = [
        (conversica(&json!({})), vec!["/credentials"]),
        (conversica(&json!({ "credentials": { "user": "u-17" } })), vec!["/credentials/password"]),
        (
            conversica(
                &json!({ "credentials": { "user": "u-17", "password": ["p-4711"], "pasword": "p-4711" } }),
            ),
            vec!["/credentials/password", "/credentials/pasword"],
        ),
        (
            conversica(
                &json!({ "credentials": both, "options": { "client": "p-4711", "password": "p-4711" } }),
            ),
            vec!["/options/client", "/options/password"],
        ),
        (conversica(&json!({ "credentials": "p-4711" })), vec!["/credentials"]),
        (conversica(&json!({ "credentials": both, "options": [1] })), vec!["/options"]),
        (conversica(&json!({ "credentials": both, "target": {} })), vec!["/target/url"]),
        (
            conversica(&json!({ "credentials": both, "target": { "url": "http://10.0.0.1/" } })),
            vec!["/target/url"],
        ),
        (salesforce(json!({ "credentials": client })), vec!["/options/instance_url"]),
        (
            salesforce(json!({ "credentials": client, "options": { "instance_url": "http://10.0.0.1" } })),
            vec!["/options"],
        ),
    ];
    for (wanted, pointers) in cases {
        let got = api.post("/v1/connections", &key, &wanted).await;
        let mut found = got.pointers();
        found.sort_unstable();
        found.dedup();
        assert_eq!((got.status, found), (422, pointers), "{wanted}: {got:?}");
        assert!(!got.text.contains("p-4711"), "a credential is not repeated: {got:?}");
    }
    let mut wanted = salesforce(json!({
        "credentials": client,
        "options": { "instance_url": "http://127.0.0.1:9" },
    }));
    wanted["target"] = json!({ "url": "http://127.0.0.1:9" });
    let got = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!((got.status, got.pointers()), (422, vec!["/target/url"]), "the file says where: {got:?}");
    wanted.as_object_mut().unwrap().remove("target");
    let made = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!((made.status, &made.body["broken"]), (201, &Value::Null), "{made:?}");
    assert_eq!(made.body["options"], json!({ "instance_url": "http://127.0.0.1:9" }));
    assert_eq!(made.body["target"]["url"], "");
}

#[tokio::test]
async fn credentials_go_in_and_never_come_out() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = conversica(&json!({
        "credentials": { "user": "user-of-acme", "password": "first-password" },
        "options": { "client_id": 17 },
    }));
    let made = api.post("/v1/connections", &key, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["credential_names"], json!(["password", "user"]));
    assert_eq!(made.body["options"], json!({ "client_id": "17" }));
    let path = format!("/v1/connections/{}", made.body["id"].as_str().unwrap());
    let before =
        api.gateway.directory.connection(made.body["id"].as_str().unwrap().parse().unwrap()).unwrap();

    let change =
        json!({ "credentials": { "password": "second-password" }, "options": { "client_id": null } });
    let changed = api.call("PATCH", &path, &key, Some(&change)).await;
    assert_eq!((changed.status, &changed.body["options"]), (200, &json!({})), "{changed:?}");
    let after = api.gateway.directory.connection(before.record.id).unwrap();
    let open = |name: &str| {
        let sealed = &after.record.credentials[name];
        api.gateway.vault.open(&after.record.id.to_string(), sealed).unwrap().reveal().to_owned()
    };
    assert_eq!((open("user"), open("password")), ("user-of-acme".to_owned(), "second-password".to_owned()));

    let removed = api.call("PATCH", &path, &key, Some(&json!({ "credentials": { "user": null } }))).await;
    assert_eq!((removed.status, removed.pointers()), (422, vec!["/credentials/user"]));
    let answers =
        [made, changed, removed, api.get(&path, &key).await, api.get("/v1/connections", &key).await];
    for secret in ["user-of-acme", "first-password", "second-password"] {
        assert!(answers.iter().all(|answer| !answer.text.contains(secret)), "{secret} is shown");
        assert!(!stored(api.folder.path(), secret), "{secret} is in the store in clear");
    }
    assert!(stored(api.folder.path(), "conversica"), "the store is where it is looked for");
}

#[tokio::test]
async fn a_delivery_carries_the_credentials_of_now() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/leads", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let receiver = Router::new().fallback(move |headers: HeaderMap, Json(body): Json<Value>| async move {
        keep.lock().push((headers[AUTHORIZATION].to_str().unwrap().to_owned(), body));
        Json(json!({ "status": "200", "message": "ok" }))
    });
    let serving = tokio::spawn(async move { axum::serve(listener, receiver).await });
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = conversica(&json!({
        "credentials": { "user": "Aladdin", "password": "wrong" },
        "options": { "client_id": "client-17" },
        "target": { "url": url },
    }));
    let made = api.post("/v1/connections", &key, &wanted).await;
    let path = format!("/v1/connections/{}", made.body["id"].as_str().unwrap());
    let change = json!({ "credentials": { "password": "open sesame" } });
    assert_eq!(api.call("PATCH", &path, &key, Some(&change)).await.status, 200);
    let catalogue = api.gateway.catalogue();
    let sample = &catalogue.samples()["lead.captured"]["data"];
    let event = json!({ "type": "lead.captured", "id": "e1", "data": sample });
    assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    for lease in lease(&api).await {
        let settlement = deliver(&api.gateway, vec![lease]).await.remove(0);
        assert_eq!(api.gateway.store.settle(vec![settlement]).await.unwrap(), 1);
    }
    let listed = api.get("/v1/deliveries", &key).await;
    let id = listed.body["items"][0]["id"].as_str().unwrap();
    let delivery = api.get(&format!("/v1/deliveries/{id}"), &key).await;
    assert_eq!(delivery.body["state"], "delivered", "{delivery:?}");
    // The example of RFC 7617, section 2.
    let seen = seen.lock();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].0, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(seen[0].1["clientId"], "client-17");
    serving.abort();
}

#[tokio::test]
async fn a_connector_tells_what_it_asks() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let got = api.get("/v1/connectors/conversica", &key).await;
    assert_eq!(got.body["needs_target"], true);
    assert_eq!(got.body["auth"], json!([{ "kind": "basic", "credentials": ["user", "password"] }]));
    assert_eq!(got.body["options"][0]["name"], "client_id");
    assert_eq!(got.body["fields"][0]["name"], "firstName");
    assert_eq!(got.body["fields"][0]["type"], "text");
    let got = api.get("/v1/connectors/salesforce", &key).await;
    assert_eq!(got.body["needs_target"], false);
    assert_eq!(got.body["options"][0]["required"], true);
}
