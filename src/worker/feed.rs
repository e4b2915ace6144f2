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

/// Jobs leased in one step at the most.
const STEP: usize = 64;
/// How often an idle feed shows that it is alive.
const BEAT: Duration = Duration::from_secs(5);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What the feed needs.
pub(super) struct Feed {
    pub gateway: Arc<Gateway>,
    pub rooms: Rooms,
    pub handover: mpsc::Sender<Task<Lease>>,
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
                    for lease in leases {
                        if !self.hand_over(lease).await {
                            return;
                        }
                    }
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
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

    async fn hand_over(&self, lease: Lease) -> bool {
        // The place comes back with the outcome; see the settler.
        let Some(place) = self.rooms.enter() else { return false };
        let ticket = Ticket::of(&lease);
        self.handover.send(TaskBuilder::new(lease).data(ticket).data(place).build()).await.is_ok()
    }
}
