//! Alerts, from the failure to the connection that is told of it. Deliveries are made here one by one, so that the clock
//! can be moved between them.

use std::time::Duration;

use serde_json::{Value, json};

use super::TestApi;
use super::receiver::{Came, Receiver, Says};
use super::redis::{api_on, gateway_on};
use crate::domain::id::JobId;
use crate::service::Settings;
use crate::service::deliver::deliver;
use crate::service::watch::alert::Matter;
use crate::store::redis::tests::server::Server;
use crate::store::{DeliveryQuery, Lease, Retried, StoreError};

const SPAN: Duration = Duration::from_secs(90);

/// A gateway whose operator is told in the tenant `ops`.
async fn start() -> TestApi {
    let settings = Settings {
        alerts_tenant: Some("ops".parse().unwrap()),
        public_url: Some("https://hooks.example.com".to_owned()),
        ..Settings::default()
    };
    let api = TestApi::with(settings).await;
    api.full_tenant("ops").await;
    api
}

/// What can be leased now.
async fn lease(api: &TestApi) -> Vec<Lease> {
    for _ in 0..30 {
        let leases = api.gateway.store.lease(16, SPAN).await.unwrap();
        if !leases.is_empty() {
            return leases;
        }
        // A round trip behind whatever the store does to find more.
        assert_eq!(api.gateway.store.retry(JobId::from_bits(0), None).await, Ok(Retried::Missing));
    }
    Vec::new()
}

/// Tries all that is due, and sends the alerts of it, until nothing more is due.
async fn work(api: &TestApi) {
    loop {
        let leases = lease(api).await;
        if leases.is_empty() {
            return;
        }
        // One by one, as attempts are, but for batches.
        for lease in leases {
            let settlements = deliver(&api.gateway, vec![lease]).await;
            api.gateway.store.settle(settlements).await.unwrap();
        }
        api.gateway.directory.catch_up(api.gateway.store.as_ref()).await.unwrap();
        api.gateway.raise_alerts().await.unwrap();
    }
}

/// The alerts that came since the last look: their types with something that tells them apart.
fn told(receiver: &Receiver) -> Vec<(String, Value)> {
    let of = |came: Came| {
        let event = came.json();
        let data = &event["data"];
        let detail = ["percent", "by", "state", "failures", "cells", "lasted_secs"];
        let detail = detail.iter().map(|name| &data[*name]).find(|value| !value.is_null());
        (event["type"].as_str().unwrap().to_owned(), detail.cloned().unwrap_or_default())
    };
    receiver.came().into_iter().map(of).collect()
}

/// A connection of a tenant for alerts.
async fn listen(api: &TestApi, tenant: &str, events: &[&str], url: &str) -> String {
    let wanted = json!({ "name": "Alerts", "tenant": tenant, "events": events, "target": { "url": url } });
    api.connection(&api.operator, wanted).await
}

async fn publish(api: &TestApi, key: &str, id: &str) {
    let event = json!({ "type": "lead.captured", "id": id, "data": { "email": "jane@example.com" } });
    assert_eq!(api.post("/v1/events", key, &event).await.status, 202);
}

