//! The API in this process, on the embedded store. Every answer of every test is compared with the `OpenAPI` document.

mod accounts;
mod alerts;
mod connections;
mod credentials;
mod deliveries;
mod erasures;
mod events;
mod hooks;
mod isolation;
mod mappings;
mod operations;
mod outbound;
mod public;
mod receive;
mod receiver;
mod redis;
mod reload;
mod replays;
mod samples;
mod schema;
mod sources;
mod state;
mod trigger;
mod walk;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::router;
use crate::clock::Clock;
use crate::service::{Gateway, Settings, testing};

/// A gateway without workers, its router, and keys.
pub(super) struct TestApi {
    pub gateway: Arc<Gateway>,
    pub clock: Clock,
    router: Router,
    pub operator: String,
    pub folder: TempDir,
}

/// An answer as a test looks at it.
#[derive(Debug)]
pub(super) struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The pointers of a problem's errors.
    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }
}

impl TestApi {
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let (gateway, clock, folder) = testing::gateway(settings).await;
        Self::over(gateway, clock, folder).await
    }

    pub async fn over(gateway: Arc<Gateway>, clock: Clock, folder: TempDir) -> Self {
        let operator = gateway.first_operator_key().await.unwrap().unwrap().reveal().to_owned();
        Self { router: router(Arc::clone(&gateway)), gateway, clock, operator, folder }
    }

    /// Sends a request as it is; compares the answer with the document.
    pub async fn send(&self, request: Request<Body>) -> Got {
        let (method, path) = (request.method().as_str().to_lowercase(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let got = Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        };
        assert!(got.header("x-request-id").is_some(), "{method} {path} has no request id");
        schema::check_answer(&method, &path, &got);
        got
    }

    /// Sends JSON, or nothing, with a key.
    pub async fn call(&self, method: &str, path: &str, key: &str, body: Option<&Value>) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str, key: &str) -> Got {
        self.call("GET", path, key, None).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Got {
        self.call("POST", path, key, Some(body)).await
    }

    /// Makes a tenant, and a key of these scopes for it.
    pub async fn tenant(&self, id: &str, scopes: &[&str]) -> String {
        let made = self.post("/v1/tenants", &self.operator, &json!({ "id": id })).await;
        assert!([201, 409].contains(&made.status), "{made:?}");
        let key = json!({ "tenant": id, "scopes": scopes, "name": "test" });
        let made = self.post("/v1/keys", &self.operator, &key).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        made.body["token"].as_str().unwrap().to_owned()
    }

    /// A tenant's key with every scope.
    pub async fn full_tenant(&self, id: &str) -> String {
        self.tenant(id, &["publish", "manage", "read"]).await
    }

    /// Makes a connection to an address that nobody listens on, with what `more` says; answers its id.
    pub async fn connection(&self, key: &str, more: Value) -> String {
        let mut wanted = json!({
            "name": "test",
            "connector": "webhook",
            "events": ["*"],
            "target": { "url": "http://127.0.0.1:9/hook" },
        });
        for (name, value) in more.as_object().unwrap() {
            wanted[name] = value.clone();
        }
        let made = self.post("/v1/connections", key, &wanted).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["id"].as_str().unwrap().to_owned()
    }
}
