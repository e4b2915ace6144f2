//! `/v1/sources`, and the requests that come to a source: from other systems, which have no key.
//!
//! `POST /v1/sources/{id}` and the agents' channels are for senders alone. `GET /v1/sources/{id}` is both: with an
//! `Authorization` header it shows the source; without one it is a sender's handshake, or nothing.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::call::{Answer, Call, nothing, only_text, page, reply};
use super::events::{queue_full, rate_headers};
use super::problem::{Code, Problem, whole_secs};
use crate::domain::connection::MappingChoice;
use crate::domain::id::{SourceId, TenantId};
use crate::domain::secret::Secret;
use crate::service::Gateway;
use crate::service::live::LiveSource;
use crate::service::metrics::Received;
use crate::service::receive::{BodyError, ReceiveError, Request};
use crate::service::sources::SavedSource;

/// After how long a paused or broken source may be asked again.
const UNAVAILABLE_SECS: u64 = 300;

fn show(live: &LiveSource, gateway: &Gateway) -> Value {
    let record = &live.record;
    let mapping = match &record.mapping {
        MappingChoice::Default => Value::Null,
        MappingChoice::Named(name) => json!(name),
        MappingChoice::Inline(source) => source.clone(),
    };
    let credential_names: Vec<&String> = record.credentials.keys().collect();
    let overlap = record.secrets.iter().filter_map(|secret| secret.expires).max();
    let base = gateway.settings.public_url.as_deref().unwrap_or_default();
    json!({
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "connector": record.connector,
        "url": format!("{base}/v1/sources/{}", record.id),
        "agent": record.agent,
        "channel": record.agent.as_ref().map(|_| record.channel()),
        "public": record.public,
        "mapping": mapping,
        "options": record.options,
        "credential_names": credential_names,
        "has_secret": !record.secrets.is_empty(),
        "previous_secret_until": overlap,
        "state": record.state,
        "broken": live.works.as_ref().err(),
        "revision": live.revision,
        "created": record.created,
        "updated": record.updated,
    })
}

fn show_saved(saved: &SavedSource, gateway: &Gateway) -> Value {
    let mut shown = show(&saved.live, gateway);
    if let Some(secret) = &saved.secret {
        shown["secret"] = json!(secret.reveal());
    }
    shown
}

/// The tenant whose source it must be, and which one.
fn whose(call: &Call) -> Result<(Option<TenantId>, SourceId), Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    Ok((tenant, call.param("id", "source")?))
}

/// `POST /v1/sources`
pub async fn make(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let wanted = call.json().await?;
    let saved = call.gateway.make_source(tenant.as_ref(), &wanted).await?;
    Ok(reply(StatusCode::CREATED, &show_saved(&saved, &call.gateway)))
}

/// `GET /v1/sources`
pub async fn list(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "cursor", "limit"]);
    let tenant = call.tenant(&mut query)?;
    let (after, limit) = (query.cursor::<SourceId>(), query.limit());
    query.finish()?;
    let lives = call.gateway.directory.sources(tenant.as_ref(), after, limit + 1);
    let show = |live: &std::sync::Arc<LiveSource>| show(live, &call.gateway);
    Ok(page(lives, limit, |live| live.record.id.to_string(), show))
}

/// `GET /v1/sources/{id}`: shows a source to whoever has a key; answers a sender's handshake.
pub async fn read(mut call: Call) -> Answer {
    if call.key.is_none() {
        let live = call.param("id", "source").ok().and_then(|id| call.gateway.directory.source(id));
        let greeted = match live {
            Some(live) => receive_at(&mut call, &live).await,
            None => Err(Problem::missing("source")),
        };
        return greeted.map_err(|problem| match problem.code {
            // Whoever is no sender of this source is told what he would need, and nothing of the source.
            Code::Unverified => problem,
            _ => {
                Problem::new(Code::MissingKey, "the request has no Authorization header, and is no handshake")
                    .hint("add -H \"authorization: Bearer pb_…\"")
            }
        });
    }
    let (tenant, id) = whose(&call)?;
    let live = call.gateway.owned_source(tenant.as_ref(), id)?;
    Ok(reply(StatusCode::OK, &show(&live, &call.gateway)))
}

