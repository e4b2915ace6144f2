//! `/v1/events`: events in, and back out for a look.

use axum::body::Body;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem, whole_secs};
use crate::service::ingest::{ItemError, Publish, PublishError, Published, Receipt};
use crate::service::rate::Standing;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// When to come again to a tenant whose queue is full.
const QUEUE_WAIT_SECS: u64 = 5;
/// Says that an earlier request had done it.
pub(super) const IDEMPOTENT_REPLAY: HeaderName = HeaderName::from_static("idempotent-replay");

/// The request's `Idempotency-Key`, of which there may be one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => key.to_str().map(Some).map_err(|_| PublishError::BadKey.into()),
        _ => Err(PublishError::BadKey.into()),
    }
}

/// `POST /v1/events`
pub async fn publish(mut call: Call) -> Answer {
    let body = call.body().await?;
    let mut query = call.query(&["tenant"]);
    let named = call.tenant(&mut query)?;
    query.finish()?;
    let idempotency_key = idempotency_key(&call.headers)?;
    let published = call
        .gateway
        .publish(Publish {
            key_tenant: call.key_tenant(),
            named_tenant: named.as_ref(),
            idempotency_key,
            headers: &call.headers,
            body: &body,
        })
        .await;
    let standing = match &published {
        Ok(Published { standing: Some(standing), .. }) | Err(PublishError::Limited(standing)) => {
            Some(*standing)
        }
        _ => named.as_ref().and_then(|tenant| call.gateway.standing(tenant)),
    };
    let answer = published.map_err(Problem::from).and_then(|published| answer(&published, &call.request_id));
    match answer {
        Ok(mut response) => {
            rate_headers("events", standing, response.headers_mut());
            Ok(response)
        }
        Err(mut problem) => {
            rate_headers("events", standing, &mut problem.headers);
            Err(problem)
        }
    }
}

fn answer(published: &Published, request_id: &str) -> Result<Response<Body>, Problem> {
    // The same request gets the same body; only a header says that nothing was stored again.
    let repeated = published.replay
        || published.items.iter().flatten().count() > 0
            && published.items.iter().flatten().all(|receipt| receipt.duplicate);
    let accepted = |mut response: Response<Body>| {
        if repeated {
            response.headers_mut().insert(IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
        }
        response
    };
    if !published.batch
        && let Some(item) = published.items.first()
    {
        return match item {
            Ok(receipt) => Ok(accepted(reply(StatusCode::ACCEPTED, &Shown::of(receipt)))),
            Err(error) => Err(error.into()),
        };
    }
    let results: Vec<Value> = published
        .items
        .iter()
        .map(|item| match item {
            Ok(receipt) => {
                let Shown { id, jobs } = Shown::of(receipt);
                json!({ "status": 202, "id": id, "jobs": jobs })
            }
            Err(error) => {
                let problem = Problem::from(error);
                json!({ "status": problem.code.status().as_u16(), "problem": problem.to_json(request_id) })
            }
        })
        .collect();
    if published.items.iter().any(Result::is_ok) {
        return Ok(accepted(reply(StatusCode::ACCEPTED, &json!({ "results": results }))));
    }
    let mut problem =
        Problem::new(Code::BatchRejected, format!("all {} are wrong; see results", results.len()));
    problem.members.insert("results".to_owned(), Value::Array(results));
    Err(problem)
}

/// What is told of an event that was taken.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    jobs: u32,
}

impl<'a> Shown<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        Self { id: &receipt.id, jobs: receipt.jobs }
    }
}

/// draft-ietf-httpapi-ratelimit-headers: the quota, and what is left of it.
pub(super) fn rate_headers(name: &str, standing: Option<Standing>, headers: &mut HeaderMap) {
    let Some(standing) = standing else { return };
    let policy = format!("\"{name}\";q={};w={}", standing.quota, standing.window_secs);
    let left = format!("\"{name}\";r={};t={}", standing.remaining, standing.reset_secs);
    for (name, text) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A tenant has as many open jobs as it may.
pub(super) fn queue_full(detail: String) -> Problem {
    Problem::new(Code::QueueFull, detail)
        .retry_after(QUEUE_WAIT_SECS)
        .hint("they are delivered first: look for connections that fail or are paused")
}

impl From<&ItemError> for Problem {
    fn from(error: &ItemError) -> Self {
        match error {
            ItemError::Invalid(faults) => Self::faults(Code::InvalidEvent, faults.clone()),
            ItemError::MissingTenant => Self::new(Code::MissingTenant, error.to_string())
                .hint("an operator's key names the tenant: in the event's \"tenant\", or by ?tenant="),
            ItemError::UnknownTenant(_) => {
                Self::new(Code::UnknownTenant, error.to_string()).hint("make it first, by POST /v1/tenants")
            }
            ItemError::WrongTenant => Self::new(Code::WrongTenant, error.to_string())
                .hint("leave \"tenant\" out: the key says whose event it is"),
            ItemError::IdReused => Self::new(Code::IdReused, error.to_string())
                .hint("give each event an id of its own; the first one under this id was kept"),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let detail = error.to_string();
        match error {
            PublishError::Parse(error) => error.into(),
            PublishError::BadKey => Self::new(Code::InvalidIdempotencyKey, detail),
            PublishError::KeyReused => {
                Self::new(Code::KeyReused, detail).hint("take a new key for a new request")
            }
            PublishError::StillRunning => Self::new(Code::StillRunning, detail).retry_after(1),
            PublishError::Limited(standing) => {
                Self::new(Code::RateLimited, detail).retry_after(whole_secs(standing.wait))
            }
            PublishError::QueueFull(_) => queue_full(detail),
            PublishError::Store(error) => error.into(),
        }
    }
}

/// `GET /v1/events/{id}`
pub async fn read(call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let id: String = call.param("id", "event")?;
    let event = call.gateway.store.event(&tenant, &id).await?.ok_or_else(|| Problem::missing("event"))?;
    Ok(reply(
        StatusCode::OK,
        &json!({ "key": event.key, "received": event.received, "event": event.document.tree() }),
    ))
}
