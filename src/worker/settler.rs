//! Takes outcomes from apalis and writes them to the store in batches, until they are written.

use std::sync::Arc;
use std::time::Duration;

use apalis_core::error::BoxDynError;
use apalis_core::task::ExecutionContext;
use apalis_core::worker::ext::ack::Acknowledge;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

use super::feed::Tickets;
use super::room::Place;
use crate::service::Gateway;
use crate::service::deliver::settle_failure;
use crate::store::{LeaseRef, Settlement, StoreError};

/// Tasks whose outcomes are written in one step at the most.
const BATCH: usize = 256;
/// Batches under way at once: while one is written the next waits at the store, so that it goes with the next commit.
const WRITES: usize = 2;
/// The first and the longest pause after the store failed.
/// A store that was away for long is back at work within the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What a task came to: a settlement for each of its leases.
type Outcomes = Arc<Vec<Settlement>>;

/// Sees every end of a handler: its settlement, its panic, its time limit.
#[derive(Clone)]
pub(super) struct Acknowledger {
    gateway: Arc<Gateway>,
    outcomes: mpsc::Sender<Outcomes>,
}

impl Acknowledger {
    pub fn new(gateway: Arc<Gateway>, outcomes: mpsc::Sender<Outcomes>) -> Self {
        Self { gateway, outcomes }
    }
}

impl Acknowledge<Outcomes> for Acknowledger {
    type Error = SendError<Outcomes>;
    type Future = BoxFuture<'static, Result<(), Self::Error>>;

    fn ack(&mut self, result: &Result<Outcomes, BoxDynError>, context: &ExecutionContext) -> Self::Future {
        let settlements = match (result, context.data().get::<Tickets>()) {
            (Ok(settlements), _) => Some(Arc::clone(settlements)),
            (Err(error), Some(tickets)) => {
                let reason = error.to_string();
                let fail = |ticket| settle_failure(&self.gateway, ticket, &reason);
                Some(Arc::new(tickets.iter().map(fail).collect()))
            }
            // The feed gives every task its tickets; without them the leases end by themselves.
            (Err(_), None) => None,
        };
        let (outcomes, place) = (self.outcomes.clone(), context.data().get::<Place>().cloned());
        Box::pin(async move {
            let sent = match settlements {
                Some(settlements) => outcomes.send(settlements).await,
                None => Ok(()),
            };
            // The feed gives every task a place.
            if let Some(place) = place {
                place.leave();
            }
            sent
        })
    }
}

/// Writes outcomes until no more can come.
pub(super) async fn run(gateway: Arc<Gateway>, mut outcomes: mpsc::Receiver<Outcomes>, lease: Duration) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut writes = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !writes.is_empty() {
        tokio::select! {
            count = outcomes.recv_many(&mut batch, BATCH), if is_open && writes.len() < WRITES => {
                is_open = count > 0;
                let settlements = batch.drain(..).flat_map(Arc::unwrap_or_clone).collect();
                writes.extend(is_open.then(|| write(&gateway, settlements, lease)));
            }
            Some(()) = writes.next() => {}
        }
    }
}

/// Writes a batch, however long the store takes to come back; meanwhile the leases are renewed.
async fn write(gateway: &Gateway, settlements: Vec<Settlement>, lease: Duration) {
    let leases: Vec<LeaseRef> = settlements.iter().map(|settlement| settlement.lease).collect();
    let mut pause = PAUSES.0;
    loop {
        match gateway.store.settle(settlements.clone()).await {
            Ok(_) => return gateway.progress.beat(gateway.clock.now()),
            Err(StoreError::Closed) => return,
            Err(error) => {
                gateway.store_failed(&error);
                tracing::error!(%error, outcomes = leases.len(), "cannot write outcomes; trying again");
            }
        }
        gateway.clock.sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        // What can't be renewed is sent again after its lease: at least once is what is promised.
        if let Err(error) = gateway.store.renew(&leases, lease).await {
            tracing::warn!(%error, "cannot renew leases");
        }
    }
}
