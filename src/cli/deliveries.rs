//! `patchbay deliveries` and `patchbay connections`: what a running gateway delivers, to whom, and what became of it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Remote;
use super::failure::Failure;
use super::filter::warn;
use super::input;
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

/// What to do with connections.
#[derive(Debug, Clone, Subcommand)]
pub enum ConnectionsCommand {
    /// List connections
    List {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// Of this tenant, for an operator's key
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a connection
    Create(CreateArgs),
}

/// The connection to be made.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// Whose it is; needed with an operator's key
    #[arg(long)]
    tenant: Option<String>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Which connector
    #[arg(long, default_value = "webhook")]
    connector: String,
    /// Which events: a type, "lead.*" or "*"; several times for several
    #[arg(long = "event", default_values = ["*"], value_name = "PATTERN")]
    events: Vec<String>,
    /// A mapping of the catalogue by name, or @file with one as JSON
    #[arg(long)]
    mapping: Option<String>,
    /// A condition that events must meet, as JSON; @file reads a file
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// The endpoint
    #[arg(value_name = "ENDPOINT")]
    target: String,
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

fn shown(delivery: &Value) -> String {
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

/// Runs a command on connections.
pub async fn run_connections(command: &ConnectionsCommand, output: Output) -> Result<(), Failure> {
    match command {
        ConnectionsCommand::List { remote, tenant } => {
            let query: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
            let connections = remote.client()?.list("/v1/connections", &query, 1_000).await?;
            output.list(&connections, &["id", "tenant", "name", "connector", "events", "state.status"]);
            Ok(())
        }
        ConnectionsCommand::Create(args) => {
            let made = args.remote.client()?.post("/v1/connections", &connection_of(args)?).await?;
            output.either(&made, || {
                let secret = made["secret"].as_str();
                let secret = secret.map_or(String::new(), |secret| {
                    format!("\nIts signing secret, shown this once; the receiver checks by it:\n\n  {secret}")
                });
                format!("{} made{secret}", cell(&made, "id"))
            });
            if !output.is_json() {
                let recent = &made["recent"];
                if args.filter.is_some() && recent.is_object() {
                    eprintln!(
                        "{} of {} recent events pass its filter",
                        recent["matched"], recent["looked_at"]
                    );
                }
                warn(&recent["warnings"]);
            }
            Ok(())
        }
    }
}

fn connection_of(args: &CreateArgs) -> Result<Value, Failure> {
    let mut body = json!({
        "connector": args.connector,
        "events": args.events,
        "name": args.name.as_deref().unwrap_or(&args.connector),
        "target": { "url": args.target },
    });
    if let Some(tenant) = &args.tenant {
        body["tenant"] = tenant.as_str().into();
    }
    match args.mapping.as_deref() {
        Some(text) if text.starts_with('@') => body["mapping"] = input::json_argument(text)?,
        Some(name) => body["mapping"] = name.into(),
        None => {}
    }
    if let Some(text) = args.filter.as_deref() {
        body["filter"] = input::json_argument(text)?;
    }
    Ok(body)
}
