//! `patchbay deliveries`: what a running gateway delivers, and what became of it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::output::{Output, cell, one_line};
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::time::Timestamp;

/// What to do with deliveries.
#[derive(Debug, Clone, Subcommand)]
pub enum DeliveriesCommand {
    /// List deliveries, newest first
    List(ListArgs),
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
pub struct ListArgs {
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
    /// Of this tenant, for an operator's key
    #[arg(long)]
    tenant: Option<String>,
    /// Made at or after this time, RFC 3339
    #[arg(long)]
    since: Option<Timestamp>,
    /// Made before this time, RFC 3339
    #[arg(long)]
    until: Option<Timestamp>,
    /// How many at the most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
}

/// Runs a command on deliveries.
pub async fn run_deliveries(command: &DeliveriesCommand, output: Output) -> Result<(), Failure> {
    match command {
        DeliveriesCommand::List(args) => list(args, output).await,
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
    let text = |value: &Option<Timestamp>| value.map(|time| time.to_string());
    let given = [
        ("connection", args.connection.map(|id| id.to_string())),
        ("event", args.event.clone()),
        ("type", args.kind.clone()),
        ("state", args.state.clone()),
        ("tenant", args.tenant.clone()),
        ("since", text(&args.since)),
        ("until", text(&args.until)),
    ];
    let query: Vec<(&str, &str)> =
        given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let deliveries = args.remote.client()?.list("/v1/deliveries", &query, args.limit.into()).await?;
    output.list(&deliveries, &["id", "type", "event", "state", "tries", "created", "reason"]);
    Ok(())
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
