//! `patchbay replay`: sends deliveries again that failed by their mapping, page by page, or shows what would be sent.

use clap::Args;
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::output::{Output, cell};
use crate::domain::id::ConnectionId;

/// Deliveries of one request.
const PAGE: usize = 100;

/// What to replay.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Those that failed by their mapping; they are rendered by the mapping of now
    #[arg(long, required = true)]
    mapping_failed: bool,
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
pub async fn run(args: &ReplayArgs, output: Output) -> Result<(), Failure> {
    let most = args.limit.unwrap_or(if args.dry_run { 10 } else { u32::MAX }) as usize;
    let client = args.remote.client()?;
    let path = format!("/v1/connections/{}/replay", args.connection);
    let mut items: Vec<Value> = Vec::new();
    let (mut seen, mut queued) = (0, 0);
    let mut cursor = Value::Null;
    while seen < most {
        let mut body = json!({
            "state": "mapping_failed", "dry_run": args.dry_run, "limit": (most - seen).min(PAGE),
        });
        if !cursor.is_null() {
            body["cursor"] = cursor.take();
        }
        let mut answer = client.post(&path, &body).await?;
        let Some(Value::Array(page)) = answer.get_mut("items").map(Value::take) else { break };
        seen += page.len();
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
