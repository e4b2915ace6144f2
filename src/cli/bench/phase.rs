//! One phase of a bench: a load sent to a gateway, and what came of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use url::Url;

use super::figures::{Latency, Phase, Settings};
use super::generator::{self, Load};
use super::process::{Gateway, own_cpu_secs};
use super::real;
use super::receiver::{Receiver, Tally};
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::domain::secret::Secret;

/// For how long nothing may arrive before the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);

/// A gateway with a receiver beside it, and how it is loaded.
#[derive(Debug)]
pub struct Bench {
    /// What is measured.
    pub gateway: Gateway,
    /// Where deliveries go.
    pub receiver: Receiver,
    /// Speaks to the gateway's API as its operator.
    pub client: Client,
    concurrency: usize,
    payload_bytes: usize,
}

/// Who sends events, and where they go.
#[derive(Debug)]
pub struct Tenant {
    /// A key that may publish.
    pub token: String,
    /// The ids of its connections.
    pub connections: Vec<String>,
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Which phase this is: each event has its number in its id.
    pub phase: u8,
    /// How many events.
    pub events: usize,
    /// Events a second; `None` is as fast as they are accepted.
    pub rate: Option<u32>,
    /// Endpoints that get each event.
    pub fan_out: usize,
    /// A key that may publish.
    pub token: &'a str,
}

impl Bench {
    /// Over a started gateway.
    pub fn new(gateway: Gateway, receiver: Receiver, settings: &Settings) -> Result<Self, Failure> {
        let base = Url::parse(&format!("http://{}", gateway.address)).map_err(Failure::failed)?;
        let client = Client::new(base, Some(Secret::new(gateway.operator_key.as_str())))?;
        let Settings { concurrency, payload_bytes, .. } = *settings;
        Ok(Self { gateway, receiver, client, concurrency, payload_bytes })
    }

    /// Makes a tenant with a key and `fan_out` connections to `target`.
    pub async fn tenant(&self, id: &str, fan_out: usize, target: SocketAddr) -> Result<Tenant, Failure> {
        self.client.post("/v1/tenants", &json!({ "id": id, "name": "Bench" })).await?;
        let mut connections = Vec::with_capacity(fan_out);
        for endpoint in 0..fan_out {
            let made = self.client.post("/v1/connections", &connection(id, endpoint, target)).await?;
            connections.push(made["id"].as_str().unwrap_or_default().to_owned());
        }
        let key = json!({ "tenant": id, "name": "bench", "scopes": ["publish"] });
        let key = self.client.post("/v1/keys", &key).await?;
        let token = key["token"].as_str().or_else(|| key["key"].as_str());
        let token = token.ok_or_else(|| Failure::failed("the gateway gave no key"))?.to_owned();
        Ok(Tenant { token, connections })
    }

    /// Sends `run` and waits until all of it has arrived, or nothing arrives any more.
    pub async fn phase(&self, run: Run<'_>) -> Phase {
        let tally = self.tally(&run);
        let cpu = || (self.gateway.cpu_secs(), own_cpu_secs());
        let before = cpu();
        let sent = generator::send(&self.load(&run, 1), &tally).await;
        let wanted = sent.accepted * run.fan_out;
        wait_for(&tally, wanted).await;
        let after = cpu();
        let delivered = tally.arrived();
        let each = |before: Option<f64>, after: Option<f64>| {
            let used = before.zip(after).map(|(before, after)| after - before);
            used.filter(|_| delivered > 0).map(|secs| secs * 1_000.0 / real(delivered))
        };
        Phase {
            sent: run.events,
            accepted: sent.accepted,
            refused: sent.refused,
            delivered,
            missing: wanted.saturating_sub(delivered),
            repeated: tally.repeated(),
            events_per_sec: per_sec(sent.accepted, sent.span),
            deliveries_per_sec: per_sec(delivered, tally.last()),
            to_acceptance: Latency::of_sorted_us(&sent.answers_us),
            to_receipt: Latency::of_sorted_us(&tally.latencies_us()),
            cpu_secs_per_1000: each(before.0, after.0),
            own_cpu_secs_per_1000: each(before.1, after.1),
        }
    }

    /// Counts what arrives of `run` from now on.
    pub fn tally(&self, run: &Run<'_>) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(run.phase, run.events, run.fan_out, Instant::now()));
        self.receiver.count_into(Arc::clone(&tally));
        tally
    }

    /// What the generator is to send for `run`, so many events in a request.
    pub fn load(&self, run: &Run<'_>, batch: usize) -> Load {
        Load {
            gateway: self.gateway.address,
            token: run.token.to_owned(),
            phase: run.phase,
            events: run.events,
            rate: run.rate,
            concurrency: self.concurrency,
            payload_bytes: self.payload_bytes,
            batch,
            insists: false,
        }
    }
}

/// A connection as the API takes it.
pub fn connection(tenant: &str, endpoint: usize, target: SocketAddr) -> serde_json::Value {
    json!({
        "tenant": tenant,
        "name": format!("endpoint {endpoint}"),
        "connector": "webhook",
        "events": ["*"],
        "target": { "url": format!("http://{target}/bench/{endpoint}") },
        "policy": { "concurrency": 64 },
    })
}

/// Waits until `wanted` deliveries have arrived, or nothing arrives any more.
pub async fn wait_for(tally: &Tally, wanted: usize) {
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

/// How many a second.
pub fn per_sec(count: usize, span: Duration) -> f64 {
    real(count) / span.as_secs_f64().max(0.001)
}
