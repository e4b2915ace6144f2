//! `patchbay store`: what an operator does with a whole store.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::serve::SettingArgs;
use crate::app::{self, data_dir};
use crate::clock::{Clock, Entropy, Ids};
use crate::config::{Config, Environment, Given, StoreConfig};
use crate::service::migrate::{Census, MigrateError, Migrated, migrate};
use crate::store::Store;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What to do with a store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Move everything from one store to another: tenants, keys, connections, mappings, events, deliveries
    #[command(
        after_help = "No gateway may run on either store. The source is left as it is.\n\nExamples:\n  \
                            patchbay store migrate --from sqlite:./patchbay-data --to redis://127.0.0.1:6379\n  \
                            patchbay store migrate --from redis://127.0.0.1:6379 --to sqlite:./patchbay-data\n  \
                            patchbay store migrate --from redis://a:6379 --to redis://a:6379 --to-prefix pb2 \
                            --to-partitions 64"
    )]
    Migrate(Box<MigrateArgs>),
}

/// From where to where.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The store to read: sqlite:DIR, or a Redis URL
    #[arg(long, value_name = "STORE")]
    from: String,
    /// The store to write, which must be empty: sqlite:DIR, or a Redis URL
    #[arg(long, value_name = "STORE")]
    to: String,
    /// What every key of the source begins with (redis.prefix)
    #[arg(long, value_name = "PREFIX")]
    from_prefix: Option<String>,
    /// Partitions of the source (redis.partitions)
    #[arg(long, value_name = "COUNT")]
    from_partitions: Option<String>,
    /// What every key of the target begins with (redis.prefix)
    #[arg(long, value_name = "PREFIX")]
    to_prefix: Option<String>,
    /// Partitions of the target (redis.partitions)
    #[arg(long, value_name = "COUNT")]
    to_partitions: Option<String>,
    /// Go on with a move that broke off: what the target has already is left as it is
    #[arg(long)]
    resume: bool,
    /// Where the configuration is, for what is not said here.
    #[command(flatten)]
    settings: SettingArgs,
}

/// Runs a command on stores.
pub async fn run(command: &StoreCommand, environment: &Environment, output: Output) -> Result<(), Failure> {
    let StoreCommand::Migrate(args) = command;
    let from = side(args, environment, ("--from", &args.from), [&args.from_prefix, &args.from_partitions])?;
    let to = side(args, environment, ("--to", &args.to), [&args.to_prefix, &args.to_partitions])?;
    let source = open(&from, false).await?;
    let target = open(&to, true).await?;
    let moved = migrate(source.as_ref(), target.as_ref(), args.resume, tell_progress()).await;
    source.close().await;
    target.close().await;
    let moved = moved.map_err(|error| explain(&error, args.resume))?;
    report(&moved, &from, output)
}

/// The configuration of one side.
fn side(
    args: &MigrateArgs,
    environment: &Environment,
    (name, text): (&str, &str),
    [prefix, partitions]: [&Option<String>; 2],
) -> Result<Config, Failure> {
    let mut flags = vec![Given { key: "role", name: "role".to_owned(), text: "both".to_owned() }];
    let mut give = |key, name: &str, text: &str| {
        flags.push(Given { key, name: name.to_owned(), text: text.to_owned() });
    };
    match text.split_once(':') {
        Some(("sqlite", folder)) => {
            give("store", name, "sqlite");
            give("data_dir", name, folder);
        }
        _ => give("store", name, text),
    }
    if let Some(prefix) = prefix {
        give("redis.prefix", &format!("{name}-prefix"), prefix);
    }
    if let Some(partitions) = partitions {
        give("redis.partitions", &format!("{name}-partitions"), partitions);
    }
    args.settings.load(environment, flags)
}

async fn open(config: &Config, made: bool) -> Result<Arc<dyn Store>, Failure> {
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Entropy::system());
    Ok(app::open_store_alone(config, &clock, &ids, made).await?)
}

/// Tells how far it is, to whoever looks at standard error.
fn tell_progress() -> impl FnMut(u64) {
    let mut told = Instant::now();
    move |events| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let mut err = std::io::stderr().lock();
            let end = if err.is_terminal() { "\r" } else { "\n" };
            let _ = write!(err, "{events} events moved{end}");
        }
    }
}

fn explain(error: &MigrateError, resumed: bool) -> Failure {
    let failure = Failure::failed(error);
    match error {
        MigrateError::Busy(_) => failure.hint("stop every gateway on it, and try again after 10 seconds"),
        MigrateError::NotEmpty => failure.hint(
            "name an empty one (another --to-prefix, another folder); if a move to it broke off, go on with --resume",
        ),
        MigrateError::Taken(_) => failure.hint("the target is in use, or was moved to from another source"),
        MigrateError::Source(_) | MigrateError::Target(_) if resumed => {
            failure.hint("the source is as it was; run the same command again")
        }
        MigrateError::Source(_) | MigrateError::Target(_) => {
            failure.hint("the source is as it was; go on with the same command and --resume")
        }
    }
}

fn report(moved: &Migrated, from: &Config, output: Output) -> Result<(), Failure> {
    let Migrated { source, target } = moved;
    let differences = source.differences(target);
    let names: Vec<&str> = source.counts.keys().chain(target.counts.keys()).copied().collect();
    let names: std::collections::BTreeSet<&str> = names.into_iter().collect();
    let count = |census: &Census, name| census.counts.get(name).copied().unwrap_or_default();
    if output.is_json() {
        output.value(
            &json!({ "equal": differences.is_empty(), "source": source.counts, "target": target.counts }),
        );
    } else {
        let rows: Vec<Vec<String>> = names
            .iter()
            .map(|name| {
                vec![(*name).to_owned(), count(source, name).to_string(), count(target, name).to_string()]
            })
            .collect();
        output.rows(&["what", "source", "target"], &rows);
    }
    if !differences.is_empty() {
        let told: Vec<String> =
            differences.iter().map(|(name, ours, theirs)| format!("{name}: {ours} and {theirs}")).collect();
        return Err(Failure::failed(format!("the stores differ: {}", told.join(", ")))
            .hint("did a gateway run on one of them? begin again with an empty target"));
    }
    if let (false, StoreConfig::Sqlite) = (output.is_json(), &from.store)
        && let Some(key) = data_dir::key_file(&from.data_dir)
    {
        output.lines(&format!(
            "\nEverything is there. Its secrets open with the same key only: every gateway on the new store needs\n\n  \
             export PATCHBAY_SECRET_KEY=$(cat {})",
            key.display()
        ));
    }
    Ok(())
}
