//! The table: its rows, what each should be, and in which part it is measured.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// An empty store.
    Empty,
    /// Many connections.
    Connections,
    /// Many queued jobs.
    Queued,
    /// A dead endpoint.
    Dead,
}

/// In their order.
pub const PARTS: [Part; 4] = [Empty, Connections, Queued, Dead];

impl Part {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Empty => "an empty store",
            Self::Connections => "many connections",
            Self::Queued => "many queued jobs",
            Self::Dead => "beside a dead endpoint",
        }
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Larger is better.
    AtLeast(f64),
    /// Smaller is better.
    AtMost(f64),
}

impl Target {
    /// Whether a figure is as it should be.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, figure) = match self {
            Self::AtLeast(least) => ("at_least", least),
            Self::AtMost(most) => ("at_most", most),
        };
        serializer.collect_map([(name, figure)])
    }
}

/// One row, on the embedded store and on Redis.
#[derive(Debug)]
pub struct Spec {
    /// Its name in JSON, with its unit.
    pub key: &'static str,
    /// For people.
    pub what: &'static str,
    /// Where it is measured.
    pub part: Part,
    /// On which engine it has no meaning.
    pub not_on: Option<&'static str>,
    sqlite: Option<Target>,
    redis: Option<Target>,
}

impl Spec {
    /// What it should be on an engine; `None` for what explains another row.
    pub fn target(&self, engine: &str) -> Option<Target> {
        if engine == "redis" { self.redis } else { self.sqlite }
    }

    const fn row(key: &'static str, what: &'static str, part: Part, target: Option<Target>) -> Self {
        Self { key, what, part, not_on: None, sqlite: target, redis: target }
    }

    const fn sqlite_only(self) -> Self {
        Self { not_on: Some("redis"), redis: None, ..self }
    }
}

use Part::{Connections, Dead, Empty, Queued};
use Target::{AtLeast, AtMost};

/// Every row.
pub const ROWS: &[Spec] = &[
    Spec::row("events_per_sec", "events/s end to end, fan-out 1", Empty, Some(AtLeast(8_000.0))),
    Spec::row("deliveries_per_sec", "deliveries/s, fan-out 10", Empty, Some(AtLeast(15_000.0))),
    Spec {
        sqlite: None,
        ..Spec::row("receipt_p50_ms", "p50 request to receipt, ms", Empty, Some(AtMost(1.0)))
    },
    Spec {
        sqlite: None,
        ..Spec::row("receipt_p99_ms", "p99 request to receipt, ms", Empty, Some(AtMost(3.0)))
    },
    Spec::row("fsync_p50_ms", "  the disk's own part of it, p50, ms", Empty, None).sqlite_only(),
    Spec::row("fsync_p99_ms", "  the disk's own part of it, p99, ms", Empty, None).sqlite_only(),
    Spec::row("receipt_p50_less_fsync_ms", "  p50 without the disk's, ms", Empty, Some(AtMost(1.0)))
        .sqlite_only(),
    Spec::row("receipt_p99_less_fsync_ms", "  p99 without the disk's, ms", Empty, Some(AtMost(3.0)))
        .sqlite_only(),
    Spec::row("accept_per_sec", "accepted/s while nothing is delivered", Empty, Some(AtLeast(15_000.0))),
    Spec::row("drain_per_sec", "drained/s of that backlog", Empty, Some(AtLeast(12_000.0))),
    Spec::row("cpu_ms_per_delivery", "gateway's CPU a delivery, ms", Empty, Some(AtMost(0.12))),
    Spec::row("cpu_ms_per_delivery_fan_out", "  the same at fan-out 10, ms", Empty, None),
    Spec::row("own_cpu_ms_per_delivery", "  sender's and receiver's at fan-out 1, ms", Empty, None),
    Spec::row("yardstick_us", "  yardstick: an event read and written, us", Empty, None),
    Spec::row("memory_idle_mb", "memory idle, MB", Empty, Some(AtMost(30.0))),
    Spec::row("memory_peak_mb", "  at most in that part, MB", Empty, None),
    Spec {
        redis: Some(AtMost(100.0)),
        ..Spec::row("memory_queued_mb", "memory with queued jobs, MB", Queued, Some(AtMost(200.0)))
    },
    Spec::row("memory_queued_restarted_mb", "  after a new start, MB", Queued, None),
    Spec::row("memory_connections_mb", "  memory with many connections, MB", Connections, None),
    Spec::row("start_empty_ms", "start to healthy, empty, ms", Empty, Some(AtMost(100.0))),
    Spec::row("start_queued_ms", "start to healthy, with queued jobs, ms", Queued, Some(AtMost(1_000.0))),
    Spec::row(
        "throughput_with_connections",
        "throughput with many connections, of empty",
        Connections,
        Some(AtLeast(0.8)),
    ),
    Spec::row("connections_made_per_sec", "  connections made/s by the API", Connections, None),
    Spec::row("throughput_with_queued", "throughput with queued jobs, of empty", Queued, Some(AtLeast(0.8))),
    Spec::row("queued_in_batches_per_sec", "  events/s queued in batches", Queued, None),
    Spec::row("live_p99_beside_dead", "live p99 beside a dead endpoint, of alone", Dead, Some(AtMost(1.2))),
    Spec::row("live_p99_alone_ms", "  alone, ms", Dead, None),
    Spec::row("live_p99_beside_dead_ms", "  beside it, ms", Dead, None),
];

/// What one run found, by row.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a figure.
    pub fn set(&mut self, key: &'static str, figure: f64) {
        debug_assert!(ROWS.iter().any(|row| row.key == key), "{key} is no row");
        self.0.insert(key, figure);
    }

    /// Notes a figure that the system may not tell.
    pub fn set_some(&mut self, key: &'static str, figure: Option<f64>) {
        if let Some(figure) = figure {
            self.set(key, figure);
        }
    }

    /// A figure, if it was found.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).copied()
    }
}
