//! Health, metrics, the document, and what stands around every endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use tower::ServiceExt;

use super::TestApi;
use crate::api::table::{Auth, Endpoint, ROUTES};
use crate::api::{probe_router, serve};

#[tokio::test]
async fn ready_means_that_the_store_answers_and_the_workers_get_on() {
    let api = TestApi::start().await;
    for path in ["/healthz", "/api/health"] {
        assert_eq!(api.get(path, "").await.body, json!({ "status": "ok" }));
    }
    let idle = api.get("/readyz", "").await;
    assert_eq!((idle.status, idle.code(), idle.pointers()), (503, "not_ready", vec!["/workers"]));
    api.gateway.progress.beat(api.clock.now());
    let store = json!({ "engine": "sqlite", "durability": "fsync", "note": null });
    assert_eq!(api.get("/readyz", "").await.body, json!({ "status": "ready", "store": store }));
    api.gateway.store.close().await;
    let closed = api.get("/readyz", "").await;
    assert_eq!((closed.status, closed.pointers()), (503, vec!["/store"]));
    assert_eq!(api.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn a_process_that_only_delivers_answers_probes_and_nothing_else() {
    let api = TestApi::start().await;
    let router = probe_router(Arc::clone(&api.gateway));
    for route in ROUTES {
        let path = route.path.replace("{id}", "x");
        let request = Request::builder().method(route.method).uri(&path).body(Body::empty()).unwrap();
        let status = router.clone().oneshot(request).await.unwrap().status().as_u16();
        let is_probe = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
        assert_eq!(status != 404, is_probe, "{path}: {status}");
    }
}

#[tokio::test]
async fn a_store_that_does_not_write_accepts_nothing() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.gateway.store.close().await;
    let got = api.post("/v1/events", &key, &json!({ "type": "x", "data": 1 })).await;
    assert_eq!((got.status, got.code()), (503, "store_unavailable"));
    assert!(got.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()));
    let metrics = api.get("/metrics", "").await;
    assert!(metrics.text.contains("patchbay_events_total{result=\"unavailable\"} 1"), "{}", metrics.text);
    assert!(metrics.text.contains("patchbay_store_up 0"));
}

#[tokio::test]
async fn metrics_name_routes_and_never_paths() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    api.get("/v1/connections/con_00000000000000000000000000", &key).await;
    api.get("/nowhere/at/all", &key).await;
    let text = api.get("/metrics", "").await.text;
    assert!(text.contains("route=\"/v1/connections/{id}\",status=\"4xx\"} 1"), "{text}");
    assert!(text.contains("route=\"(none)\",status=\"4xx\"} 1"), "{text}");
    assert!(!text.contains("con_0000") && !text.contains("nowhere") && !text.contains("acme"));
}

#[tokio::test]
async fn what_is_no_route_is_a_problem_too() {
    let api = TestApi::start().await;
    let nowhere = api.get("/nowhere", "").await;
    assert_eq!(
        (nowhere.code(), &nowhere.body["detail"]),
        ("no_such_route", &json!("no route has this path"))
    );
    assert_eq!(api.get("/v1/events/%FF", &api.operator).await.status, 404);
    let wrong = api.call("PUT", "/v1/connections", "", None).await;
    assert_eq!((wrong.status, wrong.code()), (405, "method_not_allowed"));
    let allow = wrong.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let text = api.call("POST", "/v1/tenants", &api.operator, None).await;
    assert_eq!(text.code(), "malformed_json", "an empty body is no JSON");
    let request = Request::post("/v1/tenants").header("authorization", format!("Bearer {}", api.operator));
    let form =
        request.header("content-type", "application/x-www-form-urlencoded").body(Body::from("id=a")).unwrap();
    assert_eq!(api.send(form).await.code(), "unsupported_media_type");
}

#[tokio::test]
async fn a_sane_request_id_is_kept() {
    let api = TestApi::start().await;
    for (given, kept) in [("abc-123", true), ("a b", false), ("", false), (&"x".repeat(129), false)] {
        let request = Request::get("/healthz").header("x-request-id", given).body(Body::empty()).unwrap();
        let got = api.send(request).await;
        assert_eq!(got.header("x-request-id") == Some(given), kept, "{given}");
        assert!(kept || got.header("x-request-id").unwrap().starts_with("req_"));
    }
}

#[tokio::test]
async fn the_page_stands_alone() {
    let api = TestApi::start().await;
    let page = api.get("/docs", "").await;
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(!page.text.contains("\"OPENAPI\""), "the document is in the page");
    assert!(page.text.contains("publishEvents"));
    for outside in ["src=\"http", "href=\"http", "@import", "url(http", "url('", "url(\""] {
        assert!(!page.text.contains(outside), "{outside}");
    }
    let script = page.text.split_once("<script>").unwrap().1;
    assert_eq!(script.matches("</script").count(), 1, "nothing in the document ends the script");
    assert_eq!(api.get("/openapi.json", "").await.body["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_panic_is_a_problem_and_says_nothing() {
    static PANICS: Endpoint = Endpoint {
        method: "GET",
        path: "/panics",
        auth: Auth::Open,
        run: |_| Box::pin(async { panic!("with a secret") }),
    };
    let api = TestApi::start().await;
    let request = Request::get("/panics").body(Body::empty()).unwrap();
    let response = serve(&PANICS, Arc::clone(&api.gateway), request).await;
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("\"code\":\"internal\"") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_body_is_not_read_before_the_key_is_checked() {
    let api = TestApi::start().await;
    for route in ROUTES.iter().filter(|route| route.auth != Auth::Open) {
        let touched = Arc::new(AtomicBool::new(false));
        let body = Body::from_stream(futures::stream::once({
            let touched = Arc::clone(&touched);
            async move {
                touched.store(true, Ordering::Relaxed);
                Ok::<_, std::io::Error>("{}")
            }
        }));
        let path = route.path.replace("{id}", "x");
        let request = Request::builder().method(route.method).uri(&path).body(body).unwrap();
        assert_eq!(api.send(request).await.status, 401, "{path}");
        assert!(!touched.load(Ordering::Relaxed), "{path}");
    }
}
