//! The one writer: a thread that owns the database's write connection and commits many requests as one.
//!
//! # Theory of operation
//!
//! Requests queue in a bounded channel. The thread takes the first, then whatever else waits, runs them in one
//! transaction, commits (one fsync for all), applies their effects to the lanes, and answers. While it commits, the next
//! batch gathers; so batches grow with the load and an idle store adds no delay. A request that fails is answered so and
//! the rest of its batch is run again without it; if only the commit fails, each is run again alone. A database that is
//! locked fails the whole batch at once, because its time to wait is over for all. Refills of lanes are read here, a few
//! between two transactions: what they read is exactly what the lanes know.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use super::checkpoint::Checkpointer;
use super::lanes::{Effect, Lanes};
use super::{refill, unavailable};
use crate::clock::Clock;
use crate::store::StoreError;

/// Requests in one transaction at the most.
const BATCH: usize = 512;
/// Requests that may wait.
const QUEUE: usize = 8_192;
/// Lanes refilled between two transactions at the most.
const REFILLS: usize = 4;

/// The lanes and the signal that they have work.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub lanes: Mutex<Lanes>,
    pub work: Notify,
    /// Notified after a commit that changed records.
    pub records: Notify,
    /// Notified while lanes have jobs that are to be cancelled.
    pub upkeep: Notify,
    closed: AtomicBool,
    /// A [`Command::Refill`] is on its way: one is enough.
    refill_asked: AtomicBool,
}

impl Shared {
    /// Whether the store was closed, or its writer ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the store as closed and lets all who wait find out.
    pub fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.work.notify_waiters();
        self.work.notify_one();
        self.records.notify_waiters();
    }
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
        let Self { work, result, reply, .. } = *self;
        let answer = match committed {
            Ok(()) => result.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error),
        };
        // What the work held (claims on leases) is given back before anyone hears of the failure.
        drop(work);
        // An error means that nobody waits any more: the write stands all the same.
        let _ = reply.send(answer);
    }
}

enum Command {
    Write(Box<dyn Request>),
    /// A lane waits for a refill.
    Refill,
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
            Self::Refill => "Refill",
            Self::Stop => "Stop",
        })
    }
}

impl Writer {
    /// Starts the thread. It ends by [`Writer::stop`], or when every `Writer` is dropped; only then is `lock` let go.
    pub fn start(
        connection: Connection,
        lock: Option<File>,
        checkpointer: Option<Checkpointer>,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<(Self, std::thread::JoinHandle<()>), StoreError> {
        let (commands, received) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Loop { connection, _lock: lock, checkpointer, shared, clock }.run(received))
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

    /// Tells the thread that a lane waits for a refill. A full queue needs no telling: it looks after each batch.
    pub fn refill(&self, shared: &Shared) {
        if !shared.refill_asked.swap(true, Ordering::AcqRel) {
            let _ = self.commands.try_send(Command::Refill);
        }
    }
}

struct Loop {
    connection: Connection,
    /// What keeps the owner's log short.
    checkpointer: Option<Checkpointer>,
    shared: Arc<Shared>,
    clock: Clock,
    /// What makes this process the owner; dropped last.
    _lock: Option<File>,
}

/// Why a transaction came to nothing.
enum Failure {
    /// It could not begin, or could not be committed.
    Whole { began: bool, error: StoreError },
    /// This request of it failed.
    One(usize, StoreError),
}

impl Loop {
    fn run(mut self, mut received: mpsc::Receiver<Command>) {
        let mut stopping = false;
        let mut refills_wait = false;
        while !stopping {
            let first = if refills_wait {
                match received.try_recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                let Some(command) = received.blocking_recv() else { break };
                Some(command)
            };
            let mut writes = Vec::new();
            let mut next = first;
            while let Some(command) = next {
                match command {
                    Command::Write(request) => writes.push(request),
                    Command::Refill => {}
                    Command::Stop => stopping = true,
                }
                next = if writes.len() < BATCH { received.try_recv().ok() } else { None };
            }
            self.commit(writes);
            refills_wait = self.refill();
        }
        if let Some(checkpointer) = self.checkpointer.take() {
            checkpointer.stop(&mut self.connection);
        }
        // Folds the log back into the database, so that what is left behind is one file.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);");
        self.shared.mark_closed();
    }

    /// Commits all that can be; each round finishes the batch or answers the one that stands in its way.
    fn commit(&self, mut writes: Vec<Box<dyn Request>>) {
        while !writes.is_empty() {
            match self.transaction(&mut writes) {
                Ok(()) => return self.finish(writes),
                Err(Failure::One(at, error)) => writes.remove(at).answer(Err(error)),
                Err(Failure::Whole { began, error }) if !began || writes.len() == 1 => {
                    for write in writes {
                        write.answer(Err(error.clone()));
                    }
                    return;
                }
                Err(Failure::Whole { .. }) => {
                    for write in writes {
                        self.commit(vec![write]);
                    }
                    return;
                }
            }
        }
    }

    fn transaction(&self, writes: &mut [Box<dyn Request>]) -> Result<(), Failure> {
        let execute = |sql| self.connection.prepare_cached(sql)?.execute([]);
        execute("BEGIN IMMEDIATE")
            .map_err(|error| Failure::Whole { began: false, error: unavailable(&error) })?;
        let failed = writes
            .iter_mut()
            .enumerate()
            .find_map(|(at, write)| Some((at, write.run(&self.connection).err()?)));
        let result = match failed {
            Some((at, error)) => Err(Failure::One(at, error)),
            None => execute("COMMIT")
                .map(|_| ())
                .map_err(|error| Failure::Whole { began: true, error: unavailable(&error) }),
        };
        // Some errors have rolled it back already.
        if result.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    /// Effects first, then answers: whoever got an answer finds the lanes as it says.
    fn finish(&self, mut writes: Vec<Box<dyn Request>>) {
        let now = self.clock.now();
        let mut records = false;
        let (has_closing, has_news) = {
            let mut lanes = self.shared.lanes.lock();
            let next = lanes.next_time();
            for write in &mut writes {
                let effects = write.effects();
                records |= effects.records;
                for effect in effects.lanes {
                    lanes.apply(effect, now);
                }
            }
            (lanes.has_closing(), lanes.has_news(next))
        };
        if has_closing {
            self.shared.upkeep.notify_one();
        }
        if has_news {
            self.shared.work.notify_one();
        }
        if records {
            self.shared.records.notify_waiters();
        }
        for write in writes {
            write.answer(Ok(()));
        }
    }

    /// Reads a few of the refills that wait; whether more could be read at once.
    fn refill(&self) -> bool {
        // Before it looks: who asks from here on sends a command of its own.
        self.shared.refill_asked.store(false, Ordering::Release);
        for _ in 0..REFILLS {
            let now = self.clock.now();
            let Some((connection, plan)) = self.shared.lanes.lock().next_refill(now) else { return false };
            let read = refill::read(&self.connection, connection, plan, now, &self.shared.lanes);
            let mut lanes = self.shared.lanes.lock();
            match read {
                Ok(refill) => lanes.refilled(connection, plan, refill, now),
                Err(error) => {
                    tracing::error!(%connection, %error, "cannot read a lane; trying again");
                    lanes.refill_failed(connection, now);
                }
            }
            drop(lanes);
            self.shared.work.notify_one();
        }
        self.shared.lanes.lock().may_refill()
    }
}
