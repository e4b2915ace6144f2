//! `/v1/connections`. Secrets go in and never come out, but for the one that is made here, shown once.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, nothing, only_text, page, reply};
use super::problem::{Code, Problem};
use crate::domain::connection::{Connection, MappingChoice};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::history::KeyName;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::secret::Secret;
use crate::service::connections::{Backlog, Saved};
use crate::service::directory::MadeBy;
use crate::service::live::LiveConnection;

fn show(live: &LiveConnection) -> Value {
    let record = &live.record;
    let mapping = match &record.mapping {
        MappingChoice::Default => Value::Null,
        MappingChoice::Named(name) => json!(name),
        MappingChoice::Inline(source) => source.clone(),
    };
    let header_names: Vec<&String> = record.target.headers.keys().collect();
    let credential_names: Vec<&String> = record.credentials.keys().collect();
    let overlap = record.signing.iter().filter_map(|secret| secret.expires).max();
    json!({
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "connector": record.connector,
        "events": record.events,
        "filter": record.filter,
        "mapping": mapping,
        "target": { "url": record.target.url, "header_names": header_names },
        "options": record.options,
        "credential_names": credential_names,
        "has_secret": !record.signing.is_empty(),
        "previous_secret_until": overlap,
        "policy": record.policy,
        "effective_policy": live.works.as_ref().ok().map(|working| json!({
            "timeout_secs": working.policy.timeout.as_secs(),
            "retry_delays_secs": working.policy.retry.delays_ms.iter().map(|ms| ms / 1_000).collect::<Vec<_>>(),
            "jitter_percent": working.policy.retry.jitter_percent,
            "concurrency": working.policy.concurrency,
            "breaker_failures": working.policy.breaker.opens_after,
            "pause_failures": working.policy.breaker.pauses_after,
            "pause_secs": working.policy.breaker.pauses_after_span.as_secs(),
            "per_second": working.policy.rate.map(|rate| rate.per_second),
            "burst": working.policy.rate.map(|rate| rate.burst),
            "log_bodies": working.policy.log_bodies,
        })),
        "share_with": live.works.as_ref().ok().and_then(|working| working.outlet.share_with()),
        "state": show_state(record),
        "unwanted_before": record.unwanted_before,
        "subscription": record.subscription.as_ref().map(|made| json!({
            "event": made.event,
            "key": made.key,
            "expiration_date": made.expires,
        })),
        "broken": live.works.as_ref().err(),
        "revision": live.revision,
        "created": record.created,
        "updated": record.updated,
    })
}

/// The state, with who changed it to that, when and why, as far as that is known.
fn show_state(record: &Connection) -> Value {
    let mut shown = json!(record.state);
    if let (Some(change), Some(shown)) = (record.last_change(), shown.as_object_mut()) {
        shown.insert("reason".to_owned(), json!(change.reason));
        shown.insert("by".to_owned(), json!(change.by));
        shown.insert("key".to_owned(), json!(change.key));
        shown.insert("at".to_owned(), json!(change.at));
    }
    shown
}

/// The same with the changes of its state, newest first.
fn show_whole(live: &LiveConnection) -> Value {
    let mut shown = show(live);
    let history = live.record.history.iter().rev();
    shown["history"] = json!(history.collect::<Vec<_>>());
    shown
}

fn show_saved(saved: &Saved) -> Value {
    let mut shown = show(&saved.live);
    if let Some(secret) = &saved.secret {
        shown["secret"] = json!(secret.reveal());
    }
    shown
}

/// The tenant whose connection it must be, and which one.
pub(super) fn whose(call: &Call) -> Result<(Option<TenantId>, ConnectionId), Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    Ok((tenant, call.param("id", "connection")?))
}

/// `POST /v1/connections`
pub async fn make(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let wanted = call.json().await?;
    let saved = call.gateway.make_connection(tenant.as_ref(), &wanted).await?;
    let mut shown = show_saved(&saved);
    shown["recent"] = json!(call.gateway.outlook(&saved.live).await);
    Ok(reply(StatusCode::CREATED, &shown))
}