#[tokio::test]
async fn a_run_of_failures_is_told_at_its_levels_then_its_end_and_its_recovery() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let (mine, ops) = (Receiver::start([]).await, Receiver::start([]).await);
    listen(&api, "acme", &["gateway.*"], &mine.url).await;
    listen(&api, "ops", &["gateway.connection.failing", "gateway.connection.disabled"], &ops.url).await;
    let fails = api.connection(&key, json!({ "name": "CRM", "events": ["lead.*"] })).await;
    for number in 0..12 {
        publish(&api, &key, &format!("lead-{number}")).await;
    }
    work(&api).await;
    assert_eq!(told(&mine), [], "five failures in a row are nothing to wake anybody for");
    let mut told_when = Vec::new();
    for step in 1..=48 {
        api.clock.advance(Duration::from_mins(30));
        work(&api).await;
        told_when.extend(told(&mine).into_iter().map(|(kind, detail)| (step, kind, detail)));
    }
    let failing = |step, percent: u32| (step, "gateway.connection.failing".to_owned(), json!(percent));
    let disabled = (48, "gateway.connection.disabled".to_owned(), json!("breaker"));
    assert_eq!(told_when, [failing(24, 50), failing(34, 70), failing(44, 90), failing(48, 100), disabled]);
    let of_ops = ops.came();
    assert_eq!(of_ops.len(), 5, "the operator is told of every tenant, as far as it asks");
    let last = of_ops[4].json();
    assert!(!of_ops[4].body.contains("jane@example.com"));
    let data = &last["data"];
    assert_eq!((&data["tenant"], &data["connection"]["name"]), (&json!("acme"), &json!("CRM")));
    assert_eq!(data["connection"]["id"], json!(fails));
    assert_eq!(
        data["links"]["connection"],
        json!(format!("https://hooks.example.com/v1/connections/{fails}"))
    );
    assert!(
        data["links"]["delivery"]
            .as_str()
            .unwrap()
            .starts_with("https://hooks.example.com/v1/deliveries/job_")
    );
    assert_eq!((&data["event_type"], &data["last_error"]["status"]), (&json!("lead.captured"), &Value::Null));
    assert!(data["last_error"]["text"].as_str().unwrap().contains("refused"), "{data}");

    // Mended and resumed: the first delivery says so, and no other.
    let path = format!("/v1/connections/{fails}");
    let shown = api.get(&path, &key).await.body;
    assert_eq!((&shown["state"]["by"], &shown["state"]["key"]), (&json!("breaker"), &Value::Null));
    let target = Receiver::start([]).await;
    let patch = json!({ "target": { "url": target.url } });
    assert_eq!(api.call("PATCH", &path, &key, Some(&patch)).await.status, 200);
    assert_eq!(api.post(&format!("{path}/resume"), &key, &json!({})).await.status, 200);
    // Its retries are due at the latest now.
    api.clock.advance(Duration::from_hours(30));
    work(&api).await;
    assert_eq!(told(&mine), [("gateway.connection.recovered".to_owned(), json!(0))]);
    api.clock.advance(Duration::from_hours(30));
    publish(&api, &key, "lead-after").await;
    work(&api).await;
    assert_eq!(target.came().len(), 13);
    assert_eq!(told(&mine), [], "what works is no news");
}

#[tokio::test]
async fn a_success_ends_a_run_that_was_told_of() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let mine = Receiver::start([]).await;
    listen(&api, "acme", &["gateway.*"], &mine.url).await;
    let answers = std::iter::repeat_n(Says::status(503), 14);
    let target = Receiver::start(answers).await;
    let policy = json!({ "pause_failures": 20, "pause_secs": 3600 });
    let wanted = json!({ "events": ["lead.*"], "target": { "url": target.url }, "policy": policy });
    let _flaky = api.connection(&key, wanted).await;
    for number in 0..8 {
        publish(&api, &key, &format!("lead-{number}")).await;
    }
    let mut told_of = Vec::new();
    for _ in 0..40 {
        work(&api).await;
        told_of.extend(told(&mine));
        api.clock.advance(Duration::from_mins(13));
    }
    let kinds: Vec<&str> = told_of.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["gateway.connection.failing", "gateway.connection.recovered"], "{told_of:?}");
    assert!(told_of[1].1.as_u64().unwrap() >= 10);
}

