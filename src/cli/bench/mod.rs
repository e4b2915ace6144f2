//! `patchbay bench`: how fast the gateway is on this machine.
//!
//! The gateway runs as a process of its own on a store of its own, so that its CPU and memory are its alone; sender and
//! receiver run in this process and are lean. Each event carries the time at which it was sent, and the receiver reads it
//! from the delivered body: "sent to received" is the whole way, and both ends share one clock. First at a fixed rate, then as
//! fast as events are accepted.

pub mod figures;
pub mod generator;
pub mod mark;
pub mod process;
pub mod receiver;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::client::Client;
use super::failure::Failure;
use super::output::Output;
use super::scratch::Scratch;
use crate::clock::Entropy;
use crate::domain::secret::Secret;
use figures::{Latency, Machine, Phase, Report, Settings};
use generator::Load;
use process::Gateway;
use receiver::{Receiver, Tally};

/// For how long the fixed rate is held at the most.
const STEADY_SECS: u32 = 10;
/// Events that warm everything up and are not counted.
const WARM_UP_EVENTS: usize = 500;
/// For how long nothing may arrive before the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);
/// Deliveries that a phase may have: each costs four bytes here.
const MOST_DELIVERIES: usize = 20_000_000;
const TENANT: &str = "bench";

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
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    fan_out: u32,
    /// Which store the gateway keeps its events in: sqlite, or a Redis URL (all keys begin with a prefix of their own)
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// About how many bytes an event has
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(400..=65_536))]
    payload_bytes: u32,
}

/// Runs the bench and prints its report.
pub async fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let settings = Settings {
        events: size(args.events),
        rate: args.rate,
        concurrency: size(args.concurrency),
        fan_out: size(args.fan_out),
        store: args.store.clone(),
        payload_bytes: size(args.payload_bytes),
    };
    if settings.events * settings.fan_out > MOST_DELIVERIES {
        let message = format!("{} events to {} endpoints are too many", settings.events, settings.fan_out);
        return Err(Failure::invalid(message, format!("at most {MOST_DELIVERIES} deliveries")));
    }
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; figures mean something only with --release");
    }
    let scratch = Scratch::new("bench", &Entropy::system())?;
    let gateway = start_gateway(scratch.path(), &settings)?;
    let memory_at_rest = gateway.memory_kib("VmRSS");
    let receiver = Receiver::start().await?;
    let token = set_up(&gateway, &receiver, settings.fan_out).await?;
    let bench = Bench { gateway, receiver, token, settings };

    bench.phase(0, WARM_UP_EVENTS.min(bench.settings.events), None).await;
    let steady_events = bench.settings.events.min(size(bench.settings.rate * STEADY_SECS));
    let steady = bench.phase(1, steady_events, Some(bench.settings.rate)).await;
    let full = bench.phase(2, bench.settings.events, None).await;

    let report = Report {
        machine: Machine::here(),
        start_ms: bench.gateway.started.as_secs_f64() * 1_000.0,
        memory_at_rest_mib: memory_at_rest.map(mib),
        memory_peak_mib: bench.gateway.memory_kib("VmHWM").map(mib),
        settings: bench.settings.clone(),
        steady,
        full,
    };
    output.either(&serde_json::to_value(&report).unwrap_or_default(), || report.text());
    let whole = report.steady.is_whole() && report.full.is_whole();
    if whole { Ok(()) } else { Err(Failure::failed("not every event was accepted and delivered")) }
}

struct Bench {
    gateway: Gateway,
    receiver: Receiver,
    token: String,
    settings: Settings,
}

impl Bench {
    async fn phase(&self, phase: u8, events: usize, rate: Option<u32>) -> Phase {
        let began = Instant::now();
        let tally = Arc::new(Tally::new(phase, events, self.settings.fan_out, began));
        self.receiver.count_into(Arc::clone(&tally));
        let cpu_before = self.gateway.cpu_secs();
        let load = Load {
            gateway: self.gateway.address,
            token: self.token.clone(),
            phase,
            events,
            rate,
            concurrency: self.settings.concurrency,
            payload_bytes: self.settings.payload_bytes,
        };
        let sent = generator::send(&load, &tally).await;
        let wanted = sent.accepted * self.settings.fan_out;
        wait_for(&tally, wanted).await;
        let cpu = cpu_before.zip(self.gateway.cpu_secs()).map(|(before, after)| after - before);
        let delivered = tally.arrived();
        Phase {
            sent: events,
            accepted: sent.accepted,
            refused: sent.refused,
            delivered,
            missing: wanted.saturating_sub(delivered),
            repeated: tally.repeated(),
            events_per_sec: per_sec(sent.accepted, sent.span),
            deliveries_per_sec: per_sec(delivered, tally.last()),
            to_acceptance: Latency::of_sorted_us(&sent.answers_us),
            to_receipt: Latency::of_sorted_us(&tally.latencies_us()),
            cpu_secs_per_1000: cpu.filter(|_| delivered > 0).map(|secs| secs * 1_000.0 / real(delivered)),
        }
    }
}

/// Waits until `wanted` deliveries have arrived, or nothing arrives any more.
async fn wait_for(tally: &Tally, wanted: usize) {
    let mut seen = tally.arrived();
    let mut last_progress = Instant::now();
    while seen < wanted && last_progress.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = tally.arrived();
        if now > seen {
            seen = now;
            last_progress = Instant::now();
        }
    }
}

fn start_gateway(folder: &Path, settings: &Settings) -> Result<Gateway, Failure> {
    let config = folder.join("patchbay.toml");
    let mut text = String::new();
    let data_dir = Value::from(folder.join("data").display().to_string());
    let store = Value::from(settings.store.as_str());
    // The folder's name is new for each run.
    let prefix = Value::from(folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default());
    let _ = write!(
        text,
        "listen = \"127.0.0.1:0\"\ndata_dir = {data_dir}\nstore = {store}\n[redis]\nprefix = {prefix}\n[egress]\nallow_http = true\n\
         allow_ranges = [\"127.0.0.0/8\"]\n[limits]\nevents_per_second = 0\n[log]\nlevel = \"warn\"\n",
    );
    std::fs::write(&config, text)?;
    Gateway::start(&config, &folder.join("gateway.log"))
}

/// Makes a tenant, its connections and a key; answers the key.
async fn set_up(gateway: &Gateway, receiver: &Receiver, fan_out: usize) -> Result<String, Failure> {
    let base = Url::parse(&format!("http://{}", gateway.address)).map_err(Failure::failed)?;
    let client = Client::new(base, Some(Secret::new(gateway.operator_key.as_str())))?;
    client.post("/v1/tenants", &json!({ "id": TENANT, "name": "Bench" })).await?;
    for endpoint in 0..fan_out {
        let connection = json!({
            "tenant": TENANT,
            "name": format!("endpoint {endpoint}"),
            "connector": "webhook",
            "events": ["*"],
            "target": { "url": format!("http://{}/bench/{endpoint}", receiver.address) },
            "policy": { "concurrency": 64 },
        });
        client.post("/v1/connections", &connection).await?;
    }
    let key = json!({ "tenant": TENANT, "name": "bench", "scopes": ["publish"] });
    let key = client.post("/v1/keys", &key).await?;
    let token = key["token"].as_str().or_else(|| key["key"].as_str());
    token.map(str::to_owned).ok_or_else(|| Failure::failed("the gateway gave no key"))
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

fn per_sec(count: usize, span: Duration) -> f64 {
    real(count) / span.as_secs_f64().max(0.001)
}
