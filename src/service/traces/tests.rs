use super::*;
use crate::domain::id::EventKey;
use crate::domain::time::Timestamp;

fn traces(clock: &Clock, sample_percent: u8) -> Traces {
    // Nothing listens on port 1.
    let url = "http://127.0.0.1:1/v1/traces".parse().unwrap();
    let settings = TraceSettings { url, headers: Vec::new(), sample_percent, names_tenants: false };
    Traces::new(Some(&settings), clock, &Entropy::seeded(1)).unwrap()
}

fn event(trace: Option<TraceContext>) -> Event {
    let mut document = serde_json::json!({"id": "1"});
    if let Some(trace) = trace {
        document["traceparent"] = trace.to_string().into();
    }
    Event {
        key: EventKey::from_bits(1),
        id: "1".to_owned(),
        kind: "lead.captured".to_owned(),
        tenant: "acme".parse().unwrap(),
        source: None,
        received: Timestamp::default(),
        document: document.into(),
    }
}

fn brought() -> Brought<'static> {
    Brought { tenant: None, events: 1, jobs: 1, failed: false }
}

fn counted(metrics: &Metrics, result: &str) -> u64 {
    let text = metrics.expose(None, true, Timestamp::default());
    let name = format!("patchbay_spans_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

const CALLER: TraceContext = TraceContext { trace: 7, span: 8, sampled: true };

#[test]
fn a_span_is_a_child_of_what_came_and_is_passed_on() {
    let clock = Clock::manual(Timestamp::from_millis(1));
    let traces = traces(&clock, 0);
    let request = traces.begin_request(Some(CALLER)).unwrap();
    assert_eq!((request.context.trace, request.parent), (7, Some(8)));
    let event = event(Some(request.context()));
    let attempt = traces.begin_attempt(&event).unwrap();
    assert_eq!((attempt.context.trace, attempt.parent), (7, Some(request.context.span)));
    assert_eq!(traceparent(Some(&attempt), &event).unwrap(), attempt.context.to_string());
    let again = traces.begin_attempt(&event).unwrap();
    assert_ne!(attempt.context.span, again.context.span, "each attempt is a span of its own");
}

#[test]
fn what_its_caller_does_not_record_is_passed_on_as_it_came() {
    let clock = Clock::manual(Timestamp::from_millis(1));
    let unsampled = TraceContext { sampled: false, ..CALLER };
    for (traces, caller) in [(traces(&clock, 100), unsampled), (Traces::default(), CALLER)] {
        assert!(traces.begin_request(Some(caller)).is_none());
        let event = event(Some(caller));
        assert!(traces.begin_attempt(&event).is_none());
        assert_eq!(traceparent(None, &event).unwrap(), caller.to_string());
    }
    assert!(traceparent(None, &event(None)).is_none());
}

#[test]
fn of_traces_that_begin_here_so_many_are_recorded() {
    let clock = Clock::manual(Timestamp::from_millis(1));
    for (percent, least, most) in [(0, 0, 0), (25, 150, 350), (100, 1_000, 1_000)] {
        let traces = traces(&clock, percent);
        let recorded = (0..1_000).filter(|_| traces.begin_request(None).is_some()).count();
        assert!((least..=most).contains(&recorded), "{percent}: {recorded}");
    }
}

#[test]
fn a_full_queue_drops_spans_and_counts_them() {
    let clock = Clock::manual(Timestamp::from_millis(1));
    let (traces, metrics) = (traces(&clock, 100), Metrics::default());
    for _ in 0..QUEUE + 3 {
        traces.end_request(traces.begin_request(None), brought(), &metrics);
    }
    assert_eq!(counted(&metrics, "dropped"), 3);
}

#[tokio::test]
async fn what_a_collector_does_not_take_is_tried_again_and_then_dropped() {
    let clock = Clock::manual(Timestamp::from_millis(1));
    let (traces, metrics) = (traces(&clock, 100), Metrics::default());
    traces.end_request(traces.begin_request(None), brought(), &metrics);
    let export = traces.export(&metrics);
    let passing = async {
        while counted(&metrics, "dropped") == 0 {
            clock.advance(PAUSES.1);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = export => panic!("it ended by itself"),
        () = passing => {}
    }
    assert_eq!((counted(&metrics, "dropped"), counted(&metrics, "exported")), (1, 0));
}

#[test]
fn a_caller_has_one_traceparent_or_none() {
    let mut headers = HeaderMap::new();
    assert_eq!(caller(&headers), None);
    headers.append(TRACEPARENT, CALLER.to_string().parse().unwrap());
    assert_eq!(caller(&headers), Some(CALLER));
    headers.append(TRACEPARENT, CALLER.to_string().parse().unwrap());
    assert_eq!(caller(&headers), None);
}
