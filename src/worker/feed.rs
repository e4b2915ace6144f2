//! Leases jobs while there is room for them, and sleeps while there is no work.

use std::sync::Arc;
use std::time::Duration;

use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use tokio::sync::{mpsc, watch};

use super::room::Rooms;
use crate::service::Gateway;
use crate::service::deliver::Ticket;
use crate::store::{Lease, StoreError};

/// What one task tries: one lease, or all of a batch.
pub(super) type Leases = Vec<Lease>;

/// Tasks leased for in one step at the most.
const STEP: usize = 128;
/// How often an idle feed shows that it is alive.
const BEAT: Duration = Duration::from_secs(5);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What the feed needs.
pub(super) struct Feed {
    pub gateway: Arc<Gateway>,
    pub rooms: Rooms,
    pub handover: mpsc::Sender<Task<Leases>>,
    pub lease: Duration,
    pub stopped: watch::Receiver<bool>,
}

/// Runs until it is told to stop or nobody takes jobs any more.
pub(super) async fn run(mut feed: Feed) {
    let mut stopped = feed.stopped.clone();
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {}
        () = feed.lease_on() => {}
    }
}

impl Feed {
    async fn lease_on(&mut self) {
        loop {
            // A permit that is waited for and put back: only the feed takes permits for good, so it stays available.
            match self.rooms.usual.acquire().await {
                Ok(permit) => drop(permit),
                Err(_) => return,
            }
            let room = self.rooms.usual.available_permits().min(STEP);
            let leases = self.gateway.store.lease(room, self.lease).await;
            if leases.is_ok() {
                self.gateway.progress.beat(self.gateway.clock.now());
            }
            match leases {
                Ok(leases) if leases.is_empty() => self.idle().await,
                Ok(leases) => {
                    for leases in grouped(leases) {
                        if !self.hand_over(leases).await {
                            return;
                        }
                    }
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
                    self.gateway.store_failed(&error);
                    tracing::warn!(%error, "cannot lease; trying again");
                    self.gateway.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    async fn idle(&self) {
        tokio::select! {
            () = self.gateway.store.wait_for_work() => {}
            () = self.gateway.clock.sleep(BEAT) => {}
        }
    }

    async fn hand_over(&self, leases: Leases) -> bool {
        // The place comes back with the outcome; see the settler.
        let Some(place) = self.rooms.enter() else { return false };
        let tickets: Tickets = leases.iter().map(Ticket::of).collect();
        self.handover.send(TaskBuilder::new(leases).data(tickets).data(place).build()).await.is_ok()
    }
}

/// What is needed to settle a task whose handler did not come back.
pub(super) type Tickets = Arc<[Ticket]>;

/// Each lease alone, but those of a batch together. A lane gives one batch at a time, and its leases follow each other.
fn grouped(leases: Vec<Lease>) -> Vec<Leases> {
    let mut groups: Vec<Leases> = Vec::with_capacity(leases.len());
    for lease in leases {
        match groups.last_mut() {
            Some(group)
                if lease.batch
                    && group
                        .first()
                        .is_some_and(|first| first.batch && first.job.connection == lease.job.connection) =>
            {
                group.push(lease);
            }
            _ => groups.push(vec![lease]),
        }
    }
    groups
}
