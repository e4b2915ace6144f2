//! The store for many machines: Redis 7 or Valkey, by URL; one server, one behind sentinels, or a cluster.
//!
//! # Theory of operation
//!
//! Everything lies in Redis (`keys` names every key); processes keep only hints. A tenant's things share a *partition*,
//! and each transition is one Lua script over keys of one partition, so it happens as a whole or not at all, whoever else
//! writes. Which job goes next is decided there too: lanes that may give stand in a ring of tenants, a lease takes a few
//! jobs of the first lane of the first tenant, and both go to the back (`lua/lease.lua`).
//!
//! Scripts declare every key that they touch. A lease can't know beforehand which jobs it will give, so it only moves ids
//! between the partition's own keys, and their documents are read by a second, plain round trip: big values never
//! pass through Lua. What needs the keys of a job (settling, cancelling) has its id, and the id leads to its event.
//!
//! Concurrent ingests share a pipeline (`ingest`); outcomes are written in one script call for each partition. A process
//! sleeps until it is told of work (`wake`). What it has room for, the steps that accept events and that write outcomes lease to it at
//! once, where nothing else waits (`credit`): then there is nothing to wake or to lease, and what came in here a moment ago
//! is not read either (`fresh`).
//!
//! # Leases
//!
//! A lease ends by its deadline, by the clock that callers bring. It ends sooner when its process dies: each process with
//! leases in a partition says every two seconds that it lives, and one that is silent for six, by the server's clock,
//! loses them. A process that never got the answer to a lease gives back what it does not know of. While the server itself was away nobody could speak, so after such a gap all have some time to speak again.
//!
//! # Batches and doubts
//!
//! A lane with a batch gives all of it in one step; `batch` asks for the sizes of its events before it reads any, and gives back what
//! is too much. A lease that went back by itself leaves a doubt on its lane (`DOUBT`): jobs made until then may have had one.
//!
//! # Records
//!
//! Records lie under a tag of their own, under a rising revision. A lane's settings are a copy of its connection's record
//! in its partition, fenced by the revision. Two scripts can't be one step, so what is still to be copied is noted in the
//! step that writes the record, and `upkeep` copies what a crash left behind; a partition that does not know a lane
//! refuses jobs for it until it was told. The other way round, an outcome that pauses or closes a lane does so at once,
//! and notes what has to follow in the record.
//!
//! # What 202 promises
//!
//! What the server promises: with append-only and `appendfsync always`, or `durability = "fsync"`, that it is on disk;
//! with `replicas:N`, that N replicas have it. `server` reads the settings at start and says which it is. A write that the
//! server refuses (memory, disk, read-only) is refused before anything of it was written.
//!
//! A request with events of several tenants may touch several partitions: each part is atomic, and an error in one leaves
//! the others stored. The same request sent again, with its idempotency key or its events' ids, stores the rest.
//!
//! # What it costs
//!
//! Measured with an unoptimised build and the server on the same two busy cores (`tests/bounds.rs` and `tests/storms.rs`
//! print the figures and hold the counts). An event costs 0.06 script calls and 2.8 commands inside them at fan-out 1,
//! and 0.13 and 4.9 at fan-out 10; leasing and settling its jobs 0.04 calls, one read and 2.6 commands, and 0.33, two and
//! 31. Where nothing waits, an event that is leased in the step that accepts it costs two calls in all, and no read. An idle gateway costs 45 commands a minute: a probe and a scrape every ten seconds, a look for changes, a ping of
//! the subscription, now and then a round of the partitions and a sweep. Another process leases 0.5 ms after the event was
//! accepted (p99 about 1 ms while the cores are free). A queued job with an event of 224 bytes takes 1,200 bytes of
//! memory, a settled delivery 1,220, and after its retention it is gone.
//!
//! No script touches more than a few hundred jobs or lanes: a request is cut into parts (`ingest`), a lane is cancelled, a
//! lost process's leases are given back, and events are removed some at a time; and what accepts a large request does the same
//! few commands whatever it holds. With those limits a call takes 1 to 5 ms of an idle server's time, whatever is stored.