/// `PATCH /v1/sources/{id}`
pub async fn update(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    call.gateway.owned_source(tenant.as_ref(), id)?;
    let patch = call.json().await?;
    let live = call.gateway.update_source(tenant.as_ref(), id, &patch).await?;
    Ok(reply(StatusCode::OK, &show(&live, &call.gateway)))
}

/// `DELETE /v1/sources/{id}`
pub async fn delete(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    call.gateway.delete_source(tenant.as_ref(), id).await?;
    Ok(nothing())
}

/// `POST /v1/sources/{id}/rotate-secret`
pub async fn rotate_secret(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let given = only_text(&mut call, "secret").await?.map(Secret::new);
    let saved = call.gateway.rotate_source_secret(tenant.as_ref(), id, given).await?;
    Ok(reply(StatusCode::OK, &show_saved(&saved, &call.gateway)))
}

/// `POST /v1/sources/{id}`: a delivery.
pub async fn receive(mut call: Call) -> Answer {
    let live = call.param("id", "source").ok().and_then(|id| call.gateway.directory.source(id));
    deliver(&mut call, live).await
}

/// `GET` and `POST /api/v1/agents/{agent}/chat/{channel}`: a delivery, or a handshake, by an agent's channel.
pub async fn receive_for_agent(mut call: Call) -> Answer {
    let agent: String = call.param("agent", "source")?;
    let channel: String = call.param("channel", "source")?;
    let live = call.gateway.directory.agent_source(&agent, &channel);
    deliver(&mut call, live).await
}

async fn deliver(call: &mut Call, live: Option<std::sync::Arc<LiveSource>>) -> Answer {
    let Some(live) = live else {
        call.gateway.metrics.received(Received::Unknown);
        return Err(Problem::missing("source"));
    };
    receive_at(call, &live).await
}

async fn receive_at(call: &mut Call, live: &LiveSource) -> Answer {
    let body = if call.method == Method::GET { bytes::Bytes::new() } else { call.body().await? };
    let base = call.gateway.settings.public_url.clone().unwrap_or_else(|| {
        let host = call.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("http://{host}")
    });
    let query = call.query.clone().unwrap_or_default();
    let mark = if query.is_empty() { "" } else { "?" };
    let request = Request {
        method: call.method.clone(),
        url: format!("{base}{}{mark}{query}", call.path),
        query,
        headers: std::mem::take(&mut call.headers),
        body,
    };
    let taken = call.gateway.receive(live, &request).await?;
    let mut response = Response::new(Body::from(taken.body));
    *response.status_mut() = taken.status;
    if let Some(content_type) = taken.content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Ok(response)
}

impl From<ReceiveError> for Problem {
    fn from(error: ReceiveError) -> Self {
        let detail = error.to_string();
        match error {
            // Whoever has no secret is not helped to find one: the log says what did not fit.
            ReceiveError::Unverified(_) | ReceiveError::WrongToken => {
                Self::new(Code::Unverified, "nothing shows that this comes from the source's sender")
                    .hint("check the secret, the clock, and that the body's own bytes are signed")
            }
            ReceiveError::NoHandshake => Self::new(Code::InvalidParameter, detail),
            ReceiveError::Paused => Self::new(Code::SourceUnavailable, detail).retry_after(UNAVAILABLE_SECS),
            ReceiveError::Broken(reason) => {
                Self::new(Code::SourceUnavailable, detail).retry_after(UNAVAILABLE_SECS).cause(reason)
            }
            ReceiveError::Body(BodyError::Json(error)) => error.into(),
            ReceiveError::Body(BodyError::MediaType { taken, .. }) => {
                Self::new(Code::UnsupportedMediaType, detail).hint(format!("taken here: {taken}"))
            }
            ReceiveError::Body(BodyError::Form(_)) => Self::new(Code::MalformedForm, detail),
            ReceiveError::Event(faults) => Self::faults(Code::Invalid, faults),
            ReceiveError::Understand(_) => Self::new(Code::Invalid, detail)
                .hint("the source's mapping reads the request; mend it, and deliver again"),
            ReceiveError::Limited(standing) => {
                let mut problem = Self::new(Code::RateLimited, detail).retry_after(whole_secs(standing.wait));
                rate_headers("deliveries", Some(standing), &mut problem.headers);
                problem
            }
            ReceiveError::QueueFull(_) => queue_full(detail),
            ReceiveError::Store(error) => error.into(),
        }
    }
}
