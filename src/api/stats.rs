//! `/v1/connections/{id}/stats`: what came of a connection's jobs in the last days, and what waits.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::connections::whose;
use crate::domain::job::JobState;
use crate::store::Totals;

fn show(totals: &Totals) -> Value {
    json!({
        "delivered": totals.ended(JobState::Delivered),
        "dead": totals.ended(JobState::Dead),
        "rejected": totals.ended(JobState::Rejected),
        "gone": totals.ended(JobState::Gone),
        "mapping_failed": totals.ended(JobState::MappingFailed),
        "cancelled": totals.ended(JobState::Cancelled),
        "attempts": totals.attempts(),
        "failed_attempts": totals.failed_attempts(),
        "latency_p50_ms": totals.latency_ms(50),
        "latency_p95_ms": totals.latency_ms(95),
    })
}

/// `GET /v1/connections/{id}/stats`
pub async fn read(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let live = call.gateway.owned_connection(tenant.as_ref(), id)?;
    let tally = call.gateway.store.tally(&live.record.tenant, id).await?;
    let days: Vec<Value> = tally
        .days
        .iter()
        .map(|(day, totals)| {
            let mut shown = show(totals);
            shown["day"] = json!(day.to_string().chars().take(10).collect::<String>());
            shown
        })
        .collect();
    let shown = json!({
        "connection": id,
        "totals": show(&tally.totals()),
        "days": days,
        "queued": tally.queued,
        "failing": tally.waiting,
        "oldest_open": tally.oldest,
    });
    Ok(reply(StatusCode::OK, &shown))
}
