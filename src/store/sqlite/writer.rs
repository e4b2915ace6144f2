//! The one writer: a thread that owns the database's write connection and commits many requests as one.
//!
//! # Theory of operation
//!
//! Requests queue in a bounded channel. The thread takes the first, then whatever else waits, runs them in one
//! transaction, commits (one fsync for all), applies their effects to the lanes, and answers. While it commits, the next
//! batch gathers; so batches grow with the load and an idle store adds no delay. If a batch fails it is run again
//! one by one, so that one bad request doesn't fail its neighbours. Refills of lanes are read here, between
//! transactions: what they read is exactly what the lanes know.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use super::lanes::{Effect, Lanes, REFILL_RETRY};
use super::{refill, unavailable};
use crate::clock::Clock;
use crate::domain::id::ConnectionId;
use crate::store::StoreError;

/// Requests in one transaction at the most.
const BATCH: usize = 512;
/// Requests that may wait.
const QUEUE: usize = 8_192;

/// The lanes and the signal that they have work.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub lanes: Mutex<Lanes>,
    pub work: Notify,
    /// Notified after a commit that changed records.
    pub records: Notify,
}

/// What a request did, to be applied once it is committed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub lanes: Vec<Effect>,
    /// Whether records changed.
    pub records: bool,
}

/// A request's work inside the transaction; it may be run twice, but only one of the runs is committed.
type Work<T> = Box<dyn FnMut(&Connection, &mut Effects) -> Result<T, StoreError> + Send>;

/// One request, whatever its answer.
trait Request: Send {
    /// Runs it in the open transaction.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// The transaction is on disk: hands over the effects.
    fn effects(&mut self) -> Effects;
    /// Sends the answer.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<T> {
    work: Work<T>,
    result: Option<Result<T, StoreError>>,
    effects: Effects,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send> Request for Pending<T> {
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.effects = Effects::default();
        let result = (self.work)(connection, &mut self.effects);
        // A refusal that wrote nothing (a conflict) is an answer, not a failure of the transaction.
        let outcome = match &result {
            Err(StoreError::Conflict) | Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        };
        self.result = Some(result);
        outcome
    }

    fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match committed {
            Ok(()) => self.result.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error),
        };
        // Nobody waits any more: the write stands all the same.
        let _ = self.reply.send(answer);
    }
}

enum Command {
    Write(Box<dyn Request>),
    Refill(ConnectionId),
    Stop,
}

/// Sends requests to the writer's thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write(_) => "Write",
            Self::Refill(_) => "Refill",
            Self::Stop => "Stop",
        })
    }
}

impl Writer {
    /// Starts the thread. It ends by [`Writer::stop`], or when every `Writer` is dropped.
    pub fn start(
        connection: Connection,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<(Self, std::thread::JoinHandle<()>), StoreError> {
        let (commands, received) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Loop { connection, shared, clock }.run(received))
            .map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok((Self { commands }, thread))
    }

    /// Runs `work` in a transaction and answers when it is on disk. `Overloaded` at once when too many wait.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection, &mut Effects) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { work: Box::new(work), result: None, effects: Effects::default(), reply };
        self.commands.try_send(Command::Write(Box::new(pending))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Ends the thread once all that was sent before is written; later requests fail with `Closed`.
    pub async fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Stop).await;
    }

    /// Asks for a lane's refill; `false` when the queue is full.
    pub fn refill(&self, connection: ConnectionId) -> bool {
        self.commands.try_send(Command::Refill(connection)).is_ok()
    }
}

struct Loop {
    connection: Connection,
    shared: Arc<Shared>,
    clock: Clock,
}

impl Loop {
    fn run(self, mut received: mpsc::Receiver<Command>) {
        let mut stopping = false;
        while !stopping && let Some(first) = received.blocking_recv() {
            let mut writes = Vec::new();
            let mut refills = Vec::new();
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Write(request) => writes.push(request),
                    Command::Refill(connection) => refills.push(connection),
                    Command::Stop => stopping = true,
                }
                next = if writes.len() < BATCH { received.try_recv().ok() } else { None };
            }
            if !writes.is_empty() {
                self.commit(writes);
            }
            for connection in refills {
                self.refill(connection);
            }
        }
        // Folds the log back into the database, so that what is left behind is one file.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);");
    }

    fn commit(&self, mut writes: Vec<Box<dyn Request>>) {
        match self.transaction(&mut writes) {
            Ok(()) => self.finish(writes),
            Err(error) if writes.len() == 1 => {
                for write in writes {
                    write.answer(Err(error.clone()));
                }
            }
            Err(_) => {
                for write in writes {
                    let mut alone = vec![write];
                    match self.transaction(&mut alone) {
                        Ok(()) => self.finish(alone),
                        Err(error) => alone.into_iter().for_each(|write| write.answer(Err(error.clone()))),
                    }
                }
            }
        }
    }

    fn transaction(&self, writes: &mut [Box<dyn Request>]) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| unavailable(&error))?;
        let mut result = Ok(());
        for write in writes.iter_mut() {
            result = write.run(&self.connection);
            if result.is_err() {
                break;
            }
        }
        let result = result
            .and_then(|()| self.connection.execute_batch("COMMIT").map_err(|error| unavailable(&error)));
        if result.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    /// Effects first, then answers: whoever got an answer finds the lanes as it says.
    fn finish(&self, mut writes: Vec<Box<dyn Request>>) {
        let now = self.clock.now();
        let mut records = false;
        {
            let mut lanes = self.shared.lanes.lock();
            for write in &mut writes {
                let effects = write.effects();
                records |= effects.records;
                for effect in effects.lanes {
                    lanes.apply(effect, now);
                }
            }
        }
        // Even where no lane became ready, a timer may have come closer.
        self.shared.work.notify_one();
        if records {
            self.shared.records.notify_waiters();
        }
        for write in writes {
            write.answer(Ok(()));
        }
    }

    fn refill(&self, connection: ConnectionId) {
        let now = self.clock.now();
        let plan = self.shared.lanes.lock().plan(connection);
        let Some(plan) = plan else { return };
        let read = refill::read(&self.connection, connection, plan, now, &self.shared.lanes);
        let mut lanes = self.shared.lanes.lock();
        match read {
            Ok(refill) => lanes.refilled(connection, refill, now),
            Err(error) => {
                tracing::error!(%connection, %error, "cannot read a lane; trying again");
                lanes.refill_failed(connection, now.plus(REFILL_RETRY), now);
            }
        }
        drop(lanes);
        self.shared.work.notify_one();
    }
}
