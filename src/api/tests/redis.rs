//! What a platform sees of a Redis that is full or was emptied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::TestApi;
use crate::clock::{Clock, Entropy, Ids};
use crate::service::{Gateway, Settings, testing};
use crate::store::redis::tests::server::Server;
use crate::store::redis::{RedisSettings, RedisStore};

pub(super) async fn api_on(server: &Server, settings: Settings) -> TestApi {
    let clock = Clock::manual(testing::START);
    let gateway = gateway_on(server, &clock, settings).await;
    TestApi::over(gateway, clock, TempDir::new().unwrap()).await
}

/// One process's gateway on a server.
pub(super) async fn gateway_on(server: &Server, clock: &Clock, settings: Settings) -> Arc<Gateway> {
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store = RedisStore::open(RedisSettings::new(server.url()), clock.clone(), ids).await.unwrap();
    testing::gateway_on(Arc::new(store), clock.clone(), settings, 7).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_a_problem_with_retry_after() {
    let server = Server::start();
    let api = api_on(&server, Settings::default()).await;
    let key = api.full_tenant("acme").await;
    let event = json!({ "type": "lead.captured", "id": "lead-1", "source": "bot", "data": {} });
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let refused = api.post("/v1/events", &key, &event).await;
    assert_eq!((refused.status, refused.code()), (503, "store_full"));
    assert!(refused.header("retry-after").is_some());
    api.gateway.progress.beat(api.clock.now());
    let ready = api.get("/readyz", "").await;
    assert_eq!((ready.status, ready.pointers()), (503, vec!["/store"]));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(api.post("/v1/events", &key, &event).await.status, 202, "the same event is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_said_plainly_and_work_goes_on() {
    let server = Server::start();
    let api = api_on(&server, Settings::default()).await;
    let key = api.full_tenant("acme").await;
    let rows = json!({ "fields": { "email": "lead.email" } });
    let inline = api.connection(&key, json!({ "mapping": rows })).await;
    api.connection(&key, json!({})).await;
    api.gateway.progress.beat(api.clock.now());
    let event = |id: &str| json!({ "type": "lead.captured", "id": id, "source": "bot", "data": {} });
    assert_eq!(api.post("/v1/events", &key, &event("one")).await.status, 202);
    assert_eq!(api.get("/readyz", "").await.status, 200);

    server.command(&["FLUSHALL"]).await;
    let emptied = api.get("/readyz", "").await;
    assert_eq!((emptied.status, emptied.pointers()), (503, vec!["/store"]));
    assert!(emptied.text.contains("was emptied"), "{}", emptied.text);
    let refused = api.post("/v1/events", &key, &event("two")).await;
    assert_eq!((refused.status, refused.code()), (503, "store_unavailable"));

    let gateway = Arc::clone(&api.gateway);
    let following = tokio::spawn(async move { gateway.follow().await });
    let began = Instant::now();
    while api.get("/readyz", "").await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(api.post("/v1/events", &key, &event("two")).await.status, 202);
    let leases = api.gateway.store.lease(10, Duration::from_secs(90)).await.unwrap();
    assert_eq!(leases.len(), 2, "both connections are there");
    for lease in leases {
        assert!(api.gateway.store.mapping(lease.job.mapping).await.unwrap().is_some());
    }
    assert_eq!(api.get(&format!("/v1/connections/{inline}"), &key).await.status, 200);
    let renamed =
        api.call("PATCH", &format!("/v1/connections/{inline}"), &key, Some(&json!({ "name": "new" }))).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    following.abort();
}
