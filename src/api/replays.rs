//! `/v1/replays`: deliveries that ended otherwise than they should have, sent again at a pace, seen and stopped.
//!
//! The body says which: by state, or what a connection missed; by type and span. With `dry_run` they are counted, some are
//! shown as they would be sent, and nothing happens.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Call, page, reply};
use super::problem::{Code, Problem};
use crate::domain::chore::{Chore, Replay, Which, Work};
use crate::domain::document::{Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::id::{ChoreId, ConnectionId, TenantId};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::service::directory::LiveChore;
use crate::service::replay::{MAX_PER_SECOND, MAX_SAMPLES, PER_SECOND};

/// States that can be replayed as a whole.
const STATES: &[(&str, JobState)] = &[
    ("mapping_failed", JobState::MappingFailed),
    ("dead", JobState::Dead),
    ("rejected", JobState::Rejected),
    ("gone", JobState::Gone),
    ("cancelled", JobState::Cancelled),
    ("delivered", JobState::Delivered),
];
/// How many a dry run shows where the body does not say.
const DEFAULT_SAMPLES: usize = 10;

fn is_replay(work: &Work) -> bool {
    matches!(work, Work::Replay(_))
}

fn show(chore: &Chore) -> Value {
    let Work::Replay(replay) = &chore.work else { return Value::Null };
    let progress = &chore.progress;
    let state = match replay.which {
        Which::State(state) => Some(state),
        Which::Missed => None,
    };
    let left = progress.expected.map(|expected| expected.saturating_sub(progress.done + progress.skipped));
    json!({
        "id": chore.id,
        "tenant": chore.tenant,
        "status": chore.state,
        "reason": chore.reason,
        "by": chore.by,
        "created": chore.created,
        "ended": chore.ended,
        "connection": replay.connection,
        "state": state,
        "missed": state.is_none(),
        "type": replay.kind,
        "since": replay.since,
        "until": replay.until,
        "again": replay.again,
        "per_second": replay.per_second,
        "done": progress.done,
        "skipped": progress.skipped,
        "left": left,
    })
}

/// Reads a time of a body.
fn time(table: &mut TableReader<'_>, key: &'static str) -> Option<Timestamp> {
    let parsed = table.text(key)?.parse::<Timestamp>();
    if parsed.is_err() {
        let hint = "such as 2026-05-03T14:22:08Z".to_owned();
        table.fault(key, "is no RFC 3339 time", Some(hint));
    }
    parsed.ok()
}

fn which(table: &mut TableReader<'_>, again: bool) -> Option<Which> {
    if table.boolean("missed").unwrap_or(false) {
        for key in ["connection", "since"] {
            table.need(key);
        }
        if table.has("state") {
            let hint = "either a state, or what was missed".to_owned();
            table.fault("state", "says something else than \"missed\"", Some(hint));
        }
        return Some(Which::Missed);
    }
    table.need("state");
    let state = table.choice("state", STATES)?;
    if state == JobState::Delivered && !again {
        let hint = "\"again\": true sends them once more".to_owned();
        table.fault("state", "names what has arrived", Some(hint));
    }
    Some(Which::State(state))
}

/// What is to be done about a body that was read.
struct Wanted {
    replay: Replay,
    dry_run: bool,
    samples: usize,
}

fn read(body: &Value) -> Result<Wanted, Problem> {
    let node = Node::from_json(body);
    let mut faults = Faults::default();
    let Some(mut table) = node.table("", &mut faults) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let connection = table.text("connection").map(str::parse::<ConnectionId>);
    if let Some(Err(error)) = &connection {
        table.fault("connection", error.to_string(), None);
    }
    let again = table.boolean("again").unwrap_or(false);
    let which = which(&mut table, again);
    let kind = table.text("type").map(str::to_owned);
    let (since, until) = (time(&mut table, "since"), time(&mut table, "until"));
    let mut whole = |key, most: i64| {
        table.has(key).then(|| table.integer_within(key, 1, most)).flatten().map(i64::unsigned_abs)
    };
    let per_second = whole("per_second", MAX_PER_SECOND.into());
    let samples = whole("samples", i64::try_from(MAX_SAMPLES).unwrap_or(i64::MAX));
    let dry_run = table.boolean("dry_run").unwrap_or(false);
    table.finish();
    let (Some(which), true) = (which, faults.is_empty()) else {
        return Err(Problem::faults(Code::Invalid, faults));
    };
    let connection = connection.and_then(Result::ok);
    let per_second = per_second.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(PER_SECOND);
    let samples = samples.and_then(|count| usize::try_from(count).ok()).unwrap_or(DEFAULT_SAMPLES);
    let replay = Replay { connection, which, kind, since, until, again, per_second };
    Ok(Wanted { replay, dry_run, samples })
}

/// `POST /v1/replays`
pub async fn make(mut call: Call) -> Answer {
    let mut query = call.query(&["tenant"]);
    let mut tenant = call.tenant(&mut query)?;
    query.finish()?;
    let Wanted { replay, dry_run, samples } = read(&call.json().await?)?;
    if let Some(id) = replay.connection {
        tenant = Some(call.gateway.owned_connection(tenant.as_ref(), id)?.record.tenant.clone());
    }
    let tenant = tenant.ok_or_else(|| {
        Problem::new(Code::MissingTenant, "an operator's key opens all tenants")
            .hint("add ?tenant=<id>, or name a connection")
    })?;
    if dry_run {
        let found = call.gateway.rehearse(tenant, replay, samples).await?;
        let shown = json!({
            "dry_run": true, "count": found.count, "complete": found.complete, "sample": found.sample,
        });
        return Ok(reply(StatusCode::OK, &shown));
    }
    let chore = call.gateway.make_replay(tenant, replay, &call.who()).await?;
    Ok(reply(StatusCode::CREATED, &show(&chore)))
}

/// `GET /v1/replays`
pub async fn list(call: Call) -> Answer {
    list_chores(&call, is_replay, show)
}

/// `GET /v1/replays/{id}`
pub async fn read_one(call: Call) -> Answer {
    let live = owned(&call, is_replay, "replay")?;
    Ok(reply(StatusCode::OK, &show(&live.record)))
}

/// `POST /v1/replays/{id}/cancel`
pub async fn cancel(call: Call) -> Answer {
    let live = owned(&call, is_replay, "replay")?;
    let chore = call.gateway.cancel_chore(live, &call.who()).await?;
    Ok(reply(StatusCode::OK, &show(&chore)))
}

/// A page of a caller's chores, newest first.
pub(super) fn list_chores(call: &Call, is_such: fn(&Work) -> bool, show: fn(&Chore) -> Value) -> Answer {
    let mut query = call.query(&["tenant", "cursor", "limit"]);
    let tenant = call.tenant(&mut query)?;
    let (before, limit) = (query.cursor::<ChoreId>(), query.limit());
    query.finish()?;
    let whose = |owner: Option<&TenantId>| tenant.is_none() || owner == tenant.as_ref();
    let mut found = call.gateway.directory.chores(|chore| {
        is_such(&chore.work) && whose(chore.tenant.as_ref()) && before.is_none_or(|before| chore.id < before)
    });
    found.truncate(limit + 1);
    Ok(page(found, limit, |live| live.record.id.to_string(), |live| show(&live.record)))
}

/// A caller's chore that the path names.
pub(super) fn owned(
    call: &Call,
    is_such: fn(&Work) -> bool,
    what: &'static str,
) -> Result<std::sync::Arc<LiveChore>, Problem> {
    let mut query = call.query(&["tenant"]);
    let tenant = call.tenant(&mut query)?;
    query.finish()?;
    let id: ChoreId = call.param("id", what)?;
    Ok(call.gateway.owned_chore(tenant.as_ref(), id, is_such, what)?)
}
