//! The workers: jobs out of the lanes, through apalis, outcomes back into the store.
//!
//! # Theory of operation
//!
//! Three parts. The *feed* leases from the store, never more than there is room for, and sleeps until the store has work
//! (`feed`). A batch of a lane is one task and takes room for one attempt. apalis runs the handler over our lanes as its `Backend` (`backend`): its worker, monitor, panic guard,
//! time limit and graceful stop are used as they are. The *settler* collects outcomes and writes them in batches
//! (`settler`); a job's room is free again when its outcome is handed over, and the settler's queue is bounded, so a
//! store that can't write stops the leasing instead of filling memory. An attempt whose answer is long in coming makes room
//! for another, within bounds (`room`).
//!
//! # Stopping
//!
//! [`Workers::drain`] stops the feed, gives back what was leased and not begun, lets attempts under way end within the
//! limit, and writes their outcomes. What is still under way or unwritten then comes back when its lease ends.

mod backend;
mod feed;
mod room;
mod settler;

use std::sync::Arc;
use std::time::Duration;

use apalis::layers::WorkerBuilderExt;
use apalis_core::error::BoxDynError;
use apalis_core::monitor::Monitor;
use apalis_core::task::data::Data;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_core::worker::ext::ack::AcknowledgementExt;
use apalis_core::worker::ext::parallelize::ParallelizeExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::domain::policy::LONGEST_TIMEOUT;
use crate::service::Gateway;
use crate::service::deliver::{deliver, hold_back};
use crate::store::Settlement;
use backend::{LaneBackend, Leased};
use feed::Leases;
use room::{Place, Rooms, SLOW_AFTER};
use settler::Acknowledger;

/// Why a job of a tenant whose endpoints are slow waits.
const CROWDED: &str = "it waits for others of its tenant: many of its endpoints take long to answer";

/// How many leased jobs may wait for apalis to take them.
const HANDOVER: usize = 64;

/// How the workers of this process work.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Attempts under way at once, over all lanes; three times as many more may wait for endpoints that take their time.
    pub concurrency: usize,
    /// How long a lease lasts; longer than any attempt may take.
    pub lease: Duration,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { concurrency: 512, lease: Duration::from_secs(90) }
    }
}

/// The settings can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// A lease would end while its attempt still runs, and the job would be sent twice.
    #[error(
        "a lease of {lease:?} is too short: an attempt may take {longest:?}, and its outcome must still be written"
    )]
    LeaseTooShort {
        /// What was set.
        lease: Duration,
        /// The longest timeout of an attempt.
        longest: Duration,
    },
    /// Nothing could ever be delivered.
    #[error("a concurrency of 0 delivers nothing")]
    NoConcurrency,
}

/// How long the last outcomes may take to be written once nothing is under way any more. A store that does not write must
/// not keep a process from ending; their jobs come back when their leases end.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// The running workers of this process.
#[derive(Debug)]
pub struct Workers {
    stop: watch::Sender<bool>,
    feed: JoinHandle<()>,
    monitor: JoinHandle<()>,
    settler: JoinHandle<()>,
}

/// Between the longest attempt and the end of its lease: time to write the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Starts the workers. `drain` bounds how long attempts under way may take once a stop was asked for.
pub fn start(
    gateway: &Arc<Gateway>,
    settings: &WorkerSettings,
    drain: Duration,
) -> Result<Workers, WorkerError> {
    if settings.lease < LONGEST_TIMEOUT + LEASE_MARGIN {
        return Err(WorkerError::LeaseTooShort { lease: settings.lease, longest: LONGEST_TIMEOUT });
    }
    if settings.concurrency == 0 {
        return Err(WorkerError::NoConcurrency);
    }
    let (stop, stopped) = watch::channel(false);
    let rooms = Rooms::new(settings.concurrency);
    let (handover, leased) = mpsc::channel(HANDOVER);
    let (outcomes, settlements) = mpsc::channel(settings.concurrency);

    let settler = tokio::spawn(settler::run(Arc::clone(gateway), settlements, settings.lease));
    let feed = tokio::spawn(feed::run(feed::Feed {
        gateway: Arc::clone(gateway),
        rooms: rooms.clone(),
        handover,
        lease: settings.lease,
        stopped: stopped.clone(),
    }));
    let leased = Leased::new(leased, Arc::clone(&gateway.store), Arc::clone(&rooms.usual));
    let acknowledger = Acknowledger::new(Arc::clone(gateway), outcomes);
    let clock = gateway.clock.clone();
    let (gateway, concurrency) = (Arc::clone(gateway), rooms.all());
    let build = move |_| {
        WorkerBuilder::new("deliver")
            .backend(LaneBackend::new(leased.clone()))
            .data(Arc::clone(&gateway))
            .ack_with(acknowledger.clone())
            .parallelize(tokio::spawn)
            .concurrency(concurrency)
            .timeout(LONGEST_TIMEOUT + LEASE_MARGIN / 2)
            .catch_panic()
            .build(handle)
    };
    let monitor = tokio::spawn(async move {
        let mut stopped = stopped;
        let signal = async move {
            // An error means that the handle was dropped: stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
            Ok(())
        };
        let monitor = Monitor::new().register(build).with_terminator(async move { clock.sleep(drain).await });
        if let Err(error) = monitor.run_with_signal(signal).await {
            tracing::error!(%error, "the workers ended badly");
        }
    });
    Ok(Workers { stop, feed, monitor, settler })
}

async fn handle(
    leases: Leases,
    gateway: Data<Arc<Gateway>>,
    place: Data<Place>,
) -> Result<Arc<Vec<Settlement>>, BoxDynError> {
    let Some(tenant) = leases.first().map(|lease| lease.job.tenant.clone()) else {
        return Ok(Arc::default());
    };
    if !place.may_begin(&tenant) {
        return Ok(Arc::new(hold_back(&gateway, &leases, SLOW_AFTER, CROWDED)));
    }
    let _under_way = gateway.metrics.under_way();
    let mut delivering = std::pin::pin!(deliver(&gateway, leases));
    let settlements = tokio::select! {
        // First, so that the time counts from before anything is sent.
        biased;
        () = gateway.clock.sleep(SLOW_AFTER) => {
            place.move_aside(&tenant);
            delivering.await
        }
        settlements = &mut delivering => settlements,
    };
    Ok(Arc::new(settlements))
}

impl Workers {
    /// Stops leasing, lets what is under way end within the limit given at start, writes the outcomes.
    pub async fn drain(self) {
        let _ = self.stop.send(true);
        let Self { feed, monitor, mut settler, .. } = self;
        let told = |ended: Result<(), tokio::task::JoinError>| {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the workers ended badly");
            }
        };
        told(feed.await);
        told(monitor.await);
        if let Ok(ended) = tokio::time::timeout(LAST_WRITES, &mut settler).await {
            told(ended);
        } else {
            tracing::warn!("outcomes could not be written; their jobs are tried again");
            settler.abort();
        }
    }
}
