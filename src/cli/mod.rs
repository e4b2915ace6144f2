//! The command line: what a person types, and the exit code it ends with (0 done, 1 failed, 2 invalid input).
//!
//! Results go to standard output: a table on a terminal, tab-separated lines in a pipe, JSON with `--json`. Errors, hints and
//! log lines go to standard error.

pub mod accounts;
pub mod bench;
pub mod check;
pub mod chores;
pub mod client;
pub mod config;
pub mod connections;
pub mod connectors;
pub mod deliveries;
pub mod demo;
pub mod erase;
pub mod failure;
pub mod fake_google;
pub mod filter;
pub mod health;
pub mod http1;
pub mod input;
pub mod listen;
pub mod map;
pub mod output;
pub mod path;
pub mod receiver;
pub mod replay;
pub mod schema;
pub mod scratch;
pub mod send;
pub mod serve;
pub mod sources;
pub mod store;
pub mod trigger;
pub mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::api::docs;
use crate::clock::Clock;
use crate::config::{Environment, settings};
use failure::Failure;
use output::Output;

const EXAMPLES: &str = "\
Examples:
  patchbay demo                                    the main job, by itself
  patchbay serve                                   the gateway for real, in ./patchbay-data
  patchbay check my-catalogue                      everything that is wrong with your files
  patchbay map lead_flat --event lead.captured --trace
  patchbay send --type lead.captured --data @lead.json --tenant acme
  patchbay listen --secret whsec_... --fail 2      a receiver that fails twice

Exit codes: 0 done, 1 failed, 2 invalid input.";

/// Patchbay, an integration connector gateway: events in, signed and mapped deliveries out
#[derive(Debug, Parser)]
#[command(name = "patchbay", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Show the main job by itself: gateway, receiver, four events, a retry
    Demo(demo::DemoArgs),
    /// Tell everything that is wrong with configuration, connectors and mappings
    Check(check::CheckArgs),
    /// Show the settings in force, and where each came from
    Config(config::ConfigArgs),
    /// Show what a mapping makes of an event
    #[command(
        after_help = "Examples:\n  patchbay map lead_flat --event lead.captured --trace\n  patchbay map \
                            mappings/mine.toml --event event.json\n  cat event.json | patchbay map mine.toml --event -\n  patchbay map --list"
    )]
    Map(map::MapArgs),
    /// Show what one path of the mapping language finds in a JSON document
    #[command(
        after_help = "Examples:\n  patchbay path '$.data.lead.email' event.json\n  cat event.json | patchbay path \
                            '$.data.items[?@.price > 10].name'"
    )]
    Path(path::PathArgs),
    /// Print the JSON Schema of connector or mapping files
    Schema(schema::SchemaArgs),
    /// Send an event to a running gateway
    #[command(
        after_help = "Examples:\n  patchbay send --type lead.captured\n  patchbay send --type lead.captured \
                            --data '{\"lead\":{\"name\":\"Jane\"}}' --id lead-1\n  patchbay send --type \
                            rating.given --data @rating.json --tenant acme"
    )]
    Send(send::SendArgs),
    /// Receive deliveries on this machine: verify, show, and fail on demand
    #[command(
        after_help = "Examples:\n  patchbay listen --secret whsec_...\n  patchbay listen --fail 2 --slow 3\n  \
                            patchbay listen --rate-limit 10\n  patchbay listen --gone"
    )]
    Listen(listen::ListenArgs),
    /// Make and list tenants
    #[command(subcommand)]
    Tenants(accounts::TenantsCommand),
    /// Make, list and revoke keys
    #[command(subcommand)]
    Keys(accounts::KeysCommand),
    /// Make, show, change, pause and test connections
    #[command(subcommand)]
    Connections(connections::ConnectionsCommand),
    /// List the systems that can be delivered to or received from, and what each asks for
    Connectors(connectors::ConnectorsArgs),
    /// Send an event over one connection now, and tell what came of it
    #[command(
        after_help = "Examples:\n  patchbay trigger con_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q --event event.json\n  patchbay trigger \
                            con_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q --event-id lead-1"
    )]
    Trigger(trigger::TriggerArgs),
    /// Make, list and delete sources: ways in for other systems' webhooks, and give them new secrets
    #[command(subcommand)]
    Sources(sources::SourcesCommand),
    /// List, show and retry deliveries
    #[command(subcommand)]
    Deliveries(deliveries::DeliveriesCommand),
    /// Move everything from one store to another
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Ask a running process whether it is ready
    Health(health::HealthArgs),
    /// Send deliveries again that failed, after what was in the way was mended
    #[command(
        after_help = "Examples:\n  patchbay replay --mapping-failed --connection con_... --dry-run\n  patchbay \
                            replay --mapping-failed --connection con_...\n  patchbay replay --missed --since 2026-05-03T14:00:00Z --connection con_...\n  patchbay replay --state dead --since 2026-05-03T14:00:00Z --connection con_... --per-second 20"
    )]
    Replay(replay::ReplayArgs),
    /// List, show and cancel replays
    #[command(subcommand)]
    Replays(chores::ChoresCommand),
    /// Erase a person's data from the events that are kept
    #[command(
        after_help = "Examples:\n  patchbay erase --tenant acme --path '$.data.email' --equals jane@example.com --dry-run\n  patchbay \
                            erase --tenant acme --path '$.data.email' --equals @email.txt"
    )]
    Erase(erase::EraseArgs),
    /// List, show and cancel erasures
    #[command(subcommand)]
    Erasures(chores::ChoresCommand),
    /// Show which recent events a filter lets pass, and why not the others
    #[command(
        after_help = "Example:\n  patchbay filter '{\"path\":\"$.data.score\",\"op\":\"gte\",\"value\":4}' --event rating.given"
    )]
    Filter(filter::FilterArgs),
    /// Measure the gateway on this machine
    Bench(bench::BenchArgs),
    /// Print the document that describes the HTTP API
    Openapi,
    /// Print every setting as a Markdown table
    #[command(hide = true)]
    Settings,
}

