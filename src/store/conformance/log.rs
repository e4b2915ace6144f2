//! The delivery log: filters and cursors.

use std::time::Duration;

use crate::domain::job::{JobState, Outcome};
use crate::domain::time::Timestamp;
use crate::store::{DeliveryQuery, Lease, Tally};

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
        ("outcome", DeliveryQuery { outcome: Some(Outcome::Rejected), ..all.clone() }, 1),
        ("other outcome", DeliveryQuery { outcome: Some(Outcome::Retry), ..all.clone() }, 0),
        ("status", DeliveryQuery { status: Some(500), ..all.clone() }, 0),
        ("text", DeliveryQuery { text: Some("BeCause".to_owned()), ..all.clone() }, 1),
        ("other text", DeliveryQuery { text: Some("becauses".to_owned()), ..all.clone() }, 0),
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
        let found = world.store.deliveries(query).await.unwrap().items;
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
        let page = world.store.deliveries(query.clone()).await.unwrap().items;
        let Some(last) = page.last() else { break };
        query.before = Some(last.job.id);
        seen.extend(page.iter().map(|delivery| delivery.job.id));
    }
    assert_eq!(seen.len(), 45);
    assert!(seen.is_sorted_by(|left, right| left > right));
}

pub async fn a_long_search_says_where_to_go_on(world: World) {
    let mut lanes = Vec::new();
    for _ in 0..21 {
        lanes.push(world.connect("acme", 9).await);
    }
    let first = world.event("acme", &lanes[..1]);
    world.ingest(vec![first]).await;
    let lease = world.lease(1).await;
    assert_eq!(world.settle(&lease, Outcome::Rejected).await, 1);
    for _ in 0..10 {
        world.ingest((0..50).map(|_| world.event("acme", &lanes)).collect()).await;
        world.advance_secs(1);
    }
    for tenant in [Some(tenant_id("acme")), None] {
        let state = Some(JobState::Rejected);
        let mut query = DeliveryQuery { tenant, state, limit: 5, ..DeliveryQuery::default() };
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = world.store.deliveries(query.clone()).await.unwrap();
            found.extend(page.items.iter().map(|delivery| delivery.job.id));
            pages += 1;
            assert!(pages < 50, "a search that does not end");
            match page.next {
                Some(next) => assert!(query.before.is_none_or(|before| next < before), "it goes on"),
                None => break,
            }
            query.before = page.next;
        }
        assert_eq!(found, [lease[0].job.id]);
        assert!(pages > 1, "10 500 deliveries in one step");
    }
}

pub async fn totals_tell_what_came_of_a_connections_jobs(world: World) {
    let a = world.connect("acme", 9).await;
    let b = world.connect("acme", 9).await;
    let acme = tenant_id("acme");
    assert_eq!(world.store.tally(&acme, a).await.unwrap(), Tally::default());
    let oldest = world.now();
    world.fill("acme", a, 5).await;
    world.advance_secs(3);
    world.fill("acme", b, 1).await;
    let leases: Vec<Lease> = world.lease(6).await;
    let of_a: Vec<Lease> = leases.iter().filter(|lease| lease.job.connection == a).cloned().collect();
    let of_b: Vec<Lease> = leases.into_iter().filter(|lease| lease.job.connection == b).collect();
    assert_eq!((of_a.len(), of_b.len()), (5, 1));
    for (index, (outcome, millis)) in
        [(Outcome::Delivered, 8), (Outcome::Duplicate, 40), (Outcome::Rejected, 900), (Outcome::Retry, 9)]
            .into_iter()
            .enumerate()
    {
        let mut settlement = world.settlement(&of_a[index], outcome, None);
        settlement.attempt.as_mut().unwrap().duration_ms = millis;
        assert_eq!(world.store.settle(vec![settlement.clone()]).await, Ok(1));
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(0), "nothing is counted twice");
    }
    world.settle(&of_b, Outcome::Delivered).await;
    world.store.release(&[of_a[4].reference()]).await.unwrap();

    let tally = world.store.tally(&acme, a).await.unwrap();
    let totals = tally.totals();
    assert_eq!(
        (totals.ended(JobState::Delivered), totals.ended(JobState::Rejected), totals.ended(JobState::Dead)),
        (2, 1, 0)
    );
    assert_eq!((totals.attempts(), totals.failed_attempts()), (4, 2));
    assert_eq!((totals.latency_ms(50), totals.latency_ms(95)), (Some(10), Some(1_000)));
    assert_eq!((tally.queued, tally.waiting), (1, 1));
    assert_eq!(tally.oldest.map(Timestamp::millis), Some(oldest.millis()));
    let other = world.store.tally(&acme, b).await.unwrap();
    assert_eq!((other.totals().ended(JobState::Delivered), other.queued, other.oldest), (1, 0, None));

    // Another day is counted by itself; after a week it is forgotten.
    world.advance(Duration::from_hours(24));
    let again = world.lease(2).await;
    world.settle(&again, Outcome::Delivered).await;
    let tally = world.store.tally(&acme, a).await.unwrap();
    let by_day: Vec<u64> = tally.days.iter().map(|(_, day)| day.ended(JobState::Delivered)).collect();
    assert_eq!(by_day, [2, 2]);
    assert_eq!((tally.queued, tally.waiting, tally.oldest), (0, 0, None));
    world.advance(Duration::from_hours(24 * 6));
    let tally = world.store.tally(&acme, a).await.unwrap();
    assert_eq!(tally.days.len(), 1);
}
