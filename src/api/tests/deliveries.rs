//! Deliveries, settled here by hand where a worker would do it.

use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use crate::domain::job::{Attempt, JobState, Outcome};
use crate::domain::settle::{LaneEffect, Next};
use crate::service::deliver::deliver;
use crate::store::{Lease, Settlement};

/// Leases what is ready, as soon as something is.
pub(super) async fn lease(api: &TestApi) -> Vec<Lease> {
    let store = &api.gateway.store;
    let leasing = async {
        loop {
            let leases = store.lease(100, Duration::from_mins(1)).await.unwrap();
            if !leases.is_empty() {
                return leases;
            }
            store.wait_for_work().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), leasing).await.expect("nothing became ready")
}

/// Tries whatever is due now, once, as a worker would; how many there were.
pub(super) async fn deliver_all(api: &TestApi) -> usize {
    let (mut tried, mut empty) = (0, 0);
    // An empty round says little: a lane that is read from the disk comes a few round trips later.
    while empty < 3 {
        let leases = api.gateway.store.lease(100, Duration::from_mins(1)).await.unwrap();
        if leases.is_empty() {
            empty += 1;
            for _ in 0..2 {
                api.gateway.store.health().await.unwrap();
            }
            continue;
        }
        empty = 0;
        for lease in leases {
            let settlements = deliver(&api.gateway, vec![lease]).await;
            assert_eq!(api.gateway.store.settle(settlements).await.unwrap(), 1);
            tried += 1;
        }
        // What they did to their connections.
        api.gateway.directory.catch_up(api.gateway.store.as_ref()).await.unwrap();
    }
    tried
}

/// Ends every job that can be leased in a state.
pub(super) async fn settle(api: &TestApi, state: JobState, outcome: Outcome) {
    let leases = lease(api).await;
    let settlements = leases.iter().map(|lease| Settlement {
        lease: lease.reference(),
        attempt: Some(Attempt {
            number: 1,
            at: api.clock.now(),
            duration_ms: 5,
            status: Some(500),
            outcome,
            remote_id: Some("lead-1".to_owned()),
            reason: "because".to_owned(),
            headers: vec![("a".to_owned(), "b".to_owned())],
            body: "oops".to_owned(),
        }),
        next: Next::Done(state),
        reason: "because".to_owned(),
        effect: LaneEffect::default(),
        rendered: None,
        forget: false,
    });
    let settlements: Vec<Settlement> = settlements.collect();
    let count = settlements.len();
    assert_eq!(api.gateway.store.settle(settlements).await.unwrap(), count);
}

#[tokio::test]
async fn deliveries_are_found_and_retried() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    for number in 0..3 {
        let event = json!({ "type": format!("t{number}"), "id": number.to_string(), "data": null });
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    }
    settle(&api, JobState::Dead, Outcome::Retry).await;
    let count = |got: &Value| got["items"].as_array().unwrap().len();
    for (query, wanted) in [
        (String::new(), 3),
        ("?event=1".to_owned(), 1),
        ("?type=t2".to_owned(), 1),
        ("?state=dead".to_owned(), 3),
        ("?state=delivered".to_owned(), 0),
        (format!("?connection={id}"), 3),
        ("?outcome=retry".to_owned(), 3),
        ("?outcome=delivered".to_owned(), 0),
        ("?status=500&text=BECAUSE".to_owned(), 3),
        ("?status=404".to_owned(), 0),
        ("?text=nothing".to_owned(), 0),
        ("?since=2026-05-03T14:22:08Z".to_owned(), 3),
        ("?until=2026-05-03T14:22:08Z".to_owned(), 0),
    ] {
        let got = api.get(&format!("/v1/deliveries{query}"), &key).await;
        assert_eq!((got.status, count(&got.body)), (200, wanted), "{query}: {got:?}");
    }
    for bad in ["?state=deed", "?connection=x", "?since=now", "?evnt=1", "?outcome=good", "?status=x"] {
        assert_eq!(api.get(&format!("/v1/deliveries{bad}"), &key).await.code(), "invalid_parameter", "{bad}");
    }
    let first = api.get("/v1/deliveries?limit=2", &key).await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let rest = api.get(&format!("/v1/deliveries?limit=2&cursor={cursor}"), &key).await;
    assert_eq!((count(&first.body), count(&rest.body), &rest.body["next_cursor"]), (2, 1, &Value::Null));

    let path = format!("/v1/deliveries/{}", first.body["items"][0]["id"].as_str().unwrap());
    let read = api.get(&path, &key).await;
    assert_eq!((&read.body["state"], &read.body["reason"]), (&json!("dead"), &json!("because")));
    assert_eq!(read.body["attempts"][0]["outcome"], "retry");
    assert_eq!(read.body["attempts"][0]["remote_id"], "lead-1");
    let retried = api.call("POST", &format!("{path}/retry"), &key, None).await;
    assert_eq!((retried.status, &retried.body["finished"]), (202, &Value::Null), "{retried:?}");
    assert_eq!(lease(&api).await.len(), 1, "it is in its lane again");
    let again = api.call("POST", &format!("{path}/retry"), &key, None).await;
    assert_eq!((again.status, again.code()), (409, "wrong_state"), "{again:?}");
    let missing = "/v1/deliveries/job_00000000000000000000000000";
    assert_eq!(api.get(missing, &key).await.code(), "not_found");
    assert_eq!(api.get("/v1/deliveries/nonsense", &key).await.code(), "not_found");
}

