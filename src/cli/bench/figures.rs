//! What a bench found, as numbers that serialize and as a text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::config::system_name;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what it ran.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Settings,
    /// Milliseconds from starting the gateway's process to its being ready.
    pub start_ms: f64,
    /// Memory of the gateway before the first event, MiB.
    pub memory_at_rest_mib: Option<f64>,
    /// Memory of the gateway at its most, MiB.
    pub memory_peak_mib: Option<f64>,
    /// At the fixed rate.
    pub steady: Phase,
    /// As fast as events are accepted.
    pub full: Phase,
}

/// The machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Operating system and its version.
    pub system: String,
    /// The processor's name.
    pub processor: String,
    /// How many of it may be used.
    pub cpus: usize,
    /// Memory, MiB.
    pub memory_mib: Option<u64>,
    /// This program's version.
    pub version: &'static str,
    /// `release` or `debug`.
    pub build: &'static str,
    /// The compiler that built it.
    pub rustc: &'static str,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Events at full load.
    pub events: usize,
    /// Events a second at the fixed rate.
    pub rate: u32,
    /// Sender's connections at once.
    pub concurrency: usize,
    /// Endpoints that get each event.
    pub fan_out: usize,
    /// Which store; its URL, which may hold a password, is told without.
    #[serde(serialize_with = "without_secrets")]
    pub store: String,
    /// How large an event is.
    pub payload_bytes: usize,
}

fn without_secrets<S: serde::Serializer>(store: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::config::without_secrets(store))
}

/// What one phase found.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// Events sent.
    pub sent: usize,
    /// Events answered with 202.
    pub accepted: usize,
    /// Other answers by status; 0 is a broken connection.
    pub refused: BTreeMap<u16, usize>,
    /// Deliveries that arrived.
    pub delivered: usize,
    /// Deliveries of accepted events that did not arrive.
    pub missing: usize,
    /// Deliveries that arrived more than once.
    pub repeated: usize,
    /// Accepted events a second.
    pub events_per_sec: f64,
    /// Deliveries a second, from the first event sent to the last delivery received.
    pub deliveries_per_sec: f64,
    /// From sending an event to its 202.
    pub to_acceptance: Latency,
    /// From sending an event to receiving its delivery.
    pub to_receipt: Latency,
    /// Seconds of the gateway's CPU for 1,000 deliveries.
    pub cpu_secs_per_1000: Option<f64>,
    /// The same of the process that sends and receives.
    pub own_cpu_secs_per_1000: Option<f64>,
}

/// How long something took, milliseconds.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half took at most this.
    pub p50_ms: f64,
    /// 95% took at most this.
    pub p95_ms: f64,
    /// 99% took at most this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latency {
    /// Of sorted microseconds, by nearest rank.
    pub fn of_sorted_us(sorted: &[u32]) -> Self {
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
        };
        Self { p50_ms: rank(50), p95_ms: rank(95), p99_ms: rank(99), max_ms: rank(100) }
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            system: format!("{} {}", system_name(), release.trim()),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: memory.map(|kib| kib / 1_024),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            rustc: env!("BUILD_RUSTC"),
        }
    }
}

impl Phase {
    /// Whether every event was accepted and every delivery arrived.
    pub fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.missing == 0 && self.accepted == self.sent
    }

    /// What is missing, came twice or was refused.
    pub fn faults(&self) -> String {
        let mut text = String::new();
        if self.missing > 0 {
            let _ = write!(text, "  {} deliveries are MISSING", self.missing);
        }
        if self.repeated > 0 {
            let _ = write!(text, "  {} came twice", self.repeated);
        }
        for (status, count) in &self.refused {
            let what =
                if *status == 0 { "without an answer".to_owned() } else { format!("answered {status}") };
            let _ = write!(text, "  {count} events {what}");
        }
        text
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let Self { machine, settings, steady, full, .. } = self;
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {label:<26}{value}");
        };
        let memory = |mib: Option<f64>| mib.map_or("not known".to_owned(), |mib| format!("{mib:.1} MiB"));
        let cpu = |secs: Option<f64>| secs.map_or("not known".to_owned(), |secs| format!("{secs:.3} s"));
        line("machine", format!("{} x {}, {}", machine.cpus, machine.processor, machine.system));
        line("build", format!("{} {}", machine.version, machine.build));
        line(
            "events",
            format!(
                "about {} bytes each, to {} endpoint(s), store {}; sender and receiver on this machine",
                settings.payload_bytes,
                settings.fan_out,
                // The scheme alone: a URL may hold a password.
                settings.store.split(':').next().unwrap_or_default()
            ),
        );
        line("ready after", format!("{:.0} ms", self.start_ms));
        line(
            "gateway's memory",
            format!("{} at rest, {} at most", memory(self.memory_at_rest_mib), memory(self.memory_peak_mib)),
        );
        for (title, phase) in [
            (format!("at {} events/s", settings.rate), steady),
            (format!("at full load, {} senders", settings.concurrency), full),
        ] {
            line("", String::new());
            line(
                &title,
                format!("{} events, {} deliveries{}", phase.accepted, phase.delivered, phase.faults()),
            );
            line("  accepted", format!("{:.0} events/s", phase.events_per_sec));
            line("  delivered", format!("{:.0} deliveries/s", phase.deliveries_per_sec));
            line("  sent to accepted", latency(&phase.to_acceptance));
            line("  sent to received", latency(&phase.to_receipt));
            let (gateway, own) = (cpu(phase.cpu_secs_per_1000), cpu(phase.own_cpu_secs_per_1000));
            line("  CPU / 1,000 deliveries", format!("{gateway}, sender and receiver {own}"));
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

fn latency(latency: &Latency) -> String {
    let Latency { p50_ms, p95_ms, p99_ms, max_ms } = latency;
    format!("p50 {p50_ms:.2} ms   p95 {p95_ms:.2} ms   p99 {p99_ms:.2} ms   max {max_ms:.2} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<u32> = (1..=200).map(|number| number * 1_000).collect();
        let latency = Latency::of_sorted_us(&sorted);
        assert_eq!(latency, Latency { p50_ms: 100.0, p95_ms: 190.0, p99_ms: 198.0, max_ms: 200.0 });
        assert_eq!(
            Latency::of_sorted_us(&[7_000]),
            Latency { p50_ms: 7.0, p95_ms: 7.0, p99_ms: 7.0, max_ms: 7.0 }
        );
        assert_eq!(Latency::of_sorted_us(&[]), Latency::default());
    }
}
