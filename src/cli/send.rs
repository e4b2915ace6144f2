//! `patchbay send`: one event to a running gateway.

use clap::Args;
use serde_json::{Map, Value};

use super::client::Remote;
use super::failure::Failure;
use super::input;
use super::output::{Output, cell};
use crate::domain::event::is_event_type;
use crate::domain::fault::did_you_mean;
use crate::egress::HeaderName;
use crate::spec::Catalogue;

/// What to send.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// The event's type, such as lead.captured
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The event's data: JSON, @file, or - for standard input; without it, that of the sample event of this type
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Whose event it is; needed with an operator's key
    #[arg(long)]
    tenant: Option<String>,
    /// Your own id: the same source and id again make no second delivery
    #[arg(long)]
    id: Option<String>,
    /// The agent or bot that it comes from
    #[arg(long)]
    source: Option<String>,
    /// When it happened, RFC 3339; now when left out
    #[arg(long)]
    time: Option<String>,
    /// The same key again gives the same answer and no second event
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Sends and prints the answer.
pub async fn run(args: &SendArgs, output: Output) -> Result<(), Failure> {
    let event = event_of(args)?;
    let headers: Vec<(HeaderName, &str)> = args
        .idempotency_key
        .iter()
        .map(|key| (HeaderName::from_static("idempotency-key"), key.as_str()))
        .collect();
    let answer = args.remote.client()?.post_with("/v1/events", &event, &headers).await?;
    output.either(&answer, || {
        let id = cell(&answer, "id");
        format!(
            "{id} accepted; deliveries: {}\nsee them with: patchbay deliveries list --event {id}",
            cell(&answer, "jobs")
        )
    });
    Ok(())
}

fn event_of(args: &SendArgs) -> Result<Value, Failure> {
    if !is_event_type(&args.kind) {
        let hint = "1 to 128 letters, digits, dots, underscores, hyphens, colons or slashes";
        return Err(Failure::invalid(format!("\"{}\" is no event type", args.kind), hint));
    }
    let data = match &args.data {
        Some(text) => input::json_argument(text)?,
        None => sample_data(&args.kind)?,
    };
    let mut event = Map::new();
    event.insert("type".to_owned(), args.kind.clone().into());
    let given = [("id", &args.id), ("source", &args.source), ("time", &args.time), ("tenant", &args.tenant)];
    for (name, value) in given {
        if let Some(value) = value {
            event.insert(name.to_owned(), value.clone().into());
        }
    }
    event.insert("data".to_owned(), data);
    Ok(Value::Object(event))
}

fn sample_data(kind: &str) -> Result<Value, Failure> {
    let catalogue = Catalogue::load(None)?;
    let samples = catalogue.samples();
    samples.get(kind).and_then(|sample| sample.get("data")).cloned().ok_or_else(|| {
        let names = || samples.keys().map(String::as_str);
        let known = names().collect::<Vec<_>>().join(", ");
        let near = did_you_mean(kind, names()).unwrap_or_else(|| format!("there are samples of {known}"));
        Failure::invalid(format!("there is no sample of \"{kind}\", so give --data"), near)
    })
}
