//! Health, readiness and metrics.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::domain::fault::Faults;

/// How long the store may take to answer a probe.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// `GET /healthz`, `GET /api/health`: the process answers.
pub async fn health(_: Call) -> Answer {
    Ok(reply(StatusCode::OK, &json!({ "status": "ok" })))
}

/// `GET /readyz`: the store can be written to, and the workers get on.
pub async fn ready(call: Call) -> Answer {
    let gateway = &call.gateway;
    let mut faults = Faults::default();
    let mut cause = None;
    tokio::select! {
        health = gateway.store.health() => {
            if let Err(error) = health {
                cause = Some(error.to_string());
                faults.at_field("store", "can't be written to", None);
            }
        }
        () = gateway.clock.sleep(STORE_TIMEOUT) => {
            faults.at_field("store", format!("did not answer within {} s", STORE_TIMEOUT.as_secs()), None);
        }
    }
    if !gateway.progress.is_fresh(gateway.clock.now()) {
        faults.at_field("workers", "were not heard of lately: nothing is delivered", None);
    }
    if faults.is_empty() {
        return Ok(reply(StatusCode::OK, &json!({ "status": "ready" })));
    }
    Err(Problem { cause, ..Problem::faults(Code::NotReady, faults).retry_after(1) })
}

/// `GET /metrics`: OpenMetrics text.
pub async fn metrics(call: Call) -> Answer {
    let stats = call.gateway.store.stats().await.ok();
    let text = call.gateway.metrics.expose(stats.as_ref(), call.gateway.clock.now());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}
