//! What all parts of the store share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::cadence::Cadence;
use super::credit::Credit;
use super::fresh::Fresh;
use super::held::Held;
use super::ingest::Bases;
use super::keys::{Keys, Partition};
use super::link::Link;
use super::script::{Call, Scripts};
use super::upkeep::Walked;
use super::wake::Wake;
use super::{BEAT, Durability};
use crate::clock::{Clock, Ids};
use crate::domain::retention::Retention;

/// What all parts of the store share.
#[derive(Debug)]
pub(super) struct Core {
    pub keys: Keys,
    pub scripts: Scripts,
    /// For what callers wait on: leases, outcomes, records.
    pub link: Arc<Link>,
    /// For reads of the log, whose answers may be large.
    pub reads: Link,
    /// For large requests on their way in.
    pub bulk: Link,
    /// Bounds how many of those there are at once.
    pub large: Arc<tokio::sync::Semaphore>,
    pub clock: Clock,
    pub ids: Ids,
    /// This process among those with leases.
    pub owner: String,
    /// Names for new events.
    pub bases: Bases,
    pub durability: Durability,
    pub retention: Retention,
    /// Names this filling of the server; another one means that it was emptied.
    pub epoch: String,
    pub wake: Wake,
    pub credit: Credit,
    pub fresh: Fresh,
    pub held: Held,
    /// Partitions that may have given leases whose answer was lost, and how often that is still to be looked into.
    pub doubtful: Mutex<HashMap<Partition, u8>>,
    /// Held by each lease until its answer is noted, so that nobody takes it for a lost one.
    pub leasing: tokio::sync::RwLock<()>,
    /// How far each partition was looked through for events past each retention, and when that began.
    pub walk: Mutex<HashMap<(Partition, Duration), Walked>>,
    pub cadence: Cadence,
    /// Whether the server was found to be emptied.
    pub emptied: AtomicBool,
}

impl Core {
    /// A call of a partition's script, with what all of them begin with.
    pub fn call(&self, partition: Partition) -> Call {
        let mut call = Call::new(self.keys.fixed(partition));
        call.number(self.clock.now().millis()).value(&self.owner).value(self.keys.wake_channel(partition));
        call
    }

    /// Says every few seconds that this process lives, wherever it holds leases.
    pub async fn beat_on(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.clock.now();
            self.held.expire(now);
            let partitions: BTreeSet<Partition> =
                self.held.jobs().into_iter().filter_map(|job| self.keys.partition_of(job)).collect();
            if let Err(error) = self.beat(partitions.into_iter()).await {
                tracing::warn!(%error, "cannot tell Redis that this process lives");
            }
            self.fresh.age(Instant::now());
            self.give_back(BEAT).await;
            if let Err(error) = self.reclaim().await {
                tracing::warn!(%error, "cannot look for leases whose answer was lost; trying again");
            }
        }
    }
}
