//! Replays, added jobs, erasures and purges.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::world::{MAPPING, RETENTION, SPAN, World, tenant_id};
use crate::domain::id::{ChoreId, ConnectionId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::settle::Next;
use crate::store::{
    Accepted, Added, Cursor, Dedupe, ERASED, EventPage, EventWalk, NewEvent, NewJob, PlacedEvent, Purged,
    RecordId, Retried, Settlement,
};

const FIRST: ChoreId = ChoreId::from_bits(11);
const SECOND: ChoreId = ChoreId::from_bits(12);

async fn page(world: &World, tenant: &str, after: Option<Cursor>, limit: usize) -> EventPage {
    let until = world.now().plus(SPAN);
    let walk = EventWalk { tenant: tenant_id(tenant), after, since: None, until, limit };
    world.store.events(walk).await.unwrap()
}

/// All of a tenant's events, walked in pages of `limit`.
async fn events(world: &World, tenant: &str, limit: usize) -> Vec<PlacedEvent> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = page(world, tenant, after, limit).await;
        assert!(page.items.len() <= limit);
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// Ends a lease as dead.
async fn end(world: &World, lease: &crate::store::Lease, state: JobState) {
    let settlement =
        Settlement { next: Next::Done(state), ..world.settlement(lease, Outcome::Rejected, None) };
    assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
}

fn new_job(connection: ConnectionId) -> NewJob {
    NewJob { connection, mapping: MAPPING, triggered: false }
}

pub async fn a_replay_puts_each_job_back_once(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 1).await;
    let lease = world.lease(1).await.remove(0);
    let id = lease.job.id;
    end(&world, &lease, JobState::Dead).await;
    assert_eq!(world.store.replay(id, None, FIRST, false).await, Ok(Retried::Queued));
    assert_eq!(world.store.replay(id, None, FIRST, false).await, Ok(Retried::Already), "it waits");
    let again = world.lease(1).await.remove(0);
    assert_eq!((again.job.id, again.job.attempts), (id, 0), "with a fresh schedule");
    end(&world, &again, JobState::Dead).await;
    // Whoever goes on after a crash asks for it once more.
    let world = world.crash().await;
    assert_eq!(world.store.replay(id, None, FIRST, false).await, Ok(Retried::Already));
    assert_eq!(world.store.replay(id, None, FIRST, true).await, Ok(Retried::Already), "once by each replay");
    assert_eq!(world.store.replay(id, None, SECOND, false).await, Ok(Retried::Already), "once by any");
    assert!(world.lease(1).await.is_empty());
    assert_eq!(world.store.replay(id, None, SECOND, true).await, Ok(Retried::Queued), "asked for");
    assert_eq!(world.lease(1).await.len(), 1);
    assert_eq!(world.delivery(id).await.job.tries, 2);
}

pub async fn a_replay_takes_what_has_ended(world: World) {
    let to = world.connect("acme", 4).await;
    world.fill("acme", to, 3).await;
    let leases = world.lease(3).await;
    let ids: Vec<_> = leases.iter().map(|lease| lease.job.id).collect();
    assert_eq!(world.store.replay(ids[0], None, FIRST, false).await, Ok(Retried::Open), "leased");
    world.store.release(&[leases[0].reference()]).await.unwrap();
    assert_eq!(world.store.replay(ids[0], None, FIRST, false).await, Ok(Retried::Open), "queued");
    assert_eq!(world.settle(&leases[1..2], Outcome::Retry).await, 1);
    assert_eq!(world.store.replay(ids[1], None, FIRST, false).await, Ok(Retried::Open), "it waits");
    end(&world, &leases[2], JobState::Delivered).await;
    world.close_connection(to).await;
    assert_eq!(world.store.replay(ids[2], None, FIRST, false).await, Ok(Retried::Closed));
    assert_eq!(
        world.store.replay(crate::domain::id::JobId::from_bits(1), None, FIRST, false).await,
        Ok(Retried::Missing)
    );
    world.resume(to).await;
    assert_eq!(world.store.replay(ids[2], None, FIRST, false).await, Ok(Retried::Queued));
}

