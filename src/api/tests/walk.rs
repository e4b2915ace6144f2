//! Walks over every route: the document and the table say the same, and no key opens what it should not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::schema::{document, faults, resolve};
use super::{Got, TestApi};
use crate::api::problem::Code;
use crate::api::table::{Auth, ROUTES};

fn scope_name(auth: Auth) -> Option<&'static str> {
    match auth {
        Auth::Open => None,
        Auth::Key => Some("any"),
        Auth::Operator => Some("operator"),
        Auth::Scope(scope) | Auth::Handshake(scope) => Some(scope.name()),
    }
}

#[test]
fn the_document_and_the_table_say_the_same() {
    let table: BTreeMap<(String, String), Option<&str>> = ROUTES
        .iter()
        .map(|route| ((route.path.to_owned(), route.method.to_lowercase()), scope_name(route.auth)))
        .collect();
    assert_eq!(table.len(), ROUTES.len(), "a route is there twice");
    let mut documented = BTreeMap::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["security"].as_array().unwrap().first();
            let scope = scope.map(|need| need["key"][0].as_str().unwrap());
            documented.insert((path.clone(), method.clone()), scope);
        }
    }
    assert_eq!(table, documented);
}

#[test]
fn every_reference_leads_somewhere_and_every_example_fits() {
    fn walk(value: &'static Value, at: &str) {
        if value.get("$ref").is_some() {
            resolve(value);
        }
        if let (Some(schema), Some(example)) = (value.get("schema"), value.get("example")) {
            assert_eq!(faults(schema, example, ""), Vec::<String>::new(), "the example at {at}");
        }
        if let (Some(schema), Some(Value::Object(examples))) = (value.get("schema"), value.get("examples")) {
            for (name, example) in examples {
                let found = faults(schema, &example["value"], "");
                assert_eq!(found, Vec::<String>::new(), "the example {name} at {at}");
            }
        }
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    walk(member, &format!("{at}/{key}"));
                }
            }
            Value::Array(items) => {
                for item in items {
                    walk(item, at);
                }
            }
            _ => {}
        }
    }
    walk(document(), "");
}

#[test]
fn every_operation_is_described_and_named_once() {
    let mut ids = Vec::new();
    let tags: Vec<&Value> = document()["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for item in document()["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            ids.push(operation["operationId"].as_str().unwrap());
            assert!(operation["summary"].is_string() && tags.contains(&&operation["tags"][0]), "{operation}");
        }
    }
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an operationId is there twice: {ids:?}");
}

#[test]
fn every_problem_has_a_status_that_the_document_knows() {
    let mut codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    codes.sort_unstable();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
    let responses = document()["components"]["responses"].as_object().unwrap();
    assert!(responses.values().all(|response| response["content"].get("application/problem+json").is_some()));
    for code in Code::ALL {
        assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        assert!(!code.title().ends_with('.'), "{code:?}");
    }
}

/// Real things of tenant "acme", by the path parameter's route.
struct Real {
    connection: String,
    hook: String,
    source: String,
    delivery: String,
    key: String,
}

impl Real {
    fn path(&self, route: &str) -> String {
        let id = match route {
            _ if route.contains("/hooks/{id}") => &self.hook,
            _ if route.contains("/connections/") => &self.connection,
            _ if route.contains("/sources/") => &self.source,
            _ if route.contains("/deliveries/") => &self.delivery,
            _ if route.contains("/keys/") => &self.key,
            _ if route.contains("/tenants/") => "acme",
            _ if route.contains("/connectors/") => "webhook",
            _ => "lead_1",
        };
        route.replace("{id}", id)
    }
}

async fn real(api: &TestApi, acme: &str) -> Real {
    let connection = api.connection(acme, json!({})).await;
    let event = json!({ "type": "lead.captured", "id": "lead_1", "data": { "secret": "of acme" } });
    let sent = api.post("/v1/events", acme, &event).await;
    assert_eq!((sent.status, &sent.body["jobs"]), (202, &json!(1)), "{sent:?}");
    let deliveries = api.get("/v1/deliveries", acme).await;
    let delivery = deliveries.body["items"][0]["id"].as_str().unwrap().to_owned();
    let keys = api.get("/v1/keys?tenant=acme", &api.operator).await;
    let key = keys.body["items"][0]["id"].as_str().unwrap().to_owned();
    let wanted = json!({ "targetUrl": "http://127.0.0.1:9/hook", "event": "rating.given" });
    let hook = api.post("/v1/hooks?tenant=acme", &api.operator, &wanted).await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let wanted = json!({ "name": "x", "connector": "github" });
    let source = api.post("/v1/sources", acme, &wanted).await;
    let source = source.body["id"].as_str().unwrap().to_owned();
    Real { connection, hook, source, delivery, key }
}

/// Everything of tenant "acme" that an API can show.
async fn everything(api: &TestApi) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/v1/tenants",
        "/v1/keys",
        "/v1/connections",
        "/v1/hooks",
        "/v1/sources",
        "/v1/deliveries",
        "/v1/events/lead_1?tenant=acme",
    ] {
        all.push(api.get(path, &api.operator).await.body);
    }
    all
}

