//! Limits: how often a connection is tried, and how much a tenant may send, over all processes.

use std::time::{Duration, Instant};

use patchbay::domain::job::JobState;
use patchbay::service::ServiceError;
use patchbay::store::Delivery;
use serde_json::json;

use crate::delivery::lead;
use crate::support::fleet::Fleet;
use crate::support::gateway::TestGateway;
use crate::support::process::{Door, Process, client};
use crate::support::receiver::Receiver;
use crate::support::redis::Server;
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_sends_a_burst_and_then_as_many_as_its_rate_and_spends_no_attempt_on_waiting() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let limited = json!({"policy": {"per_second": 5, "burst": 3}});
    let (connection, _) = app.connection(&tenant, &receiver.url, limited).await;
    let other = Receiver::start().await;
    let (free, _) = app.connection(&tenant, &other.url, json!({})).await;
    for number in 0..10 {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
    }
    // The clock stands still: no more than the burst can go.
    receiver.wait_for(3).await;
    let waiting = within("a job that waits for its turn", async {
        loop {
            let found = app.deliveries(connection).await;
            let waits = |found: &Delivery| found.state == JobState::Queued && !found.reason.is_empty();
            if let Some(found) = found.into_iter().find(waits) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(waiting.reason.ends_with("its turn: its policy allows 5 requests a second"), "{waiting:?}");
    assert_eq!((waiting.job.tries, waiting.job.attempts), (0, 0));
    app.wait_until_settled(free, 10).await;
    assert_eq!(receiver.arrivals().len(), 3);

    // A test and a trigger take turns too, and are told when to come again.
    let Err(ServiceError::Throttled(wait, _)) = app.gateway.try_connection(Some(&tenant), connection).await
    else {
        panic!("a test was sent over the rate")
    };
    assert_eq!(wait, Duration::from_millis(200));
    assert_eq!(receiver.arrivals().len(), 3);

    // As time goes on so many more, and at no time more than that.
    let mut passed = 0;
    within("the others", async {
        while receiver.arrivals().len() < 10 {
            let arrived = receiver.arrivals().len();
            assert!(arrived <= 3 + passed / 200, "{arrived} after {passed} ms");
            app.clock.advance(Duration::from_millis(20));
            passed += 20;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    app.wait_until_settled(connection, 10).await;
    for delivery in app.deliveries(connection).await {
        assert_eq!((delivery.job.tries, delivery.job.attempts), (1, 1), "waiting spends no attempt");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_connections_rate() {
    const EVENTS: usize = 160;
    let mut fleet = Fleet::on(Server::start()).await;
    let first = fleet.start(&[]);
    let second = fleet.start(&[]);
    let door = first.door().clone();
    let ids = fleet.connect(&door, 1).await;
    let policy = json!({"policy": {"per_second": 40, "burst": 40}});
    let path = format!("/v1/connections/{}", ids[0]);
    assert_eq!(fleet.call(&door, "PATCH", &path, Some(&policy)).await.0, 200);
    within("the second process to know the policy", async {
        while fleet.call(second.door(), "GET", &path, None).await.1["policy"]["per_second"] != 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let began = Instant::now();
    let load = fleet.load(std::slice::from_ref(&door), 0..EVENTS).await;
    load.finish().await;
    fleet.wait_until_settled(&door).await;
    let arrivals = fleet.receiver.arrivals();
    assert_eq!(arrivals.len(), EVENTS);
    let took = arrivals[EVENTS - 1].at - began;
    // 40 at once and 120 at 40 a second; two processes that did not share would have taken a second.
    assert!(took >= Duration::from_millis(2_800), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_what_a_tenant_may_send() {
    /// What a bucket holds: a whole batch.
    const BURST: usize = 1_000;
    let server = Server::start();
    let settings = [("PATCHBAY_LIMITS_EVENTS_PER_SECOND", "1".to_owned())];
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, client) = (Door::default(), client());
    let _first = Process::start_on_with(&server.url(), one.path(), &first, &settings, &[]);
    let second = first.beside();
    let _second = Process::start_on_with(&server.url(), two.path(), &second, &settings, &[]);
    let made = first.call(&client, "POST", "/v1/tenants", Some(&json!({"id": "acme"}))).await;
    assert_eq!(made.unwrap().0, 201);
    let event = |number: usize| json!({"tenant": "acme", "type": "x", "data": number});
    within("the second process to know the tenant", async {
        while second.call(&client, "POST", "/v1/events", Some(&event(0))).await.unwrap().0 != 202 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let batch: Vec<_> = (0..BURST).map(event).collect();
    assert_eq!(first.call(&client, "POST", "/v1/events", Some(&json!(batch))).await.unwrap().0, 202);
    // The second has let through next to nothing, and stops all the same, for the first has used what both may.
    let mut taken = 0;
    let headers = within("a refusal", async {
        loop {
            let (status, headers, body) = second.ask(&client, "/v1/events", &event(0)).await.unwrap();
            if status != 202 {
                assert_eq!((status, body["code"].as_str()), (429, Some("rate_limited")), "{body}");
                return headers;
            }
            taken += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(taken < BURST / 2, "{taken} passed beside the {BURST} of the other process");
    for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(headers.contains_key(name), "{name} in {headers:?}");
    }
}
