//! The four parts of a run. Each begins with an empty store and a new gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;

use super::super::figures::Phase;
use super::super::generator::{self, Load};
use super::super::phase::{Bench, Run, Tenant, per_sec, wait_for};
use super::super::receiver::{Receiver, Tally};
use super::super::{STEADY_SECS, TENANT, WARM_UP_EVENTS, size};
use super::place::Place;
use super::rows::Figures;
use super::{Plan, crowd, disk, yardstick};
use crate::cli::failure::Failure;

/// Endpoints of the row with many for each event.
pub const FAN_OUT: usize = 10;
/// Events of one request, where many are sent only to be there.
const BATCH: usize = 1_000;
/// Bytes that such a request may have; the gateway takes a little more.
const BATCH_BYTES: usize = 900_000;
/// Who sends them: so few that what is under way does not hide what is queued, where memory is read next.
const FILLERS: usize = 4;

/// A part at work.
struct Session<'a> {
    plan: Plan<'a>,
    bench: Bench,
    phases: u8,
}

impl<'a> Session<'a> {
    async fn start(plan: Plan<'a>, place: &Place) -> Result<Self, Failure> {
        let gateway = place.start()?;
        let bench = Bench::new(gateway, Receiver::start().await?, plan.settings)?;
        Ok(Self { plan, bench, phases: 0 })
    }

    /// The tenant whose events are measured, warmed up.
    async fn live(&mut self) -> Result<Tenant, Failure> {
        let tenant = self.bench.tenant(TENANT, 1, self.bench.receiver.address).await?;
        let run = self.run(&tenant, WARM_UP_EVENTS.min(self.plan.settings.events));
        whole(self.bench.phase(run).await)?;
        Ok(tenant)
    }

    fn run<'t>(&mut self, tenant: &'t Tenant, events: usize) -> Run<'t> {
        self.phases += 1;
        Run {
            phase: self.phases,
            events,
            rate: None,
            fan_out: tenant.connections.len(),
            token: &tenant.token,
        }
    }

    /// As fast as events are accepted.
    async fn full(&mut self, tenant: &Tenant) -> Result<Phase, Failure> {
        let run = self.run(tenant, self.plan.settings.events);
        whole(self.bench.phase(run).await)
    }

    /// At the fixed rate.
    async fn steady(&mut self, tenant: &Tenant) -> Result<Phase, Failure> {
        let settings = self.plan.settings;
        let events = settings.events.min(size(settings.rate * STEADY_SECS));
        let run = Run { rate: Some(settings.rate), ..self.run(tenant, events) };
        whole(self.bench.phase(run).await)
    }

    async fn pause(&self, tenant: &Tenant, pause: bool) -> Result<(), Failure> {
        let action = if pause { "pause" } else { "resume" };
        for connection in &tenant.connections {
            self.bench.client.post(&format!("/v1/connections/{connection}/{action}"), &json!({})).await?;
        }
        Ok(())
    }

    /// Sends events in batches, only for them to be there.
    async fn fill(&mut self, tenant: &Tenant, events: usize) -> Result<f64, Failure> {
        let batch = BATCH.min(BATCH_BYTES / self.plan.settings.payload_bytes).max(1);
        let run = self.run(tenant, events);
        let load = Load { concurrency: FILLERS, insists: true, ..self.bench.load(&run, batch) };
        let nowhere = Arc::new(Tally::new(run.phase, 0, 0, Instant::now()));
        let sent = generator::send(&load, &nowhere).await;
        if sent.accepted < events {
            let faults =
                format!("only {} of {events} events were accepted: {:?}", sent.accepted, sent.refused);
            return Err(Failure::failed(faults));
        }
        Ok(per_sec(events, sent.span))
    }
}

/// The phase, if everything was accepted and arrived.
fn whole(phase: Phase) -> Result<Phase, Failure> {
    if phase.is_whole() { Ok(phase) } else { Err(Failure::failed(format!("not whole:{}", phase.faults()))) }
}

