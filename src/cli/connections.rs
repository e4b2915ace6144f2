//! `patchbay connections`: where a running gateway delivers to.

mod state;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Remote;
use super::deliveries;
use super::failure::{FAILED, Failure};
use super::filter::warn;
use super::input;
use super::map::print_trace;
use super::output::{Output, cell};
use crate::config::named_variable;
use crate::domain::id::ConnectionId;
use crate::mapping::FieldTrace;

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
    /// Make a connection; `patchbay connectors` says what each connector asks for
    #[command(
        after_help = "Examples:\n  patchbay connections create https://example.com/hook --tenant acme --event 'lead.*'\n  \
        patchbay connections create --tenant acme --connector salesforce --event lead.captured --option \
        instance_url=https://acme.my.salesforce.com --credential client_id=@id.txt --credential client_secret=env:SF_SECRET"
    )]
    Create(CreateArgs),
    /// Show a connection
    Show(OneArgs),
    /// Change a connection: what is not named stays as it is
    Update(UpdateArgs),
    /// Stop a connection's deliveries; its jobs wait
    Pause(state::PauseArgs),
    /// Let a connection deliver what waits, or only some of it
    Resume(state::ResumeArgs),
    /// Show what would be sent for an event, and field by field why; nothing is sent
    #[command(
        after_help = "Examples:\n  patchbay connections preview con_...\n  patchbay connections preview con_... --event lead.json"
    )]
    Preview(PreviewArgs),
    /// Send a test event now
    Test(OneArgs),
    /// Delete a connection; its open jobs are cancelled
    Delete(OneArgs),
}

/// One connection.
#[derive(Debug, Clone, Args)]
pub struct OneArgs {
    /// Which gateway.
    #[command(flatten)]
    remote: Remote,
    /// The connection's id, con_...
    id: ConnectionId,
}

/// What can be said of a connection.
#[derive(Debug, Clone, Args)]
pub struct SettingsArgs {
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Which events: a type, "lead.*" or "*"; several times for several
    #[arg(long = "event", value_name = "PATTERN")]
    events: Vec<String>,
    /// A mapping of the catalogue by name, or @file with one as JSON
    #[arg(long)]
    mapping: Option<String>,
    /// A condition that events must meet, as JSON; @file reads a file
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// An option of the connector: name=value; an empty value removes it
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// A credential: name=@file, name=env:VARIABLE, name=- for standard input, or name=value, which others on this machine can see
    #[arg(long = "credential", value_name = "NAME=SOURCE")]
    credentials: Vec<String>,
    /// A header of every request: name=value, or a source as for --credential
    #[arg(long = "header", value_name = "NAME=SOURCE")]
    headers: Vec<String>,
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
    /// Which connector
    #[arg(long, default_value = "webhook")]
    connector: String,
    /// The signing secret, from a source as for --credential; made where it is left out and the connector needs one
    #[arg(long, value_name = "SOURCE")]
    secret: Option<String>,
    /// The rest.
    #[command(flatten)]
    settings: SettingsArgs,
    /// The endpoint; left out where the connector says itself where requests go
    #[arg(value_name = "ENDPOINT")]
    target: Option<String>,
}