mod address;
mod batch;
mod cadence;
mod codec;
mod credit;
mod engine;
mod fresh;
mod held;
mod ingest;
mod kept;
mod keys;
mod lease;
mod link;
mod outcomes;
mod read;
mod rebuild;
mod records;
mod removal;
mod script;
mod server;
mod settings;
mod settle;
mod shared;
mod shares;
mod states;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod upkeep;
mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::clock::{Clock, Ids};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, JobId, MappingVersion, TenantId};
use crate::store::Store;
use crate::store::types::{
    About, Change, Cursor, Delivery, DeliveryPage, DeliveryQuery, Expected, Exported, Ingest, Ingested,
    KeptEvent, Lease, LeaseRef, Record, RecordId, Recorded, Retried, Revision, Settlement, Spend, Spent,
    Stats, StoreError, Sweep, Tally,
};
use cadence::Cadence;
use credit::Credit;
use fresh::Fresh;
use held::Held;
use ingest::{Bases, Intake};
use keys::Keys;
use lease::named;
use link::Link;
use script::Scripts;
pub use server::Durability;
pub use settings::RedisSettings;
use shared::Core;
use wake::Wake;

/// How long an answer of the server may take; also the longest that an ingest waits.
const REPLY: Duration = Duration::from_secs(2);
/// How often a process with leases says that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// How often a change is looked for that no message told of.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);

/// The store for many machines.
#[derive(Debug)]
pub struct RedisStore {
    core: Arc<Core>,
    intake: Intake,
    /// What runs by itself: taking in, listening, and beating, in that order.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    closed: AtomicBool,
    about: About,
}

impl RedisStore {
    /// Connects, and refuses a server that would drop what it was given.
    pub async fn open(settings: RedisSettings, clock: Clock, ids: Ids) -> Result<Self, StoreError> {
        let link = Link::of(&settings).await?;
        let keys = Keys::new(&settings.prefix, settings.partitions);
        let (about, durability) = server::check(&link, settings.durability).await?;
        let owner = format!("{:032x}", ids.next());
        let epoch = server::claim_layout(&link, &keys, &owner).await?;
        let bases = Bases::default();
        read::newest(&link, &keys).await?.iter().for_each(|base| bases.after(base));
        let scripts = Scripts::new();
        let core = Arc::new(Core {
            reads: link.for_reads(),
            bulk: link.opening_with(scripts.opening(durability)),
            scripts,
            large: Arc::new(tokio::sync::Semaphore::new(ingest::LARGE)),
            link: Arc::new(link),
            clock,
            ids,
            owner,
            bases,
            durability,
            retention: settings.retention,
            epoch,
            wake: Wake::new(keys.partitions()),
            credit: Credit::default(),
            fresh: Fresh::default(),
            held: Held::default(),
            doubtful: Mutex::default(),
            leasing: tokio::sync::RwLock::default(),
            walk: Mutex::default(),
            cadence: Cadence::new(),
            emptied: AtomicBool::new(false),
            keys,
        });
        let (intake, taking) = Intake::start(&core);
        let listening = tokio::spawn(wake::listen(Arc::clone(&core)));
        let beating = tokio::spawn(Arc::clone(&core).beat_on());
        Ok(Self {
            core,
            intake,
            tasks: Mutex::new(vec![taking, listening, beating]),
            closed: AtomicBool::new(false),
            about,
        })
    }

    fn core(&self) -> Result<&Arc<Core>, StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(&self.core) }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