pub async fn a_tenants_events_are_walked_in_order(world: World) {
    let (to, other) = (world.connect("acme", 4).await, world.connect("other", 4).await);
    let mut wanted = Vec::new();
    for number in 0..7 {
        let jobs: &[ConnectionId] = if number % 2 == 0 { &[to] } else { &[] };
        let event = world.event("acme", jobs);
        wanted.push((event.event.id.clone(), jobs.len()));
        world.ingest(vec![event, world.event("other", &[other])]).await;
        world.advance_secs(1);
    }
    for limit in [1, 3, 100] {
        let found = events(&world, "acme", limit).await;
        let found: Vec<_> = found.iter().map(|placed| (placed.event.id.clone(), placed.jobs.len())).collect();
        assert_eq!(found, wanted, "in pages of {limit}");
    }
    assert!(events(&world, "nobody", 10).await.is_empty());
    let end = world.now();
    let (since, until) = (end.minus(SPAN / 12), end.minus(SPAN / 60));
    let walk = EventWalk { tenant: tenant_id("acme"), after: None, since: Some(since), until, limit: 100 };
    let found = world.store.events(walk).await.unwrap();
    let found: Vec<_> = found.items.iter().map(|placed| placed.event.id.as_str()).collect();
    assert_eq!(found, wanted[2..6].iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
}

pub async fn one_more_job_is_made_once(world: World) {
    let (to, late) = (world.connect("acme", 4).await, world.connect("acme", 4).await);
    world.fill("acme", to, 1).await;
    let first = world.lease(1).await;
    assert_eq!(world.settle(&first, Outcome::Delivered).await, 1);
    let placed = events(&world, "acme", 10).await.remove(0);
    assert_eq!(world.store.add_job(&placed, new_job(late)).await, Ok(Added::Made));
    assert_eq!(world.store.add_job(&placed, new_job(late)).await, Ok(Added::Changed), "someone was faster");
    let world = world.crash().await;
    let leases = world.lease(5).await;
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!((leases[0].job.connection, leases[0].event.as_ref()), (late, placed.event.as_ref()));
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 1);
    let found = events(&world, "acme", 10).await;
    assert_eq!((found.len(), found[0].jobs.len()), (1, 2));
    assert_eq!(world.deliveries().await.len(), 2);
    let gone = world.connect("acme", 4).await;
    world.close_connection(gone).await;
    assert_eq!(world.store.add_job(&found[0], new_job(gone)).await, Ok(Added::Closed));
    // Both jobs are kept and go together.
    world.advance(RETENTION + SPAN);
    assert_eq!(world.sweep().await.removed, 3);
    assert_eq!(world.store.add_job(&found[0], new_job(to)).await, Ok(Added::Missing));
    assert_eq!(world.stats().await.open, 0);
}