/// A body that would do for a route, so that nothing but the key is wrong.
fn body(path: &str) -> Option<Value> {
    let operation =
        super::schema::operation("post", path).or_else(|| super::schema::operation("patch", path))?;
    operation["requestBody"]["content"]["application/json"]["example"].as_object().cloned().map(Value::Object)
}

fn is(got: &Got, status: u16, codes: &[&str], what: &str) {
    assert_eq!(got.status, status, "{what}: {got:?}");
    assert!(codes.contains(&got.code()), "{what}: {got:?}");
}

#[tokio::test]
async fn no_key_opens_what_it_should_not() {
    let api = TestApi::start().await;
    let acme = api.full_tenant("acme").await;
    let real = real(&api, &acme).await;
    let other = api.full_tenant("other").await;
    let mut lacking = BTreeMap::new();
    let scopes: [(&str, &[&str]); 4] = [
        ("publish", &["manage", "read", "subscribe"]),
        ("manage", &["publish", "read", "subscribe"]),
        ("read", &["publish", "manage", "subscribe"]),
        // Whoever may change connections may subscribe.
        ("subscribe", &["publish", "read"]),
    ];
    for (scope, rest) in scopes {
        lacking.insert(scope, api.tenant("acme", rest).await);
    }
    let before = everything(&api).await;
    let mut forged = acme.clone();
    forged.replace_range(forged.len() - 2.., if acme.ends_with("AA") { "BB" } else { "AA" });
    for route in ROUTES {
        let Some(scope) = scope_name(route.auth) else { continue };
        let path = real.path(route.path);
        let what = format!("{} {path}", route.method);
        let body = body(&path);
        let send = |key: String| {
            let (api, path, body) = (&api, path.clone(), body.clone());
            async move { api.call(route.method, &path, &key, body.as_ref()).await }
        };
        is(&send(String::new()).await, 401, &["missing_key"], &what);
        for wrong in ["nonsense", "pb_", "pb_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q_x", &forged] {
            is(&send(wrong.to_owned()).await, 401, &["invalid_key"], &what);
        }
        if route.auth == Auth::Key {
            assert_eq!(send(other.clone()).await.body["tenant"]["id"], "other", "{what}");
            continue;
        }
        match lacking.get(scope) {
            Some(key) => is(&send(key.clone()).await, 403, &["missing_scope"], &what),
            None => is(&send(acme.clone()).await, 403, &["operator_only"], &what),
        }
        if route.auth == Auth::Operator {
            is(&send(other.clone()).await, 403, &["operator_only"], &what);
            continue;
        }
        // Another tenant's key against real ids, alone and when it says whose they are.
        let named = api.call(route.method, &format!("{path}?tenant=acme"), &other, body.as_ref()).await;
        let takes_tenant = !path.starts_with("/v1/connectors") && path != "/v1/mappings";
        if takes_tenant {
            is(&named, 403, &["wrong_tenant"], &what);
        }
        if (route.method, route.path) == ("DELETE", "/v1/hooks/{id}") {
            assert_eq!(send(other.clone()).await.status, 204, "{what}: as if it were gone");
        } else if route.path == "/v1/hooks/samples" {
            let shown = api.get(&format!("{path}?event=lead.captured"), &other).await;
            assert!(shown.status == 200 && !shown.text.contains("lead_1"), "{what}: {shown:?}");
        } else if route.path == "/v1/event-types" {
            // The same for everyone.
            assert_eq!(send(other.clone()).await.body, send(acme.clone()).await.body, "{what}");
        } else if route.path.contains("{id}") && takes_tenant {
            is(&send(other.clone()).await, 404, &["not_found"], &what);
        } else if route.method == "GET" && takes_tenant {
            let shown = send(other.clone()).await;
            assert_eq!((shown.status, &shown.body["items"]), (200, &json!([])), "{what}: {shown:?}");
        }
    }
    let preview = json!({ "mapping": "standard_webhook", "event_id": "lead_1" });
    is(&api.post("/v1/mappings/preview", &other, &preview).await, 404, &["not_found"], "preview");
    let preview = json!({ "connection": real.connection, "event": { "type": "x", "data": 1 } });
    is(&api.post("/v1/mappings/preview", &other, &preview).await, 422, &["invalid"], "preview");
    let foreign = json!({ "type": "x", "tenant": "acme", "data": 1 });
    is(&api.post("/v1/events", &other, &foreign).await, 403, &["wrong_tenant"], "publish");
    let connection = json!({ "tenant": "acme", "name": "x", "connector": "webhook", "events": ["*"],
        "target": { "url": "http://127.0.0.1:9/" } });
    is(&api.post("/v1/connections", &other, &connection).await, 422, &["invalid"], "connect");
    let filtered = api.get(&format!("/v1/deliveries?connection={}", real.connection), &other).await;
    assert_eq!(filtered.body["items"], json!([]));
    // The walk's own connection of "other" may be new; what is acme's is as it was.
    let after = everything(&api).await;
    let of_acme = |all: &[Value]| -> Vec<Value> {
        all.iter()
            .flat_map(|list| list["items"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]))
            .filter(|item| item["tenant"] != "other")
            .collect()
    };
    assert_eq!(of_acme(&before), of_acme(&after));
}
