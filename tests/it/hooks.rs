//! Subscriptions while they deliver: leaving, manners, and what one failing Zap does to others (nothing).

use std::sync::Arc;
use std::time::Duration;

use patchbay::domain::account::Scope;
use patchbay::domain::connection::ConnectionState;
use patchbay::domain::id::{ConnectionId, KeyId, TenantId};
use patchbay::domain::job::{JobState, Outcome};
use patchbay::service::accounts::NewKey;
use patchbay::service::hooks::Sampled;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::delivery::lead;
use crate::support::gateway::TestGateway;
use crate::support::receiver::{Receiver, Reply};
use crate::support::within;

/// A tenant with a key that may subscribe.
pub async fn subscriber(app: &TestGateway) -> (TenantId, KeyId) {
    let tenant = app.tenant("acme").await;
    let new =
        NewKey { tenant: Some(tenant.clone()), scopes: vec![Scope::Subscribe], name: "Zapier".to_owned() };
    (tenant.clone(), app.gateway.make_key(new).await.unwrap().0.id)
}

/// Subscribes to captured leads.
pub async fn subscribe(app: &TestGateway, tenant: &TenantId, key: KeyId, url: &str) -> ConnectionId {
    let wanted = json!({ "targetUrl": url, "event": "lead.captured" });
    app.gateway.subscribe(Some(tenant), key, "zapier", &wanted).await.unwrap().saved.live.record.id
}

fn zap(receiver: &Receiver, user: u32, hook: &str) -> String {
    format!("{}/hooks/standard/{user}/{hook}/", receiver.url)
}

async fn states(app: &TestGateway, hook: ConnectionId) -> Vec<JobState> {
    while app.gateway.store.sweep().await.unwrap().more {}
    app.deliveries(hook).await.iter().map(|found| found.state).collect()
}