pub async fn an_erased_event_tells_nothing_and_sends_nothing(world: World) {
    let [done, waits, under_way, queued] = [(); 4].map(|()| world.connection("acme", 1)).map(Box::new);
    for connection in [&done, &waits, &under_way, &queued] {
        let record = crate::store::Record::Connection(connection.clone());
        world.store.put(record, crate::store::Expected::Absent).await.unwrap();
    }
    world.pause(queued.id).await;
    let all = [done.id, waits.id, under_way.id, queued.id];
    let other = world.event("acme", &[done.id]);
    let other_id = other.event.id.clone();
    world.ingest(vec![world.event("acme", &all), other]).await;
    let leases = world.lease(3).await;
    for lease in &leases {
        if lease.job.connection == under_way.id {
            continue;
        }
        let outcome = if lease.job.connection == done.id { Outcome::Delivered } else { Outcome::Retry };
        let rendered = Some(Bytes::from_static(b"what was sent"));
        let settlement = Settlement { rendered, ..world.settlement(lease, outcome, None) };
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
    }
    let placed = events(&world, "acme", 10).await.remove(0);
    assert_eq!(placed.jobs.len(), 4);
    let erased = world.store.erase(&placed).await.unwrap();
    assert_eq!(erased.jobs, 4);
    assert!((2..=3).contains(&erased.cancelled), "{erased:?}");
    let twice = world.store.erase(&placed).await.unwrap();
    assert_eq!(twice.jobs, 4, "again does no harm");

    let event = world.store.event(&tenant_id("acme"), &placed.event.id).await.unwrap().unwrap();
    assert!(event.is_erased() && !event.document.has("data"), "{event:?}");
    assert_eq!(event.kind, placed.event.kind);
    let newest = world.newest("acme", &["*"], 10).await;
    assert_eq!(newest, std::slice::from_ref(&other_id), "no sample of it is given");
    for job in &placed.jobs {
        let now = world.delivery(job.job.id).await;
        assert_eq!((now.reason.as_str(), now.attempts.len()), (ERASED, 0), "{now:?}");
        assert_eq!(now.job.tries, job.job.tries, "what was tried is counted yet");
        let is_queued = now.job.connection == queued.id && now.state == JobState::Queued;
        let wanted = if now.job.connection == done.id { JobState::Delivered } else { JobState::Cancelled };
        assert!(now.state == wanted || is_queued, "{now:?}");
    }
    // The outcome of the attempt under way comes too late, and brings nothing back.
    let late: Vec<_> = leases.iter().filter(|lease| lease.job.connection == under_way.id).cloned().collect();
    assert_eq!(world.settle(&late, Outcome::Retry).await, 0);
    assert_eq!(world.delivery(late[0].job.id).await.attempts.len(), 0);
    for job in placed.jobs.iter().filter(|job| job.job.connection == done.id) {
        assert_eq!(world.store.retry(job.job.id, None).await, Ok(Retried::Erased));
        assert_eq!(world.store.replay(job.job.id, None, FIRST, false).await, Ok(Retried::Erased));
    }
    // One that stood in its lane for its first try may come yet: with nothing in it.
    world.resume(queued.id).await;
    let world = world.crash().await;
    world.advance_secs(120);
    let left = world.lease(10).await;
    let (kept, empty): (Vec<_>, Vec<_>) = left.into_iter().partition(|lease| lease.event.id == other_id);
    assert_eq!(kept.len(), 1);
    for lease in &empty {
        assert!(lease.event.is_erased() && lease.job.connection == queued.id, "{lease:?}");
        end(&world, lease, JobState::Cancelled).await;
    }
    end(&world, &kept[0], JobState::Delivered).await;
    assert_eq!(world.stats().await, crate::store::Stats::default());
    world.advance(RETENTION + SPAN);
    world.sweep().await;
    assert!(world.deliveries().await.is_empty(), "a skeleton is kept no longer than others");
}

pub async fn an_event_of_many_jobs_is_erased_as_a_whole(world: World) {
    let mut all = Vec::new();
    for _ in 0..120 {
        all.push(world.connect("acme", 1).await);
    }
    world.ingest(vec![world.event("acme", &all)]).await;
    let leases = world.lease(60).await;
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 60);
    let placed = events(&world, "acme", 10).await.remove(0);
    let jobs: BTreeSet<_> = placed.jobs.iter().map(|job| job.job.connection).collect();
    assert_eq!(jobs.len(), 120);
    assert_eq!(world.store.erase(&placed).await.unwrap().jobs, 120);
    assert!(world.deliveries().await.iter().all(|delivery| delivery.reason == ERASED));
}

