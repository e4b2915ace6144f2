//! Traces as a collector sees them: one from the caller through the request that brings an event to each attempt, over two
//! processes; and what is left of them without a collector.

use std::collections::BTreeMap;
use std::time::Duration;

use patchbay::domain::trace::TraceContext;
use serde_json::{Value, json};

use crate::support::process::{Door, Process, client};
use crate::support::receiver::{Receiver, Reply};
use crate::support::redis::Server;
use crate::support::within;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const CANARY: &str = "canary-5d1f";

/// Makes the tenant and a connection whose first retry comes soon.
async fn connect(door: &Door, client: &reqwest::Client, url: &str) -> String {
    let made = door.call(client, "POST", "/v1/tenants", Some(&json!({"id": CANARY}))).await;
    assert_eq!(made.unwrap().0, 201);
    let connection = json!({"tenant": CANARY, "name": "all", "connector": "webhook", "events": ["*"],
        "mapping": {"version": 1, "fields": [{"to": "id", "from": "$.id"}]},
        "policy": {"retry_delays_secs": [1]}, "target": {"url": url}});
    let made = door.call(client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    assert_eq!(made.0, 201, "{}", made.1);
    made.1["id"].as_str().unwrap().to_owned()
}

/// Sends one event with this `traceparent`.
async fn publish(door: &Door, client: &reqwest::Client, id: &str, traceparent: Option<&str>) {
    assert_eq!(send(door, client, "/v1/events", id, traceparent).await, 202);
}

/// Sends one event to a path; the answer's status.
async fn send(door: &Door, client: &reqwest::Client, path: &str, id: &str, traceparent: Option<&str>) -> u16 {
    let event = json!({"tenant": CANARY, "type": "lead.captured", "id": id,
                       "data": {"email": format!("{CANARY}@example.com")}});
    let mut request = client
        .post(format!("http://{}{path}", door.address()))
        .header("authorization", format!("Bearer {}", door.key()))
        .header("content-type", "application/json")
        .body(event.to_string());
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    request.send().await.unwrap().status().as_u16()
}

/// Every span that came to a collector, by its id.
fn spans(collector: &Receiver) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for arrival in collector.arrivals() {
        assert_eq!((arrival.path.as_str(), arrival.header("x-key")), ("/v1/traces", "secret-17"));
        for span in arrival.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap() {
            all.insert(span["spanId"].as_str().unwrap().to_owned(), span.clone());
        }
    }
    all
}

fn attribute(span: &Value, key: &str) -> Option<Value> {
    let attributes = span["attributes"].as_array()?;
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next().cloned()
}