#[async_trait]
impl Store for RedisStore {
    fn about(&self) -> About {
        self.about.clone()
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Ingested, StoreError> {
        self.core()?.ingest(&self.intake, ingest).await
    }

    async fn event(&self, tenant: &TenantId, id: &str) -> Result<Option<Event>, StoreError> {
        self.core()?.event(tenant, id).await
    }

    async fn newest_events(
        &self,
        tenant: &TenantId,
        patterns: &[EventPattern],
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.core()?.newest_events(tenant, patterns, limit).await
    }

    async fn lease(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError> {
        self.core()?.lease(room, span).await
    }

    async fn wait_for_work(&self) {
        let Core { wake, credit, clock, .. } = &*self.core;
        let _waiting = credit.wait();
        wake.wait(clock, || credit.has_leases()).await;
    }

    async fn record(&self, recorded: Recorded) -> Result<bool, StoreError> {
        self.core()?.record(recorded).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, StoreError> {
        self.core()?.settle(settlements).await
    }

    async fn renew(&self, leases: &[LeaseRef], span: Duration) -> Result<(), StoreError> {
        self.core()?.hold(&named(leases), Some(span)).await
    }

    async fn release(&self, leases: &[LeaseRef]) -> Result<(), StoreError> {
        self.core()?.hold(&named(leases), None).await
    }

    async fn spend(&self, scope: &str, spends: &[Spend]) -> Result<Spent, StoreError> {
        self.core()?.spend(scope, spends).await
    }

    async fn hold(&self, name: &str, owner: u128, span: Duration) -> Result<bool, StoreError> {
        self.core()?.take_hold(name, owner, span).await
    }

    async fn let_go(&self, name: &str, owner: u128) -> Result<(), StoreError> {
        self.core()?.let_go(name, owner).await
    }

    async fn put(&self, record: Record, expected: Expected) -> Result<Revision, StoreError> {
        self.core()?.put(&record, expected).await
    }

    async fn delete(&self, id: RecordId) -> Result<bool, StoreError> {
        self.core()?.delete(&id).await
    }

    async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError> {
        self.core()?.changes(since, limit).await
    }

    async fn wait_for_change(&self, since: Revision) {
        let core = &self.core;
        let mut newest = core.wake.newest();
        loop {
            let newer = *newest.borrow_and_update() > since;
            if newer || core.wake.is_closed() || core.emptied.load(Ordering::Acquire) {
                return;
            }
            if tokio::time::timeout(FOLLOW_EVERY, newest.changed()).await.is_err()
                && let Err(error) = core.look_for_changes().await
            {
                tracing::warn!(%error, "cannot look for changes; trying again");
            }
        }
    }

    async fn rebuild(&self, records: Vec<Record>, newest: Revision) -> Result<bool, StoreError> {
        self.core()?.rebuild(&records, newest).await
    }

    async fn put_mapping(&self, version: MappingVersion, source: &Value) -> Result<(), StoreError> {
        self.core()?.put_mapping(version, source).await
    }

    async fn mapping(&self, version: MappingVersion) -> Result<Option<Value>, StoreError> {
        self.core()?.mapping(version).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.core()?.deliveries(&query).await
    }

    async fn tally(&self, tenant: &TenantId, connection: ConnectionId) -> Result<Tally, StoreError> {
        self.core()?.tally(tenant, connection).await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<Delivery>, StoreError> {
        self.core()?.delivery(id).await
    }

    async fn retry(&self, id: JobId, mapping: Option<MappingVersion>) -> Result<Retried, StoreError> {
        self.core()?.retry(id, mapping, None).await
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let core = self.core()?;
        let swept = core.sweep().await;
        if swept.is_err() {
            core.cadence.failed();
        }
        swept
    }

    async fn wait_for_upkeep(&self) {
        self.core.wait_for_upkeep().await;
    }

    async fn export(&self, after: Option<Cursor>, limit: usize) -> Result<Exported, StoreError> {
        self.core()?.export(after.as_ref(), limit).await
    }

    async fn import(&self, events: Vec<KeptEvent>) -> Result<usize, StoreError> {
        self.core()?.import(&events).await
    }

    async fn backlog(&self, tenant: &TenantId, connections: &[ConnectionId]) -> Result<u64, StoreError> {
        self.core()?.backlog_of(tenant, connections).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.core()?.stats().await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let core = self.core()?;
        core.check_epoch().await?;
        // A real write, which a full or a read-only server refuses.
        let mut write = redis::cmd("HSET");
        write.arg(core.keys.layout()).arg("seen").arg(core.clock.now().millis());
        core.link.plain(write, REPLY).await.map(|_| ())
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.core.wake.close();
        self.core.cadence.close();
        self.intake.drain().await;
        self.core.give_back(Duration::ZERO).await;
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}
