//! `/v1/tenants` and `/v1/keys`, for the operator.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, nothing, page, reply};
use super::problem::{Code, Problem};
use crate::domain::account::{ApiKey, Scope, Tenant};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::id::{KeyId, TenantId};
use crate::service::accounts::NewKey;

fn show_tenant(tenant: &Tenant) -> Value {
    json!({ "id": tenant.id, "name": tenant.name, "created": tenant.created })
}

fn show_key(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "scopes": key.scopes,
        "name": key.name,
        "created": key.created,
    })
}

fn invalid(faults: Faults) -> Problem {
    Problem::faults(Code::Invalid, faults)
}

/// `POST /v1/tenants`
pub async fn make_tenant(mut call: Call) -> Answer {
    call.query(&[]).finish()?;
    let node = Node::from_json(&call.json().await?);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else { return Err(invalid(faults)) };
    let id = table.need_text("id").map(str::parse::<TenantId>);
    if let Some(Err(error)) = &id {
        table.fault("id", error.to_string(), None);
    }
    let name = table.text("name").map(str::to_owned);
    table.finish();
    let (Some(Ok(id)), true) = (id, faults.is_empty()) else { return Err(invalid(faults)) };
    let name = name.unwrap_or_else(|| id.to_string());
    let tenant = call.gateway.make_tenant(id, &name).await?;
    Ok(reply(StatusCode::CREATED, &show_tenant(&tenant)))
}

/// `GET /v1/tenants`
pub async fn list_tenants(call: Call) -> Answer {
    let mut query = call.query(&["cursor", "limit"]);
    let (after, limit) = (query.cursor::<TenantId>(), query.limit());
    query.finish()?;
    let tenants = call.gateway.directory.tenants(after.as_ref(), limit + 1);
    Ok(page(tenants, limit, |tenant| tenant.id.to_string(), |tenant| show_tenant(tenant)))
}

/// `GET /v1/tenants/{id}`
pub async fn read_tenant(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let id: TenantId = call.param("id", "tenant")?;
    let tenant = call.gateway.directory.tenant(&id).ok_or_else(|| Problem::missing("tenant"))?;
    Ok(reply(StatusCode::OK, &show_tenant(&tenant)))
}

/// `DELETE /v1/tenants/{id}`
pub async fn delete_tenant(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let id: TenantId = call.param("id", "tenant")?;
    match call.gateway.delete_tenant(&id, &call.who()).await? {
        Some(purge) => Ok(reply(StatusCode::ACCEPTED, &super::erasures::show(&purge))),
        None => Err(Problem::missing("tenant")),
    }
}

/// `POST /v1/keys`
pub async fn make_key(mut call: Call) -> Answer {
    call.query(&[]).finish()?;
    let node = Node::from_json(&call.json().await?);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else { return Err(invalid(faults)) };
    let tenant = table.text("tenant").map(str::parse::<TenantId>);
    if let Some(Err(error)) = &tenant {
        table.fault("tenant", error.to_string(), None);
    }
    let operator = table.boolean("operator").unwrap_or(false);
    if operator == tenant.is_some() {
        let hint = "either a tenant, or \"operator\": true for a key that opens everything";
        table.fault("tenant", "whose key it is must be said once", Some(hint.to_owned()));
    }
    let mut scopes = Vec::new();
    for (index, text) in table.texts("scopes").unwrap_or_default().into_iter().enumerate() {
        match Scope::NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, scope)) => scopes.push(*scope),
            None => table.faults().at_field(
                format!("scopes[{index}]"),
                "is no scope",
                Some("publish, manage, read or subscribe".to_owned()),
            ),
        }
    }
    let name = table.need_text("name").map(str::to_owned);
    table.finish();
    let (Some(name), true) = (name, faults.is_empty()) else { return Err(invalid(faults)) };
    let new = NewKey { tenant: tenant.and_then(Result::ok), scopes, name };
    let (key, token) = call.gateway.make_key(new).await?;
    let mut shown = show_key(&key);
    shown["token"] = json!(token.reveal());
    Ok(reply(StatusCode::CREATED, &shown))
}

/// `GET /v1/keys`
pub async fn list_keys(call: Call) -> Answer {
    let mut query = call.query(&["tenant", "cursor", "limit"]);
    let tenant = call.tenant(&mut query)?;
    let (after, limit) = (query.cursor::<KeyId>(), query.limit());
    query.finish()?;
    let keys = call.gateway.directory.keys(tenant.as_ref(), after, limit + 1);
    Ok(page(keys, limit, |key| key.id.to_string(), |key| show_key(key)))
}

/// `DELETE /v1/keys/{id}`
pub async fn revoke_key(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let id: KeyId = call.param("id", "key")?;
    if call.gateway.revoke_key(id).await? { Ok(nothing()) } else { Err(Problem::missing("key")) }
}
