//! What flows through the gateway and what it turns away: jobs that end, retries, turns, shed requests, requests in flight,
//! spans.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::job::JobState;
use crate::domain::settle::Next;

/// Why a request was turned away at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shed {
    /// As many requests as may be are under way.
    Requests,
    /// As many bytes of bodies as may be are in memory.
    Bytes,
    /// The store has as much to write as may wait.
    Store,
    /// The tenant has as many open jobs as it may.
    Queue,
    /// More than a tenant, a source or a visitor may send.
    Rate,
}

impl Shed {
    /// Its label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Store => "store",
            Self::Queue => "queue",
            Self::Rate => "rate",
        }
    }
}

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// The collector took it.
    Exported,
    /// Nobody will see it.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// These counters and gauges.
#[derive(Debug, Default)]
pub struct Flow {
    ended: Family<StateLabels, Counter>,
    retries: Counter,
    throttled: Counter,
    shed: Family<ReasonLabels, Counter>,
    spans: Family<ResultLabels, Counter>,
    requests: Gauge,
}

/// One request under way.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Flow {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let flow = Self::default();
        registry.register("jobs_ended", "Jobs that ended, by the state they ended in", flow.ended.clone());
        registry.register("retries", "Attempts that another one was set down for", flow.retries.clone());
        registry.register(
            "throttled",
            "Times that a job went back untried because its connection had no turn",
            flow.throttled.clone(),
        );
        registry.register("shed", "Requests turned away at the door, by what was full", flow.shed.clone());
        registry.register("spans", "Spans of traces, by whether the collector took them", flow.spans.clone());
        registry.register(
            "http_requests_in_flight",
            "Requests that this process has under way",
            Gauge::clone(&flow.requests),
        );
        flow
    }

    /// Counts what follows from an attempt.
    pub fn follows(&self, next: &Next) {
        match next {
            Next::Done(state) => self.ended(*state),
            Next::Due(_) => {
                self.retries.inc();
            }
            Next::Requeue => {}
        }
    }

    /// Counts a job that ended.
    pub fn ended(&self, state: JobState) {
        self.ended.get_or_create(&StateLabels { state: state.name() }).inc();
    }

    /// Counts a job that had no turn.
    pub fn throttled(&self) {
        self.throttled.inc();
    }

    /// Counts a request that was turned away.
    pub fn shed(&self, why: Shed) {
        self.shed.get_or_create(&ReasonLabels { reason: why.name() }).inc();
    }

    /// Counts spans that were told, or not.
    pub fn spans(&self, told: Told, count: usize) {
        let result = if told == Told::Exported { "exported" } else { "dropped" };
        self.spans.get_or_create(&ResultLabels { result }).inc_by(count as u64);
    }

    /// Counts a request as under way until what is answered is dropped.
    pub fn request(&self) -> InFlight<'_> {
        self.requests.inc();
        InFlight(&self.requests)
    }
}
