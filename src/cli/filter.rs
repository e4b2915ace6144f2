//! `patchbay filter`: which recent events of a running gateway a filter lets pass, and why not the others.

use clap::Args;
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::input;
use super::output::{Output, cell};

/// Which filter, and on what.
#[derive(Debug, Clone, Args)]
pub struct FilterArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// The condition as JSON; @file reads a file, - standard input
    filter: String,
    /// Which events: a type, "lead.*" or "*"; several times for several
    #[arg(long = "event", default_values = ["*"], value_name = "PATTERN")]
    events: Vec<String>,
    /// Whose events; needed with an operator's key
    #[arg(long)]
    tenant: Option<String>,
}

/// Asks and prints.
pub async fn run(args: &FilterArgs, output: Output) -> Result<(), Failure> {
    let body = json!({ "filter": input::json_argument(&args.filter)?, "events": args.events });
    let query: Vec<(&str, &str)> = args.tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
    let answer = args.remote.client()?.post_query("/v1/filters/preview", &query, &body).await?;
    if output.is_json() {
        output.value(&answer);
        return Ok(());
    }
    let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
    output.objects(events, &["id", "type", "time", "matched", "why_not"]);
    eprintln!("{} of {} recent events pass", answer["matched"], answer["looked_at"]);
    warn(&answer["warnings"]);
    Ok(())
}

/// Tells of paths that no recent event has.
pub fn warn(warnings: &Value) {
    for warning in warnings.as_array().into_iter().flatten() {
        eprintln!("warning: {}: {}", cell(warning, "field"), cell(warning, "message"));
        if let Some(hint) = warning["hint"].as_str() {
            eprintln!("  hint: {hint}");
        }
    }
}
