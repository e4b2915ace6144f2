//! `/v1/connectors` and `/v1/mappings`: what the gateway's files offer.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::problem::Problem;
use crate::spec::{Catalogue, ConnectorSpec, OptionSpec, SecretUse};

fn secret_use(secret: SecretUse) -> &'static str {
    match secret {
        SecretUse::Required => "required",
        SecretUse::Optional => "optional",
        SecretUse::None => "none",
    }
}

fn options(options: &[OptionSpec]) -> Vec<Value> {
    let show = |option: &OptionSpec| {
        json!({
            "name": option.name,
            "description": option.description,
            "required": option.required,
            "default": option.default,
            "example": option.example,
            "secret": option.secret,
        })
    };
    options.iter().map(show).collect()
}

/// A connector as the API and the command line show it.
pub fn show_connector(spec: &ConnectorSpec, catalogue: &Catalogue) -> Value {
    let events: Vec<Value> = spec
        .events
        .iter()
        .map(|event| {
            let sample = event.sample.as_ref().and_then(|kind| catalogue.samples().get(kind));
            json!({ "type": event.pattern, "description": event.description, "sample": sample })
        })
        .collect();
    let auth: Vec<Value> =
        spec.auth.iter().map(|way| json!({ "kind": way.name(), "credentials": way.credentials() })).collect();
    let reserved: Vec<&str> = spec.request.reserved_headers.iter().map(http::HeaderName::as_str).collect();
    json!({
        "id": spec.id,
        "name": spec.name,
        "description": spec.description,
        "docs": spec.docs,
        "secret": secret_use(spec.secret),
        "mapping": spec.sends().then_some(&spec.mapping),
        "receives": spec.inbound.as_ref().map(|inbound| json!({
            "mapping": inbound.mapping,
            "secret": secret_use(inbound.secret),
            "secret_maker": if inbound.makes_secret { "gateway" } else { "sender" },
            "options": options(&inbound.options),
        })),
        "events": events,
        "needs_target": spec.needs_target(),
        "options": options(&spec.options),
        "auth": auth,
        "fields": spec.target.fields(),
        "reserved_headers": reserved,
        "reserved_fields": spec.request.reserved_fields,
        "policy": {
            "timeout_secs": spec.policy.timeout.as_secs(),
            "retry_delays_secs": spec.policy.retry.delays_ms.iter().map(|ms| ms / 1_000).collect::<Vec<_>>(),
            "jitter_percent": spec.policy.retry.jitter_percent,
            "concurrency": spec.policy.concurrency,
        },
    })
}

/// `GET /v1/connectors`
pub async fn connectors(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let catalogue = call.gateway.catalogue();
    let items: Vec<Value> =
        catalogue.connectors().values().map(|spec| show_connector(spec, &catalogue)).collect();
    Ok(reply(StatusCode::OK, &json!({ "items": items, "next_cursor": null })))
}

/// `GET /v1/connectors/{id}`
pub async fn connector(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let id: String = call.param("id", "connector")?;
    let catalogue = call.gateway.catalogue();
    let spec = catalogue.connector(&id).ok_or_else(|| Problem::missing("connector"))?;
    Ok(reply(StatusCode::OK, &show_connector(spec, &catalogue)))
}

/// `GET /v1/mappings`
pub async fn mappings(call: Call) -> Answer {
    call.query(&[]).finish()?;
    let items: Vec<Value> = call
        .gateway
        .catalogue()
        .mappings()
        .iter()
        .map(|(name, mapping)| json!({ "name": name, "mapping": mapping.to_json() }))
        .collect();
    Ok(reply(StatusCode::OK, &json!({ "items": items, "next_cursor": null })))
}
