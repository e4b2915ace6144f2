//! `/v1/deliveries`: what became of each event for each connection.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, page, reply};
use super::problem::{Code, Problem};
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::{Delivery, DeliveryQuery, Retried};

/// A delivery without its attempts.
pub(super) fn show(delivery: &Delivery) -> Value {
    let job = &delivery.job;
    json!({
        "id": job.id,
        "tenant": job.tenant,
        "connection": job.connection,
        "event": delivery.event_id,
        "type": delivery.kind,
        "mapping": job.mapping,
        "state": delivery.state,
        "reason": delivery.reason,
        "tries": job.tries,
        "created": job.created,
        "due": delivery.due,
        "finished": delivery.finished,
    })
}

/// `GET /v1/deliveries`
pub async fn list(call: Call) -> Answer {
    let known = &["tenant", "connection", "event", "type", "state", "since", "until", "cursor", "limit"];
    let mut query = call.query(known);
    let tenant = call.tenant(&mut query)?;
    let limit = query.limit();
    let states = JobState::ALL.map(JobState::name);
    let wanted = DeliveryQuery {
        tenant,
        connection: query.read::<ConnectionId>("connection", "a connection's id"),
        event: query.text("event").map(str::to_owned),
        kind: query.text("type").map(str::to_owned),
        state: query.choose("state", JobState::from_name, &states),
        since: query.read::<Timestamp>("since", "an RFC 3339 time such as 2026-05-03T14:22:08Z"),
        until: query.read::<Timestamp>("until", "an RFC 3339 time such as 2026-05-03T14:22:08Z"),
        before: query.cursor::<JobId>(),
        limit: limit + 1,
    };
    query.finish()?;
    let deliveries = call.gateway.store.deliveries(wanted).await?;
    Ok(page(deliveries, limit, |delivery| delivery.job.id.to_string(), show))
}

/// One delivery, if it is the caller's.
async fn owned(call: &mut Call) -> Result<Delivery, Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let id: JobId = call.param("id", "delivery")?;
    call.gateway
        .store
        .delivery(id)
        .await?
        .filter(|delivery| tenant.is_none_or(|tenant| delivery.job.tenant == tenant))
        .ok_or_else(|| Problem::missing("delivery"))
}

/// `GET /v1/deliveries/{id}`
pub async fn read(mut call: Call) -> Answer {
    let delivery = owned(&mut call).await?;
    let mut shown = show(&delivery);
    shown["attempts"] = json!(delivery.attempts);
    Ok(reply(StatusCode::OK, &shown))
}

/// `POST /v1/deliveries/{id}/retry`
pub async fn retry(mut call: Call) -> Answer {
    let delivery = owned(&mut call).await?;
    match call.gateway.retry_delivery(&delivery).await? {
        Retried::Queued => {
            let now = call.gateway.store.delivery(delivery.job.id).await?;
            Ok(reply(StatusCode::ACCEPTED, &show(&now.unwrap_or(delivery))))
        }
        Retried::Open => Err(Problem::new(Code::WrongState, "it is queued or under way already")),
        Retried::Missing => Err(Problem::missing("delivery")),
        Retried::Closed => Err(Problem::new(Code::WrongState, "its connection was closed or deleted")
            .hint("resume the connection first, if it was closed")),
    }
}
