//! `/v1/hooks`: programs subscribe, look at samples, and leave again. Also what they ask before: `/v1/me`, `/v1/event-types`.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::call::{Answer, Call, nothing, page, reply};
use super::problem::Problem;
use crate::domain::id::{ConnectionId, KeyId, TenantId};
use crate::service::directory::MadeBy;
use crate::service::hooks::{FETCHPLY, MAX_SAMPLES, Sampled, Subscribed, ZAPIER};
use crate::service::live::LiveConnection;

/// How many samples are given to those who don't say.
const DEFAULT_SAMPLES: usize = 10;

fn show(live: &LiveConnection) -> Value {
    let record = &live.record;
    let made = record.subscription.as_ref();
    json!({
        "id": record.id,
        "tenant": record.tenant,
        "connector": record.connector,
        "event": made.map(|made| made.event.as_str()),
        "target_url": record.target.url,
        "state": record.state,
        "expiration_date": made.and_then(|made| made.expires),
        "key": made.map(|made| made.key),
        "created": record.created,
    })
}

/// The tenant whose hook it must be, and which one.
fn whose(call: &Call) -> Result<(Option<TenantId>, ConnectionId), Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    Ok((tenant, call.param("id", "hook")?))
}

fn key(call: &Call) -> Result<KeyId, Problem> {
    let key = call.key.as_ref().ok_or_else(|| Problem::internal("a route without a key"))?;
    Ok(key.id)
}

/// `GET /v1/me`
pub async fn me(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let key = call.key.as_ref().ok_or_else(|| Problem::internal("a route without a key"))?;
    let tenant = key.tenant.as_ref().and_then(|id| call.gateway.directory.tenant(id));
    Ok(reply(
        StatusCode::OK,
        &json!({
            "label": call.gateway.label(key),
            "tenant": tenant.map(|tenant| json!({ "id": tenant.id, "name": tenant.name })),
            "key": { "id": key.id, "name": key.name, "scopes": key.scopes },
        }),
    ))
}

/// `GET /v1/event-types`
pub async fn event_types(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "connector"]);
    let tenant = call.one_tenant(&mut query)?;
    let connector = query.text("connector").unwrap_or(ZAPIER).to_owned();
    query.finish()?;
    let types = call.gateway.event_types(&tenant, &connector)?;
    let items: Vec<Value> = types
        .into_iter()
        .map(|(known, sample)| {
            json!({
                "type": known.alias.unwrap_or_else(|| known.pattern.to_string()),
                "description": known.description,
                "sample": sample,
            })
        })
        .collect();
    Ok(reply(StatusCode::OK, &json!({ "items": items, "next_cursor": null })))
}

async fn make(call: &mut Call, connector: &str) -> Result<Subscribed, Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let (key, wanted) = (key(call)?, call.json().await?);
    Ok(call.gateway.subscribe(tenant.as_ref(), key, connector, &wanted).await?)
}

/// The answer to a subscription: made, or found.
fn subscribed(made: &Subscribed) -> Response<Body> {
    let mut shown = show(&made.saved.live);
    if let Some(secret) = &made.saved.secret {
        shown["secret"] = json!(secret.reveal());
    }
    reply(if made.again { StatusCode::OK } else { StatusCode::CREATED }, &shown)
}

/// `POST /v1/hooks`
pub async fn subscribe(mut call: Call) -> Answer {
    Ok(subscribed(&make(&mut call, ZAPIER).await?))
}

/// `GET /v1/hooks`
pub async fn list(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "cursor", "limit"]);
    let tenant = call.tenant(&mut query)?;
    let (after, limit) = (query.cursor::<ConnectionId>(), query.limit());
    query.finish()?;
    let lives = call.gateway.directory.connections_of(MadeBy::Subscribers, tenant.as_ref(), after, limit + 1);
    Ok(page(lives, limit, |live| live.record.id.to_string(), |live| show(live)))
}

/// `GET /v1/hooks/{id}`
pub async fn read(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    Ok(reply(StatusCode::OK, &show(&*call.gateway.owned_hook(tenant.as_ref(), id)?)))
}

/// `DELETE /v1/hooks/{id}`
pub async fn unsubscribe(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    call.gateway.unsubscribe(tenant.as_ref(), id).await?;
    Ok(nothing())
}

/// `GET /v1/hooks/samples`
pub async fn samples(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "event", "connector", "mapping", "hook", "limit"]);
    let tenant = call.one_tenant(&mut query)?;
    let hook = query.read("hook", "a hook's id");
    let limit = query.limit_within(DEFAULT_SAMPLES, MAX_SAMPLES);
    let event = query.need("event");
    let connector = query.text("connector").unwrap_or(ZAPIER).to_owned();
    let mapping = query.text("mapping").map(str::to_owned);
    query.finish()?;
    let asked = Sampled { connector: &connector, event: &event, mapping: mapping.as_deref(), hook, limit };
    let bodies = call.gateway.samples(&tenant, &asked).await?;
    // Byte for byte as they would be delivered.
    let list = [&b"["[..], &bodies.join(&b","[..]), &b"]"[..]].concat();
    let mut response = Response::new(Body::from(list));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `POST /api/v1/hooks/subscribe`, as Fetchply's own.
pub async fn fetchply_subscribe(mut call: Call) -> Answer {
    Ok(subscribed(&make(&mut call, FETCHPLY).await?))
}

/// `DELETE /api/v1/hooks/subscribe`, as Fetchply's own: the body says what, as it did when it was made.
pub async fn fetchply_unsubscribe(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let wanted = call.json().await?;
    call.gateway.unsubscribe_from(&tenant, FETCHPLY, &wanted).await?;
    Ok(nothing())
}