/// `GET /v1/connections`
pub async fn list(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "hooks", "cursor", "limit"]);
    let tenant = call.tenant(&mut query)?;
    // Those that programs made for themselves are listed by /v1/hooks, and here for those who ask.
    let made = match query.read("hooks", "true or false") {
        Some(true) => MadeBy::Anyone,
        _ => MadeBy::People,
    };
    let (after, limit) = (query.cursor::<ConnectionId>(), query.limit());
    query.finish()?;
    let lives = call.gateway.directory.connections_of(made, tenant.as_ref(), after, limit + 1);
    Ok(page(lives, limit, |live| live.record.id.to_string(), |live| show(live)))
}

/// `GET /v1/connections/{id}`
pub async fn read(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    Ok(reply(StatusCode::OK, &show_whole(&*call.gateway.owned_connection(tenant.as_ref(), id)?)))
}

/// `PATCH /v1/connections/{id}`
pub async fn update(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    call.gateway.owned_connection(tenant.as_ref(), id)?;
    let patch = call.json().await?;
    let live = call.gateway.update_connection(tenant.as_ref(), id, &patch).await?;
    let mut shown = show(&live);
    shown["recent"] = json!(call.gateway.outlook(&live).await);
    Ok(reply(StatusCode::OK, &shown))
}

/// `DELETE /v1/connections/{id}`
pub async fn delete(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    call.gateway.delete_connection(tenant.as_ref(), id).await?;
    Ok(nothing())
}

/// `POST /v1/connections/{id}/pause`
pub async fn pause(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let reason = only_text(&mut call, "reason").await?;
    let live = call.gateway.pause_connection(tenant.as_ref(), id, reason.as_deref(), key_of(&call)).await?;
    Ok(reply(StatusCode::OK, &show_whole(&live)))
}

/// `POST /v1/connections/{id}/resume`
pub async fn resume(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let backlog = read_backlog(&call.json_or_nothing().await?)?;
    let live = call.gateway.resume_connection(tenant.as_ref(), id, backlog, key_of(&call)).await?;
    Ok(reply(StatusCode::OK, &show_whole(&live)))
}

fn key_of(call: &Call) -> Option<KeyName> {
    call.key.as_deref().map(KeyName::from)
}

/// `{"backlog": "all" | "since" | "none", "since": time}`; all where nothing is said.
fn read_backlog(wanted: &Value) -> Result<Backlog, Problem> {
    const CHOICES: &[(&str, &str)] = &[("all", "all"), ("since", "since"), ("none", "none")];
    let node = Node::from_json(wanted);
    let mut faults = Faults::default();
    let mut backlog = Backlog::All;
    if let Some(mut table) = node.table("", &mut faults) {
        let choice = table.choice("backlog", CHOICES);
        let since = table.time("since");
        match choice.unwrap_or(if table.has("since") { "since" } else { "all" }) {
            "since" => {
                table.need("since");
                backlog = since.map_or(Backlog::All, Backlog::Since);
            }
            other if table.has("since") => {
                let hint = format!("with \"backlog\": \"{other}\" leave it out");
                table.fault("since", "is of no use here".to_owned(), Some(hint));
            }
            "none" => backlog = Backlog::None,
            _ => {}
        }
        table.finish();
    }
    faults.into_result(backlog).map_err(|faults| Problem::faults(Code::Invalid, faults))
}

/// `POST /v1/connections/{id}/rotate-secret`
pub async fn rotate_secret(mut call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let given = only_text(&mut call, "secret").await?.map(Secret::new);
    let saved = call.gateway.rotate_secret(tenant.as_ref(), id, given).await?;
    Ok(reply(StatusCode::OK, &show_saved(&saved)))
}

/// `POST /v1/connections/{id}/test`
pub async fn test(call: Call) -> Answer {
    let (tenant, id) = whose(&call)?;
    let tryout = call.gateway.try_connection(tenant.as_ref(), id).await?;
    let request = tryout.request.map(|request| {
        json!({
            "method": request.method,
            "url": request.url,
            "headers": request.headers,
            "body": request.body,
        })
    });
    Ok(reply(
        StatusCode::OK,
        &json!({ "event": tryout.event, "request": request, "attempt": tryout.attempt, "sheet": tryout.sheet }),
    ))
}
