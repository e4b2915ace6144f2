//! The delivery log: filters and cursors.

use std::time::Duration;

use crate::domain::job::{JobState, Outcome};
use crate::store::DeliveryQuery;

use super::world::{World, tenant_id};

pub async fn each_filter_narrows(world: World) {
    let a = world.connect("acme", 9).await;
    let b = world.connect("acme", 9).await;
    let c = world.connect("other", 9).await;
    let early = world.now();
    let shared = world.event("acme", &[a, b]);
    world.ingest(vec![shared.clone(), world.event("acme", &[a])]).await;
    world.advance_secs(10);
    let late = world.now();
    world.ingest(vec![world.event("other", &[c]), world.event("acme", &[b])]).await;
    let leases = world.lease(1).await;
    assert_eq!(world.settle(&leases, Outcome::Rejected).await, 1);

    let all = DeliveryQuery { limit: 100, ..DeliveryQuery::default() };
    let event = Some(shared.event.id.clone());
    let tenant = Some(tenant_id("acme"));
    let cases = [
        ("all", all.clone(), 5),
        ("tenant", DeliveryQuery { tenant: tenant.clone(), ..all.clone() }, 4),
        ("connection", DeliveryQuery { connection: Some(a), ..all.clone() }, 2),
        ("event", DeliveryQuery { event: event.clone(), ..all.clone() }, 2),
        ("event of tenant", DeliveryQuery { event: event.clone(), tenant, ..all.clone() }, 2),
        ("event of other", DeliveryQuery { event, tenant: Some(tenant_id("other")), ..all.clone() }, 0),
        ("kind", DeliveryQuery { kind: Some("lead.captured".to_owned()), ..all.clone() }, 5),
        ("other kind", DeliveryQuery { kind: Some("lead".to_owned()), ..all.clone() }, 0),
        ("state", DeliveryQuery { state: Some(JobState::Rejected), ..all.clone() }, 1),
        ("since", DeliveryQuery { since: Some(late), ..all.clone() }, 2),
        ("until", DeliveryQuery { until: Some(late), ..all.clone() }, 3),
        ("since early", DeliveryQuery { since: Some(early), ..all.clone() }, 5),
        (
            "between",
            DeliveryQuery {
                since: Some(early.plus(Duration::from_millis(1))),
                until: Some(late),
                ..all.clone()
            },
            0,
        ),
        ("limit", DeliveryQuery { limit: 3, ..all.clone() }, 3),
        ("none", DeliveryQuery { limit: 0, ..all }, 0),
    ];
    for (name, query, wanted) in cases {
        let found = world.store.deliveries(query).await.unwrap();
        assert_eq!(found.len(), wanted, "{name}");
        assert!(found.is_sorted_by(|left, right| left.job.id > right.job.id), "{name}: newest first");
        assert!(found.iter().all(|delivery| delivery.attempts.is_empty()), "{name}");
    }
    assert_eq!(world.store.delivery(crate::domain::id::JobId::from_bits(3)).await, Ok(None));
}

pub async fn a_cursor_walks_all_deliveries_once(world: World) {
    let a = world.connect("acme", 9).await;
    let b = world.connect("acme", 9).await;
    for _ in 0..5 {
        world.ingest((0..9).map(|_| world.event("acme", &[a, b])).collect()).await;
        world.advance_secs(1);
    }
    let mut seen = Vec::new();
    let mut query = DeliveryQuery { connection: Some(b), limit: 7, ..DeliveryQuery::default() };
    loop {
        let page = world.store.deliveries(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.job.id);
        seen.extend(page.iter().map(|delivery| delivery.job.id));
    }
    assert_eq!(seen.len(), 45);
    assert!(seen.is_sorted_by(|left, right| left > right));
}