/// Waits for so many spans of attempts.
async fn attempts(collector: &Receiver, count: usize) -> Vec<Value> {
    within(&format!("{count} attempts at the collector"), async {
        loop {
            let found: Vec<Value> =
                spans(collector).into_values().filter(|span| span["name"] == "attempt").collect();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn telemetry(collector: &Receiver) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.trim_end_matches('/').to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret-17".to_owned()),
    ]
}

/// What must hold of the trace of one event that was tried twice: the first time in vain.
async fn check(door: &Door, receiver: &Receiver, collector: &Receiver) {
    let client = client();
    connect(door, &client, &receiver.url).await;
    receiver.script([Reply::status(503)]);
    publish(door, &client, "lead-1", Some(CALLER)).await;
    let arrivals = receiver.wait_for(2).await;
    let mut attempts = attempts(collector, 2).await;
    attempts.sort_by_key(|span| attribute(span, "patchbay.attempt").map(|number| number.to_string()));
    let all = spans(collector);
    let caller: TraceContext = CALLER.parse().unwrap();
    let ingest = all.values().find(|span| span["name"] == "ingest").expect("the request's span");
    assert_eq!(ingest["parentSpanId"], format!("{:016x}", caller.span));
    for ((span, arrival), outcome) in attempts.iter().zip(&arrivals).zip(["retry", "delivered"]) {
        assert_eq!(span["traceId"], format!("{:032x}", caller.trace));
        assert_eq!(span["parentSpanId"], ingest["spanId"], "an attempt is a child of its event's request");
        let told: TraceContext = arrival.header("traceparent").parse().unwrap();
        assert_eq!(span["spanId"], format!("{:016x}", told.span), "the endpoint is told the attempt");
        assert!(told.sampled && told.trace == caller.trace);
        assert_eq!(attribute(span, "patchbay.outcome"), Some(json!(outcome)));
        assert_eq!(attribute(span, "patchbay.connector"), Some(json!("webhook")));
        let nanos = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
    }
    assert_eq!((&attempts[0]["status"]["code"], attempts[1].get("status")), (&json!(2), None));
    assert_eq!(arrivals[0].body, arrivals[1].body, "the bytes of the body are the same");

    // Who does not record gets his own back, and no span is told of it.
    publish(door, &client, "lead-2", Some(UNSAMPLED)).await;
    assert_eq!(receiver.wait_for(3).await[2].header("traceparent"), UNSAMPLED);
    // Without a caller a trace begins here.
    publish(door, &client, "lead-3", None).await;
    let third: TraceContext = receiver.wait_for(4).await[3].header("traceparent").parse().unwrap();
    // The spans of two processes come in any order.
    within("all spans", async {
        while spans(collector).len() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let all = spans(collector);
    let attempt = &all[&format!("{:016x}", third.span)];
    let root = &all[attempt["parentSpanId"].as_str().unwrap()];
    assert_eq!((&root["name"], root.get("parentSpanId")), (&json!("ingest"), None));
    assert_eq!(all.len(), 5, "{all:?}");
    let told: String = collector.arrivals().iter().map(|arrival| arrival.json().to_string()).collect();
    assert!(!told.contains(CANARY) && !told.contains(&receiver.url), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_caller_to_each_attempt_on_the_embedded_store() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let _process = Process::start_with(folder.path(), &door, &telemetry(&collector));
    check(&door, &receiver, &collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_caller_to_each_attempt_over_two_processes_on_redis() {
    let server = Server::start();
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let door = Door::default();
    let settings = telemetry(&collector);
    let _api = Process::start_on_with(&server.url(), first.path(), &door, &settings, &["--role", "api"]);
    let _worker = Process::start_on_with(
        &server.url(),
        second.path(),
        &door.beside(),
        &settings,
        &["--role", "worker"],
    );
    check(&door, &receiver, &collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_part_of_its_callers_trace() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let (receiver, collector, client) = (Receiver::start().await, Receiver::start().await, client());
    let _process = Process::start_with(folder.path(), &door, &telemetry(&collector));
    let id = connect(&door, &client, &receiver.url).await;
    let path = format!("/v1/connections/{id}/trigger");
    assert_eq!(send(&door, &client, &path, "lead-1", Some(CALLER)).await, 200);
    let told: TraceContext = receiver.wait_for(1).await[0].header("traceparent").parse().unwrap();
    let attempt = attempts(&collector, 1).await.remove(0);
    let caller: TraceContext = CALLER.parse().unwrap();
    assert_eq!((&attempt["traceId"], told.trace), (&json!(format!("{:032x}", caller.trace)), caller.trace));
    assert_eq!(attempt["spanId"], format!("{:016x}", told.span));
    let all = spans(&collector);
    let ingest = &all[attempt["parentSpanId"].as_str().unwrap()];
    assert_eq!(ingest["parentSpanId"], format!("{:016x}", caller.span));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_callers_traceparent_is_passed_on_and_nothing_else_is() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let (receiver, client) = (Receiver::start().await, client());
    let _process = Process::start_with(folder.path(), &door, &[]);
    connect(&door, &client, &receiver.url).await;
    publish(&door, &client, "lead-1", Some(CALLER)).await;
    assert_eq!(receiver.wait_for(1).await[0].header("traceparent"), CALLER);
    publish(&door, &client, "lead-2", None).await;
    publish(&door, &client, "lead-3", Some("nonsense")).await;
    let arrivals = receiver.wait_for(3).await;
    assert!(arrivals[1..].iter().all(|arrival| !arrival.headers.contains_key("traceparent")));
    let (_, event) =
        door.call(&client, "GET", &format!("/v1/events/lead-2?tenant={CANARY}"), None).await.unwrap();
    assert_eq!(event["event"].get("traceparent"), None, "an event of no trace keeps nothing of one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_back_nothing() {
    const EVENTS: usize = 200;
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let (receiver, collector, client) = (Receiver::start().await, Receiver::start().await, client());
    collector.otherwise(Reply::Silence);
    let process = Process::start_with(folder.path(), &door, &telemetry(&collector));
    connect(&door, &client, &receiver.url).await;
    for number in 0..EVENTS {
        publish(&door, &client, &format!("lead-{number}"), None).await;
    }
    receiver.wait_for(EVENTS).await;
    collector.wait_for(1).await;
    // Nor does it keep the process from ending: the collector is asked for a few seconds, and the drain takes 2.
    process.terminate();
    let ended = within("the end", tokio::task::spawn_blocking(move || process.wait())).await.unwrap();
    assert_eq!(ended, Some(0));
}
