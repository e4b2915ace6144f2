//! `patchbay erase` and `patchbay erasures`: a person's data taken out of what is kept.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::chores::{ChoresCommand, Kind, watch};
use super::client::Remote;
use super::failure::Failure;
use super::input;
use super::output::{Output, cell};
use crate::clock::Clock;

/// How erasures are shown.
pub const ERASURES: Kind = Kind {
    path: "/v1/erasures",
    columns: &["id", "tenant", "status", "path", "dry_run", "events", "deliveries", "created", "reason"],
    progress: &["looked_at", "events", "deliveries"],
};

/// What to erase.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Whose events, for an operator's key
    #[arg(long)]
    tenant: Option<String>,
    /// Where the value stands in an event, as in a mapping: '$.data.email'
    #[arg(long)]
    path: String,
    /// The value; @file reads it from a file, - from standard input, so that it does not stand in the shell's history
    #[arg(long)]
    equals: String,
    /// Only count what would be erased
    #[arg(long)]
    dry_run: bool,
}

/// Begins an erasure, and shows how it goes on.
pub async fn run(args: &EraseArgs, clock: &Clock, output: Output) -> Result<(), Failure> {
    let text = match args.equals.strip_prefix('@') {
        Some("-") => input::read_stdin()?,
        Some(file) => input::read_file(Path::new(file))?,
        None if args.equals == "-" => input::read_stdin()?,
        None => args.equals.clone(),
    };
    // A number is one; whatever else is written is the text itself.
    let text = text.trim();
    let value = serde_json::from_str(text).ok().filter(Value::is_number).unwrap_or_else(|| json!(text));
    let client = args.remote.client()?;
    let query: Vec<(&str, &str)> = args.tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
    let body = json!({ "path": args.path, "equals": value, "dry_run": args.dry_run });
    let made = client.post_query(ERASURES.path, &query, &body).await?;
    let ended = watch(&client, &ERASURES, &made, clock).await?;
    output.either(&ended, || {
        let (events, deliveries) = (cell(&ended, "events"), cell(&ended, "deliveries"));
        let what = if args.dry_run { "would be erased; nothing was" } else { "are erased" };
        format!("{events} events and their {deliveries} deliveries {what}")
    });
    Ok(())
}

/// Lists, shows and cancels erasures.
pub async fn run_erasures(command: &ChoresCommand, output: Output) -> Result<(), Failure> {
    command.run(&ERASURES, output).await
}