#[tokio::test]
async fn what_the_gateway_stops_at_once_is_told_and_by_what() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let mine = Receiver::start([]).await;
    listen(&api, "acme", &["gateway.*"], &mine.url).await;
    let gone = Receiver::start([Says::body(410, "secret words of the other side")]).await;
    let wanted = json!({ "events": ["lead.*"], "target": { "url": gone.url } });
    let closed = api.connection(&key, wanted).await;
    publish(&api, &key, "lead-1").await;
    work(&api).await;
    let came = mine.came();
    assert_eq!(came.len(), 1);
    let data = &came[0].json()["data"];
    assert_eq!(came[0].json()["type"], json!("gateway.connection.disabled"));
    assert_eq!((&data["by"], &data["status"]), (&json!("gone"), &json!("closed")));
    assert_eq!(data["last_error"]["status"], json!(410));
    assert!(!came[0].body.contains("secret words"));
    let path = format!("/v1/connections/{closed}");
    let shown = api.get(&path, &key).await.body;
    assert_eq!((&shown["state"]["status"], &shown["state"]["by"]), (&json!("closed"), &json!("gone")));
    // A person's own pause is no news to anybody.
    assert_eq!(api.post(&format!("{path}/resume"), &key, &json!({})).await.status, 200);
    assert_eq!(api.post(&format!("{path}/pause"), &key, &json!({})).await.status, 200);
    work(&api).await;
    assert_eq!(told(&mine), []);
}

#[tokio::test]
async fn refused_credentials_are_told() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let (mine, target) = (Receiver::start([]).await, Receiver::start([Says::status(401)]).await);
    listen(&api, "acme", &["gateway.*"], &mine.url).await;
    let wanted = json!({ "events": ["lead.*"], "connector": "conversica", "target": { "url": target.url },
        "credentials": { "user": "u", "password": "s3cret" } });
    api.connection(&key, wanted).await;
    let sample = api.gateway.catalogue().samples()["lead.captured"].clone();
    assert_eq!(api.post("/v1/events", &key, &sample).await.status, 202);
    work(&api).await;
    assert_eq!(told(&mine), [("gateway.connection.paused".to_owned(), json!("auth_failed"))]);
}

/// A connection whose mapping fails on every event.
async fn broken(api: &TestApi, key: &str, events: &[&str]) -> String {
    let fields = json!([{ "to": "n", "from": "$.data.number", "required": true }]);
    let mapping = json!({ "version": 1, "fields": fields });
    api.connection(key, json!({ "name": "Broken", "events": events, "mapping": mapping })).await
}

async fn alerts_stored(api: &TestApi) -> usize {
    let query = DeliveryQuery { limit: 1_000, ..DeliveryQuery::default() };
    let all = api.gateway.store.deliveries(query).await.unwrap().items;
    all.iter().filter(|delivery| delivery.kind.starts_with("gateway.")).count()
}

#[tokio::test]
async fn alerts_that_fail_make_no_alerts_and_none_goes_to_whom_it_is_about() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    // Each carries alerts, of which it can deliver none.
    broken(&api, &key, &["lead.*", "gateway.*"]).await;
    broken(&api, &key, &["lead.*", "gateway.dead_letter"]).await;
    publish(&api, &key, "lead-1").await;
    work(&api).await;
    assert_eq!(alerts_stored(&api).await, 2, "each is told of the other, and neither of itself");
    for _ in 0..5 {
        api.clock.advance(Duration::from_hours(2));
        work(&api).await;
    }
    assert_eq!(alerts_stored(&api).await, 2, "nothing comes of alerts that could not be delivered");
}

#[tokio::test]
async fn of_a_connection_and_kind_there_is_one_an_hour() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let mine = Receiver::start([]).await;
    listen(&api, "acme", &["gateway.dead_letter"], &mine.url).await;
    broken(&api, &key, &["lead.*"]).await;
    broken(&api, &key, &["lead.*"]).await;
    let dead = ("gateway.dead_letter".to_owned(), json!("mapping_failed"));
    for hour in 0..3 {
        publish(&api, &key, &format!("lead-{hour}-a")).await;
        work(&api).await;
        assert_eq!(told(&mine), [dead.clone(), dead.clone()], "one of each connection");
        for minute in [1, 29, 29] {
            api.clock.advance(Duration::from_mins(minute));
            publish(&api, &key, &format!("lead-{hour}-{}", api.clock.now())).await;
            work(&api).await;
            assert_eq!(told(&mine), [], "not within the hour");
        }
        api.clock.advance(Duration::from_mins(1));
    }
}

