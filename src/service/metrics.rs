//! What the gateway counts, for Prometheus. Labels come from closed sets: no tenant, connection, type or URL.

mod flow;
#[cfg(test)]
mod tests;

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::job::Outcome;
use crate::domain::time::Timestamp;
use crate::store::Stats;
use flow::Flow;
pub use flow::{InFlight, Shed, Told};

/// What came of an event that was sent to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taken {
    /// Stored.
    Accepted,
    /// Stored before.
    Duplicate,
    /// Not what it should be.
    Invalid,
    /// Its id or its request's key stood for something else before.
    Conflict,
    /// Over the tenant's rate.
    RateLimited,
    /// The tenant has as many open jobs as it may.
    QueueFull,
    /// The store did not take it.
    Unavailable,
}

impl Taken {
    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What came of a request to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Received {
    /// Its events were stored.
    Accepted,
    /// It was taken before.
    Duplicate,
    /// Acknowledged; there was nothing to take.
    Ignored,
    /// Only asked who we are.
    Handshake,
    /// Not verified.
    Unverified,
    /// Verified, and not understood.
    Invalid,
    /// Over the source's or the tenant's rate.
    RateLimited,
    /// The store did not take it, or the source can't.
    Unavailable,
    /// For a source that is not there.
    Unknown,
}

impl Received {
    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Handshake => "handshake",
            Self::Unverified => "unverified",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown_source",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    connector: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The registry and what is in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What the store counts; it is left out of an answer for which the store did not tell.
    counted: Registry,
    /// Held while gauges are set and written out, so that two scrapes don't mix.
    scrape: Mutex<()>,
    events: Family<EventLabels, Counter>,
    received: Family<EventLabels, Counter>,
    deliveries: Family<AttemptLabels, Counter>,
    attempt_seconds: Histograms<OutcomeLabels>,
    under_way: Gauge,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabels>,
    queue_depth: Gauge,
    leased: Gauge,
    oldest_seconds: Gauge,
    lanes: Family<LaneLabels, Gauge>,
    store_up: Gauge,
    alerts: Family<AlertLabels, Counter>,
    sheets_nearly_full: Counter,
    keys_refused: Counter,
    reloads: Family<ReloadLabels, Counter>,
    catalogue_faults: Gauge,
    /// What flows through, and what is turned away.
    pub flow: Flow,
}

/// One attempt under way.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn attempt_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0,
    ])
}

fn request_buckets() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("patchbay");
        let events = Family::<EventLabels, Counter>::default();
        let received = Family::<EventLabels, Counter>::default();
        let deliveries = Family::<AttemptLabels, Counter>::default();
        let attempt_seconds: Histograms<OutcomeLabels> = Family::new_with_constructor(attempt_buckets);
        let under_way = Gauge::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let request_seconds: Histograms<RouteLabels> = Family::new_with_constructor(request_buckets);
        let (queue_depth, leased, oldest_seconds, store_up) = Default::default();
        let lanes = Family::<LaneLabels, Gauge>::default();
        let (sheets_nearly_full, keys_refused) = (Counter::default(), Counter::default());
        let alerts = Family::<AlertLabels, Counter>::default();
        registry.register("alerts", "Alerts sent, by their type", alerts.clone());
        registry.register(
            "sheets_nearly_full",
            "Looks at a Google sheet that found nine tenths of its cells in use",
            sheets_nearly_full.clone(),
        );
        registry.register(
            "service_account_keys_refused",
            "Keys of Google service accounts that were refused, and paused their connections",
            keys_refused.clone(),
        );
        registry.register("events", "Events sent to the gateway, by result", events.clone());
        registry.register("received", "Requests to sources, by result", received.clone());
        registry.register("attempts", "Delivery attempts, by connector and outcome", deliveries.clone());
        registry.register_with_unit(
            "attempt_duration",
            "How long a delivery attempt took, by outcome",
            Unit::Seconds,
            attempt_seconds.clone(),
        );
        registry.register(
            "attempts_under_way",
            "Attempts that this process has under way",
            Gauge::clone(&under_way),
        );
        registry.register("http_requests", "Requests answered, by route and status class", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "How long a request took, by route",
            Unit::Seconds,
            request_seconds.clone(),
        );
        registry.register(
            "store_up",
            "1 when the store could be written to at this scrape",
            Gauge::clone(&store_up),
        );
        let mut counted = Registry::with_prefix("patchbay");
        counted.register("queue_depth", "Open jobs, those under way included", Gauge::clone(&queue_depth));
        counted.register("jobs_leased", "Jobs under way", Gauge::clone(&leased));
        counted.register_with_unit(
            "oldest_job_age",
            "How long the oldest open job has waited; 0 when there is none",
            Unit::Seconds,
            Gauge::clone(&oldest_seconds),
        );
        counted.register("lanes", "Lanes that hold open jobs, by state", lanes.clone());
        let reloads = Family::<ReloadLabels, Counter>::default();
        let catalogue_faults = Gauge::default();
        registry.register(
            "catalogue_reloads",
            "How often connector and mapping files were read again, by whether they are in force",
            reloads.clone(),
        );
        registry.register(
            "catalogue_faults",
            "Faults of the files on the disk that keep them from being in force; 0 when they are",
            Gauge::clone(&catalogue_faults),
        );
        let flow = Flow::registered(&mut registry);
        Self {
            registry,
            counted,
            scrape: Mutex::default(),
            events,
            received,
            deliveries,
            attempt_seconds,
            under_way,
            requests,
            request_seconds,
            queue_depth,
            leased,
            oldest_seconds,
            lanes,
            store_up,
            alerts,
            sheets_nearly_full,
            keys_refused,
            reloads,
            catalogue_faults,
            flow,
        }
    }
}

