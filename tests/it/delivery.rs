//! The way of an event from acceptance to the endpoint and back into the log, with real parts and a clock that stands
//! still until the test moves it.

use std::sync::Arc;
use std::time::Duration;

use patchbay::domain::connection::ConnectionState;
use patchbay::domain::job::{JobState, Outcome};
use patchbay::service::connections::Backlog;
use patchbay::store::Delivery;
use serde_json::json;

use crate::support::gateway::TestGateway;
use crate::support::receiver::{Receiver, Reply};
use crate::support::within;

pub fn lead(id: &str) -> serde_json::Value {
    json!({"id": id, "type": "lead.captured", "source": "bot_1", "time": "2026-05-03T14:22:08Z",
           "data": {"lead": {"name": "Jane Smith", "email": "jane@example.com"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_signed_and_the_log_says_so() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, secret) = app.connection(&tenant, &receiver.url, json!({})).await;
    let receipt = app.publish(&tenant, &lead("lead-1")).await;
    assert_eq!((receipt.id.as_str(), receipt.jobs, receipt.duplicate), ("lead-1", 1, false));

    let arrival = receiver.wait_for(1).await.remove(0);
    assert!(arrival.is_signed_by(&secret));
    assert_eq!(
        arrival.json(),
        json!({"type": "lead.captured", "timestamp": "2026-05-03T14:22:08Z",
        "data": {"lead": {"name": "Jane Smith", "email": "jane@example.com"}}})
    );

    let delivery = app.wait_for_state(connection, JobState::Delivered).await;
    assert_eq!(arrival.header("webhook-id"), delivery.job.id.to_string());
    let attempt = &delivery.attempts[0];
    assert_eq!((attempt.number, attempt.status, attempt.outcome), (1, Some(200), Outcome::Delivered));
    assert_eq!(attempt.body, "answered by the test");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_comes_again_by_its_schedule_with_the_same_bytes_and_a_fresh_signature() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, secret) = app.connection(&tenant, &receiver.url, json!({})).await;
    receiver.script([Reply::status(503), Reply::status(500)]);
    app.publish(&tenant, &lead("lead-1")).await;

    // 5 s and 30 s, each with up to 20% more.
    for (failures, wait) in [(1, 6), (2, 36)] {
        let waiting = app.wait_for_tries(connection, failures).await;
        assert_eq!(waiting.state, JobState::Waiting);
        let due = waiting.due.unwrap().since(app.clock.now());
        assert!(due <= Duration::from_secs(wait) && due >= Duration::from_secs(wait * 5 / 6), "{due:?}");
        assert_eq!(waiting.attempts.len(), failures as usize);
        app.clock.advance(Duration::from_secs(wait));
    }
    let arrivals = receiver.wait_for(3).await;
    let delivery = app.wait_for_state(connection, JobState::Delivered).await;
    assert_eq!((delivery.job.attempts, delivery.attempts.len()), (3, 3));
    for arrival in &arrivals {
        assert!(arrival.is_signed_by(&secret));
        assert_eq!(arrival.body, arrivals[0].body);
        assert_eq!(arrival.header("webhook-id"), arrivals[0].header("webhook-id"));
    }
    assert_ne!(arrivals[0].header("webhook-timestamp"), arrivals[1].header("webhook-timestamp"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_retries_end_the_delivery_is_dead_and_can_be_retried_by_hand() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let policy = json!({"policy": {"retry_delays_secs": [1]}});
    let (connection, _) = app.connection(&tenant, &receiver.url, policy).await;
    receiver.otherwise(Reply::status(500));
    app.publish(&tenant, &lead("lead-1")).await;
    app.wait_for_state(connection, JobState::Waiting).await;
    app.clock.advance(Duration::from_secs(2));
    let dead = app.wait_for_state(connection, JobState::Dead).await;
    assert_eq!(dead.attempts.len(), 2);
    assert!(dead.reason.contains("500"), "{}", dead.reason);

    receiver.otherwise(Reply::status(204));
    app.gateway.store.retry(dead.job.id, None).await.unwrap();
    let delivered = app.wait_for_state(connection, JobState::Delivered).await;
    assert_eq!(delivered.attempts.last().unwrap().number, 3);
    assert_eq!(receiver.arrivals()[2].body, receiver.arrivals()[0].body);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_closes_the_connection_at_once_and_cancels_what_waits() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let strict = json!({"policy": {"concurrency": 1}});
    let (connection, _) = app.connection(&tenant, &receiver.url, strict).await;
    receiver.script([Reply::status(200), Reply::status(410)]);
    app.publish_all(&tenant, (0..5).map(|number| lead(&format!("lead-{number}")))).await;
    app.wait_for_state(connection, JobState::Gone).await;
    while app.gateway.store.sweep().await.unwrap().more {}
    let states: Vec<JobState> = app.deliveries(connection).await.iter().map(|found| found.state).collect();
    assert_eq!(
        states,
        [JobState::Cancelled, JobState::Cancelled, JobState::Cancelled, JobState::Gone, JobState::Delivered]
    );
    assert_eq!(receiver.arrivals().len(), 2);
    within("the closed connection", async {
        loop {
            let live = app.gateway.directory.connection(connection).unwrap();
            if matches!(live.record.state, ConnectionState::Closed { .. }) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(app.publish(&tenant, &lead("lead-9")).await.jobs, 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_holds_back_the_whole_lane_and_spends_no_attempt() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    receiver.script([Reply::Status(429, vec![("retry-after", "60".to_owned())])]);
    app.publish(&tenant, &lead("lead-1")).await;
    receiver.wait_for(1).await;
    let throttled = app.wait_for_tries(connection, 1).await;
    assert_eq!((throttled.state, throttled.job.attempts), (JobState::Queued, 0));
    app.publish(&tenant, &lead("lead-2")).await;
    app.clock.advance(Duration::from_secs(59));
    let (other, _) = app.connection(&tenant, &format!("{}/other", receiver.url), json!({})).await;
    app.publish(&tenant, &lead("lead-3")).await;
    app.wait_for_state(other, JobState::Delivered).await;
    assert_eq!(receiver.arrivals().len(), 2, "the held lane sends nothing, its neighbour does");
    app.clock.advance(Duration::from_secs(1));
    receiver.wait_for(5).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_an_endless_body_costs_no_more_than_the_timeout() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let policy = json!({"policy": {"timeout_secs": 1}});
    let (connection, _) = app.connection(&tenant, &receiver.url, policy).await;
    receiver.script([
        Reply::Status(302, vec![("location", format!("{}/elsewhere", receiver.url))]),
        Reply::Endless,
    ]);
    app.publish(&tenant, &lead("lead-1")).await;
    let waiting = app.wait_for_state(connection, JobState::Waiting).await;
    assert_eq!((waiting.attempts[0].status, waiting.attempts[0].outcome), (Some(302), Outcome::Retry));
    assert!(waiting.reason.contains("redirect"), "{}", waiting.reason);

    let begun = std::time::Instant::now();
    app.clock.advance(Duration::from_secs(10));
    app.wait_for_state(connection, JobState::Delivered).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    assert_eq!(receiver.arrivals().len(), 2);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_is_ambiguous_and_does_not_delay_its_neighbour() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let silent = Receiver::start().await;
    silent.otherwise(Reply::Silence);
    let policy = json!({"policy": {"timeout_secs": 5}});
    let (dead, _) = app.connection(&tenant, &silent.url, policy).await;
    let (live, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    app.publish_all(&tenant, (0..100).map(|number| lead(&format!("lead-{number}")))).await;
    receiver.wait_for(100).await;
    let tried = |found: &Delivery| found.job.tries > 0;
    assert!(!app.deliveries(dead).await.iter().any(tried), "the live lane is done before the first time-out");
    let waiting = app.wait_for_state(dead, JobState::Waiting).await;
    assert_eq!(waiting.attempts[0].outcome, Outcome::Ambiguous);
    assert!(waiting.reason.contains("may have arrived"), "{}", waiting.reason);
    assert_eq!(app.deliveries(live).await.len(), 100);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_connection_keeps_its_events_and_sends_them_when_it_is_resumed() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    app.gateway.pause_connection(Some(&tenant), connection, Some("maintenance"), None).await.unwrap();
    for number in 0..3 {
        assert_eq!(app.publish(&tenant, &lead(&format!("lead-{number}"))).await.jobs, 1);
    }
    let (other, _) = app.connection(&tenant, &format!("{}/other", receiver.url), json!({})).await;
    app.publish(&tenant, &lead("lead-3")).await;
    app.wait_for_state(other, JobState::Delivered).await;
    assert_eq!(receiver.arrivals().len(), 1);
    app.gateway.resume_connection(Some(&tenant), connection, Backlog::All, None).await.unwrap();
    let arrivals = receiver.wait_for(5).await;
    assert_eq!(arrivals.len(), 5);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_does_not_fit_keeps_the_event_until_it_is_mended() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let mapping = |path: &str| json!({"mapping": {"version": 1, "fields": [{"to": "email", "from": path, "required": true}]}});
    let (connection, _) = app.connection(&tenant, &receiver.url, mapping("$.data.email")).await;
    app.publish(&tenant, &lead("lead-1")).await;
    let failed = app.wait_for_state(connection, JobState::MappingFailed).await;
    assert!(failed.reason.contains("email"), "{}", failed.reason);
    assert!(receiver.arrivals().is_empty());

    app.gateway.update_connection(Some(&tenant), connection, &mapping("$.data.lead.email")).await.unwrap();
    let version = app.gateway.directory.connection(connection).unwrap().mapping_version;
    app.gateway.store.retry(failed.job.id, Some(version)).await.unwrap();
    app.wait_for_state(connection, JobState::Delivered).await;
    assert_eq!(receiver.arrivals()[0].json(), json!({"email": "jane@example.com"}));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_lane_keeps_its_order_through_failures() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let strict = json!({"policy": {"concurrency": 1, "retry_delays_secs": [1, 1, 1, 1]},
                        "mapping": {"version": 1, "fields": [{"to": "id", "from": "$.id"}]}});
    app.connection(&tenant, &receiver.url, strict).await;
    receiver.script([200, 500, 500, 200, 503].map(Reply::status));
    for number in 0..5 {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
    }
    for count in [3, 4, 6] {
        receiver.wait_for(count - 1).await;
        within("a retry to be due", async {
            while app.gateway.store.stats().await.unwrap().lanes.waiting == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        app.clock.advance(Duration::from_secs(2));
    }
    let arrivals = receiver.wait_for(8).await;
    let order: Vec<String> =
        arrivals.iter().map(|arrival| arrival.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["lead-0", "lead-1", "lead-1", "lead-1", "lead-2", "lead-2", "lead-3", "lead-4"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_and_a_new_start_lose_nothing() {
    let receiver = Receiver::start().await;
    let app = TestGateway::start().await;
    let tenant = app.tenant("acme").await;
    let (connection, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    receiver.otherwise(Reply::status(500));
    for number in 0..20 {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
    }
    let (folder, clock) = (Arc::clone(&app.folder), app.clock.clone());
    app.stop().await;
    receiver.otherwise(Reply::status(200));
    // After so many failures in a row the first probe comes within 12 s.
    clock.advance(Duration::from_secs(13));
    let again = TestGateway::start_in(folder, clock.clone()).await;
    again.wait_until_settled(connection, 20).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_the_same_moment_on_every_try_whatever_happens_in_between() {
    let receiver = Receiver::start().await;
    let app = TestGateway::start().await;
    let tenant = app.tenant("acme").await;
    let mapping = json!({"version": 1, "fields": [{"to": "at", "value": "", "apply": ["now"]}]});
    let more = json!({"mapping": mapping, "policy": {"retry_delays_secs": [3600]}});
    let (connection, _) = app.connection(&tenant, &receiver.url, more).await;
    receiver.script([Reply::status(500)]);
    app.publish(&tenant, &lead("lead-1")).await;
    let waiting = app.wait_for_state(connection, JobState::Waiting).await;
    let (folder, clock) = (Arc::clone(&app.folder), app.clock.clone());
    app.stop().await;
    clock.advance(Duration::from_hours(2));
    let app = TestGateway::start_in(folder, clock).await;
    app.wait_for_state(connection, JobState::Delivered).await;
    // What was kept for retries is gone by now: the mapping is applied again.
    app.clock.advance(Duration::from_hours(1));
    app.gateway.store.retry(waiting.job.id, None).await.unwrap();
    let arrivals = receiver.wait_for(3).await;
    assert!(
        arrivals[0].json()["at"].as_str().is_some_and(|at| at.starts_with("20")),
        "{:?}",
        arrivals[0].body
    );
    assert!(arrivals.iter().all(|arrival| arrival.body == arrivals[0].body), "{arrivals:?}");
    app.wait_for_state(connection, JobState::Delivered).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_with_retry_after_holds_back_the_whole_lane_too() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    let (other, _) = app.connection(&tenant, &format!("{}/other", receiver.url), json!({})).await;
    app.gateway.pause_connection(Some(&tenant), other, None, None).await.unwrap();
    receiver.script([Reply::Status(500, vec![("retry-after", "60".to_owned())])]);
    app.publish(&tenant, &lead("lead-1")).await;
    let failed = app.wait_for_state(connection, JobState::Waiting).await;
    assert_eq!((failed.job.attempts, failed.due), (1, Some(app.clock.now().plus(Duration::from_mins(1)))));
    app.publish(&tenant, &lead("lead-2")).await;
    app.clock.advance(Duration::from_secs(59));
    // The neighbour's deliveries show that the workers came round.
    app.gateway.resume_connection(Some(&tenant), other, Backlog::All, None).await.unwrap();
    receiver.wait_for(3).await;
    assert_eq!(app.deliveries(connection).await.iter().map(|found| found.job.tries).sum::<u32>(), 1);
    app.clock.advance(Duration::from_secs(1));
    receiver.wait_for(5).await;
    app.stop().await;
}