/// An empty store: start, memory, latency, throughput, backlog.
pub async fn empty(plan: Plan<'_>, place: &Place, figures: &mut Figures) -> Result<(), Failure> {
    let mut session = Session::start(plan, place).await?;
    figures.set("start_empty_ms", session.bench.gateway.healthy.as_secs_f64() * 1_000.0);
    figures.set_some("memory_idle_mb", session.bench.gateway.memory_mb("VmRSS"));
    let tenant = session.live().await?;
    let steady = session.steady(&tenant).await?.to_receipt;
    figures.set("receipt_p50_ms", steady.p50_ms);
    figures.set("receipt_p99_ms", steady.p99_ms);
    let folder = place.data_dir().to_owned();
    let disk = tokio::task::spawn_blocking(move || disk::fsync(&folder)).await.map_err(Failure::failed)??;
    figures.set("fsync_p50_ms", disk.p50_ms);
    figures.set("fsync_p99_ms", disk.p99_ms);
    figures.set("receipt_p50_less_fsync_ms", (steady.p50_ms - disk.p50_ms).max(0.0));
    figures.set("receipt_p99_less_fsync_ms", (steady.p99_ms - disk.p99_ms).max(0.0));

    let full = session.full(&tenant).await?;
    figures.set("events_per_sec", full.deliveries_per_sec);
    figures.set_some("cpu_ms_per_delivery", full.cpu_secs_per_1000);
    figures.set_some("own_cpu_ms_per_delivery", full.own_cpu_secs_per_1000);
    figures.set("yardstick_us", tokio::task::spawn_blocking(yardstick::us).await.map_err(Failure::failed)?);
    let many = session.bench.tenant("bench-fan-out", FAN_OUT, session.bench.receiver.address).await?;
    let many = session.full(&many).await?;
    figures.set("deliveries_per_sec", many.deliveries_per_sec);
    figures.set_some("cpu_ms_per_delivery_fan_out", many.cpu_secs_per_1000);

    session.pause(&tenant, true).await?;
    let run = session.run(&tenant, size(plan.sizes.backlog));
    let tally = session.bench.tally(&run);
    let sent = generator::send(&session.bench.load(&run, 1), &tally).await;
    if sent.accepted < run.events || tally.arrived() > 0 {
        let counts = (sent.accepted, run.events, tally.arrived());
        let faults =
            format!("{} of {} events were accepted, and {} came too early", counts.0, counts.1, counts.2);
        return Err(Failure::failed(faults));
    }
    figures.set("accept_per_sec", per_sec(sent.accepted, sent.span));
    let resumed = Duration::from_micros(tally.elapsed_us());
    session.pause(&tenant, false).await?;
    wait_for(&tally, run.events).await;
    if tally.arrived() < run.events {
        return Err(Failure::failed(format!("{} of {} were drained", tally.arrived(), run.events)));
    }
    figures.set("drain_per_sec", per_sec(run.events, tally.last().saturating_sub(resumed)));
    figures.set_some("memory_peak_mb", session.bench.gateway.memory_mb("VmHWM"));
    Ok(())
}

/// Throughput with many connections of other tenants, as a part of that without.
pub async fn connections(plan: Plan<'_>, place: &Place, figures: &mut Figures) -> Result<(), Failure> {
    let mut session = Session::start(plan, place).await?;
    let tenant = session.live().await?;
    let before = session.full(&tenant).await?.deliveries_per_sec;
    plan.progress("making connections");
    let rate = crowd::make(&session.bench, size(plan.sizes.connections)).await?;
    figures.set("connections_made_per_sec", rate);
    figures.set_some("memory_connections_mb", session.bench.gateway.memory_mb("VmRSS"));
    let after = session.full(&tenant).await?.deliveries_per_sec;
    figures.set("throughput_with_connections", after / before);
    Ok(())
}

/// Throughput and memory with many jobs of a paused connection, and a start with them.
pub async fn queued(plan: Plan<'_>, place: &Place, figures: &mut Figures) -> Result<(), Failure> {
    let mut session = Session::start(plan, place).await?;
    let tenant = session.live().await?;
    let before = session.full(&tenant).await?.deliveries_per_sec;
    let backlog = session.bench.tenant("bench-backlog", 1, session.bench.receiver.address).await?;
    session.pause(&backlog, true).await?;
    plan.progress("queueing jobs");
    let rate = session.fill(&backlog, size(plan.sizes.queued)).await?;
    figures.set("queued_in_batches_per_sec", rate);
    figures.set_some("memory_queued_mb", session.bench.gateway.memory_mb("VmRSS"));
    let after = session.full(&tenant).await?.deliveries_per_sec;
    figures.set("throughput_with_queued", after / before);
    drop(session);
    plan.progress("starting with the jobs");
    let again = place.start()?;
    figures.set("start_queued_ms", again.healthy.as_secs_f64() * 1_000.0);
    figures.set_some("memory_queued_restarted_mb", again.memory_mb("VmRSS"));
    Ok(())
}

/// Latency beside an endpoint that takes requests and never answers, as a multiple of that without.
pub async fn dead(plan: Plan<'_>, place: &Place, figures: &mut Figures) -> Result<(), Failure> {
    let mut session = Session::start(plan, place).await?;
    let tenant = session.live().await?;
    let alone = session.steady(&tenant).await?.to_receipt.p99_ms;
    let (silent, address) = silence().await?;
    let dead = session.bench.tenant("bench-dead", 1, address).await?;
    plan.progress("queueing jobs of the dead endpoint");
    session.fill(&dead, size(plan.sizes.dead)).await?;
    let beside = session.steady(&tenant).await?.to_receipt.p99_ms;
    silent.abort();
    figures.set("live_p99_alone_ms", alone);
    figures.set("live_p99_beside_dead_ms", beside);
    figures.set("live_p99_beside_dead", beside / alone.max(0.001));
    Ok(())
}

/// An endpoint that takes connections and never answers.
async fn silence() -> Result<(tokio::task::JoinHandle<()>, SocketAddr), Failure> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Ok((silent, address))
}