#[tokio::test]
async fn a_failed_mapping_is_retried_with_the_mended_one() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let fields =
        |path: &str| json!({ "version": 1, "fields": [{ "to": "a", "from": path, "required": true }] });
    let id = api.connection(&key, json!({ "mapping": fields("$.data.wrong") })).await;
    api.post("/v1/events", &key, &json!({ "type": "x", "data": { "right": 1 } })).await;
    settle(&api, JobState::MappingFailed, Outcome::MappingFailed).await;
    let before = api.get("/v1/deliveries", &key).await.body["items"][0].clone();
    let mended = json!({ "mapping": fields("$.data.right") });
    assert_eq!(api.call("PATCH", &format!("/v1/connections/{id}"), &key, Some(&mended)).await.status, 200);
    let path = format!("/v1/deliveries/{}", before["id"].as_str().unwrap());
    assert_eq!(api.call("POST", &format!("{path}/retry"), &key, None).await.status, 202);
    let after = api.get(&path, &key).await.body;
    let live = api.gateway.directory.connection(id.parse().unwrap()).unwrap();
    assert_ne!(before["mapping"], after["mapping"]);
    assert_eq!(after["mapping"], json!(live.mapping_version));
    let mapping =
        api.gateway.directory.mapping(api.gateway.store.as_ref(), live.mapping_version).await.unwrap();
    assert!(mapping.is_some());
}

#[tokio::test]
async fn a_walk_by_cursors_visits_each_delivery_once_while_new_ones_arrive() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let wanted = api.connection(&key, json!({ "events": ["a.*"] })).await;
    api.connection(&key, json!({})).await;
    let publish = async |number: usize| {
        let kind = if number.is_multiple_of(3) { "b.one" } else { "a.one" };
        let sent = api.post("/v1/events", &key, &json!({ "type": kind, "data": number })).await;
        assert_eq!(sent.status, 202);
        api.clock.advance(Duration::from_millis(1));
    };
    for number in 0..60 {
        publish(number).await;
    }
    let all = |got: &super::Got| -> Vec<String> {
        got.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let filter = format!("connection={wanted}&type=a.one&state=queued&since=2026-05-03T14:22:08Z");
    let before = all(&api.get(&format!("/v1/deliveries?limit=200&{filter}"), &key).await);
    assert_eq!(before.len(), 40);
    let (mut seen, mut cursor, mut number) = (Vec::new(), String::new(), 60);
    loop {
        let page = api.get(&format!("/v1/deliveries?limit=7&{filter}{cursor}"), &key).await;
        seen.extend(all(&page));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        for _ in 0..5 {
            publish(number).await;
            number += 1;
        }
    }
    assert_eq!(seen, before, "each once, newest first, and none that came later");
}

#[tokio::test]
async fn the_log_is_exported_as_lines_whatever_its_length() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    for batch in 0..5 {
        let events: Vec<Value> = (0..90)
            .map(|number| json!({ "type": "x", "id": format!("=1+{batch}.{number}"), "data": null }))
            .collect();
        let sent = api.post("/v1/events", &key, &json!(events)).await;
        assert_eq!(sent.status, 202, "{sent:?}");
    }
    let got = api.get("/v1/deliveries/export?state=queued", &key).await;
    let lines: Vec<Value> = got.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((got.header("content-type"), lines.len()), (Some("application/x-ndjson"), 450));
    let list = api.get("/v1/deliveries?limit=200", &key).await;
    assert_eq!(lines[..200], list.body["items"].as_array().unwrap()[..]);
    let ids: std::collections::BTreeSet<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids.len(), 450, "each once");

    let got = api.get(&format!("/v1/deliveries/export?format=csv&connection={id}"), &key).await;
    let rows: Vec<&str> = got.text.split_terminator("\r\n").collect();
    assert_eq!((got.header("content-type"), rows.len()), (Some("text/csv; charset=utf-8"), 451));
    assert!(rows[0].starts_with("id,tenant,connection,event,type"), "{}", rows[0]);
    assert!(rows[1..].iter().all(|row| row.contains(",\"'=1+")), "no cell is a formula: {}", rows[1]);
    let none = api.get("/v1/deliveries/export?format=csv&state=dead", &key).await;
    assert_eq!(none.text, format!("{}\r\n", rows[0]));
    for bad in ["?format=xml", "?limit=3"] {
        let got = api.get(&format!("/v1/deliveries/export{bad}"), &key).await;
        assert_eq!(got.code(), "invalid_parameter", "{bad}");
    }
}

#[tokio::test]
async fn a_connections_totals_are_told() {
    let api = TestApi::start().await;
    let key = api.full_tenant("acme").await;
    let id = api.connection(&key, json!({})).await;
    let path = format!("/v1/connections/{id}/stats");
    let fresh = api.get(&path, &key).await.body;
    assert_eq!((&fresh["totals"]["attempts"], &fresh["days"]), (&json!(0), &json!([])), "{fresh}");
    for number in 0..2 {
        let event = json!({ "type": "x", "id": number.to_string(), "data": null });
        assert_eq!(api.post("/v1/events", &key, &event).await.status, 202);
    }
    settle(&api, JobState::Dead, Outcome::Retry).await;
    assert_eq!(api.post("/v1/events", &key, &json!({ "type": "x", "data": null })).await.status, 202);
    let got = api.get(&path, &key).await.body;
    let totals = &got["totals"];
    assert_eq!(
        (&totals["dead"], &totals["delivered"], &totals["failed_attempts"]),
        (&json!(2), &json!(0), &json!(2))
    );
    assert_eq!((&totals["latency_p50_ms"], &totals["latency_p95_ms"]), (&json!(5), &json!(5)));
    assert_eq!(
        (&got["queued"], &got["failing"], got["oldest_open"].is_string()),
        (&json!(1), &json!(0), true)
    );
    assert_eq!(got["days"].as_array().unwrap().len(), 1);
    let other = api.full_tenant("other").await;
    assert_eq!(api.get(&path, &other).await.status, 404);
}