/// Reads the command line, does what it says, and answers the exit code.
pub fn main() -> ExitCode {
    let command =
        Cli::command().mut_subcommand("serve", |serve| serve.after_help(settings::reference_text()));
    let cli = match Cli::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let json = cli.json;
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(
            |runtime| {
                let result = runtime.block_on(run(cli));
                // What still blocks (a read of standard input) is no reason to stay.
                runtime.shutdown_background();
                result
            },
        );
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told(_)) {
                if json {
                    eprintln!("{}", failure.json());
                } else {
                    eprintln!("{}", failure.text());
                }
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(cli.json);
    let environment = Environment::of_process();
    let clock = Clock::system();
    match cli.command {
        Command::Serve(args) => serve::run(&args, &environment, output).await,
        Command::Demo(args) => demo::run(&args, output).await,
        Command::Check(args) => check::run(&args, &environment, output),
        Command::Config(args) => config::run(&args, &environment, output),
        Command::Map(args) => map::run(&args, &clock, output),
        Command::Path(args) => path::run(&args, output),
        Command::Schema(args) => schema::run(&args, output),
        Command::Send(args) => send::run(&args, output).await,
        Command::Listen(args) => listen::run(&args, &clock, output).await,
        Command::Tenants(command) => accounts::run_tenants(&command, &environment, output).await,
        Command::Keys(command) => accounts::run_keys(&command, &environment, output).await,
        Command::Connections(command) => connections::run(&command, output).await,
        Command::Connectors(args) => connectors::run(&args, &environment, output).await,
        Command::Trigger(args) => trigger::run(&args, output).await,
        Command::Sources(command) => sources::run(&command, output).await,
        Command::Deliveries(command) => deliveries::run_deliveries(&command, output).await,
        Command::Store(command) => store::run(&command, &environment, output).await,
        Command::Health(args) => health::run(&args, output).await,
        Command::Replay(args) => replay::run(&args, &clock, output).await,
        Command::Replays(command) => replay::run_replays(&command, output).await,
        Command::Erase(args) => erase::run(&args, &clock, output).await,
        Command::Erasures(command) => erase::run_erasures(&command, output).await,
        Command::Filter(args) => filter::run(&args, output).await,
        Command::Bench(args) => bench::run(&args, output).await,
        Command::Openapi => match docs::DOCUMENT.as_ref() {
            Ok(document) => {
                output.value(document);
                Ok(())
            }
            Err(error) => Err(Failure::failed(error)),
        },
        Command::Settings => {
            output.lines(settings::reference_markdown().trim_end());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
