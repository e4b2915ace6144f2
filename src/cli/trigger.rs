//! `patchbay trigger`: sends an event over one connection now, and tells what came of it.

use clap::Args;
use serde_json::json;

use super::client::Remote;
use super::deliveries;
use super::failure::Failure;
use super::input;
use super::output::Output;
use crate::domain::id::ConnectionId;
use crate::egress::HeaderName;

/// What to send over which connection.
#[derive(Debug, Clone, Args)]
pub struct TriggerArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// The connection's id, con_...
    connection: ConnectionId,
    /// The event: JSON, a file, or - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "event_id", conflicts_with = "event_id")]
    event: Option<String>,
    /// The id of a stored event
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// The same key again gives the first outcome and sends nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Sends and prints the delivery.
pub async fn run(args: &TriggerArgs, output: Output) -> Result<(), Failure> {
    let event = match (&args.event, &args.event_id) {
        (Some(text), _) if text.starts_with(['{', '@']) || text == "-" => input::json_argument(text)?,
        (Some(path), _) => input::json_argument(&format!("@{path}"))?,
        (None, id) => json!({ "event_id": id }),
    };
    let key = args.idempotency_key.iter();
    let headers: Vec<(HeaderName, &str)> =
        key.map(|key| (HeaderName::from_static("idempotency-key"), key.as_str())).collect();
    let path = format!("/v1/connections/{}/trigger", args.connection);
    let answer = args.remote.client()?.post_with(&path, &event, &headers).await?;
    output.either(&answer, || deliveries::shown(&answer["delivery"]));
    Ok(())
}
