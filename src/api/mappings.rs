//! `POST /v1/mappings/preview`: what a mapping makes of an event, and how, field by field; and for a
//! connection the request that would be sent. Nothing is stored or sent.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::connector::Names;
use crate::domain::document::{Kind, Node};
use crate::domain::event::Event;
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::id::{ConnectionId, TenantId};
use crate::mapping::Mapping;
use crate::service::Gateway;
use crate::service::connections::below;
use crate::service::exchange::Outgoing;
use crate::service::ingest::{Incoming, read_plain};
use crate::service::live::{LiveConnection, event_context};
use crate::service::tryout::Shown;

/// What the preview's context says where there is no connection.
const NO_CONNECTION: &str = "con_00000000000000000000000000";
const NO_JOB: &str = "job_00000000000000000000000000";
/// Whose event it is where an operator previews without naming a tenant.
const ANY_TENANT: &str = "preview";

/// The event that is wanted.
enum Wanted {
    Given(Incoming),
    Stored(String),
}

/// `POST /v1/mappings/preview`
pub async fn preview(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let mut body = call.json().await?;
    let gateway = Arc::clone(&call.gateway);
    // Taken as it is, number for number; a Node would read it again.
    let given = body.get_mut("event").map(Value::take);
    let node = Node::from_json(&body);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    table.has("event");
    let written = table.node("mapping");
    let connection = table.text("connection").map(str::to_owned);
    let stored = table.text("event_id").map(str::to_owned);
    let live = connection.as_deref().and_then(|text| {
        let id = text.parse::<ConnectionId>().ok();
        let found = id.and_then(|id| gateway.owned_connection(tenant.as_ref(), id).ok());
        if found.is_none() {
            table.faults().at_field("connection", "there is no such connection", None);
        }
        found
    });
    // A connection that is not there is told once.
    let mapping = match (&live, connection.is_some(), written) {
        (None, true, None) => None,
        (live, _, written) => choose(&gateway, written, live.as_deref(), table.faults()),
    };
    table.finish();
    let wanted = wanted(&gateway, given, stored, &mut faults);
    let (Some(mapping), Some(wanted), true) = (mapping, wanted, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let tenant = tenant.or_else(|| live.as_ref().map(|live| live.record.tenant.clone()));
    let event = event(&gateway, tenant.clone(), wanted).await?;

    let connection =
        live.as_ref().map_or_else(|| NO_CONNECTION.to_owned(), |live| live.record.id.to_string());
    let context = event_context(&event, &connection, NO_JOB, 1);
    let mut shown = json!(mapping.preview(event.document.tree(), &context));
    shown["request"] = Value::Null;
    let works = live.as_ref().and_then(|live| live.works.as_ref().ok());
    if let Some(endpoint) = works.and_then(|working| working.outlet.endpoint()) {
        let names = Names { event_type: &event.kind, event_id: &event.id, job_id: NO_JOB };
        let outgoing = Outgoing { event: &event.document, context, names };
        match Shown::ahead(endpoint, &mapping, &outgoing, gateway.clock.now()) {
            Ok(request) => shown["request"] = json!(request),
            Err(error) => shown["error"] = json!(error),
        }
    }
    let whose = tenant.as_ref().or(live.as_ref().map(|live| &live.record.tenant));
    shown["warnings"] = json!(gateway.unseen_paths(whose, &mapping, &event.kind).await?);
    shown["event"] = event.document.into_tree();
    Ok(reply(StatusCode::OK, &shown))
}

/// What `event` and `event_id` say. A text is the type of a sample, else the id of a stored event.
fn wanted(
    gateway: &Gateway,
    given: Option<Value>,
    stored: Option<String>,
    faults: &mut Faults,
) -> Option<Wanted> {
    let document = match (given, stored) {
        (None, Some(id)) => return Some(Wanted::Stored(id)),
        (Some(Value::String(name)), None) => match gateway.catalogue().samples().get(&name) {
            Some(sample) => sample.clone(),
            None => return Some(Wanted::Stored(name)),
        },
        (Some(document), None) => document,
        _ => {
            let hint =
                "an \"event\": {\"type\", \"data\"}, a sample's type or a stored event's id".to_owned();
            faults.at_field("event", "exactly one event is needed", Some(hint));
            return None;
        }
    };
    match read_plain(&document, "event") {
        Ok(incoming) => Some(Wanted::Given(incoming)),
        Err(found) => {
            faults.extend(found);
            None
        }
    }
}

/// The event for a tenant; one that is given belongs to any.
async fn event(gateway: &Gateway, tenant: Option<TenantId>, wanted: Wanted) -> Result<Event, Problem> {
    match wanted {
        Wanted::Given(incoming) => {
            let owner = match tenant.or_else(|| incoming.tenant.clone()) {
                Some(owner) => owner,
                None => ANY_TENANT.parse().map_err(|_| Problem::internal("the preview's tenant"))?,
            };
            Ok(gateway.unstored_event(incoming, owner))
        }
        Wanted::Stored(id) => {
            let Some(tenant) = tenant else {
                return Err(Problem::new(Code::MissingTenant, "an operator's key opens all tenants")
                    .hint("add ?tenant=<id>"));
            };
            gateway.store.event(&tenant, &id).await?.ok_or_else(|| {
                let catalogue = gateway.catalogue();
                let kinds = catalogue.samples().keys().map(String::as_str);
                let problem = Problem::missing("event");
                match did_you_mean(&id, kinds) {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                }
            })
        }
    }
}

/// The mapping that is given, named, or the connection's own.
fn choose(
    gateway: &Gateway,
    written: Option<&Node>,
    live: Option<&LiveConnection>,
    faults: &mut Faults,
) -> Option<Arc<Mapping>> {
    match written.map(|node| (&node.kind, node)) {
        Some((Kind::Text(name), _)) => {
            let catalogue = &gateway.catalogue();
            let mapping = catalogue.mapping(name).cloned();
            if mapping.is_none() {
                let hint = did_you_mean(name, catalogue.mappings().keys().map(String::as_str));
                faults.at_field("mapping", format!("there is no mapping \"{name}\""), hint);
            }
            mapping
        }
        Some((_, node)) => match Mapping::from_json(&node.to_json()) {
            Ok(mapping) => Some(Arc::new(mapping)),
            Err(found) => {
                below("mapping", &found, faults);
                None
            }
        },
        None => match live.map(|live| &live.works) {
            Some(Ok(working)) => Some(Arc::clone(&working.mapping)),
            Some(Err(reason)) => {
                faults.at_field("connection", reason.clone(), None);
                None
            }
            None => {
                let hint = "a mapping's name, a mapping, or a \"connection\"".to_owned();
                faults.at_field("mapping", "missing", Some(hint));
                None
            }
        },
    }
}
