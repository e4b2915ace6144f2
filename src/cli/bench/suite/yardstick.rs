//! How fast the machine's processor is today, by work that no version of the gateway changes: figures of two days are
//! compared by it.

use std::time::Instant;

use serde_json::Value;

/// Rounds that are timed, the fastest of which counts: what else the machine does only adds to them.
const ROUNDS: u32 = 50;
/// Events in a round.
const EVENTS: u32 = 200;
/// Of about 600 bytes, as the events that are sent.
const FIELDS: usize = 20;

/// Microseconds to read an event into a tree of values and to write it again, on one processor.
pub fn us() -> f64 {
    let fields =
        (0..FIELDS).map(|at| (format!("field_{at}"), Value::from(format!("value {at} of an event"))));
    let text = Value::Object(fields.collect()).to_string();
    let mut fastest = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..EVENTS {
            let event: Value = serde_json::from_str(std::hint::black_box(&text)).unwrap_or_default();
            std::hint::black_box(event.to_string());
        }
        fastest = fastest.min(began.elapsed().as_secs_f64() * 1_000_000.0 / f64::from(EVENTS));
    }
    fastest
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_takes_time() {
        let us = super::us();
        assert!(us > 0.1 && us < 10_000.0, "{us}");
    }
}
