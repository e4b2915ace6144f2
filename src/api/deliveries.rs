//! `/v1/deliveries`: what became of each event for each connection.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::call::{Answer, Call, Query, cursor, reply};
use super::export::{Format, export_lines};
use super::problem::{Code, Problem};
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::time::Timestamp;
use crate::store::{Delivery, DeliveryQuery, Retried, Tried};

/// A delivery without its attempts.
pub(super) fn show(delivery: &Delivery) -> Value {
    let job = &delivery.job;
    let last = delivery.last.or_else(|| delivery.attempts.last().map(Tried::from));
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
        "outcome": last.map(|last| last.outcome),
        "status": last.and_then(|last| last.status),
        "duration_ms": last.map(|last| last.duration_ms),
        "due": delivery.due,
        "finished": delivery.finished,
    })
}

/// What a list of deliveries may be narrowed by.
const FILTERS: [&str; 11] = [
    "tenant",
    "connection",
    "event",
    "type",
    "state",
    "outcome",
    "status",
    "text",
    "since",
    "until",
    "cursor",
];
/// The longest free text that is looked for, in bytes.
const TEXT_BYTES: usize = 200;

/// Which deliveries a request asks for; `limit` stays to be set.
pub(super) fn wanted(call: &Call, query: &mut Query) -> Result<DeliveryQuery, Problem> {
    const TIME: &str = "an RFC 3339 time such as 2026-05-03T14:22:08Z";
    let states = JobState::ALL.map(JobState::name);
    let outcomes = Outcome::ALL.map(Outcome::name);
    if query.text("text").is_some_and(|text| text.len() > TEXT_BYTES) {
        query.fault("text", format!("is longer than {TEXT_BYTES} bytes"));
    }
    Ok(DeliveryQuery {
        tenant: call.tenant(query)?,
        connection: query.read::<ConnectionId>("connection", "a connection's id"),
        event: query.text("event").map(str::to_owned),
        kind: query.text("type").map(str::to_owned),
        state: query.choose("state", JobState::from_name, &states),
        outcome: query.choose("outcome", Outcome::from_name, &outcomes),
        status: query.read::<u16>("status", "an HTTP status such as 503"),
        text: query.text("text").map(str::to_owned),
        since: query.read::<Timestamp>("since", TIME),
        until: query.read::<Timestamp>("until", TIME),
        before: query.cursor::<JobId>(),
        limit: 0,
    })
}

/// `GET /v1/deliveries`
pub async fn list(call: Call) -> Answer {
    let mut query = call.query(&[&FILTERS[..], &["limit"]].concat());
    let limit = query.limit();
    let wanted = DeliveryQuery { limit, ..wanted(&call, &mut query)? };
    query.finish()?;
    let page = call.gateway.store.deliveries(wanted).await?;
    let items: Vec<Value> = page.items.iter().map(show).collect();
    let complete = page.next.is_none() || items.len() == limit;
    let next = page.next.map(|next| cursor(&next.to_string()));
    Ok(reply(StatusCode::OK, &json!({ "items": items, "next_cursor": next, "complete": complete })))
}

/// `GET /v1/deliveries/export`
pub async fn export(call: Call) -> Answer {
    let mut query = call.query(&[&FILTERS[..], &["format"]].concat());
    let formats = Format::ALL.map(Format::name);
    let format = query.choose("format", Format::from_name, &formats).unwrap_or(Format::Ndjson);
    let wanted = wanted(&call, &mut query)?;
    query.finish()?;
    let lines = export_lines(Arc::clone(&call.gateway.store), wanted, format);
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    Ok(response)
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
        Retried::Erased => {
            Err(Problem::new(Code::WrongState, "its event was erased: there is nothing to send"))
        }
        Retried::Open | Retried::Already => {
            Err(Problem::new(Code::WrongState, "it is queued or under way already"))
        }
        Retried::Missing => Err(Problem::missing("delivery")),
        Retried::Closed => Err(Problem::new(Code::WrongState, "its connection was closed or deleted")
            .hint("resume the connection first, if it was closed")),
    }
}
