//! Health, readiness and metrics.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::domain::fault::Faults;
use crate::service::Gateway;
use crate::store::{About, StoreError};

/// How long the store may take to answer a probe.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// `GET /healthz`, `GET /api/health`: the process answers.
pub async fn health(_: Call) -> Answer {
    Ok(reply(StatusCode::OK, &json!({ "status": "ok" })))
}

/// Whether the store can be written to, in good time; else why not, for the log.
async fn probe(gateway: &Gateway) -> Result<(), StoreError> {
    tokio::select! {
        health = gateway.store.health() => health,
        () = gateway.clock.sleep(STORE_TIMEOUT) => {
            Err(StoreError::Unavailable(format!("no answer within {} s", STORE_TIMEOUT.as_secs())))
        }
    }
}

/// `GET /readyz`: the store can be written to, and the workers get on, where this process has some.
pub async fn ready(call: Call) -> Answer {
    let gateway = &call.gateway;
    let mut faults = Faults::default();
    let mut cause = None;
    if let Err(error) = probe(gateway).await {
        let (message, hint) = match error {
            StoreError::Emptied => (
                "was emptied: events that were not delivered yet are lost",
                Some(
                    "the gateway writes its records again; nothing needs to be done for new events"
                        .to_owned(),
                ),
            ),
            _ => (
                "can't be written to",
                Some(
                    "the gateway's log has the cause, and the gateway tries again by itself; see that the store \
                     runs and has room"
                        .to_owned(),
                ),
            ),
        };
        faults.at_field("store", message, hint);
        cause = Some(error.to_string());
    }
    if !gateway.progress.is_fresh(gateway.clock.now()) {
        faults.at_field("workers", "were not heard of lately: nothing is delivered", None);
    }
    if faults.is_empty() {
        let About { engine, durability, note, .. } = gateway.store.about();
        let store = json!({ "engine": engine, "durability": durability, "note": note });
        let mut ready = json!({ "status": "ready", "store": store });
        // It delivers by the files before, so it is ready; whoever edited them is to know.
        if let Some(note) = gateway.reloads.refused() {
            ready["note"] = json!(note);
        }
        return Ok(reply(StatusCode::OK, &ready));
    }
    let mut problem = Problem::faults(Code::NotReady, faults).retry_after(1);
    problem.cause = cause;
    Err(problem)
}

/// `GET /metrics`: what Prometheus reads.
pub async fn metrics(call: Call) -> Answer {
    let gateway = &call.gateway;
    let store_up = probe(gateway).await.is_ok();
    let stats = if store_up { gateway.store.stats().await.ok() } else { None };
    let text = gateway.metrics.expose(stats.as_ref(), store_up, gateway.clock.now());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}
