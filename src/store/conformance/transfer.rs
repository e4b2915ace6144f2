//! Events on their way from one store to another.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{Attempt, Job, JobState, Outcome};
use crate::domain::time::Timestamp;
use crate::store::{
    Accepted, Dedupe, Delivery, DeliveryQuery, Ingest, Ingested, KeptEvent, KeptJob, RecordId, Store, Tried,
};

use super::world::{MAPPING, World, ids_of};

/// Every event there is, in pages of two.
async fn export_all(store: &dyn Store) -> Vec<KeptEvent> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.export(after, 2).await.unwrap();
        assert!(page.events.len() <= 2);
        all.extend(page.events);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

pub async fn what_is_exported_is_what_is_there(world: World) {
    let (a, b) = (world.connect("acme", 9).await, world.connect("other", 1).await);
    for _ in 0..3 {
        world
            .ingest(vec![world.event("acme", &[a]), world.event("other", &[b]), world.event("acme", &[])])
            .await;
    }
    let leases = world.lease(2).await;
    assert_eq!(world.settle(&leases[..1], Outcome::Retry).await, 1);
    let mut settlement = world.settlement(&leases[1], Outcome::Delivered, None);
    settlement.reason = "fine".to_owned();
    assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));

    let exported = export_all(world.store.as_ref()).await;
    assert_eq!(exported.len(), 9);
    let mut jobs = 0;
    for kept in &exported {
        let there = world.store.event(&kept.event.tenant, &kept.event.id).await.unwrap().unwrap();
        assert_eq!(*kept.event, there);
        assert_eq!(kept.event.document, there.document);
        for job in &kept.jobs {
            assert_eq!(job.delivery, world.delivery(job.delivery.job.id).await);
            jobs += 1;
        }
    }
    assert_eq!(jobs, world.deliveries().await.len());
}

fn kept(world: &World, to: ConnectionId, state: JobState, due: Option<Timestamp>) -> KeptEvent {
    let new = world.event("acme", &[to]);
    let id = JobId::from_bits(world.ids.next());
    let ended = !state.is_open();
    let tries = u32::from(state != JobState::Queued);
    let attempts = (0..tries).map(|number| Attempt {
        number: number + 1,
        at: world.now(),
        duration_ms: 3,
        status: Some(500),
        outcome: Outcome::Retry,
        reason: "because".to_owned(),
        remote_id: None,
        headers: Vec::new(),
        body: String::new(),
    });
    let job = Job {
        id,
        name: id,
        tenant: new.event.tenant.clone(),
        connection: to,
        event: new.event.key,
        mapping: MAPPING,
        created: world.now(),
        attempts: tries,
        tries,
    };
    let attempts: Vec<Attempt> = attempts.collect();
    let delivery = Delivery {
        job,
        event_id: new.event.id.clone(),
        kind: new.event.kind.clone(),
        state,
        due,
        finished: ended.then(|| world.now()),
        reason: state.name().to_owned(),
        last: attempts.last().map(Tried::from),
        attempts,
    };
    let rendered = due.map(|_| Bytes::from_static(b"as it was sent"));
    KeptEvent { event: new.event, dedupe: None, jobs: vec![KeptJob { delivery, rendered }] }
}

pub async fn what_is_imported_goes_on_where_it_stood(world: World) {
    let to = world.connect("acme", 9).await;
    let deleted = world.connect("acme", 9).await;
    world.store.delete(RecordId::Connection(deleted)).await.unwrap();
    let due = world.now().plus(Duration::from_secs(30));
    let mut events = vec![
        kept(&world, to, JobState::Queued, None),
        kept(&world, to, JobState::Waiting, Some(due)),
        kept(&world, to, JobState::Dead, None),
        kept(&world, deleted, JobState::Delivered, None),
        kept(&world, to, JobState::Queued, None),
    ];
    let dedupe = Dedupe { key: [3; 16], content: [4; 16] };
    events[0].dedupe = Some(dedupe);
    let names: Vec<JobId> = events.iter().map(|kept| kept.jobs[0].delivery.job.name).collect();
    assert_eq!(world.store.import(events[..2].to_vec()).await, Ok(2));
    assert_eq!(world.store.import(events.clone()).await, Ok(3), "what is there stays as it is");
    assert_eq!(world.store.import(events.clone()).await, Ok(0));

    let world = world.crash().await;
    assert_eq!(world.stats().await.open, 3);
    let exported = export_all(world.store.as_ref()).await;
    assert_eq!(exported.len(), events.len());
    for kept in &events {
        let found = exported.iter().find(|found| found.event.key == kept.event.key).unwrap();
        let (ours, theirs) = (&kept.jobs[0], &found.jobs[0]);
        assert_eq!((&found.event, &theirs.rendered), (&kept.event, &ours.rendered));
        let mut delivery = theirs.delivery.clone();
        delivery.job.id = ours.delivery.job.id;
        assert_eq!(delivery, ours.delivery);
    }
    let fresh = world.lease(9).await;
    let leased: Vec<JobId> = fresh.iter().map(|lease| lease.job.name).collect();
    assert_eq!(leased, [names[0], names[4]], "in their order");
    assert!(fresh.iter().all(|lease| lease.doubtful), "the other store may have had them leased");
    assert_eq!(world.settle(&fresh, Outcome::Delivered).await, 2);
    world.advance_secs(30);
    let retried = world.lease(9).await;
    assert_eq!((retried.len(), retried[0].job.name, retried[0].job.tries), (1, names[1], 1));
    assert_eq!(retried[0].rendered.as_deref(), Some(&b"as it was sent"[..]));
    assert_eq!(world.settle(&retried, Outcome::Delivered).await, 1);
    assert_eq!(world.delivery(ids_of(&retried)[0]).await.attempts.len(), 2);
    let dead = DeliveryQuery { state: Some(JobState::Dead), limit: 9, ..DeliveryQuery::default() };
    let dead = world.store.deliveries(dead).await.unwrap().items;
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "dead"));

    // The platform sends the same event again.
    let mut again = world.event_named("acme", &events[0].event.id, &[to]);
    again.dedupe = Some(dedupe);
    let id = again.event.id.clone();
    let repeated = world.store.ingest(Ingest { idempotency: None, events: vec![again] }).await;
    assert_eq!(repeated, Ok(Ingested::Stored(vec![Accepted::Stored { id, jobs: 1, duplicate: true }])));
}
