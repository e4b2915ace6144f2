//! The conformance suite on the embedded store, and what is its own: full disks, locks, guests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{SqliteStore, schema, unavailable};
use crate::clock::{Clock, Entropy, Ids};
use crate::domain::id::ConnectionId;
use crate::domain::job::Outcome;
use crate::domain::time::Timestamp;
use crate::store::conformance::{Engine, World, retention};
use crate::store::types::DEDUPE_SPAN;
use crate::store::{
    Accepted, Dedupe, Expected, Ingest, Ingested, NewEvent, Record, RecordId, Store, StoreError,
};

struct Embedded {
    folder: TempDir,
    /// The newest store, for tests that look inside.
    newest: Arc<Mutex<Option<Arc<SqliteStore>>>>,
}

impl Embedded {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), newest: Arc::default() }
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn open(&self, clock: Clock, ids: Ids) -> Arc<dyn Store> {
        self.newest.lock().take();
        // A store that was dropped lets go of its folder once its thread has ended.
        for _ in 0..1_000_000 {
            match SqliteStore::open(self.folder.path(), clock.clone(), ids.clone(), retention()).await {
                Ok(store) => {
                    let store = Arc::new(store);
                    *self.newest.lock() = Some(Arc::clone(&store));
                    return store;
                }
                Err(StoreError::Unavailable(reason)) if reason.contains("another gateway") => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the folder is never let go");
    }
}

crate::store::conformance::conformance_suite!(Embedded::new());

/// A world, its store as what it is, and its database's file.
async fn inside() -> (World, Arc<SqliteStore>, PathBuf) {
    let engine = Embedded::new();
    let (newest, file) = (Arc::clone(&engine.newest), engine.folder.path().join("patchbay.db"));
    let world = World::open(engine).await;
    let store = newest.lock().take().unwrap();
    (world, store, file)
}

fn ingest(world: &World, to: ConnectionId) -> Ingest {
    Ingest { idempotency: None, events: vec![world.event("acme", &[to])] }
}

fn manual() -> (Clock, Ids) {
    let clock = Clock::manual(Timestamp::from_millis(1_777_000_000_000));
    (clock.clone(), Ids::new(clock, Entropy::seeded(3)))
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let folder = TempDir::new().unwrap();
    let (clock, ids) = manual();
    let first = SqliteStore::open(folder.path(), clock.clone(), ids.clone(), retention()).await.unwrap();
    let second = SqliteStore::open(folder.path(), clock.clone(), ids.clone(), retention()).await;
    assert!(
        matches!(second, Err(StoreError::Unavailable(reason)) if reason.contains("another gateway runs on"))
    );
    first.close().await;
    SqliteStore::open(folder.path(), clock, ids, retention()).await.unwrap();
}

#[tokio::test]
async fn another_format_is_refused() {
    let folder = TempDir::new().unwrap();
    let (clock, ids) = manual();
    SqliteStore::open(folder.path(), clock.clone(), ids.clone(), retention()).await.unwrap().close().await;
    let database = Connection::open(folder.path().join("patchbay.db")).unwrap();
    database.execute_batch("PRAGMA user_version=99").unwrap();
    let again = SqliteStore::open(folder.path(), clock, ids, retention()).await;
    assert!(matches!(again, Err(StoreError::Corrupt(reason)) if reason.contains("format 99")));
}

#[tokio::test]
async fn the_formats_before_are_brought_up_to_date() {
    let format_4 = "ALTER TABLE events DROP COLUMN dedupe; ALTER TABLE events DROP COLUMN content;
                    ALTER TABLE events DROP COLUMN known_until;
                    ALTER TABLE events DROP COLUMN made; PRAGMA user_version=4;";
    let format_3 = format!("{format_4} DROP TABLE replayed; PRAGMA user_version=3;");
    let format_2 = format!("{format_3} DROP TABLE failing; DROP TABLE tallies; PRAGMA user_version=2;");
    let format_1 = format!(
        "{format_2} DROP INDEX events_newest; ALTER TABLE events DROP COLUMN kind; PRAGMA user_version=1;"
    );
    for before in [format_4, &format_3, &format_2, &format_1] {
        let (mut world, _, file) = inside().await;
        let events = [world.event_of("acme", "lead.captured"), world.event_of("acme", "rating.given")];
        world.ingest(events.to_vec()).await;
        world.store.close().await;
        let database = Connection::open(&file).unwrap();
        database.execute_batch(before).unwrap();
        drop(database);
        world = world.crash().await;
        assert_eq!(world.newest("acme", &["lead.*"], 9).await, [events[0].event.id.clone()]);
        world.ingest(vec![events[1].clone()]).await;
        assert_eq!(world.newest("acme", &["*"], 9).await.len(), 3);
        let to = world.connect("acme", 1).await;
        world.fill("acme", to, 1).await;
        let lease = world.lease(1).await;
        assert_eq!(world.settle(&lease, Outcome::Rejected).await, 1, "failures are counted");
        let replay = crate::domain::id::ChoreId::from_bits(1);
        let again = world.store.replay(lease[0].job.id, None, replay, false).await;
        assert_eq!(again, Ok(crate::store::Retried::Queued), "and what a replay did is noted");
    }
}

#[tokio::test]
async fn what_format_4_knew_of_repeats_is_still_known() {
    let (mut world, _, file) = inside().await;
    let to = world.connect("acme", 4).await;
    let dedupe = Dedupe { key: [1; 16], content: [2; 16] };
    let known = NewEvent { dedupe: Some(dedupe), ..world.event_named("acme", "one", &[to, to]) };
    world.ingest(vec![known.clone()]).await;
    world.store.close().await;
    let expires = world.now().plus(DEDUPE_SPAN).millis();
    let database = Connection::open(&file).unwrap();
    database
        .execute(
            "INSERT INTO dedupe(key, content, expires, answer) VALUES(?, ?, ?, '2')",
            (dedupe.key, dedupe.content, expires),
        )
        .unwrap();
    database
        .execute_batch(
            "ALTER TABLE events DROP COLUMN dedupe; ALTER TABLE events DROP COLUMN content;
                    ALTER TABLE events DROP COLUMN known_until;
             ALTER TABLE events DROP COLUMN made; PRAGMA user_version=4;",
        )
        .unwrap();
    drop(database);
    world = world.crash().await;
    let id = known.event.id.clone();
    let repeat = [Accepted::Stored { id: id.clone(), jobs: 2, duplicate: true }];
    assert_eq!(world.ingest(vec![known.clone()]).await, repeat);
    let other = Dedupe { content: [3; 16], ..dedupe };
    let changed = NewEvent { dedupe: Some(other), ..known };
    assert_eq!(world.ingest(vec![changed]).await, [Accepted::IdReused { id }]);
}

#[tokio::test]
async fn a_request_that_fails_fails_alone() {
    let (world, store, _) = inside().await;
    let to = world.connect("acme", 100).await;
    let trigger = "CREATE TRIGGER bad BEFORE INSERT ON jobs WHEN NEW.kind = 'bad'
                   BEGIN SELECT RAISE(ABORT, 'bad'); END";
    store
        .writer
        .write(move |database, _| database.execute_batch(trigger).map_err(|error| unavailable(&error)))
        .await
        .unwrap();
    let requests = (0..60).map(|n| {
        let mut ingest = ingest(&world, to);
        let mut bad = world.event("acme", &[to]);
        Arc::make_mut(&mut bad.event).kind = "bad".to_owned();
        if n % 7 == 3 {
            ingest.events.push(bad);
        }
        let store = Arc::clone(&world.store);
        async move { (n, store.ingest(ingest).await) }
    });
    let mut stored = 0;
    for (n, answer) in futures::future::join_all(requests).await {
        if n % 7 == 3 {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{n}: {answer:?}");
        } else {
            assert!(matches!(answer, Ok(Ingested::Stored(_))), "{n}: {answer:?}");
            stored += 1;
        }
    }
    assert_eq!(world.stats().await.open, stored);
    assert_eq!(world.deliveries().await.len() as u64, stored, "nothing of a refused request is there");
    assert_eq!(world.lease(100).await.len() as u64, stored, "each is leased once");
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let (world, store, _) = inside().await;
    let to = world.connect("acme", 100).await;
    world.fill("acme", to, 20).await;
    let leases = world.lease(10).await;
    let limit = |pages: u32| {
        let sql = format!("PRAGMA max_page_count={pages}");
        store.writer.write(move |database, _| {
            database.query_row(&sql, [], |_| Ok(())).map_err(|error| unavailable(&error))
        })
    };
    limit(1).await.unwrap();
    let mut refused = 0;
    let mut stored = 20;
    for _ in 0..200 {
        match world.store.ingest(ingest(&world, to)).await {
            Ok(_) => stored += 1,
            Err(error) => {
                assert!(matches!(error, StoreError::Full(_)), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(world.stats().await.open, stored);
    limit(u32::MAX).await.unwrap();
    assert_eq!(world.settle(&leases, Outcome::Delivered).await, 10);
    world.fill("acme", to, 5).await;
    assert_eq!(world.lease(500).await.len() as u64, 100.min(stored + 5 - 10));
    assert_eq!(world.deliveries().await.len() as u64, stored + 5);
}

#[tokio::test]
async fn a_locked_database_fails_all_in_time_and_recovers() {
    let (world, _, file) = inside().await;
    let to = world.connect("acme", 100).await;
    world.fill("acme", to, 2).await;
    let leases = world.lease(2).await;
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let requests = (0..40).map(|_| world.store.ingest(ingest(&world, to)));
    let settlement = world.settlement(&leases[0], Outcome::Delivered, None);
    let (answers, settled) =
        futures::future::join(futures::future::join_all(requests), world.store.settle(vec![settlement]))
            .await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
    assert!(matches!(settled, Err(StoreError::Unavailable(_))));
    assert!(matches!(world.store.health().await, Err(StoreError::Unavailable(_))));
    // The first batch, the rest, and the health: each waits once, not each of their requests.
    assert!(began.elapsed() < schema::BUSY_TIMEOUT * 4, "{:?}", began.elapsed());
    let stats = world.stats().await;
    assert_eq!((stats.open, stats.leased), (2, 2));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(world.store.health().await, Ok(()));
    assert_eq!(world.settle(&leases[..1], Outcome::Delivered).await, 1, "its lease ran on");
    world.advance(Duration::from_mins(1));
    world.fill("acme", to, 1).await;
    assert_eq!(world.lease(9).await.len(), 2, "the one that ran out and the new one");
}

#[tokio::test]
async fn a_settlement_nobody_waits_for_is_written_or_given_back() {
    let (world, store, file) = inside().await;
    let to = world.connect("acme", 100).await;
    world.fill("acme", to, 1).await;
    let leases = world.lease(1).await;
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settlement = world.settlement(&leases[0], Outcome::Delivered, None);
    let abandoned = world.store.settle(vec![settlement]).now_or_never();
    assert!(abandoned.is_none());
    // The writer gives up on it; the lease must not stay claimed for ever.
    let fence = store.writer.write(|_, _| Ok(())).await;
    assert!(matches!(fence, Err(StoreError::Unavailable(_))));
    other.execute_batch("ROLLBACK").unwrap();
    store.writer.write(|_, _| Ok(())).await.unwrap();
    world.advance(Duration::from_mins(1));
    assert_eq!(world.lease(9).await.len(), 1);
}

#[tokio::test]
async fn a_place_is_free_while_the_outcome_waits_for_the_disk() {
    let (world, _, file) = inside().await;
    let to = world.connect("acme", 2).await;
    world.fill("acme", to, 4).await;
    let leases = world.lease(9).await;
    assert_eq!(leases.len(), 2);
    assert!(world.lease(9).await.is_empty());
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let lease = || world.store.lease(9, Duration::from_mins(1));
    let settle = |at: usize, outcome| world.store.settle(vec![world.settlement(&leases[at], outcome, None)]);
    let mut failed = std::pin::pin!(settle(0, Outcome::Retry));
    assert!(failed.as_mut().now_or_never().is_none());
    assert!(lease().await.unwrap().is_empty(), "a failure may narrow the lane first");
    // What was told before is heard first.
    let _ = world.store.wait_for_work().now_or_never();
    let mut waiting = std::pin::pin!(world.store.wait_for_work());
    assert!(waiting.as_mut().now_or_never().is_none());
    let mut delivered = std::pin::pin!(settle(1, Outcome::Delivered));
    assert!(delivered.as_mut().now_or_never().is_none());
    tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("whoever waits is told");
    assert_eq!(lease().await.unwrap().len(), 1);
    assert!(delivered.as_mut().now_or_never().is_none(), "it is not written yet");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!((failed.await, delivered.await), (Ok(1), Ok(1)));
}

#[tokio::test]
async fn the_owner_sees_what_a_guest_writes_within_a_second() {
    let folder = TempDir::new().unwrap();
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Entropy::system());
    let owner = SqliteStore::open(folder.path(), clock.clone(), ids.clone(), retention()).await.unwrap();
    let guest = SqliteStore::open_guest(folder.path(), clock.clone(), ids.clone()).await.unwrap();
    let (world, ..) = inside().await;
    let connection = world.connection("acme", 4);
    let to = connection.id;
    let record = Record::Connection(Box::new(connection));
    let written = async { (guest.put(record, Expected::Absent).await, Instant::now()) };
    let ((revision, written), ()) = futures::future::join(written, owner.wait_for_change(0)).await;
    assert!(written.elapsed() < Duration::from_secs(1), "{:?}", written.elapsed());
    let changes = owner.changes(0, 10).await.unwrap();
    assert_eq!(changes[0].revision, revision.unwrap());
    // From here on its lane takes jobs.
    let ingested = owner.ingest(ingest(&world, to)).await.unwrap();
    assert!(matches!(&ingested, Ingested::Stored(accepted)
        if matches!(accepted[0], Accepted::Stored { jobs: 1, .. })));
    assert_eq!(owner.lease(5, Duration::from_mins(1)).await.unwrap().len(), 1);
    assert_eq!(
        guest
            .deliveries(crate::store::DeliveryQuery { limit: 9, ..Default::default() })
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    // Jobs are the owner's.
    assert!(guest.lease(5, Duration::from_mins(1)).await.unwrap().is_empty());
    assert!(matches!(guest.ingest(ingest(&world, to)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(guest.delete(RecordId::Connection(to)).await, Ok(true));
    owner.wait_for_change(changes[0].revision).await;
    assert_eq!(owner.changes(changes[0].revision, 10).await.unwrap()[0].record, None);
    let ingested = owner.ingest(ingest(&world, to)).await.unwrap();
    assert!(matches!(&ingested, Ingested::Stored(accepted)
        if matches!(accepted[0], Accepted::Stored { jobs: 0, .. })));
}