/// The change of a connection.
#[derive(Debug, Clone, Args)]
pub struct UpdateArgs {
    /// Which one.
    #[command(flatten)]
    one: OneArgs,
    /// What is to be other.
    #[command(flatten)]
    settings: SettingsArgs,
    /// Another endpoint
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

/// The event that a connection is tried on.
#[derive(Debug, Clone, Args)]
pub struct PreviewArgs {
    /// Which one.
    #[command(flatten)]
    one: OneArgs,
    /// The event: a JSON file, "-" for standard input, the type of a sample, or a stored event's id
    #[arg(long, default_value = "lead.captured", value_name = "EVENT")]
    event: String,
}

/// Runs a command on connections.
pub async fn run(command: &ConnectionsCommand, output: Output) -> Result<(), Failure> {
    match command {
        ConnectionsCommand::List { remote, tenant } => {
            let query: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
            let connections = remote.client()?.list("/v1/connections", &query, 1_000).await?;
            output.list(&connections, &["id", "tenant", "name", "connector", "events", "state.status"]);
            Ok(())
        }
        ConnectionsCommand::Create(args) => create(args, output).await,
        ConnectionsCommand::Show(one) => {
            let connection = one.remote.client()?.get(&one.path(""), &[]).await?;
            output.either(&connection, || shown(&connection));
            Ok(())
        }
        ConnectionsCommand::Update(args) => {
            let patch = args.settings.to_json(args.endpoint.as_deref())?;
            if patch.is_empty() {
                return Err(Failure::invalid(
                    "nothing is to be changed",
                    "name what, such as --name or --option",
                ));
            }
            let one = &args.one;
            let changed = one.remote.client()?.patch(&one.path(""), &Value::Object(patch)).await?;
            output.either(&changed, || shown(&changed));
            tell_recent(&changed, output);
            Ok(())
        }
        ConnectionsCommand::Pause(args) => state::pause(args, output).await,
        ConnectionsCommand::Resume(args) => state::resume(args, output).await,
        ConnectionsCommand::Preview(args) => preview(args, output).await,
        ConnectionsCommand::Test(one) => {
            let tried = one.remote.client()?.post(&one.path("/test"), &json!({})).await?;
            output.either(&tried, || deliveries::shown(&json!({ "attempts": [tried["attempt"]] })));
            if ["delivered", "duplicate"].contains(&tried["attempt"]["outcome"].as_str().unwrap_or_default())
            {
                return Ok(());
            }
            Err(Failure::failed(cell(&tried, "attempt.reason")))
        }
        ConnectionsCommand::Delete(one) => {
            one.remote.client()?.delete(&one.path("")).await?;
            let id = one.id;
            output.either(&json!({ "id": id, "deleted": true }), || format!("{id} is deleted"));
            Ok(())
        }
    }
}

impl OneArgs {
    fn path(&self, below: &str) -> String {
        format!("/v1/connections/{}{below}", self.id)
    }
}

async fn create(args: &CreateArgs, output: Output) -> Result<(), Failure> {
    let mut body = args.settings.to_json(args.target.as_deref())?;
    body.insert("connector".to_owned(), args.connector.as_str().into());
    body.entry("name").or_insert_with(|| args.connector.as_str().into());
    body.entry("events").or_insert_with(|| json!(["*"]));
    if let Some(tenant) = &args.tenant {
        body.insert("tenant".to_owned(), tenant.as_str().into());
    }
    if let Some(source) = &args.secret {
        body.insert("secret".to_owned(), from_source("--secret", source)?.into());
    }
    let made = args.remote.client()?.post("/v1/connections", &Value::Object(body)).await?;
    output.either(&made, || {
        let secret = made["secret"].as_str();
        let secret = secret.map_or(String::new(), |secret| {
            format!("\nIts signing secret, shown this once; the receiver checks by it:\n\n  {secret}")
        });
        format!("{} made{secret}", cell(&made, "id"))
    });
    tell_recent(&made, output);
    Ok(())
}

/// What recent events tell of a connection that was saved: how many pass its filter, and paths that none has.
fn tell_recent(saved: &Value, output: Output) {
    let recent = &saved["recent"];
    if output.is_json() || recent.is_null() {
        return;
    }
    if !saved["filter"].is_null() {
        eprintln!("{} of {} recent events pass its filter", recent["matched"], recent["looked_at"]);
    }
    warn(&recent["warnings"]);
}

async fn preview(args: &PreviewArgs, output: Output) -> Result<(), Failure> {
    let event = if args.event == "-" {
        input::json("-", &input::read_stdin()?)?
    } else if Path::new(&args.event).is_file() {
        input::json(&args.event, &input::read_file(Path::new(&args.event))?)?
    } else {
        // The gateway knows whether it is a sample's type or an event's id.
        args.event.as_str().into()
    };
    let body = json!({ "connection": args.one.id, "event": event });
    let shown = args.one.remote.client()?.post("/v1/mappings/preview", &body).await?;
    let fields: Vec<FieldTrace> = serde_json::from_value(shown["fields"].clone()).unwrap_or_default();
    if output.is_json() {
        output.value(&shown);
    } else {
        print_trace(&fields, output);
        output.lines(&request_of(&shown["request"]));
        warn(&shown["warnings"]);
    }
    match shown["error"].as_object() {
        None => Ok(()),
        Some(_) if output.is_json() => Err(Failure::Told(FAILED)),
        Some(_) => Err(Failure::failed(format!(
            "field \"{}\": {}",
            cell(&shown, "error.field"),
            cell(&shown, "error.reason"),
        ))),
    }
}

/// A request as it would go over the wire, secrets and signature hidden.
fn request_of(request: &Value) -> String {
    let Some(method) = request["method"].as_str() else { return String::new() };
    let mut lines = vec![String::new(), format!("{method} {}", cell(request, "url"))];
    for header in request["headers"].as_array().into_iter().flatten() {
        let part = |at: usize| header[at].as_str().unwrap_or_default();
        lines.push(format!("{}: {}", part(0), part(1)));
    }
    lines.extend([String::new(), request["body"].as_str().unwrap_or_default().to_owned()]);
    lines.join("\n")
}

fn shown(connection: &Value) -> String {
    let members = connection.as_object().into_iter().flatten();
    let said = members.filter(|(name, value)| match value {
        _ if ["state", "history"].contains(&name.as_str()) => false,
        Value::Null => false,
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
    let lines = said.map(|(name, _)| format!("{name:<18}{}", cell(connection, name)));
    lines.chain(state::lines(connection)).collect::<Vec<_>>().join("\n")
}

impl SettingsArgs {
    /// As the API takes it.
    fn to_json(&self, endpoint: Option<&str>) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        if let Some(name) = &self.name {
            body.insert("name".to_owned(), name.as_str().into());
        }
        if !self.events.is_empty() {
            body.insert("events".to_owned(), json!(self.events));
        }
        match self.mapping.as_deref() {
            Some(text) if text.starts_with('@') => {
                body.insert("mapping".to_owned(), input::json_argument(text)?);
            }
            Some(name) => drop(body.insert("mapping".to_owned(), name.into())),
            None => {}
        }
        if let Some(text) = self.filter.as_deref() {
            body.insert("filter".to_owned(), input::json_argument(text)?);
        }
        let plain = |_: &str, text: &str| Ok(text.to_owned());
        let options = pairs("--option", &self.options, plain)?;
        let credentials = pairs("--credential", &self.credentials, from_source)?;
        let headers = pairs("--header", &self.headers, from_source)?;
        for (name, values) in [("options", options), ("credentials", credentials)] {
            if !values.is_empty() {
                body.insert(name.to_owned(), Value::Object(values));
            }
        }
        let mut target = Map::new();
        if let Some(endpoint) = endpoint {
            target.insert("url".to_owned(), endpoint.into());
        }
        if !headers.is_empty() {
            target.insert("headers".to_owned(), Value::Object(headers));
        }
        if !target.is_empty() {
            body.insert("target".to_owned(), Value::Object(target));
        }
        Ok(body)
    }
}

/// `name=value` of each; null for one without a value.
pub(super) fn pairs(
    flag: &str,
    texts: &[String],
    read: impl Fn(&str, &str) -> Result<String, Failure>,
) -> Result<Map<String, Value>, Failure> {
    let mut values = Map::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            // It may be a credential whose name was forgotten, so it is not repeated.
            return Err(Failure::invalid(format!("{flag}: expected name=value"), "such as client_id=17"));
        };
        let value = if value.is_empty() { Value::Null } else { read(flag, value)?.into() };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

/// A secret out of a file, a variable or standard input, so that no list of processes shows it; else as it is written.
pub(super) fn from_source(flag: &str, source: &str) -> Result<String, Failure> {
    let text = if source == "-" {
        input::read_stdin()?
    } else if let Some(path) = source.strip_prefix('@') {
        input::read_file(Path::new(path))?
    } else if let Some(name) = source.strip_prefix("env:") {
        named_variable(name).ok_or_else(|| {
            Failure::invalid(
                format!("{flag}: the variable {name} is not set"),
                "export it first, or use @file",
            )
        })?
    } else {
        return Ok(source.to_owned());
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_from_their_sources_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "t0ken\n").unwrap();
        let given = [format!("token=@{}", path.display()), "user=a=b".to_owned(), "gone=".to_owned()];
        let read = pairs("--credential", &given, from_source).unwrap();
        assert_eq!(Value::Object(read), json!({ "token": "t0ken", "user": "a=b", "gone": null }));
        let failure = pairs("--credential", &["s3cret".to_owned()], from_source).unwrap_err();
        assert!(!failure.text().contains("s3cret"), "{}", failure.text());
        let failure = from_source("--credential", "env:PATCHBAY_TEST_NOT_SET").unwrap_err();
        assert!(failure.text().contains("is not set"), "{}", failure.text());
    }
}
