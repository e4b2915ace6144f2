//! `patchbay replay`: sends deliveries again that ended otherwise than they should have, page by page, or shows what would
//! be sent.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::output::{Output, cell};
use crate::clock::Clock;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// Deliveries of one request.
const PAGE: usize = 100;

/// What to replay.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Those that failed by their mapping; they are rendered by the mapping of now
    #[arg(long, required_unless_present = "state", conflicts_with = "state")]
    mapping_failed: bool,
    /// Those in this state: `mapping_failed`, dead, rejected, gone or cancelled
    #[arg(long)]
    state: Option<String>,
    /// Those of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Those made at or after this time, RFC 3339
    #[arg(long)]
    since: Option<Timestamp>,
    /// Those made before this time, RFC 3339
    #[arg(long)]
    until: Option<Timestamp>,
    /// Send at most this many in a second
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_second: Option<u32>,
    /// Of this connection
    #[arg(long)]
    connection: ConnectionId,
    /// Send nothing; show for each what failed, and what would be sent now
    #[arg(long)]
    dry_run: bool,
    /// How many at the most, the newest first; 10 in a dry run, else all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Replays and prints.
pub async fn run(args: &ReplayArgs, clock: &Clock, output: Output) -> Result<(), Failure> {
    let most = args.limit.unwrap_or(if args.dry_run { 10 } else { u32::MAX }) as usize;
    let client = args.remote.client()?;
    let path = format!("/v1/connections/{}/replay", args.connection);
    let mut items: Vec<Value> = Vec::new();
    let (mut seen, mut queued) = (0, 0);
    let mut cursor = Value::Null;
    let page = args.per_second.map_or(PAGE, |rate| PAGE.min(rate as usize));
    while seen < most {
        let mut body = json!({
            "state": args.state.as_deref().unwrap_or("mapping_failed"),
            "dry_run": args.dry_run,
            "limit": (most - seen).min(page),
        });
        let times = [("since", args.since), ("until", args.until)];
        let narrower = times.map(|(name, time)| (name, time.map(|time| time.to_string())));
        for (name, value) in narrower.into_iter().chain([("type", args.kind.clone())]) {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
        if !cursor.is_null() {
            body["cursor"] = cursor.take();
        }
        let mut answer = client.post(&path, &body).await?;
        let Some(Value::Array(page)) = answer.get_mut("items").map(Value::take) else { break };
        seen += page.len();
        let sent_now = u32::try_from(page.len()).unwrap_or(u32::MAX);
        queued += page.iter().filter(|item| item["queued"] == true).count();
        cursor = answer["next_cursor"].take();
        if args.dry_run {
            items.extend(page);
        } else if !page.is_empty() {
            eprintln!("{queued} sent again, newest first down to {}", cell(&page[page.len() - 1], "id"));
        }
        if cursor.is_null() {
            break;
        }
        if let Some(rate) = args.per_second.filter(|_| !args.dry_run) {
            clock.sleep(Duration::from_secs(1) * sent_now / rate).await;
        }
    }
    if args.dry_run {
        if output.is_json() {
            output.value(&json!({ "items": items, "more": !cursor.is_null() }));
        } else {
            for item in &items {
                output.lines(&shown(item));
            }
            let failing = items.iter().filter(|item| !item["error"].is_null()).count();
            eprintln!("{} looked at, {failing} would fail again; nothing was sent", items.len());
        }
        return Ok(());
    }
    let told = json!({ "looked_at": seen, "queued": queued, "more": !cursor.is_null() });
    output.either(&told, || {
        let more = if cursor.is_null() { "" } else { "; there are more" };
        format!("{queued} deliveries are sent again{more}")
    });
    Ok(())
}

/// What failed, and what it would be now.
fn shown(item: &Value) -> String {
    let after = match &item["error"] {
        Value::Null => cell(item, "request.body"),
        error => {
            let field = error["field"].as_str().map_or(String::new(), |field| format!("field \"{field}\": "));
            format!("fails again: {field}{}", cell(error, "reason"))
        }
    };
    let (id, event, before) = (cell(item, "id"), cell(item, "event"), cell(item, "before"));
    format!("{id}  {event}\n  before  {before}\n  after   {after}")
}
