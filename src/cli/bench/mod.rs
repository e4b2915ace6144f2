//! `patchbay bench`: how fast the gateway is on this machine.
//!
//! The gateway runs as a process of its own on a store of its own, so that its CPU and memory are its alone; sender and
//! receiver run in this process and are lean. Each event carries the time at which it was sent, and the receiver reads it
//! from the delivered body: "sent to received" is the whole way, and both ends share one clock. First at a fixed rate, then as
//! fast as events are accepted.

pub mod figures;
pub mod generator;
pub mod mark;
pub mod phase;
pub mod process;
pub mod receiver;
pub mod suite;
pub mod wire;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output::Output;
use super::scratch::Scratch;
use crate::clock::Entropy;
use figures::{Machine, Report, Settings};
use phase::{Bench, Run};
use process::Gateway;
use receiver::Receiver;
use suite::SuiteArgs;

/// For how long the fixed rate is held at the most.
const STEADY_SECS: u32 = 10;
/// Events that warm everything up and are not counted.
const WARM_UP_EVENTS: usize = 500;
/// Deliveries that a phase may have: each costs four bytes here.
const MOST_DELIVERIES: usize = 20_000_000;
const TENANT: &str = "bench";
/// How large an event is, unless it is said.
const EVENT_BYTES: u32 = 600;
/// The same in the suite: as large as in what it is compared with (`docs/performance.md`).
const SUITE_BYTES: u32 = 632;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Events at full load
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// Events a second at the fixed rate, held for up to 10 s
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Sender's connections at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    concurrency: u32,
    /// Endpoints (connections) that get each event
    #[arg(long, default_value_t = 1, conflicts_with = "suite", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    fan_out: u32,
    /// Which store the gateway keeps its events in: sqlite, or a Redis URL (all keys begin with a prefix of their own)
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// About how many bytes an event has; 600, or 632 with --suite
    #[arg(long, value_parser = clap::value_parser!(u32).range(400..=65_536))]
    payload_bytes: Option<u32>,
    /// The whole table of figures.
    #[command(flatten)]
    suite: SuiteArgs,
}

/// Runs the bench and prints its report.
pub async fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let is_suite = args.suite.is_wanted();
    let settings = Settings {
        events: size(args.events),
        rate: args.rate,
        concurrency: size(args.concurrency),
        fan_out: size(args.fan_out),
        store: args.store.clone(),
        payload_bytes: size(args.payload_bytes.unwrap_or(if is_suite { SUITE_BYTES } else { EVENT_BYTES })),
    };
    let fan_out = if is_suite { suite::FAN_OUT } else { settings.fan_out };
    if settings.events * fan_out > MOST_DELIVERIES {
        let message = format!("{} events to {fan_out} endpoints are too many", settings.events);
        return Err(Failure::invalid(message, format!("at most {MOST_DELIVERIES} deliveries")));
    }
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; figures mean something only with --release");
    }
    if is_suite {
        return suite::run(&args.suite, &settings, output).await;
    }
    let scratch = Scratch::new("bench", &Entropy::system())?;
    let (config, log) = write_config(scratch.path(), &settings.store, "")?;
    let gateway = Gateway::start(&config, &log)?;
    let memory_at_rest = gateway.memory_kib("VmRSS");
    let receiver = Receiver::start().await?;
    let bench = Bench::new(gateway, receiver, &settings)?;
    let tenant = bench.tenant(TENANT, settings.fan_out, bench.receiver.address).await?;

    let run =
        |phase, events, rate| Run { phase, events, rate, fan_out: settings.fan_out, token: &tenant.token };
    bench.phase(run(0, WARM_UP_EVENTS.min(settings.events), None)).await;
    let steady_events = settings.events.min(size(settings.rate * STEADY_SECS));
    let steady = bench.phase(run(1, steady_events, Some(settings.rate))).await;
    let full = bench.phase(run(2, settings.events, None)).await;

    let report = Report {
        machine: Machine::here(),
        start_ms: bench.gateway.started.as_secs_f64() * 1_000.0,
        memory_at_rest_mib: memory_at_rest.map(mib),
        memory_peak_mib: bench.gateway.memory_kib("VmHWM").map(mib),
        settings: settings.clone(),
        steady,
        full,
    };
    output.either(&serde_json::to_value(&report).unwrap_or_default(), || report.text());
    let whole = report.steady.is_whole() && report.full.is_whole();
    if whole { Ok(()) } else { Err(Failure::failed("not every event was accepted and delivered")) }
}

/// Writes the gateway's configuration, with `more` at its end; where it is, and where the log goes.
fn write_config(folder: &Path, store: &str, more: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let config = folder.join("patchbay.toml");
    let mut text = String::new();
    let data_dir = Value::from(folder.join("data").display().to_string());
    let store = Value::from(store);
    // The folder's name is new for each run.
    let prefix = Value::from(folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default());
    let _ = write!(
        text,
        "listen = \"127.0.0.1:0\"\ndata_dir = {data_dir}\nstore = {store}\n[redis]\nprefix = {prefix}\n[egress]\nallow_http = true\n\
         allow_ranges = [\"127.0.0.0/8\"]\n[limits]\nevents_per_second = 0\n[log]\nlevel = \"warn\"\n{more}",
    );
    std::fs::write(&config, text)?;
    Ok((config, folder.join("gateway.log")))
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^52")]
fn real(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