async fn wait_until_closed(app: &TestGateway, hook: ConnectionId) -> String {
    within("the closed hook", async {
        loop {
            let live = app.gateway.directory.connection(hook).unwrap();
            if let ConnectionState::Closed { reason, .. } = &live.record.state {
                return reason.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_byte_for_byte_what_is_delivered() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    for number in 1..=3 {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
        app.wait_until_settled(hook, number).await;
        app.clock.advance(Duration::from_secs(1));
    }
    let asked = Sampled { connector: "zapier", event: "lead.captured", mapping: None, hook: None, limit: 10 };
    let mut samples = app.gateway.samples(&tenant, &asked).await.unwrap();
    samples.reverse();
    let delivered: Vec<_> = receiver.arrivals().into_iter().map(|arrival| arrival.body).collect();
    assert_eq!(delivered, samples);
    let body: Value = serde_json::from_slice(&delivered[0]).unwrap();
    assert_eq!((&body["id"], &body["occurred_at"]), (&json!("lead-1"), &json!("2026-05-03T14:22:08Z")));
    app.stop().await;
}

/// Whatever says that a Zap is gone ends its subscription at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_zap_that_is_gone_is_unsubscribed_at_once_with_all_that_waits() {
    let answers = [
        (Reply::status(410), "410"),
        (Reply::Text(404, "please unsubscribe me!"), "it asks to be unsubscribed"),
        (Reply::Text(404, "\n Please unsubscribe me!\n"), "it asks to be unsubscribed"),
    ];
    for (answer, reason) in answers {
        let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
        let (tenant, key) = subscriber(&app).await;
        let other_receiver = Receiver::start().await;
        let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
        let other = subscribe(&app, &tenant, key, &zap(&other_receiver, 2, "b")).await;
        // Two are under way when a third is told that the Zap is gone; they fail afterwards, and more are waiting.
        let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        receiver.script([
            Reply::After(Arc::clone(&first), 500),
            Reply::After(Arc::clone(&second), 503),
            answer.clone(),
        ]);
        receiver.otherwise(Reply::Silence);
        app.publish(&tenant, &lead("lead-0")).await;
        receiver.wait_for(1).await;
        app.publish(&tenant, &lead("lead-1")).await;
        receiver.wait_for(2).await;
        app.publish(&tenant, &lead("lead-2")).await;
        app.wait_for_state(hook, JobState::Gone).await;
        let told = wait_until_closed(&app, hook).await;
        assert!(told.contains(reason), "{told}");
        first.notify_one();
        second.notify_one();
        within("the two that were under way", async {
            while app.deliveries(hook).await.iter().any(|found| found.finished.is_none()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(states(&app, hook).await, [JobState::Gone, JobState::Cancelled, JobState::Cancelled]);
        app.publish(&tenant, &lead("lead-3")).await;
        app.wait_until_settled(other, 4).await;
        app.clock.advance(Duration::from_hours(1));
        // The workers have come round once another has its event.
        app.publish(&tenant, &lead("lead-4")).await;
        app.wait_until_settled(other, 5).await;
        assert_eq!((receiver.arrivals().len(), app.deliveries(hook).await.len()), (3, 3), "nothing more");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_a_zap_leaves_is_not_tried_again_and_what_waits_is_cancelled() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    let under_way = Arc::new(Notify::new());
    receiver.script([Reply::status(500), Reply::After(Arc::clone(&under_way), 500)]);
    app.publish(&tenant, &lead("lead-1")).await;
    app.wait_for_state(hook, JobState::Waiting).await;
    app.publish(&tenant, &lead("lead-2")).await;
    receiver.wait_for(2).await;
    app.gateway.unsubscribe(Some(&tenant), hook).await.unwrap();
    app.gateway.unsubscribe(Some(&tenant), hook).await.unwrap();
    under_way.notify_one();
    within("the end of all", async {
        while states(&app, hook).await != [JobState::Cancelled; 2] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    app.publish(&tenant, &lead("lead-3")).await;
    app.clock.advance(Duration::from_hours(1));
    // The workers have come round once another has its event.
    let elsewhere = Receiver::start().await;
    let other = subscribe(&app, &tenant, key, &zap(&elsewhere, 2, "b")).await;
    app.publish(&tenant, &lead("lead-4")).await;
    app.wait_until_settled(other, 1).await;
    assert_eq!((receiver.arrivals().len(), app.deliveries(hook).await.len()), (2, 2));
    assert!(app.gateway.directory.connection(hook).is_none());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_its_subscriptions_and_tells_each_zap_until_it_hears() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let new =
        NewKey { tenant: Some(tenant.clone()), scopes: vec![Scope::Subscribe], name: "other".to_owned() };
    let other_key = app.gateway.make_key(new).await.unwrap().0.id;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    let kept = subscribe(&app, &tenant, other_key, &zap(&receiver, 2, "b")).await;
    receiver.script([Reply::status(500), Reply::status(500)]);
    app.publish(&tenant, &lead("lead-1")).await;
    for each in [hook, kept] {
        app.wait_for_state(each, JobState::Waiting).await;
    }

    // Revoked, and not yet tended: no event makes a job for it, and none of its jobs is tried.
    app.gateway.revoke_key(key).await.unwrap();
    app.publish(&tenant, &lead("lead-2")).await;
    app.clock.advance(Duration::from_secs(6));
    app.wait_until_settled(kept, 2).await;
    app.wait_for_state(hook, JobState::Cancelled).await;
    assert_eq!(app.deliveries(hook).await.len(), 1);

    // First it does not hear, then it does.
    let before = receiver.arrivals().len();
    receiver.script([Reply::status(503), Reply::status(200)]);
    assert_eq!(app.gateway.tend_hooks().await, 1, "closed");
    assert_eq!(wait_until_closed(&app, hook).await, "the key that it was made with was revoked");
    assert_eq!(app.gateway.tend_hooks().await, 1, "told, in vain");
    assert_eq!(app.gateway.tend_hooks().await, 0, "not yet again");
    app.clock.advance(Duration::from_secs(10));
    assert_eq!(app.gateway.tend_hooks().await, 1, "told");
    app.clock.advance(Duration::from_hours(24));
    assert_eq!(app.gateway.tend_hooks().await, 0, "once is enough");
    let told = receiver.arrivals().split_off(before);
    let shown: Vec<_> = told.iter().map(|arrival| (arrival.method.as_str(), arrival.path.as_str())).collect();
    assert_eq!(shown, [("DELETE", "/hooks/standard/1/a/"); 2]);
    assert!(app.gateway.directory.connection(kept).unwrap().record.state.is_active());

    app.clock.advance(Duration::from_hours(24 * 6));
    assert_eq!(app.gateway.tend_hooks().await, 1, "forgotten");
    assert!(app.gateway.directory.connection(hook).is_none());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telling_a_dead_zap_ends_after_some_tries() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    receiver.otherwise(Reply::status(500));
    app.gateway.revoke_key(key).await.unwrap();
    for _ in 0..50 {
        while app.gateway.tend_hooks().await > 0 {}
        app.clock.advance(Duration::from_hours(1));
    }
    assert_eq!(receiver.arrivals().len(), 6);
    let live = app.gateway.directory.connection(hook).unwrap();
    assert_eq!(live.record.subscription.as_ref().unwrap().farewell, None);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_have_the_same_bytes_and_retry_after_holds_the_hook_without_spending_an_attempt() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    receiver.script([
        Reply::status(500),
        Reply::Status(429, vec![("retry-after", "60".to_owned())]),
        Reply::status(200),
        Reply::status(200),
    ]);
    app.publish(&tenant, &lead("lead-1")).await;
    app.wait_for_tries(hook, 1).await;
    app.clock.advance(Duration::from_secs(6));
    let throttled = app.wait_for_tries(hook, 2).await;
    assert_eq!((throttled.job.attempts, throttled.attempts[1].outcome), (1, Outcome::Throttled));
    // What comes meanwhile waits too.
    app.publish(&tenant, &lead("lead-2")).await;
    app.clock.advance(Duration::from_secs(59));
    assert_eq!(receiver.arrivals().len(), 2);
    app.clock.advance(Duration::from_secs(2));
    app.wait_until_settled(hook, 2).await;
    let arrivals = receiver.arrivals();
    let of_first: Vec<_> = arrivals.iter().filter(|arrival| arrival.json()["id"] == "lead-1").collect();
    assert_eq!(of_first.len(), 3);
    assert!(of_first.iter().all(|arrival| arrival.body == of_first[0].body));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_zap_delays_no_other() {
    let (app, receiver, dead) =
        (TestGateway::start().await, Receiver::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let answer = Arc::new(Notify::new());
    dead.otherwise(Reply::After(Arc::clone(&answer), 200));
    let failing = subscribe(&app, &tenant, key, &zap(&dead, 1, "a")).await;
    let well = subscribe(&app, &tenant, key, &zap(&receiver, 2, "b")).await;
    for number in 0..20 {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
        app.clock.advance(Duration::from_secs(1));
    }
    // Before the first try of the dead one is over. A hook is sent a few at a time, and the next as time goes on.
    while receiver.quiet_after(Duration::from_millis(20)).await.len() < 20 {
        app.clock.advance(Duration::from_millis(50));
    }
    app.wait_until_settled(well, 20).await;
    assert!(app.deliveries(failing).await.iter().all(|found| found.state == JobState::Queued));
    dead.otherwise(Reply::status(200));
    answer.notify_waiters();
    // Those that waited for a turn get theirs as time goes on.
    while dead.quiet_after(Duration::from_millis(20)).await.len() < 20 {
        app.clock.advance(Duration::from_millis(50));
    }
    app.wait_until_settled(failing, 20).await;
    app.stop().await;
}

/// More than a hook is sent in two seconds.
const EVENTS: usize = 80;

/// How many were sent in any span of a second, by the test's clock.
fn most_in_a_second(times_ms: &[i64]) -> usize {
    let within = |start: &i64| times_ms.iter().filter(|time| (*start..start + 1_000).contains(time)).count();
    times_ms.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_gets_thirty_requests_a_second_at_the_most_and_waiting_spends_nothing() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let hook = subscribe(&app, &tenant, key, &zap(&receiver, 1, "a")).await;
    let other = subscribe(&app, &tenant, key, &zap(&receiver, 1, "b")).await;
    for number in 0..EVENTS {
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
    }
    within("all of them, a bit at a time", async {
        // As long as anything comes, the clock stands still.
        while receiver.quiet_after(Duration::from_millis(20)).await.len() < 2 * EVENTS {
            app.clock.advance(Duration::from_millis(50));
        }
    })
    .await;
    for each in [hook, other] {
        app.wait_until_settled(each, EVENTS).await;
        let mut times = Vec::new();
        for delivery in app.deliveries(each).await {
            times.push(app.delivery(delivery.job.id).await.attempts[0].at.millis());
        }
        times.sort_unstable();
        let most = most_in_a_second(&times);
        assert!(most <= 30, "{most} in a second");
        let took = times[EVENTS - 1] - times[0];
        assert!(took >= 2_000, "80 took {took} ms of the clock");
    }
    for delivery in app.deliveries(hook).await {
        assert_eq!((delivery.job.attempts, delivery.job.tries), (1, 1), "waiting for a turn is no try");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_fetchplys_retries_end_the_hook_is_deactivated_and_subscribing_again_reactivates_it() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let (tenant, key) = subscriber(&app).await;
    let wanted = json!({ "url": format!("{}/hook", receiver.url), "event": "new_lead" });
    let subscribe = || app.gateway.subscribe(Some(&tenant), key, "fetchply", &wanted);
    let hook = subscribe().await.unwrap().saved.live.record.id;
    receiver.otherwise(Reply::status(500));
    app.publish(&tenant, &lead("lead-1")).await;
    for (tries, wait) in [(1, 61), (2, 301), (3, 1_801)] {
        app.wait_for_tries(hook, tries).await;
        app.clock.advance(Duration::from_secs(wait));
    }
    app.wait_for_state(hook, JobState::Dead).await;
    within("the deactivated hook", async {
        while app.gateway.directory.connection(hook).unwrap().record.state.is_active() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What happens meanwhile is kept for it.
    app.publish(&tenant, &lead("lead-2")).await;
    receiver.otherwise(Reply::status(204));
    let again = subscribe().await.unwrap();
    assert_eq!((again.again, again.saved.live.record.id), (true, hook));
    app.wait_for_state(hook, JobState::Delivered).await;
    let last = receiver.arrivals().pop().unwrap();
    assert_eq!(last.json()["event"], "new_lead");
    assert!(last.header("x-fetchply-signature").starts_with("sha256="));
    app.stop().await;
}
