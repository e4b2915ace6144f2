//! `/v1/erasures`: a person's data, erased by a value in the events; and what is left of deleted tenants.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::problem::{Code, Problem};
use super::replays::{list_chores, owned};
use crate::domain::chore::{Chore, Work};
use crate::domain::document::Node;
use crate::domain::fault::Faults;

fn is_erasure(work: &Work) -> bool {
    matches!(work, Work::Erasure(_) | Work::Purge { .. })
}

/// Never with the value: it is personal data.
pub(super) fn show(chore: &Chore) -> Value {
    let (tenant, path, dry_run) = match &chore.work {
        Work::Erasure(erasure) => (chore.tenant.as_ref(), Some(&erasure.path), erasure.dry_run),
        Work::Purge { of } => (Some(of), None, false),
        Work::Replay(_) => return Value::Null,
    };
    json!({
        "id": chore.id,
        "tenant": tenant,
        "status": chore.state,
        "reason": chore.reason,
        "by": chore.by,
        "created": chore.created,
        "ended": chore.ended,
        "path": path,
        "dry_run": dry_run,
        "looked_at": chore.progress.looked_at,
        "events": chore.progress.done,
        "deliveries": chore.progress.deliveries,
        "skipped": chore.progress.skipped,
    })
}

/// `POST /v1/erasures`
pub async fn make(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let tenant = call.one_tenant(&mut query)?;
    query.finish()?;
    let node = Node::from_json(&call.json().await?);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let path = table.need_text("path").map(str::to_owned);
    table.need("equals");
    let value = table.node("equals").map(Node::to_json);
    let dry_run = table.boolean("dry_run").unwrap_or(false);
    table.finish();
    let (Some(path), Some(value), true) = (path, value, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    if call.gateway.directory.tenant(&tenant).is_none() {
        return Err(Problem::missing("tenant"));
    }
    let chore = call.gateway.make_erasure(tenant, &path, &value, dry_run, &call.who()).await?;
    Ok(reply(StatusCode::CREATED, &show(&chore)))
}

/// `GET /v1/erasures`
pub async fn list(call: Call) -> Answer {
    list_chores(&call, is_erasure, show)
}

/// `GET /v1/erasures/{id}`
pub async fn read(call: Call) -> Answer {
    let live = owned(&call, is_erasure, "erasure")?;
    Ok(reply(StatusCode::OK, &show(&live.record)))
}

/// `POST /v1/erasures/{id}/cancel`
pub async fn cancel(call: Call) -> Answer {
    let live = owned(&call, is_erasure, "erasure")?;
    if matches!(live.record.work, Work::Purge { .. }) {
        return Err(Problem::new(
            Code::WrongState,
            "what is left of a deleted tenant is erased whatever happens",
        ));
    }
    let chore = call.gateway.cancel_chore(live, &call.who()).await?;
    Ok(reply(StatusCode::OK, &show(&chore)))
}
