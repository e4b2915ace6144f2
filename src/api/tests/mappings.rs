//! What a mapping makes of an event, and what a connection would send.

use serde_json::{Value, json};

use super::TestApi;

const PREVIEW: &str = "/v1/mappings/preview";

#[tokio::test]
async fn a_connection_shows_the_request_that_would_be_sent() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let target = json!({ "url": "http://127.0.0.1:9/hook", "headers": { "X-Api-Key": "very secret" } });
    let id = api.connection(&key, json!({ "target": target, "mapping": "lead_flat" })).await;

    let got = api.post(PREVIEW, &key, &json!({ "connection": id, "event": "lead.captured" })).await;
    assert_eq!(got.status, 200, "{got:?}");
    let request = &got.body["request"];
    assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!("http://127.0.0.1:9/hook")));
    let headers = request["headers"].as_array().unwrap();
    for hidden in ["x-api-key", "webhook-signature"] {
        assert!(headers.contains(&json!([hidden, "[hidden]"])), "{hidden}: {headers:?}");
    }
    assert!(headers.contains(&json!(["content-type", "application/json"])), "{headers:?}");
    assert!(!got.text.contains("very secret"), "{}", got.text);
    assert_eq!(got.body["output"]["email"], "jane@example.com");
    assert_eq!(request["body"], serde_json::to_string(&got.body["output"]).unwrap(), "byte for byte");

    // A mapping that is given goes before the connection's; the short form will do.
    let mapping = json!({ "contact": { "email": "$.data.lead.email" } });
    let wanted = json!({ "connection": id, "mapping": mapping, "event": "lead.captured" });
    let got = api.post(PREVIEW, &key, &wanted).await;
    assert_eq!(got.body["request"]["body"], r#"{"contact":{"email":"jane@example.com"}}"#, "{got:?}");

    let failing = json!({ "version": 1, "fields": [{ "to": "a", "from": "$.data.gone", "required": true }] });
    let wanted = json!({ "connection": id, "mapping": failing, "event": "lead.captured" });
    let got = api.post(PREVIEW, &key, &wanted).await;
    assert_eq!((&got.body["request"], &got.body["error"]["field"]), (&Value::Null, &json!("a")), "{got:?}");
    let alone = api.post(PREVIEW, &key, &json!({ "mapping": "lead_flat", "event": "lead.captured" })).await;
    assert_eq!((alone.status, &alone.body["request"]), (200, &Value::Null), "{alone:?}");
}

#[tokio::test]
async fn an_event_is_given_stored_or_a_sample() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let stored =
        json!({ "type": "lead.captured", "id": "e1", "data": { "lead": { "email": "a@b.example" } } });
    assert_eq!(api.post("/v1/events", &key, &stored).await.status, 202);
    let mapping = json!({ "version": 1, "fields": [{ "to": "email", "from": "$.data.lead.email" }] });
    let cases = [
        (json!("e1"), "a@b.example"),
        (json!("lead.captured"), "jane@example.com"),
        (json!({ "type": "x", "data": { "lead": { "email": "c@d.example" } } }), "c@d.example"),
    ];
    for (event, email) in cases {
        let got = api.post(PREVIEW, &key, &json!({ "mapping": mapping, "event": event })).await;
        assert_eq!(got.body["output"]["email"], email, "{got:?}");
    }
    let got = api.post(PREVIEW, &key, &json!({ "mapping": mapping, "event": "lead.captred" })).await;
    assert_eq!(got.status, 404, "{got:?}");
    assert!(got.text.contains("did you mean \\\"lead.captured\\\"?"), "{}", got.text);
    let both = json!({ "mapping": mapping, "event": "e1", "event_id": "e1" });
    assert!(api.post(PREVIEW, &key, &both).await.pointers().contains(&"/event"));

    // An operator need not say whose event it is where the connection says it.
    let id = api.connection(&key, json!({})).await;
    let got = api.post(PREVIEW, &api.operator, &json!({ "connection": id, "event": "e1" })).await;
    assert_eq!((got.status, &got.body["event"]["tenant"]), (200, &json!("acme")), "{got:?}");
    let got = api.post(PREVIEW, &api.operator, &json!({ "mapping": mapping, "event": "e1" })).await;
    assert_eq!(got.code(), "missing_tenant", "{got:?}");
}
