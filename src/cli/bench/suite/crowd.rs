//! Many connections, made as a platform makes them: by the API, some requests at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::super::generator::AGAIN_AFTER;
use super::super::phase::{Bench, connection, per_sec};
use super::super::wire::{exchange, post};
use crate::cli::failure::Failure;

/// Connections of one tenant: as many as a tenant may have by default.
const OF_ONE_TENANT: usize = 1_000;
/// Requests under way at once.
const AT_ONCE: usize = 64;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Makes `count` connections of other tenants; how many a second.
pub async fn make(bench: &Bench, count: usize) -> Result<f64, Failure> {
    for tenant in 0..count.div_ceil(OF_ONE_TENANT) {
        bench.client.post("/v1/tenants", &json!({ "id": name(tenant), "name": "Crowd" })).await?;
    }
    let (gateway, target) = (bench.gateway.address, bench.receiver.address);
    let key: Arc<str> = bench.gateway.operator_key.as_str().into();
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut makers = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (next, key) = (Arc::clone(&next), Arc::clone(&key));
        makers.spawn(async move {
            let (mut line, mut number) = (None, next.fetch_add(1, Ordering::Relaxed));
            while number < count {
                let wish = connection(&name(number / OF_ONE_TENANT), number, target).to_string();
                let request = post(gateway, "/v1/connections", &key, &wish);
                let asked = exchange(&mut line, gateway, request.as_bytes(), |status, body| {
                    (status, String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned())
                });
                match tokio::time::timeout(ANSWER_LIMIT, asked).await {
                    Ok(Ok((201, _))) => number = next.fetch_add(1, Ordering::Relaxed),
                    // The store has no room for it now.
                    Ok(Ok((503, _))) => tokio::time::sleep(AGAIN_AFTER).await,
                    Ok(Ok((status, body))) => return Err(format!("answered {status}: {body}")),
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) => return Err("no answer".to_owned()),
                }
            }
            Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made.map_err(Failure::failed)?
            .map_err(|reason| Failure::failed(format!("a connection could not be made: {reason}")))?;
    }
    Ok(per_sec(count, began.elapsed()))
}

fn name(tenant: usize) -> String {
    format!("crowd-{tenant}")
}
