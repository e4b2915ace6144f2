//! `patchbay sources`: ways in for other systems' webhooks.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Remote;
use super::connections::{from_source, pairs};
use super::failure::Failure;
use super::input;
use super::output::{Output, cell};
use crate::domain::id::SourceId;

/// How many are listed at the most.
const LIST_LIMIT: usize = 1_000;

/// What to do with sources.
#[derive(Debug, Clone, Subcommand)]
pub enum SourcesCommand {
    /// List sources
    List {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// Of this tenant, for an operator's key
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a source; its secret is shown this once, if it is made here
    #[command(
        after_help = "Examples:\n  patchbay sources create github --tenant acme\n  patchbay sources create stripe \
                            --secret @whsec.txt --tenant acme\n  patchbay sources create whatsapp --secret env:APP_SECRET \
                            --credential verify_token=@word.txt --agent agt_1"
    )]
    Create(CreateArgs),
    /// Give a source a new secret; the one before is good for a day more
    Rotate {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// The source's id, src_...
        id: SourceId,
        /// The new secret, where the other system made it: a source as for --credential of `create`
        #[arg(long, value_name = "SOURCE")]
        secret: Option<String>,
    },
    /// Delete a source
    Delete {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// The source's id, src_...
        id: SourceId,
    },
}

/// The source to be made.
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
    /// The secret, where the other system made it, from a source as for --credential
    #[arg(long, value_name = "SOURCE")]
    secret: Option<String>,
    /// The agent whose channel it is
    #[arg(long)]
    agent: Option<String>,
    /// The channel's name; the connector's where it is left out
    #[arg(long, requires = "agent")]
    channel: Option<String>,
    /// Open the agent's public chat
    #[arg(long, requires = "agent")]
    public: bool,
    /// A mapping of the catalogue by name, or @file with one as JSON
    #[arg(long)]
    mapping: Option<String>,
    /// An option of the connector, NAME=VALUE; several times for several
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// A secret option of the connector: name=@file, name=env:VARIABLE, name=- for standard input, or name=value, which others on this machine can see
    #[arg(long = "credential", value_name = "NAME=SOURCE")]
    credentials: Vec<String>,
    /// Which connector, such as github, stripe, slack, whatsapp, mailgun, shopify, webhook
    connector: String,
}

/// Runs a command on sources.
pub async fn run(command: &SourcesCommand, output: Output) -> Result<(), Failure> {
    match command {
        SourcesCommand::List { remote, tenant } => {
            let query: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
            let sources = remote.client()?.list("/v1/sources", &query, LIST_LIMIT).await?;
            output.list(&sources, &["id", "tenant", "name", "connector", "agent", "state.status", "url"]);
            Ok(())
        }
        SourcesCommand::Create(args) => create(args, output).await,
        SourcesCommand::Rotate { remote, id, secret } => {
            let mut body = json!({});
            if let Some(secret) = secret {
                body["secret"] = json!(from_source("--secret", secret)?);
            }
            let path = format!("/v1/sources/{id}/rotate-secret");
            let saved = remote.client()?.post(&path, &body).await?;
            output.either(&saved, || {
                format!("{id} has a new secret; the one before is good for a day more{}", made(&saved))
            });
            Ok(())
        }
        SourcesCommand::Delete { remote, id } => {
            remote.client()?.delete(&format!("/v1/sources/{id}")).await?;
            output.either(&json!({ "id": id, "deleted": true }), || format!("{id} is deleted"));
            Ok(())
        }
    }
}

/// A secret that was made, for a person.
fn made(saved: &Value) -> String {
    match saved["secret"].as_str() {
        Some(secret) => format!("\n\nIts secret, shown this once:\n\n  {secret}"),
        None => String::new(),
    }
}

async fn create(args: &CreateArgs, output: Output) -> Result<(), Failure> {
    let name = args.name.as_deref().unwrap_or(&args.connector);
    let mut wanted = json!({ "name": name, "connector": args.connector });
    let texts = [("tenant", &args.tenant), ("agent", &args.agent), ("channel", &args.channel)];
    for (key, value) in texts {
        if let Some(value) = value {
            wanted[key] = json!(value);
        }
    }
    if args.public {
        wanted["public"] = json!(true);
    }
    if let Some(secret) = &args.secret {
        wanted["secret"] = json!(from_source("--secret", secret)?);
    }
    if let Some(mapping) = &args.mapping {
        wanted["mapping"] = match mapping.strip_prefix('@') {
            Some(path) => input::json(path, &input::read_file(std::path::Path::new(path))?)?,
            None => json!(mapping),
        };
    }
    let options = pairs("--option", &args.options, |_, value| Ok(value.to_owned()))?;
    let credentials = pairs("--credential", &args.credentials, from_source)?;
    for (key, values) in [("options", options), ("credentials", credentials)] {
        if !values.is_empty() {
            wanted[key] = Value::Object(values);
        }
    }
    let client = args.remote.client()?;
    let saved = client.post("/v1/sources", &wanted).await?;
    output.either(&saved, || {
        let path = cell(&saved, "url");
        let base = args.remote.url.as_str().trim_end_matches('/');
        let url = if path.starts_with('/') { format!("{base}{path}") } else { path };
        format!("{} is made. Deliveries come to:\n\n  {url}{}", cell(&saved, "id"), made(&saved))
    });
    Ok(())
}
