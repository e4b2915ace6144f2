//! More than a gateway can take: it turns away at the door, says when to come again, and stays small.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::process::{Door, Process, client, resident_kib};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{is_soak, within};

fn started(settings: &[(&str, &str)]) -> (tempfile::TempDir, Door, Process) {
    let (folder, door) = (tempfile::tempdir().unwrap(), Door::default());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let process = Process::start_with(folder.path(), &door, &settings);
    (folder, door, process)
}

fn event(id: &str, size: usize) -> String {
    json!({"tenant": "acme", "type": "x", "id": id, "data": "x".repeat(size)}).to_string()
}

/// Begins a request with the first `sent` bytes of a body.
async fn begin(door: &Door, body: &str, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(door.address()).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        door.key(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..sent]).await.unwrap();
    stream
}

async fn end(stream: &mut TcpStream, body: &str, sent: usize) -> String {
    stream.write_all(&body.as_bytes()[sent..]).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn metrics(door: &Door) -> String {
    client().get(format!("http://{}/metrics", door.address())).send().await.unwrap().text().await.unwrap()
}

/// Waits until so many requests that were begun are under way: another one before them would be taken in their place.
async fn wait_until_begun(door: &Door, requests: usize) {
    let line = format!("\npatchbay_http_requests_in_flight {}\n", requests + 1);
    within(&format!("{requests} requests under way, and the one that asks"), async {
        while !metrics(door).await.contains(&line) {}
    })
    .await;
}

/// Sends one event until it is answered with this status and code.
async fn wait_until_refused(door: &Door, size: usize, code: &str) {
    let client = client();
    within(&format!("a refusal as {code}"), async {
        loop {
            let url = format!("http://{}/v1/events", door.address());
            let request = client
                .post(url)
                .header("authorization", format!("Bearer {}", door.key()))
                .header("content-type", "application/json")
                .body(event("probe", size));
            let answer = request.send().await.unwrap();
            let (status, after) = (answer.status(), answer.headers().get("retry-after").cloned());
            let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            if body["code"] == code {
                assert_eq!((status.as_u16(), after.unwrap().to_str().unwrap()), (503, "1"), "{body}");
                return;
            }
            assert_eq!(status.as_u16(), 202, "{body}");
        }
    })
    .await;
}

async fn make_tenant(door: &Door) {
    let made = door.call(&client(), "POST", "/v1/tenants", Some(&json!({"id": "acme"}))).await;
    assert_eq!(made.unwrap().0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_be_under_way_are_turned_away_and_probes_are_not() {
    let (_folder, door, _process) = started(&[("PATCHBAY_LIMITS_REQUESTS_IN_FLIGHT", "2")]);
    make_tenant(&door).await;
    let (one, two) = (event("one", 10), event("two", 10));
    let mut first = begin(&door, &one, 5).await;
    let mut second = begin(&door, &two, 5).await;
    wait_until_begun(&door, 2).await;
    wait_until_refused(&door, 1, "busy").await;
    let text = metrics(&door).await;
    assert!(text.contains("patchbay_shed_total{reason=\"requests\"}"), "{text}");
    assert!(text.contains("\npatchbay_http_requests_in_flight 3\n"), "two, and the one that asks: {text}");
    for (stream, body) in [(&mut first, &one), (&mut second, &two)] {
        let answer = end(stream, body, 5).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    let (status, _) = door
        .call(&client(), "POST", "/v1/events", Some(&json!({"tenant": "acme", "type": "x", "data": 1})))
        .await
        .unwrap();
    assert_eq!(status, 202, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_may_be_in_memory_are_turned_away() {
    let (_folder, door, _process) =
        started(&[("PATCHBAY_LIMITS_BODY_BYTES", "65536"), ("PATCHBAY_LIMITS_BYTES_IN_FLIGHT", "65536")]);
    make_tenant(&door).await;
    let body = event("one", 40_000);
    let mut slow = begin(&door, &body, body.len() - 1).await;
    wait_until_begun(&door, 1).await;
    wait_until_refused(&door, 40_000, "busy_bytes").await;
    let answer = end(&mut slow, &body, body.len() - 1).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let (status, _) = door
        .call(&client(), "POST", "/v1/events", Some(&serde_json::from_str(&event("two", 40_000)).unwrap()))
        .await
        .unwrap();
    assert_eq!(status, 202, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_as_many_jobs_waiting_as_it_may_is_refused_until_they_are_delivered() {
    const MOST: usize = 20;
    let (_folder, door, _process) = started(&[("PATCHBAY_LIMITS_JOBS_PER_TENANT", "20")]);
    let (receiver, client) = (Receiver::start().await, client());
    receiver.otherwise(Reply::status(503));
    make_tenant(&door).await;
    let connection = json!({"tenant": "acme", "name": "all", "connector": "webhook", "events": ["*"],
        "policy": {"retry_delays_secs": [1, 1, 1, 1, 1, 1, 1, 1], "breaker_failures": 1000},
        "target": {"url": receiver.url}});
    let (status, made) = door.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
    assert_eq!(status, 201, "{made}");
    let mut taken = 0;
    let event = json!({"tenant": "acme", "type": "x", "data": 1});
    let headers = within("a refusal", async {
        loop {
            let (status, headers, body) = door.ask(&client, "/v1/events", &event).await.unwrap();
            if status == 202 {
                taken += 1;
                continue;
            }
            assert_eq!((status, body["code"].as_str()), (429, Some("queue_full")), "{body}");
            return headers;
        }
    })
    .await;
    assert!(taken >= MOST, "{taken}");
    assert!(headers.contains_key("retry-after"));
    // Another tenant is not touched by it.
    assert_eq!(
        door.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "globex"}))).await.unwrap().0,
        201
    );
    let other = json!({"tenant": "globex", "type": "x", "data": 1});
    assert_eq!(door.call(&client, "POST", "/v1/events", Some(&other)).await.unwrap().0, 202);
    receiver.otherwise(Reply::status(200));
    within("room again", async {
        while door.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap().0 != 202 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_the_bounds_are_refused() {
    let (_folder, door, _process) = started(&[]);
    let ask = async |bytes: usize| {
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        let head = format!(
            "GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\nconnection: close\r\n\r\n",
            "x".repeat(bytes)
        );
        // A server that has heard enough closes, and the rest can't be written.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    };
    let answer = ask(40_000).await;
    assert!(
        answer.starts_with("HTTP/1.1 431") && answer.contains("\"code\":\"headers_too_large\""),
        "{answer}"
    );
    // Far beyond that it is not read at all: refused without a body, or cut off.
    let answer = ask(4_000_000).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(ask(10).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little_and_hold_back_nobody() {
    // Each is a file here and one there.
    let count: u32 = if is_soak() { 10_000 } else { 1_000 };
    let (_folder, door, process) = started(&[]);
    make_tenant(&door).await;
    let before = resident_kib(process.id());
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        // Half of a request: the worst that an idle one can be.
        stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        idle.push(stream);
    }
    let event = json!({"tenant": "acme", "type": "x", "data": 1});
    for _ in 0..20 {
        assert_eq!(door.call(&client(), "POST", "/v1/events", Some(&event)).await.unwrap().0, 202);
    }
    let each = resident_kib(process.id()).saturating_sub(before) * 1_024 / u64::from(count);
    println!(
        "{count} idle connections: {each} bytes each, {} MiB in all",
        resident_kib(process.id()) / 1_024
    );
    assert!(each < 40_000, "{each} bytes each");
    drop(idle);
    assert_eq!(door.call(&client(), "POST", "/v1/events", Some(&event)).await.unwrap().0, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_endpoints_never_answer_holds_back_no_other() {
    // Four places, and twelve aside: fewer than the silent attempts that the tenant could make.
    let (_folder, door, _process) = started(&[("PATCHBAY_DELIVERY_CONCURRENCY", "4")]);
    let (silent, receiver, client) = (Receiver::start().await, Receiver::start().await, client());
    silent.otherwise(Reply::Silence);
    make_tenant(&door).await;
    assert_eq!(
        door.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "globex"}))).await.unwrap().0,
        201
    );
    let connect = async |tenant: &str, number: usize, url: &str| {
        let connection = json!({"tenant": tenant, "name": number.to_string(), "connector": "webhook",
            "events": ["*"], "policy": {"timeout_secs": 60}, "target": {"url": url}});
        let (status, made) = door.call(&client, "POST", "/v1/connections", Some(&connection)).await.unwrap();
        assert_eq!(status, 201, "{made}");
    };
    for number in 0..20 {
        connect("acme", number, &silent.url).await;
    }
    connect("globex", 0, &receiver.url).await;
    let publish = async |tenant: &str| {
        let event = json!({"tenant": tenant, "type": "x", "data": 1});
        assert_eq!(door.call(&client, "POST", "/v1/events", Some(&event)).await.unwrap().0, 202);
    };
    publish("acme").await;
    // Its share is used up: the rest of its jobs waits.
    within("jobs that wait for others of their tenant", async {
        let throttled = async || {
            let text = metrics(&door).await;
            text.lines().find_map(|line| line.strip_prefix("patchbay_throttled_total ")?.parse::<u64>().ok())
        };
        while throttled().await.is_none_or(|count| count == 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(silent.count() < 16, "{} of 16 places", silent.count());
    publish("globex").await;
    // Long before the silent attempts end.
    receiver.wait_for(1).await;
}