impl Metrics {
    /// Counts `count` events that were sent to us.
    pub fn events(&self, result: Taken, count: usize) {
        if count > 0 {
            self.events.get_or_create(&EventLabels { result: result.name() }).inc_by(count as u64);
        }
    }

    /// Counts one request to a source.
    pub fn received(&self, result: Received) {
        self.received.get_or_create(&EventLabels { result: result.name() }).inc();
    }

    /// Counts one delivery attempt. `connector` is of the catalogue, or empty where it is not known.
    pub fn attempt(&self, connector: &str, outcome: Outcome, took: Duration) {
        let labels = AttemptLabels { connector: connector.to_owned(), outcome: outcome.name() };
        self.deliveries.get_or_create(&labels).inc();
        let labels = OutcomeLabels { outcome: outcome.name() };
        self.attempt_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an attempt as under way until what is answered is dropped, however the attempt ends.
    pub fn under_way(&self) -> UnderWay<'_> {
        self.under_way.inc();
        UnderWay(&self.under_way)
    }

    /// Counts one request to us. `route` is the route's template, never a request's path.
    pub fn request(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let status = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
        self.request_seconds.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// An alert was sent; `kind` is one of a few types.
    pub fn alert(&self, kind: &'static str) {
        self.alerts.get_or_create(&AlertLabels { kind }).inc();
    }

    /// A Google sheet was seen to be nearly full.
    pub fn sheet_nearly_full(&self) {
        self.sheets_nearly_full.inc();
    }

    /// A service account's key was refused.
    pub fn key_refused(&self) {
        self.keys_refused.inc();
    }

    /// Counts one reload of the catalogue; `faults` keep it from being in force.
    pub fn reload(&self, faults: usize) {
        let result = if faults == 0 { "done" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.catalogue_faults.set(count(faults as u64));
    }

    /// All of it as `OpenMetrics` text. `stats` is `None` when the store did not give any: its counts are then left out, for
    /// one of before would be taken for one of now. `store_up` is whether it can be written to.
    pub fn expose(&self, stats: Option<&Stats>, store_up: bool, now: Timestamp) -> String {
        let _one_at_a_time = self.scrape.lock();
        self.store_up.set(i64::from(store_up));
        if let Some(stats) = stats {
            self.queue_depth.set(count(stats.open));
            self.leased.set(count(stats.leased));
            let age = stats.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
            self.oldest_seconds.set(count(age.as_secs()));
            let lanes = &stats.lanes;
            for (state, number) in [
                ("ready", lanes.ready),
                ("waiting", lanes.waiting),
                ("full", lanes.full),
                ("paused", lanes.paused),
            ] {
                self.lanes.get_or_create(&LaneLabels { state }).set(count(number));
            }
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        if stats.is_some() {
            let _ = encode_registry(&mut text, &self.counted);
        }
        let _ = encode_eof(&mut text);
        text
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
