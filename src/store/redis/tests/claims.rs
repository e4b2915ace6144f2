//! The same events in several requests, of which at least one is large: each is stored once, whoever dies where.

use super::*;
use crate::store::StoreError;
use crate::store::redis::keys::Partition;

/// More than one step carries.
const MANY: usize = 300;

impl Bench {
    fn partition(&self) -> Partition {
        self.store.core.keys.partition(&tenant("acme"))
    }

    /// Events whose ids their platform gave them.
    fn platform_events(&self, count: usize, lanes: &[ConnectionId]) -> Vec<NewEvent> {
        let dedupe = || Dedupe { key: self.ids.next().to_be_bytes(), content: [1; 16] };
        (0..count).map(|_| NewEvent { dedupe: Some(dedupe()), ..self.event("acme", lanes) }).collect()
    }

    async fn open(&self) -> u64 {
        self.store.stats().await.unwrap().open
    }

    async fn size(&self, key: Vec<u8>) -> i64 {
        let mut count = redis::cmd("ZCARD");
        count.arg(key);
        redis::from_redis_value(self.server.run(&count).await.unwrap()).unwrap()
    }

    /// Requests that may still be accepted, and those accepted that are not in their lanes yet.
    pub(super) async fn on_their_way(&self) -> (i64, i64) {
        let (keys, partition) = (&self.store.core.keys, self.partition());
        (self.size(keys.staged(partition)).await, self.size(keys.accepted(partition)).await)
    }

    /// Keys that are still claimed.
    async fn claims(&self) -> redis::Value {
        let script = "local claims = 0
            for _, key in ipairs(redis.call('KEYS', '*:d:*')) do
              if redis.call('GET', key):sub(23, 23) == 'c' then claims = claims + 1 end
            end
            return claims";
        self.server.command(&["EVAL", script, "0"]).await
    }
}

fn of(events: &[NewEvent]) -> Ingest {
    Ingest { idempotency: None, events: events.to_vec() }
}

