//! `patchbay deliveries`: what a running gateway delivers, and what became of it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::output::{Output, cell, one_line};
use crate::api::export::Format;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::time::Timestamp;

/// Deliveries of one request of an export.
const EXPORT_PAGE: usize = 200;

/// What to do with deliveries.
#[derive(Debug, Clone, Subcommand)]
pub enum DeliveriesCommand {
    /// List deliveries, newest first
    List(ListArgs),
    /// Print all deliveries that match, newest first, as lines for other programs
    Export(ExportArgs),
    /// Show one delivery with every attempt
    Show {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// The delivery's id, job_...
        id: JobId,
    },
    /// Deliver again what has ended, or at once what waits
    Retry {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// The delivery's id, job_...
        id: JobId,
    },
}

/// Which deliveries.
#[derive(Debug, Clone, Args)]
pub struct Filters {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Of this connection
    #[arg(long)]
    connection: Option<ConnectionId>,
    /// Of this event
    #[arg(long)]
    event: Option<String>,
    /// Of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// In this state, such as queued, waiting, delivered or dead
    #[arg(long)]
    state: Option<String>,
    /// Whose newest attempt came to this, such as retry or rejected
    #[arg(long)]
    outcome: Option<String>,
    /// Whose newest attempt was answered with this HTTP status
    #[arg(long)]
    status: Option<u16>,
    /// Whose reason has this in it, in any case
    #[arg(long)]
    text: Option<String>,
    /// Of this tenant, for an operator's key
    #[arg(long)]
    tenant: Option<String>,
    /// Made at or after this time, RFC 3339
    #[arg(long)]
    since: Option<Timestamp>,
    /// Made before this time, RFC 3339
    #[arg(long)]
    until: Option<Timestamp>,
}

impl Filters {
    fn query(&self) -> Vec<(&'static str, String)> {
        let time = |value: &Option<Timestamp>| value.map(|time| time.to_string());
        [
            ("connection", self.connection.map(|id| id.to_string())),
            ("event", self.event.clone()),
            ("type", self.kind.clone()),
            ("state", self.state.clone()),
            ("outcome", self.outcome.clone()),
            ("status", self.status.map(|status| status.to_string())),
            ("text", self.text.clone()),
            ("tenant", self.tenant.clone()),
            ("since", time(&self.since)),
            ("until", time(&self.until)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// Which deliveries, and how many.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Which deliveries.
    #[command(flatten)]
    filters: Filters,
    /// How many at the most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
}

/// Which deliveries, and as what.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Which deliveries.
    #[command(flatten)]
    filters: Filters,
    /// A JSON object a line, or a table
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
}

/// Runs a command on deliveries.
pub async fn run_deliveries(command: &DeliveriesCommand, output: Output) -> Result<(), Failure> {
    match command {
        DeliveriesCommand::List(args) => list(args, output).await,
        DeliveriesCommand::Export(args) => export(args, output).await,
        DeliveriesCommand::Show { remote, id } => {
            let delivery = remote.client()?.get(&format!("/v1/deliveries/{id}"), &[]).await?;
            output.either(&delivery, || shown(&delivery));
            Ok(())
        }
        DeliveriesCommand::Retry { remote, id } => {
            let answer = remote.client()?.post(&format!("/v1/deliveries/{id}/retry"), &json!({})).await?;
            output.either(&answer, || format!("{id} is delivered again; see: patchbay deliveries show {id}"));
            Ok(())
        }
    }
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let query = args.filters.query();
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let deliveries = args.filters.remote.client()?.list("/v1/deliveries", &query, args.limit.into()).await?;
    output.list(&deliveries, &["id", "type", "event", "state", "tries", "status", "created", "reason"]);
    Ok(())
}

/// Prints all that match, a page at a time.
async fn export(args: &ExportArgs, output: Output) -> Result<(), Failure> {
    let client = args.filters.remote.client()?;
    let mut query = args.filters.query();
    query.push(("limit", EXPORT_PAGE.to_string()));
    if let Some(head) = args.format.head() {
        output.lines(head);
    }
    loop {
        let asked: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = client.get("/v1/deliveries", &asked).await?;
        for delivery in page["items"].as_array().into_iter().flatten() {
            output.lines(&args.format.line(delivery));
        }
        let Some(next) = page["next_cursor"].as_str() else { return Ok(()) };
        query.retain(|(name, _)| *name != "cursor");
        query.push(("cursor", next.to_owned()));
    }
}

/// A delivery and its attempts, for a person.
pub fn shown(delivery: &Value) -> String {
    let mut lines = Vec::new();
    for (name, value) in delivery.as_object().into_iter().flatten() {
        if name != "attempts" && !value.is_null() {
            lines.push(format!("{name:<12}{}", cell(delivery, name)));
        }
    }
    for attempt in delivery["attempts"].as_array().into_iter().flatten() {
        let status = attempt["status"].as_u64().map_or("no answer".to_owned(), |status| status.to_string());
        lines.push(format!(
            "\nattempt {}   {}   {} ms   {status}   {}\n  {}",
            attempt["number"],
            cell(attempt, "at"),
            attempt["duration_ms"],
            cell(attempt, "outcome"),
            cell(attempt, "reason"),
        ));
        if let Some(body) = attempt["body"].as_str().filter(|body| !body.is_empty()) {
            lines.push(format!("  {}", one_line(body)));
        }
    }
    lines.join("\n")
}