#[tokio::test]
async fn a_type_of_the_gateways_own_is_sent_by_nobody_else_and_no_star_takes_it() {
    let api = start().await;
    let key = api.full_tenant("acme").await;
    let all = Receiver::start([]).await;
    api.connection(&key, json!({ "events": ["*"], "target": { "url": all.url } })).await;
    broken(&api, &key, &["lead.*"]).await;
    for kind in ["gateway.dead_letter", "gateway.anything"] {
        let refused = api.post("/v1/events", &key, &json!({ "type": kind, "data": {} })).await;
        assert_eq!((refused.status, refused.pointers()), (400, vec!["/type"]), "{refused:?}");
        assert!(refused.text.contains("reserved"), "{refused:?}");
    }
    publish(&api, &key, "lead-1").await;
    work(&api).await;
    let came: Vec<Value> = all.came().iter().map(Came::json).collect();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0]["type"], json!("lead.captured"));
    assert_eq!(alerts_stored(&api).await, 0, "what nobody asks for is not even kept");
}

#[tokio::test]
async fn an_outage_of_the_store_is_told_to_the_operator_when_it_is_over() {
    let api = start().await;
    let (mine, ops) = (Receiver::start([]).await, Receiver::start([]).await);
    api.full_tenant("acme").await;
    listen(&api, "acme", &["gateway.*"], &mine.url).await;
    listen(&api, "ops", &["gateway.*"], &ops.url).await;
    let away = StoreError::Unavailable("the disk is gone".to_owned());
    for (secs, wanted) in [(9, None), (42, Some(42))] {
        api.gateway.store_failed(&away);
        api.clock.advance(Duration::from_secs(secs));
        api.gateway.store_failed(&away);
        api.gateway.raise_alerts().await.unwrap();
        work(&api).await;
        let wanted: Vec<_> =
            wanted.iter().map(|secs| ("gateway.store.unhealthy".to_owned(), json!(secs))).collect();
        assert_eq!(told(&ops), wanted);
    }
    for harmless in [StoreError::Overloaded, StoreError::Conflict] {
        api.gateway.store_failed(&harmless);
        api.clock.advance(Duration::from_hours(2));
        api.gateway.raise_alerts().await.unwrap();
    }
    work(&api).await;
    assert_eq!(told(&ops), []);
    assert_eq!(told(&mine), [], "it is the operator's store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_is_one_for_all_processes_and_a_full_server_is_an_outage() {
    let server = Server::start();
    let settings = Settings { alerts_tenant: Some("ops".parse().unwrap()), ..Settings::default() };
    let one = api_on(&server, settings.clone()).await;
    let key = one.full_tenant("ops").await;
    let ops = Receiver::start([]).await;
    listen(&one, "ops", &["gateway.*"], &ops.url).await;
    let id = broken(&one, &key, &["lead.*"]).await.parse().unwrap();
    let two = gateway_on(&server, &one.clock, settings).await;
    for gateway in [&one.gateway, &two] {
        for number in 0..3 {
            let matter = Matter::Recovered { failures: number };
            gateway.note(Some(id), matter, None);
            gateway.raise_alerts().await.unwrap();
        }
    }
    work(&one).await;
    assert_eq!(told(&ops).len(), 1, "two processes, one alert");

    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let event = json!({ "type": "lead.captured", "id": "full", "data": {} });
    assert_eq!(one.post("/v1/events", &key, &event).await.status, 503);
    one.clock.advance(Duration::from_secs(30));
    assert!(one.gateway.raise_alerts().await.is_err(), "it is still full");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    one.clock.advance(Duration::from_secs(30));
    one.gateway.raise_alerts().await.unwrap();
    work(&one).await;
    assert_eq!(told(&ops), [("gateway.store.unhealthy".to_owned(), json!(60))]);
}
