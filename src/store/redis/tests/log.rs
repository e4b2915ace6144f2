//! The delivery log, and what retention removes.

use super::*;
use crate::store::DeliveryQuery;

#[tokio::test]
async fn the_log_is_filtered_and_paged_newest_first() {
    let bench = Bench::new().await;
    let (one, two) = (bench.connection("acme", 100).await, bench.connection("acme", 100).await);
    let other = bench.connection("other", 100).await;
    for _ in 0..120 {
        bench.ingest("acme", &[one, two]).await;
        bench.ingest("other", &[other]).await;
        bench.advance(1);
    }
    let of = |tenant_name: Option<&str>, connection| DeliveryQuery {
        tenant: tenant_name.map(tenant),
        connection,
        limit: 1_000,
        ..DeliveryQuery::default()
    };
    let count = async |query| bench.store.deliveries(query).await.unwrap().items.len();
    assert_eq!(count(of(None, None)).await, 360);
    assert_eq!(count(of(Some("acme"), None)).await, 240);
    assert_eq!(count(of(None, Some(two))).await, 120);
    assert_eq!(count(of(Some("other"), Some(two))).await, 0);
    let mut cursor = None;
    let mut all = Vec::new();
    loop {
        let query = DeliveryQuery { before: cursor, limit: 7, ..of(Some("acme"), None) };
        let page = bench.store.deliveries(query).await.unwrap().items;
        let Some(last) = page.last() else { break };
        cursor = Some(last.job.id);
        all.extend(page.into_iter().map(|delivery| delivery.job.id));
    }
    assert_eq!(all.len(), 240);
    assert!(all.is_sorted_by(|left, right| left > right));
    let since = START.plus(Duration::from_secs(100));
    let until = START.plus(Duration::from_secs(110));
    let span = DeliveryQuery { since: Some(since), until: Some(until), ..of(Some("acme"), Some(one)) };
    assert_eq!(count(span).await, 10);
    let lease = bench.lease(1).await.remove(0);
    bench.settle(&lease, Next::Done(JobState::Dead)).await;
    let dead = DeliveryQuery { state: Some(JobState::Dead), ..of(None, None) };
    assert_eq!(count(dead).await, 1);
    let kind = DeliveryQuery { kind: Some("lead.lost".to_owned()), ..of(None, None) };
    assert_eq!(count(kind).await, 0);
    let event = DeliveryQuery { event: Some(lease.event.id.clone()), ..of(None, None) };
    let known = bench.store.deliveries(event.clone()).await.unwrap().items;
    let with_tenant = DeliveryQuery { tenant: Some(lease.job.tenant.clone()), ..event };
    assert_eq!(bench.store.deliveries(with_tenant).await.unwrap().items, known);
    assert!(known.iter().any(|delivery| delivery.job.id == lease.job.id));
}

#[tokio::test]
async fn retention_removes_what_has_ended_and_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let quiet = bench.connection("acme", 256).await;
    for _ in 0..300 {
        bench.ingest("acme", &[lane]).await;
    }
    let open = bench.event("acme", &[quiet]);
    bench.store.ingest(Ingest { idempotency: None, events: vec![open.clone()] }).await.unwrap();
    let mut waiting = None;
    loop {
        let leases = bench.lease(100).await;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            if lease.job.connection == quiet {
                waiting = Some(lease.job.id);
                bench.settle(&lease, Next::Due(bench.later(10 * 24 * 3_600))).await;
            } else {
                bench.settle(&lease, delivered()).await;
            }
        }
    }
    assert_eq!(bench.store.sweep().await.unwrap().removed, 0);
    bench.advance(8 * 24 * 3_600);
    let mut removed = 0;
    loop {
        let sweep = bench.store.sweep().await.unwrap();
        removed += sweep.removed;
        if !sweep.more {
            break;
        }
    }
    assert_eq!(removed, 600);
    assert!(bench.store.delivery(waiting.unwrap()).await.unwrap().is_some(), "open jobs stay");
    assert!(bench.store.event(&tenant("acme"), &open.event.id).await.unwrap().is_some());
    bench.advance(3 * 24 * 3_600);
    let lease = bench.lease(10).await.remove(0);
    bench.settle(&lease, delivered()).await;
    assert_eq!(bench.store.sweep().await.unwrap().removed, 0, "what ended late is kept from then on");
    bench.advance(8 * 24 * 3_600);
    assert_eq!(bench.store.sweep().await.unwrap().removed, 2);
    let keys: Vec<Vec<u8>> = redis::from_redis_value(bench.server.command(&["KEYS", "*"]).await).unwrap();
    let keys: Vec<String> = keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    let left: Vec<&String> = keys
        .iter()
        .filter(|key| !["state", "lanes", "owners"].iter().any(|kept| key.ends_with(kept)))
        .filter(|key| !key.starts_with("pb:{c}:"))
        // A day's totals forget themselves.
        .filter(|key| !key.contains("}:k:"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_reader_notices_nothing_of_a_server_that_was_started_again() {
    let mut bench = Bench::on(Server::durable()).await;
    let lane = bench.connection("acme", 16).await;
    bench.ingest("acme", &[lane]).await;
    for round in 0..2 {
        let log = bench.store.deliveries(DeliveryQuery { limit: 10, ..DeliveryQuery::default() }).await;
        assert_eq!(log.unwrap().items.len(), 1, "round {round}");
        bench.server.kill();
        bench.server.launch();
    }
}
