//! Who changed a connection's state, when and why; and what becomes of the backlog of one that is resumed.

use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use crate::domain::id::JobId;
use crate::domain::job::JobState;
use crate::service::testing::START;
use crate::store::{DeliveryQuery, Retried};

async fn publish(api: &TestApi, key: &str, id: &str) {
    let event = json!({ "type": "lead.captured", "id": id, "data": {} });
    assert_eq!(api.post("/v1/events", key, &event).await.status, 202);
}

/// The events whose deliveries are in this state, oldest first.
async fn events_in(api: &TestApi, state: JobState) -> Vec<String> {
    let query = DeliveryQuery { state: Some(state), limit: 100, ..DeliveryQuery::default() };
    let page = api.gateway.store.deliveries(query).await.unwrap();
    page.items.into_iter().rev().map(|delivery| delivery.event_id).collect()
}

/// Sweeps as the gateway does, until nothing is left to do.
async fn sweep(api: &TestApi) {
    while api.gateway.store.sweep().await.unwrap().more {}
    api.gateway.directory.catch_up(api.gateway.store.as_ref()).await.unwrap();
}

#[tokio::test]
async fn each_change_says_who_made_it_when_and_why() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    let path = format!("/v1/connections/{id}");
    let new = api.get(&path, &key).await.body;
    assert_eq!((&new["state"], &new["history"]), (&json!({ "status": "active" }), &json!([])));
    let paused = api.post(&format!("{path}/pause"), &key, &json!({ "reason": "a holiday" })).await.body;
    let state = &paused["state"];
    assert_eq!(
        (&state["status"], &state["reason"], &state["by"]),
        (&json!("paused"), &json!("a holiday"), &json!("person"))
    );
    assert_eq!((&state["key"]["name"], &state["at"]), (&json!("test"), &json!(START.to_string())));
    assert!(state["key"]["id"].as_str().unwrap().starts_with("key_"));
    assert!(!key.is_empty() && !paused.to_string().contains(&key), "a key's name, never the key");
    api.clock.advance(Duration::from_mins(1));
    // Another's key: the operator's.
    let resumed = api.post(&format!("{path}/resume?tenant=acme"), &api.operator, &json!({})).await.body;
    assert_eq!(resumed["state"]["status"], "active");
    assert_ne!(resumed["state"]["key"]["id"], state["key"]["id"]);
    let history = resumed["history"].as_array().unwrap();
    let statuses: Vec<&Value> = history.iter().map(|change| &change["status"]).collect();
    assert_eq!(statuses, ["active", "paused"], "newest first");
    for _ in 0..15 {
        api.post(&format!("{path}/pause"), &key, &json!({})).await;
        api.post(&format!("{path}/resume"), &key, &json!({})).await;
    }
    let whole = api.get(&path, &key).await.body;
    assert_eq!(whole["history"].as_array().unwrap().len(), 20);
    let listed = api.get("/v1/connections", &key).await.body;
    assert_eq!(listed["items"][0]["history"], Value::Null, "a list is short");
    assert_eq!(listed["items"][0]["state"]["by"], "person");
}

#[tokio::test]
async fn whoever_resumes_says_what_of_the_backlog_is_wanted() {
    let cases: [(Value, &[&str]); 5] = [
        (json!({}), &["old", "middle", "new"]),
        (json!({ "backlog": "all" }), &["old", "middle", "new"]),
        (json!({ "backlog": "since", "since": "SINCE" }), &["middle", "new"]),
        (json!({ "since": "SINCE" }), &["middle", "new"]),
        (json!({ "backlog": "none" }), &[]),
    ];
    for (mut wanted, kept) in cases {
        let api = TestApi::start().await;
        let key = api.full_tenant("acme").await;
        let path = format!("/v1/connections/{}", api.connection(&key, json!({})).await);
        api.post(&format!("{path}/pause"), &key, &json!({})).await;
        publish(&api, &key, "old").await;
        api.clock.advance(Duration::from_mins(10));
        let since = api.clock.now().to_string();
        for id in ["middle", "new"] {
            publish(&api, &key, id).await;
            api.clock.advance(Duration::from_mins(10));
        }
        if wanted.get("since").is_some() {
            wanted["since"] = json!(since);
        }
        let resumed = api.post(&format!("{path}/resume"), &key, &wanted).await;
        assert_eq!(
            (resumed.status, &resumed.body["state"]["status"]),
            (200, &json!("active")),
            "{resumed:?}"
        );
        let clears = kept.len() < 3;
        assert_eq!(resumed.body["unwanted_before"].is_string(), clears, "{wanted}");
        assert_eq!(resumed.body["state"]["reason"].as_str().unwrap().contains("without"), clears);
        sweep(&api).await;
        assert_eq!(api.get(&path, &key).await.body["unwanted_before"], Value::Null);
        assert_eq!(events_in(&api, JobState::Queued).await, kept, "{wanted}");
        let left: Vec<&str> = ["old", "middle", "new"].into_iter().filter(|id| !kept.contains(id)).collect();
        assert_eq!(events_in(&api, JobState::Cancelled).await, left, "{wanted}");
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        let leases = loop {
            let leases = api.gateway.store.lease(9, Duration::from_secs(90)).await.unwrap();
            if leases.len() == kept.len() {
                break leases;
            }
            assert!(std::time::Instant::now() < patience, "{leases:?}");
            assert_eq!(api.gateway.store.retry(JobId::from_bits(0), None).await, Ok(Retried::Missing));
        };
        assert_eq!(leases.len(), kept.len());
        if clears {
            // Whoever wants it after all has it sent.
            let id = path.rsplit('/').next().unwrap();
            let replay = json!({ "connection": id, "state": "cancelled" });
            let replayed = api.post("/v1/replays", &key, &replay).await;
            assert_eq!(replayed.body["left"], left.len(), "{replayed:?}");
            api.gateway.tend_chores(1).await;
            sweep(&api).await;
            assert_eq!(events_in(&api, JobState::Cancelled).await, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_backlog_that_makes_no_sense_is_refused() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let path = format!("/v1/connections/{}/resume", api.connection(&key, json!({})).await);
    let later = api.clock.now().plus(Duration::from_secs(1)).to_string();
    for (wanted, pointer) in [
        (json!({ "backlog": "some" }), "/backlog"),
        (json!({ "backlog": "since" }), "/since"),
        (json!({ "backlog": "since", "since": "yesterday" }), "/since"),
        (json!({ "backlog": "since", "since": later }), "/since"),
        (json!({ "backlog": "none", "since": "2026-05-03T14:00:00Z" }), "/since"),
        (json!({ "backlogs": "none" }), "/backlogs"),
    ] {
        let refused = api.post(&path, &key, &wanted).await;
        assert_eq!((refused.status, refused.pointers()), (422, vec![pointer]), "{wanted}");
    }
    let active = api.post(&path, &key, &json!({ "backlog": "none" })).await;
    assert_eq!(active.status, 409, "{active:?}");
    assert_eq!(api.post(&path, &key, &json!({})).await.status, 200, "nothing to do");
}
