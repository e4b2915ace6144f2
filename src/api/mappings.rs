//! `POST /v1/mappings/preview`: what a mapping makes of an event, and how, field by field. Nothing is stored or sent.

use axum::http::StatusCode;
use serde_json::json;

use std::sync::Arc;

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::domain::document::{Kind, Node};
use crate::domain::event::Event;
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::id::{ConnectionId, TenantId};
use crate::mapping::Mapping;
use crate::service::connections::below;
use crate::service::ingest::read_plain;
use crate::service::live::event_context;

/// What the preview's context says where there is no connection.
const NO_CONNECTION: &str = "con_00000000000000000000000000";
const NO_JOB: &str = "job_00000000000000000000000000";
/// Whose event it is where an operator previews without naming a tenant.
const ANY_TENANT: &str = "preview";

/// `POST /v1/mappings/preview`
pub async fn preview(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let mut body = call.json().await?;
    // Taken as it is, number for number; a Node would read it again.
    let given = body.get_mut("event").filter(|event| !event.is_string()).map(serde_json::Value::take);
    let node = Node::from_json(&body);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let written = table.node("mapping");
    let connection = table.text("connection").map(str::to_owned);
    table.has("event");
    let stored = table.text("event_id").map(str::to_owned);
    let mapping = choose(&call, tenant.as_ref(), written, connection.as_deref(), table.faults());
    table.finish();
    let incoming = match (given, &stored) {
        (Some(event), None) => match read_plain(event, "event") {
            Ok(incoming) => Some(incoming),
            Err(found) => {
                faults.extend(found);
                None
            }
        },
        (None, Some(_)) => None,
        _ => {
            let hint = "an \"event\" ({\"type\", \"data\"}), or the \"event_id\" of a stored one".to_owned();
            faults.at_field("event", "exactly one event is needed", Some(hint));
            None
        }
    };
    let (Some(mapping), true) = (mapping, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let event: Event = match (incoming, stored) {
        (Some(incoming), _) => {
            let owner = tenant.or_else(|| incoming.tenant.clone());
            let owner = match owner {
                Some(owner) => owner,
                None => ANY_TENANT.parse().map_err(|_| Problem::internal("the preview's tenant"))?,
            };
            call.gateway.unstored_event(incoming, owner)
        }
        (None, Some(id)) => {
            let Some(tenant) = tenant else {
                return Err(Problem::new(Code::MissingTenant, "an operator's key opens all tenants")
                    .hint("add ?tenant=<id>"));
            };
            call.gateway.store.event(&tenant, &id).await?.ok_or_else(|| Problem::missing("event"))?
        }
        (None, None) => return Err(Problem::internal("no event after the checks")),
    };
    let connection = connection.as_deref().unwrap_or(NO_CONNECTION);
    let preview = mapping.preview(&event.document, &event_context(&event, connection, NO_JOB, 1));
    let mut shown = json!(preview);
    shown["event"] = event.document;
    Ok(reply(StatusCode::OK, &shown))
}

/// The mapping that is given, named, or a connection's own.
fn choose(
    call: &Call,
    tenant: Option<&TenantId>,
    written: Option<&Node>,
    connection: Option<&str>,
    faults: &mut Faults,
) -> Option<Arc<Mapping>> {
    let live = connection.and_then(|text| {
        let found =
            text.parse::<ConnectionId>().ok().and_then(|id| call.gateway.owned_connection(tenant, id).ok());
        if found.is_none() {
            faults.at_field("connection", "there is no such connection", None);
        }
        found
    });
    match written.map(|node| (&node.kind, node)) {
        Some((Kind::Text(name), _)) => {
            let catalogue = &call.gateway.catalogue;
            let mapping = catalogue.mapping(name).cloned();
            if mapping.is_none() {
                let hint = did_you_mean(name, catalogue.mappings().keys().map(String::as_str));
                faults.at_field("mapping", format!("there is no mapping \"{name}\""), hint);
            }
            mapping
        }
        Some((_, node)) => match Mapping::parse(node) {
            Ok(mapping) => Some(Arc::new(mapping)),
            Err(found) => {
                below("mapping", &found, faults);
                None
            }
        },
        None => match live.as_ref().map(|live| &live.works) {
            Some(Ok(working)) => Some(Arc::clone(&working.mapping)),
            Some(Err(reason)) => {
                faults.at_field("connection", reason.clone(), None);
                None
            }
            None if connection.is_some() => None,
            None => {
                let hint = "a mapping's name, a mapping, or a \"connection\"".to_owned();
                faults.at_field("mapping", "missing", Some(hint));
                None
            }
        },
    }
}
