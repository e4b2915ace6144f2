//! `patchbay sources`: ways in for other systems' webhooks.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Remote, secret};
use super::failure::Failure;
use super::input;
use super::output::{Output, cell};
use crate::domain::id::SourceId;
use crate::domain::secret::Secret;

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
                            --secret whsec_... --tenant acme\n  patchbay sources create whatsapp --secret APP_SECRET \
                            --credential verify_token=WORD --agent agt_1"
    )]
    Create(CreateArgs),
    /// Give a source a new secret; the one before is good for a day more
    Rotate {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// The source's id, src_...
        id: SourceId,
        /// The new secret, where the other system made it
        #[arg(long, value_parser = secret)]
        secret: Option<Secret>,
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
    /// The secret, where the other system made it
    #[arg(long, value_parser = secret)]
    secret: Option<Secret>,
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
    #[arg(long = "option", value_parser = pair, value_name = "NAME=VALUE")]
    options: Vec<(String, String)>,
    /// A secret option of the connector, NAME=VALUE
    #[arg(long = "credential", value_parser = pair, value_name = "NAME=VALUE")]
    credentials: Vec<(String, String)>,
    /// Which connector, such as github, stripe, slack, whatsapp, mailgun, shopify, webhook
    connector: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// Runs a command on sources.
pub async fn run(command: &SourcesCommand, output: Output) -> Result<(), Failure> {
    match command {
        SourcesCommand::List { remote, tenant } => {
            let query: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
            let sources = remote.client()?.list("/v1/sources", &query, LIST_LIMIT).await?;
            output.list(&sources, &["id", "tenant", "name", "connector", "agent", "state", "url"]);
            Ok(())
        }
        SourcesCommand::Create(args) => create(args, output).await,
        SourcesCommand::Rotate { remote, id, secret } => {
            let mut body = json!({});
            if let Some(secret) = secret {
                body["secret"] = json!(secret.reveal());
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
        wanted["secret"] = json!(secret.reveal());
    }
    if let Some(mapping) = &args.mapping {
        wanted["mapping"] = match mapping.strip_prefix('@') {
            Some(path) => input::json(path, &input::read_file(std::path::Path::new(path))?)?,
            None => json!(mapping),
        };
    }
    for (key, pairs) in [("options", &args.options), ("credentials", &args.credentials)] {
        if !pairs.is_empty() {
            let values: BTreeMap<&str, &str> =
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            wanted[key] = json!(values);
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
