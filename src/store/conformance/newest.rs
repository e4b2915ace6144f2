//! The newest events of a type.

use std::time::{Duration, Instant};

use super::world::{RETENTION, World};
use crate::store::{NEWEST_EVENTS, NEWEST_TYPES, NewEvent};

fn id(event: &NewEvent) -> String {
    event.event.id.clone()
}

pub async fn the_newest_events_are_given_by_type(world: World) {
    let to = world.connect("acme", 4).await;
    let kinds = ["lead.captured", "lead.lost", "rating.given", "leader.found", "lead.captured", "lead"];
    let mut events = Vec::new();
    for kind in kinds {
        events.push(world.event_of("acme", kind));
        world.ingest(vec![events[events.len() - 1].clone(), world.event_of("other", kind)]).await;
        world.advance(Duration::from_millis(1));
    }
    // Of one request, and with jobs.
    let with_jobs = world.event("acme", &[to]);
    events.push(world.event_of("acme", "lead.captured"));
    events.push(with_jobs.clone());
    world.ingest(events[6..].to_vec()).await;
    let ids: Vec<String> = events.iter().map(id).collect();
    let of = |places: &[usize]| places.iter().map(|place| ids[*place].clone()).collect::<Vec<_>>();
    let cases: [(&[&str], usize, &[usize]); 9] = [
        (&["lead.captured"], 9, &[7, 6, 4, 0]),
        (&["lead.captured"], 2, &[7, 6]),
        (&["lead.*"], 9, &[7, 6, 4, 1, 0]),
        (&["*"], 99, &[7, 6, 5, 4, 3, 2, 1, 0]),
        (&["*"], 3, &[7, 6, 5]),
        (&["lead.*", "*", "lead.lost"], 4, &[7, 6, 5, 4]),
        (&["rating.given", "lead"], 9, &[5, 2]),
        (&["none", "none.*"], 9, &[]),
        (&["*"], 0, &[]),
    ];
    for (patterns, limit, wanted) in cases {
        assert_eq!(world.newest("acme", patterns, limit).await, of(wanted), "{patterns:?}");
    }
    assert_eq!(world.newest("other", &["*"], 99).await.len(), 6);
    assert_eq!(world.newest("nobody", &["*"], 99).await, of(&[]));
    let whole =
        world.store.newest_events(&with_jobs.event.tenant, &["lead.captured".parse().unwrap()], 1).await;
    assert_eq!(whole, Ok(vec![(*with_jobs.event).clone()]));
    // They are there after a crash, and gone after their retention but for those with open jobs.
    let world = world.crash().await;
    assert_eq!(world.newest("acme", &["lead.*"], 9).await, of(&[7, 6, 4, 1, 0]));
    world.advance(RETENTION + Duration::from_secs(1));
    world.sweep().await;
    assert_eq!(world.newest("acme", &["*"], 9).await, of(&[7]));
    let again = world.event_of("acme", "lead.lost");
    world.ingest(vec![again.clone()]).await;
    assert_eq!(world.newest("acme", &["lead.*"], 9).await, [id(&again), ids[7].clone()]);
}

pub async fn what_is_given_is_bounded(world: World) {
    let mut ids = Vec::new();
    for batch in 0..4_u64 {
        world.advance_secs(batch);
        let events: Vec<NewEvent> = (0..NEWEST_EVENTS - 1).map(|_| world.event_of("acme", "a")).collect();
        ids.extend(events.iter().map(id));
        world.ingest(events).await;
    }
    ids.reverse();
    ids.truncate(NEWEST_EVENTS);
    assert_eq!(world.newest("acme", &["a"], usize::MAX).await, ids);
    // A repeat of an event is no event.
    let mut event = world.event_of("acme", "b");
    event.dedupe = Some(crate::store::Dedupe { key: [1; 16], content: [1; 16] });
    world.ingest(vec![event.clone(), event.clone()]).await;
    world.ingest(vec![event.clone()]).await;
    assert_eq!(world.newest("acme", &["b"], 9).await, [id(&event)]);
    // A tenant that makes up types without end.
    let events: Vec<NewEvent> =
        (0..2 * NEWEST_TYPES).map(|n| world.event_of("wild", &format!("t.{n:04}"))).collect();
    for chunk in events.chunks(100) {
        world.ingest(chunk.to_vec()).await;
    }
    assert_eq!(world.newest("wild", &["t.*"], usize::MAX).await.len(), NEWEST_TYPES);
}

pub async fn many_events_and_types_cost_little(world: World) {
    let few = world.event_of("acme", "rare");
    world.ingest(vec![few.clone()]).await;
    for _ in 0..10 {
        let events = (0..2_000).map(|n| world.event_of("acme", &format!("often.{}", n % 7))).collect();
        world.ingest(events).await;
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(world.newest("acme", &["rare"], 9).await, [id(&few)]);
        assert_eq!(world.newest("acme", &["often.*"], 100).await.len(), 100);
    }
    let took = began.elapsed();
    println!("forty looks at the newest of 20,000 events took {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