pub async fn a_purge_takes_all_of_a_tenant_and_nothing_else(world: World) {
    world.put_tenant("acme").await;
    let (to, other) = (world.connect("acme", 9).await, world.connect("other", 9).await);
    world.fill("acme", to, 450).await;
    world.fill("other", other, 5).await;
    let mut leases = world.lease(20).await;
    leases.retain(|lease| lease.job.connection == to);
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, leases.len());
    world.store.delete(RecordId::Tenant(tenant_id("acme"))).await.unwrap();
    let before = world.now().plus(SPAN);
    world.advance(SPAN * 2);
    world.ingest(vec![world.event("acme", &[])]).await;
    let purge = async |world: &World| {
        let (mut all, mut after) = (Purged::default(), None);
        loop {
            let step = world.store.purge(&tenant_id("acme"), before, after).await.unwrap();
            assert!(step.removed <= 200, "a step is bounded: {step:?}");
            all.removed += step.removed;
            all.waiting += step.waiting;
            after = step.next;
            if after.is_none() {
                return all;
            }
        }
    };
    let first = purge(&world).await;
    assert_eq!(first.removed + first.waiting, 450, "{first:?}");
    assert_eq!(first.removed, leases.len() as u64, "what is open is not lost from its lane");
    world.sweep().await;
    let world = world.crash().await;
    assert_eq!(purge(&world).await, Purged { removed: first.waiting, ..Purged::default() });
    assert_eq!(purge(&world).await, Purged::default());
    assert_eq!(
        events(&world, "acme", 100).await.len(),
        1,
        "what came later is another tenant's of that name"
    );
    assert_eq!(events(&world, "other", 100).await.len(), 5);
    assert_eq!(world.store.tally(&tenant_id("acme"), to).await.unwrap().days.len(), 0);
    let left = world.deliveries().await;
    assert!(left.len() == 5 && left.iter().all(|delivery| delivery.job.connection == other), "{left:?}");
}

pub async fn a_purged_event_is_known_again_for_its_day(world: World) {
    let dedupe = Some(Dedupe { key: [1; 16], content: [2; 16] });
    let event = NewEvent { dedupe, ..world.event_named("acme", "one", &[]) };
    let id = event.event.id.clone();
    world.ingest(vec![event.clone()]).await;
    let before = world.now().plus(SPAN);
    assert_eq!(world.store.purge(&tenant_id("acme"), before, None).await.unwrap().removed, 1);
    assert_eq!(world.store.event(&tenant_id("acme"), &id).await, Ok(None));
    let stored = |duplicate| [Accepted::Stored { id: id.clone(), jobs: 0, duplicate }];
    assert_eq!(world.ingest(vec![event.clone()]).await, stored(true));
    world.advance_secs(24 * 3_600);
    assert_eq!(world.ingest(vec![event]).await, stored(false));
}

pub async fn what_a_job_sent_is_forgotten_where_that_is_asked_for(world: World) {
    let to = world.connect("acme", 2).await;
    world.fill("acme", to, 2).await;
    let rendered = Some(Bytes::from_static(b"what was sent"));
    for lease in world.lease(2).await {
        let settlement =
            Settlement { rendered: rendered.clone(), ..world.settlement(&lease, Outcome::Retry, None) };
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
    }
    world.advance_secs(60);
    let mut kept = Vec::new();
    for forget in [true, false] {
        let lease = world.lease(1).await.remove(0);
        assert_eq!(lease.rendered, rendered, "it is what a retry needs");
        let next = Next::Done(JobState::Dead);
        let settlement = Settlement { next, forget, ..world.settlement(&lease, Outcome::Retry, None) };
        assert_eq!(world.store.settle(vec![settlement]).await, Ok(1));
        kept.push((lease.job.id, forget));
        world.advance_secs(60);
    }
    for (id, forget) in kept {
        assert_eq!(world.store.retry(id, None).await, Ok(Retried::Queued));
        let lease = world.lease(1).await.remove(0);
        assert_eq!((lease.job.id, lease.rendered.is_none()), (id, forget));
        end(&world, &lease, JobState::Delivered).await;
        world.advance_secs(60);
    }
}
