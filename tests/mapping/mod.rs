//! The mapping language from outside: cases as data, the pages of the docs, and bounds.
//!
//! `cases/*.toml` are found by folder. A case has the rows (`fields`, or a whole `mapping` as JSON), an `event`, and what comes
//! of it: the `output` to the byte, the `error`, or the `faults` of the mapping.

mod cases;
mod docs;
mod soundness;

use patchbay::domain::time::Timestamp;
use patchbay::mapping::Context;
use serde_json::Value;

/// The context that the event itself tells, at a fixed moment.
fn context(event: &Value) -> Context<'_> {
    let text =
        |key: &str, otherwise: &'static str| event.get(key).and_then(Value::as_str).unwrap_or(otherwise);
    Context {
        event_id: text("id", "evt_1"),
        event_type: text("type", "lead.captured"),
        event_time: text("time", "2026-05-03T14:22:08Z"),
        source: event.get("source").and_then(Value::as_str),
        tenant_id: text("tenant", "acme"),
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now: Timestamp::from_millis(1_777_818_128_000),
    }
}
