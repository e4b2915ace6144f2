//! Our lanes as an apalis `Backend`: tasks come from the feed, and what was leased but not begun goes back when it closes.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::worker::context::WorkerContext;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tower_layer::Identity;

use super::feed::Leases;
use crate::store::{Lease, LeaseRef, Store};

type Releasing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where leased jobs come from; shared, so that the monitor can build the worker anew.
#[derive(Clone)]
pub(super) struct Leased {
    tasks: Arc<Mutex<mpsc::Receiver<Task<Leases>>>>,
    store: Arc<dyn Store>,
    room: Arc<Semaphore>,
}

impl Leased {
    pub fn new(tasks: mpsc::Receiver<Task<Leases>>, store: Arc<dyn Store>, room: Arc<Semaphore>) -> Self {
        Self { tasks: Arc::new(Mutex::new(tasks)), store, room }
    }
}

pub(super) struct LaneBackend {
    leased: Leased,
    releasing: Option<Releasing>,
}

impl LaneBackend {
    pub fn new(leased: Leased) -> Self {
        Self { leased, releasing: None }
    }

    /// Gives back what nobody began.
    fn release(&mut self) -> Releasing {
        let mut left: Vec<LeaseRef> = Vec::new();
        {
            let mut tasks = self.leased.tasks.lock();
            tasks.close();
            let mut rooms = 0;
            while let Ok(task) = tasks.try_recv() {
                left.extend(task.args.iter().map(Lease::reference));
                rooms += 1;
            }
            self.leased.room.add_permits(rooms);
        }
        let store = Arc::clone(&self.leased.store);
        Box::pin(async move {
            if let Err(error) = store.release(&left).await {
                tracing::warn!(%error, jobs = left.len(), "cannot give jobs back; they come back when their leases end");
            }
        })
    }
}

impl Backend for LaneBackend {
    type Task = Task<Leases>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<Leases>, Infallible>>> {
        self.leased.tasks.lock().poll_recv(context).map(|task| task.map(Ok))
    }

    fn poll_close(&mut self, context: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        let mut releasing = match self.releasing.take() {
            Some(releasing) => releasing,
            None => self.release(),
        };
        match releasing.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.releasing = Some(Box::pin(std::future::ready(())));
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                self.releasing = Some(releasing);
                Poll::Pending
            }
        }
    }
}

impl BackendConfig for LaneBackend {
    type Args = Leases;
    type Id = ();
    // The store keeps the jobs, not the backend.
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
