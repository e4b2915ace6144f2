//! `POST /v1/connections/{id}/replay`: deliveries that failed by their mapping, sent again after the mend, or shown as
//! they would be.
//!
//! The body says which by `state`; further states and narrower spans are further values and keys, the answer stays.

use axum::http::StatusCode;
use serde_json::json;

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::JobState;
use crate::service::replay::{MAX_REPLAYED, Replay};

/// States that can be replayed as a whole.
const STATES: &[(&str, JobState)] = &[("mapping_failed", JobState::MappingFailed)];
/// How many are sent where the body does not say.
const DEFAULT_LIMIT: usize = 100;

/// `POST /v1/connections/{id}/replay`
pub async fn replay(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let id: ConnectionId = call.param("id", "connection")?;
    let live = call.gateway.owned_connection(tenant.as_ref(), id)?;
    let node = Node::from_json(&call.json().await?);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    table.need("state");
    let state = table.choice("state", STATES);
    let dry_run = table.boolean("dry_run").unwrap_or(false);
    let most = i64::try_from(MAX_REPLAYED).unwrap_or(i64::MAX);
    let limit = if table.has("limit") { table.integer_within("limit", 1, most) } else { None };
    let before = table.text("cursor").map(str::parse::<JobId>);
    if let Some(Err(error)) = &before {
        table.fault("cursor", error.to_string(), Some("the next_cursor of the page before".to_owned()));
    }
    table.finish();
    let (Some(state), true) = (state, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let replay = Replay {
        state,
        before: before.and_then(Result::ok),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT),
    };
    let shown = if dry_run {
        let page = call.gateway.rehearse_deliveries(&live, replay).await?;
        json!({ "dry_run": true, "items": page.items, "next_cursor": page.next })
    } else {
        let page = call.gateway.replay_deliveries(&live, replay).await?;
        json!({ "dry_run": false, "items": page.items, "next_cursor": page.next })
    };
    Ok(reply(StatusCode::OK, &shown))
}