/// Of each event whether it was taken (`true`) or known.
async fn send(store: &RedisStore, ingest: Ingest) -> Vec<bool> {
    let answer = store.ingest(ingest).await.unwrap();
    applied(store).await;
    match answer {
        Ingested::Stored(accepted) => accepted
            .into_iter()
            .map(|one| match one {
                Accepted::Stored { jobs: 1, duplicate, .. } => !duplicate,
                other => panic!("{other:?}"),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_before_it_commits_leaves_its_events_free() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let dying = bench.another().await;
    for upkeep_is_first in [false, true] {
        let open = bench.open().await;
        let events = bench.platform_events(MANY, &[lane]);
        assert!(!dying.core.in_steps(bench.partition(), &of(&events), async { false }).await);
        assert_eq!(bench.on_their_way().await, (1, 0));
        bench.clock.advance(Duration::from_millis(1));
        // It may yet go on, so the same events wait for it, a while.
        let refused = bench.store.ingest(of(&events)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(bench.on_their_way().await, (1, 0), "nothing is left of what was refused");
        bench.advance(5);
        if upkeep_is_first {
            bench.store.sweep().await.unwrap();
            assert_eq!(bench.on_their_way().await, (0, 0));
        }
        assert_eq!(send(&bench.store, of(&events)).await, [true; MANY]);
        assert_eq!(send(&bench.store, of(&events)).await, [false; MANY]);
        bench.store.sweep().await.unwrap();
        assert_eq!(bench.on_their_way().await, (0, 0));
        assert_eq!(bench.open().await, open + MANY as u64);
        assert_eq!(bench.claims().await, redis::Value::Int(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_after_it_committed_leaves_its_events_known() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let events = bench.platform_events(MANY, &[lane]);
    let idempotency = Some(Dedupe { key: [9; 16], content: [1; 16] });
    let ingest = Ingest { idempotency, ..of(&events) };
    assert!(bench.another().await.core.in_steps(bench.partition(), &ingest, async { true }).await);
    assert_eq!((bench.on_their_way().await, bench.open().await), ((0, 1), 0));
    let known = async || {
        assert_eq!(send(&bench.store, of(&events)).await, [false; MANY]);
        assert_eq!(send(&bench.store, of(&events[7..8])).await, [false]);
        let mut other = events[MANY - 1].clone();
        other.dedupe = other.dedupe.map(|dedupe| Dedupe { content: [2; 16], ..dedupe });
        let reused = bench.store.ingest(of(&[other])).await.unwrap();
        assert!(matches!(&reused, Ingested::Stored(all) if matches!(all[0], Accepted::IdReused { .. })));
        let repeated = bench.store.ingest(ingest.clone()).await.unwrap();
        let Ingested::Repeated(first) = repeated else { panic!("{repeated:?}") };
        let ids: Vec<&String> = events.iter().map(|new| &new.event.id).collect();
        let stored = first.iter().map(|one| match one {
            Accepted::Stored { id, jobs: 1, duplicate: false } => id,
            other => panic!("{other:?}"),
        });
        assert_eq!(stored.collect::<Vec<_>>(), ids, "the answer that nobody heard");
    };
    known().await;
    assert_eq!(bench.open().await, 0);
    bench.advance(5);
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.on_their_way().await, bench.open().await), ((0, 0), MANY as u64));
    assert_eq!(bench.claims().await, redis::Value::Int(0), "what was claimed is known for good");
    known().await;
    assert_eq!(bench.open().await, MANY as u64);
    // As long as any: a day from when it was sent.
    bench.advance(24 * 3_600 - 6);
    assert_eq!(send(&bench.store, of(&events[..1])).await, [false]);
    bench.advance(1);
    assert_eq!(send(&bench.store, of(&events[..1])).await, [true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_processes_that_send_the_same_batch_at_once_each_event_is_taken_by_one() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let others = [bench.another().await, bench.another().await];
    for round in 0..6_u8 {
        let before = bench.open().await;
        let events = bench.platform_events(1_000, &[lane]);
        let mut backwards = events.clone();
        backwards.reverse();
        let (mut one, two) = tokio::join!(send(&others[0], of(&events)), send(&others[1], of(&backwards)));
        one.reverse();
        assert!(one.iter().zip(&two).all(|(one, two)| one != two), "each event is new once");
        assert_eq!(bench.open().await, before + 1_000);

        let events = bench.platform_events(1_000, &[lane]);
        let idempotency = Some(Dedupe { key: [round; 16], content: [1; 16] });
        let ingest = Ingest { idempotency, ..of(&events) };
        let answers = tokio::join!(others[0].ingest(ingest.clone()), others[1].ingest(ingest));
        tokio::join!(applied(&others[0]), applied(&others[1]));
        let (stored, repeated) = match answers {
            (Ok(Ingested::Stored(stored)), Ok(Ingested::Repeated(repeated)))
            | (Ok(Ingested::Repeated(repeated)), Ok(Ingested::Stored(stored))) => (stored, repeated),
            other => panic!("{other:?}"),
        };
        assert_eq!(stored, repeated);
        assert!(stored.iter().all(|one| matches!(one, Accepted::Stored { jobs: 1, duplicate: false, .. })));
        assert_eq!(bench.open().await, before + 2_000);
    }
    assert_eq!(bench.on_their_way().await, (0, 0));
    assert_eq!(bench.claims().await, redis::Value::Int(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_younger_batch_waits_for_an_older_one_with_the_same_events() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let events = bench.platform_events(MANY, &[lane]);
    let younger = bench.another().await;
    let mut backwards = events.clone();
    backwards.reverse();
    let mut sent = None;
    let between = async {
        bench.clock.advance(Duration::from_millis(1));
        sent = Some(tokio::spawn(async move { send(&younger, of(&backwards)).await }));
        while bench.on_their_way().await != (2, 0) {
            tokio::task::yield_now().await;
        }
        true
    };
    let accepted = bench.store.core.in_steps(bench.partition(), &of(&events), between).await;
    assert!(accepted, "the older one is not disturbed");
    assert_eq!(sent.unwrap().await.unwrap(), [false; MANY]);
    bench.advance(5);
    bench.store.sweep().await.unwrap();
    assert_eq!((bench.on_their_way().await, bench.open().await), ((0, 0), MANY as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_request_goes_before_a_large_one_on_its_way_in() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let other = bench.another().await;
    let events = bench.platform_events(MANY, &[lane]);
    let small = of(&events[40..42]);
    let between = async {
        assert_eq!(send(&other, small).await, [true, true], "it does not wait");
        true
    };
    let accepted = bench.store.core.in_steps(bench.partition(), &of(&events), between).await;
    assert!(!accepted, "it would store two events again");
    assert_eq!((bench.on_their_way().await, bench.open().await), ((0, 0), 2));
    // As the one that sent it does: it begins anew.
    let known: Vec<bool> = (0..MANY).map(|at| !(40..42).contains(&at)).collect();
    assert_eq!(send(&bench.store, of(&events)).await, known);
    // All of it by itself, in any order.
    let (mut before, mut behind) = (0, 0);
    for round in 0..20 {
        let events = bench.platform_events(1_000, &[lane]);
        let single = of(&events[500..501]);
        let later = async {
            tokio::time::sleep(Duration::from_millis(4 * round)).await;
            send(&other, single).await
        };
        let open = bench.open().await;
        let (large, single) = tokio::join!(send(&bench.store, of(&events)), later);
        assert!(large.iter().enumerate().all(|(at, is_new)| *is_new == (at != 500 || !single[0])));
        assert_eq!(bench.open().await, open + 1_000);
        if single[0] { before += 1 } else { behind += 1 }
    }
    println!("{before} went before the batch, {behind} were known from it");
    assert_eq!(bench.on_their_way().await, (0, 0));
    // What a dead process staged is in nobody's way, and goes with the next sweep.
    let events = bench.platform_events(MANY, &[lane]);
    assert!(!other.core.in_steps(bench.partition(), &of(&events), async { false }).await);
    assert_eq!(send(&bench.store, of(&events[..1])).await, [true]);
    bench.store.sweep().await.unwrap();
    assert_eq!(bench.on_their_way().await, (0, 0), "it was broken off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_another_store_takes_what_was_accepted_by_a_process_that_died() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let events = bench.platform_events(MANY, &[lane]);
    assert!(bench.another().await.core.in_steps(bench.partition(), &of(&events), async { true }).await);
    let (mut moved, mut after) = (0, None);
    loop {
        let page = bench.store.export(after, 200).await.unwrap();
        moved += page.events.iter().map(|event| event.jobs.len()).sum::<usize>();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(moved, MANY);
}
