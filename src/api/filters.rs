//! `POST /v1/filters/preview`: which of a tenant's newest events a filter lets pass, and why not the others.

use axum::http::StatusCode;
use serde_json::json;

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::mapping::Condition;
use crate::service::connections::check_patterns;

/// `POST /v1/filters/preview`
pub async fn preview(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let node = Node::from_json(&call.json().await?);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    table.need("filter");
    let filter = table.node("filter");
    let filter = filter.and_then(|node| Condition::parse(node, "filter", table.faults()));
    let events = table.texts("events").map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let patterns = check_patterns(&events.unwrap_or_else(|| vec!["*".to_owned()]), table.faults());
    table.finish();
    let (Some(filter), true) = (filter, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let (preview, warnings) = call.gateway.preview_filter(&tenant, &filter, &patterns).await?;
    let mut shown = json!(preview);
    shown["warnings"] = json!(warnings);
    Ok(reply(StatusCode::OK, &shown))
}
