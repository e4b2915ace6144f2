//! What replays and erasures have in common on the command line: they are listed, shown, cancelled and watched.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Remote};
use super::failure::Failure;
use super::output::{Output, cell};
use crate::clock::Clock;
use crate::domain::id::ChoreId;

/// How often a chore is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Replays or erasures.
pub struct Kind {
    /// Where they are.
    pub path: &'static str,
    /// What a list shows of them.
    pub columns: &'static [&'static str],
    /// What tells how far one is.
    pub progress: &'static [&'static str],
}

/// What to do with them.
#[derive(Debug, Clone, Subcommand)]
pub enum ChoresCommand {
    /// List them, newest first
    List {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// Of this tenant, for an operator's key
        #[arg(long)]
        tenant: Option<String>,
        /// How many at the most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        limit: u16,
    },
    /// Show one and how far it is
    Show {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// Its id, cho_...
        id: ChoreId,
    },
    /// End one; what it did stays done
    Cancel {
        /// Which gateway.
        #[command(flatten)]
        remote: Remote,
        /// Its id, cho_...
        id: ChoreId,
    },
}

impl ChoresCommand {
    /// Does it.
    pub async fn run(&self, kind: &Kind, output: Output) -> Result<(), Failure> {
        match self {
            Self::List { remote, tenant, limit } => {
                let query: Vec<(&str, &str)> =
                    tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
                let items = remote.client()?.list(kind.path, &query, (*limit).into()).await?;
                output.list(&items, kind.columns);
            }
            Self::Show { remote, id } => {
                let shown = remote.client()?.get(&format!("{}/{id}", kind.path), &[]).await?;
                output.either(&shown, || lines(&shown));
            }
            Self::Cancel { remote, id } => {
                let path = format!("{}/{id}/cancel", kind.path);
                let ended = remote.client()?.post(&path, &json!({})).await?;
                output.either(&ended, || format!("{id} is {}", cell(&ended, "status")));
            }
        }
        Ok(())
    }
}

fn lines(shown: &Value) -> String {
    let members = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    members.map(|(name, _)| format!("{name:<12}{}", cell(shown, name))).collect::<Vec<_>>().join("\n")
}

/// Tells how far one is until it has ended. Whoever stops looking stops nothing else.
pub async fn watch(client: &Client, kind: &Kind, made: &Value, clock: &Clock) -> Result<Value, Failure> {
    let id = cell(made, "id");
    eprintln!("{id} runs in the gateway, whether you look on or not");
    let mut told = String::new();
    loop {
        let now = client.get(&format!("{}/{id}", kind.path), &[]).await?;
        if now["status"] != "running" {
            if now["status"] == "failed" {
                return Err(Failure::failed(format!("{id} failed: {}", cell(&now, "reason"))));
            }
            return Ok(now);
        }
        let far: Vec<String> =
            kind.progress.iter().map(|column| format!("{column} {}", cell(&now, column))).collect();
        let far = far.join(", ");
        if far != told {
            eprintln!("{far}");
            told = far;
        }
        clock.sleep(EVERY).await;
    }
}
