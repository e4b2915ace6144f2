//! `patchbay replay` and `patchbay replays`: deliveries sent again by the gateway, at a pace, while this looks on.

use clap::Args;
use serde_json::{Value, json};

use super::chores::{ChoresCommand, Kind, watch};
use super::client::Remote;
use super::failure::Failure;
use super::output::{Output, cell};
use crate::clock::Clock;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// How replays are shown.
pub const REPLAYS: Kind = Kind {
    path: "/v1/replays",
    columns: &[
        "id",
        "tenant",
        "status",
        "connection",
        "state",
        "done",
        "skipped",
        "left",
        "created",
        "reason",
    ],
    progress: &["done", "skipped", "left"],
};

/// What to replay.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Those that failed by their mapping; they are rendered by the mapping of now
    #[arg(long, required_unless_present_any = ["state", "missed"], conflicts_with_all = ["state", "missed"])]
    mapping_failed: bool,
    /// Those in this state: `mapping_failed`, dead, rejected, gone or cancelled; delivered only with --again
    #[arg(long, conflicts_with = "missed")]
    state: Option<String>,
    /// What the connection missed while it was closed or before it was made: cancelled deliveries, and kept events that it
    /// wants now and has no delivery of
    #[arg(long, requires = "connection", requires = "since")]
    missed: bool,
    /// Those of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Those made at or after this time, RFC 3339
    #[arg(long)]
    since: Option<Timestamp>,
    /// Those made before this time, RFC 3339
    #[arg(long)]
    until: Option<Timestamp>,
    /// Those, too, that were sent again before
    #[arg(long)]
    again: bool,
    /// Send at most this many in a second
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_second: Option<u32>,
    /// Of this connection; of all of the tenant's where none is named
    #[arg(long)]
    connection: Option<ConnectionId>,
    /// Of this tenant, for an operator's key that names no connection
    #[arg(long)]
    tenant: Option<String>,
    /// Send nothing; count them, and show of the first what failed and what would be sent now
    #[arg(long)]
    dry_run: bool,
    /// How many a dry run shows
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50))]
    samples: Option<u32>,
    /// Begin it and look no further on
    #[arg(long)]
    detach: bool,
}

impl ReplayArgs {
    fn body(&self) -> Value {
        let time = |time: &Option<Timestamp>| time.map(|time| time.to_string().into());
        let flag = |set: bool| set.then_some(Value::Bool(true));
        let state = if self.mapping_failed { Some("mapping_failed") } else { self.state.as_deref() };
        let members = [
            ("connection", self.connection.map(|id| id.to_string().into())),
            ("state", state.map(Value::from)),
            ("missed", flag(self.missed)),
            ("type", self.kind.clone().map(Value::from)),
            ("since", time(&self.since)),
            ("until", time(&self.until)),
            ("again", flag(self.again)),
            ("per_second", self.per_second.map(Value::from)),
            ("samples", self.samples.map(Value::from)),
            ("dry_run", flag(self.dry_run)),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Begins a replay, and shows how it goes on.
pub async fn run(args: &ReplayArgs, clock: &Clock, output: Output) -> Result<(), Failure> {
    let client = args.remote.client()?;
    let query: Vec<(&str, &str)> = args.tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
    let made = client.post_query(REPLAYS.path, &query, &args.body()).await?;
    if args.dry_run {
        output.either(&made, || rehearsed(&made));
        return Ok(());
    }
    if args.detach {
        output.either(&made, || format!("{} runs; see: patchbay replays show {0}", cell(&made, "id")));
        return Ok(());
    }
    let ended = watch(&client, &REPLAYS, &made, clock).await?;
    output.either(&ended, || {
        let (done, skipped) = (cell(&ended, "done"), cell(&ended, "skipped"));
        format!("{done} deliveries are sent again, {skipped} left as they are; {}", cell(&ended, "status"))
    });
    Ok(())
}

/// Lists, shows and cancels replays.
pub async fn run_replays(command: &ChoresCommand, output: Output) -> Result<(), Failure> {
    command.run(&REPLAYS, output).await
}

/// What a replay would do.
fn rehearsed(made: &Value) -> String {
    let mut lines: Vec<String> = made["sample"].as_array().into_iter().flatten().map(shown).collect();
    let least = if made["complete"] == json!(true) { "" } else { "at least " };
    lines.push(format!("{least}{} deliveries would be sent again; nothing was sent", made["count"]));
    lines.join("\n")
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
