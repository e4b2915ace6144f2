//! Tenants and keys.

use serde_json::json;

use super::TestApi;

#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    let api = TestApi::start().await;
    let key = api.tenant("acme", &["read"]).await;
    assert_eq!(api.get("/v1/connections", &key).await.status, 200);
    let listed = api.get("/v1/keys?tenant=acme", &api.operator).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    assert!(!listed.text.contains(&key) && !listed.text.contains("hash"), "{listed:?}");
    let id = listed.body["items"][0]["id"].as_str().unwrap();
    let path = format!("/v1/keys/{id}");
    assert_eq!(api.call("DELETE", &path, &api.operator, None).await.status, 204);
    assert_eq!(api.get("/v1/connections", &key).await.code(), "invalid_key");
    assert_eq!(api.call("DELETE", &path, &api.operator, None).await.code(), "not_found");
}

#[tokio::test]
async fn a_deleted_tenant_leaves_nothing() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.connection(&key, json!({})).await;
    assert_eq!(api.call("DELETE", "/v1/tenants/acme", &api.operator, None).await.status, 202);
    assert_eq!(api.get("/v1/connections", &key).await.code(), "invalid_key");
    assert_eq!(api.get("/v1/connections", &api.operator).await.body["items"], json!([]));
    assert_eq!(api.get("/v1/tenants/acme", &api.operator).await.code(), "not_found");
}

#[tokio::test]
async fn all_faults_are_told() {
    let api = TestApi::start().await;
    api.full_tenant("acme").await;
    let again = api.post("/v1/tenants", &api.operator, &json!({ "id": "acme" })).await;
    assert_eq!((again.status, again.code()), (409, "exists"));
    let cases = [
        ("/v1/tenants", json!({ "id": "a b", "nmae": "x" }), vec!["/id", "/nmae"]),
        ("/v1/tenants", json!({ "id": "ok", "name": "" }), vec!["/name"]),
        ("/v1/tenants", json!(7), vec![""]),
        ("/v1/keys", json!({ "tenant": "acme", "scopes": ["red"] }), vec!["/scopes/0", "/name"]),
        ("/v1/keys", json!({ "name": "x" }), vec!["/tenant"]),
        ("/v1/keys", json!({ "name": "x", "tenant": "acme", "operator": true }), vec!["/tenant"]),
        ("/v1/keys", json!({ "name": "x", "tenant": "acme" }), vec!["/scopes"]),
        ("/v1/keys", json!({ "name": "x", "tenant": "nobody", "scopes": ["read"] }), vec!["/tenant"]),
    ];
    for (path, body, pointers) in cases {
        let got = api.post(path, &api.operator, &body).await;
        assert_eq!((got.status, got.pointers()), (422, pointers), "{path} {body}: {got:?}");
    }
}

#[tokio::test]
async fn lists_go_on_where_the_cursor_says() {
    let api = TestApi::start().await;
    for number in 0..5 {
        let id = format!("t{number}");
        assert_eq!(api.post("/v1/tenants", &api.operator, &json!({ "id": id })).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/tenants?limit=2".to_owned();
    loop {
        let got = api.get(&path, &api.operator).await;
        seen.extend(got.body["items"].as_array().unwrap().iter().map(|item| item["id"].clone()));
        match got.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/tenants?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t3", "t4"]);
    for bad in ["limit=0", "limit=201", "limit=x", "cursor=!", "limt=1", "limit=1&limit=2"] {
        let got = api.get(&format!("/v1/tenants?{bad}"), &api.operator).await;
        assert_eq!((got.status, got.code()), (400, "invalid_parameter"), "{bad}: {got:?}");
    }
}
