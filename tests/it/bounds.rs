//! What a delivery may never do: lead inside, outgrow its lane, read without an end, sign with what has expired.

use std::sync::Arc;
use std::time::Duration;

use patchbay::domain::job::{JobState, Outcome};
use patchbay::service::ServiceError;
use serde_json::json;

use crate::delivery::lead;
use crate::support::gateway::TestGateway;
use crate::support::receiver::{Receiver, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_signs_beside_the_new_one_for_24_hours_and_then_no_more() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, old) = app.connection(&tenant, &receiver.url, json!({})).await;
    let saved = app.gateway.rotate_secret(Some(&tenant), connection, None).await.unwrap();
    let new = saved.secret.unwrap().reveal().to_owned();
    assert_ne!(old, new);
    for (number, passed, by_old) in [(0, 0, true), (1, 86_399, true), (2, 1, false)] {
        app.clock.advance(Duration::from_secs(passed));
        app.publish(&tenant, &lead(&format!("lead-{number}"))).await;
        let arrival = receiver.wait_for(number + 1).await.remove(number);
        assert!(arrival.is_signed_by(&new), "{number}");
        assert_eq!(arrival.is_signed_by(&old), by_old, "{number}");
        // Before the clock moves on: a lease that ends unsettled would send the job again.
        app.wait_until_settled(connection, number + 1).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_never_has_more_under_way_than_its_concurrency() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    app.connection(&tenant, &receiver.url, json!({"policy": {"concurrency": 4}})).await;
    receiver.otherwise(Reply::Slow(Duration::from_millis(20)));
    app.publish_all(&tenant, (0..100).map(|number| lead(&format!("lead-{number}")))).await;
    receiver.wait_for(100).await;
    assert_eq!(receiver.most_at_once(), 4);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_keeps_the_start_of_a_long_answer_and_reads_no_more_than_its_bound() {
    let (app, receiver) = (TestGateway::start().await, Receiver::start().await);
    let tenant = app.tenant("acme").await;
    let (connection, _) = app.connection(&tenant, &receiver.url, json!({})).await;
    // Its whole body would take for ever to read.
    receiver.script([Reply::Flood]);
    app.publish(&tenant, &lead("lead-1")).await;
    let delivered = app.wait_for_state(connection, JobState::Delivered).await;
    assert!((1..=16 * 1024).contains(&delivered.attempts[0].body.len()));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_leads_inside_when_it_is_saved_and_none_when_it_delivers() {
    let receiver = Receiver::start().await;
    let port = receiver.url.rsplit(':').next().unwrap();
    let (by_name, by_address) = (format!("http://localhost:{port}/"), format!("http://127.0.0.1:{port}/"));
    let app = TestGateway::start().await;
    let tenant = app.tenant("acme").await;
    let (named, _) = app.connection(&tenant, &by_name, json!({})).await;
    let (literal, _) = app.connection(&tenant, &by_address, json!({})).await;
    // One whose tokens come from a name, and whose requests go there too.
    let credentials =
        json!({"client_id": "id-17", "client_secret": "secret-17", "refresh_token": "refresh-17"});
    let zoho = |api: &str, accounts: &str| {
        json!({"name": "x", "connector": "zoho", "events": ["*"], "credentials": credentials,
            "options": {"api_domain": api, "accounts_url": accounts}})
    };
    let wanted = zoho(by_name.trim_end_matches('/'), by_name.trim_end_matches('/'));
    let granted = app.gateway.make_connection(Some(&tenant), &wanted).await.unwrap().live.record.id;
    let (folder, clock) = (Arc::clone(&app.folder), app.clock.clone());
    app.stop().await;

    // Now loopback is allowed by its v6 address alone, so that the name passes and what it resolves to does not.
    let app = TestGateway::start_guarded(folder, clock, &["::1/128"]).await;
    let refused = async |change: bool, url: &str| {
        let target = json!({"url": url});
        let wanted = json!({"name": "x", "connector": "webhook", "events": ["*"], "target": target});
        let error = if change {
            app.gateway
                .update_connection(Some(&tenant), literal, &json!({"target": target}))
                .await
                .unwrap_err()
        } else {
            app.gateway.make_connection(Some(&tenant), &wanted).await.unwrap_err()
        };
        let ServiceError::Invalid(faults) = error else { panic!("{url}: {error:?}") };
        assert!(faults.list().iter().all(|fault| fault.place.field == "target.url"), "{url}: {faults}");
        faults.to_string()
    };
    for change in [false, true] {
        for url in [
            &by_address,
            "https://10.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://metadata.google.internal/",
        ] {
            refused(change, url).await;
        }
        let resolved = refused(change, &format!("{by_name}other")).await;
        assert!(resolved.contains("resolves to") && !resolved.contains("127.0.0.1"), "{resolved}");
    }

    // A token endpoint is no exception.
    let wanted = zoho("http://[::1]:9", by_name.trim_end_matches('/'));
    let Err(ServiceError::Invalid(faults)) = app.gateway.make_connection(Some(&tenant), &wanted).await else {
        panic!("it is taken")
    };
    let told = faults.to_string();
    assert!(told.starts_with("options: its host resolves to an address"), "{told}");

    app.publish(&tenant, &lead("lead-1")).await;
    for (connection, word) in [(named, "localhost"), (granted, "there is no access token")] {
        let waiting = app.wait_for_state(connection, JobState::Waiting).await;
        assert_eq!((waiting.attempts[0].status, waiting.attempts[0].outcome), (None, Outcome::Retry));
        assert!(waiting.reason.contains(word), "{}", waiting.reason);
    }
    // A connection that can't be used at all keeps its jobs untried.
    let kept = app.wait_for_reason(literal).await;
    assert_eq!((kept.state, kept.job.tries), (JobState::Queued, 0));
    assert!(kept.reason.contains("refused"), "{}", kept.reason);
    let tried = app.gateway.try_connection(Some(&tenant), named).await.unwrap();
    assert_eq!((tried.attempt.status, tried.attempt.outcome), (None, Outcome::Retry));
    assert!(app.gateway.try_connection(Some(&tenant), literal).await.is_err());
    assert!(receiver.arrivals().is_empty());
    app.stop().await;
}
