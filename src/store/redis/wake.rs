//! Which partitions may have work, as far as this process knows.
//!
//! # Theory of operation
//!
//! A process asks a partition only when there is a reason: its own write made something ready, a message said that the
//! partition's ring is no longer empty, the time came that the last answer named, or another process that holds leases
//! there may have died. A process remembers a partition as ready until it has seen it empty itself, so a message is
//! needed only when a ring that was empty gets something. A message may be lost: every partition is asked once in
//! [`POLL`] all the same, and whenever a subscription begins anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::cadence::UNFINISHED;
use super::keys::Partition;
use super::{Core, REPLY};
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::store::Revision;

/// Every partition is asked at least this often while there is nothing to do.
const POLL: Duration = Duration::from_mins(5);
/// How often a partition is looked at in which another process holds leases.
const RECHECK: Duration = Duration::from_secs(2);
/// How often a silent subscription has to show that it lives.
const PING: Duration = Duration::from_secs(15);
/// What scripts say where they left something to upkeep; `finish` in `partition.lua` says it.
const UPKEEP: &[u8] = b"upkeep";
/// What `commit.lua` says when a large request was accepted that is not in its lanes yet.
const STAGED: &[u8] = b"staged";
/// Between attempts to subscribe.
const RESUBSCRIBE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Default)]
struct Known {
    in_queue: bool,
    /// When something happens there by itself.
    next: Option<Timestamp>,
    /// When to see whether another process still lives.
    recheck: Option<Instant>,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Known>,
    queue: VecDeque<Partition>,
    polled: Instant,
}

impl State {
    fn mark(&mut self, partition: Partition) -> bool {
        let Some(known) = self.partitions.get_mut(usize::from(partition)) else { return false };
        if !known.in_queue {
            known.in_queue = true;
            self.queue.push_back(partition);
        }
        true
    }

    fn mark_all(&mut self) {
        for partition in 0..u16::try_from(self.partitions.len()).unwrap_or(u16::MAX) {
            self.mark(partition);
        }
        self.polled = Instant::now();
    }

    /// Marks those whose time has come.
    fn tick(&mut self, now: Timestamp) {
        let real_now = Instant::now();
        for partition in 0..self.partitions.len() {
            let known = &self.partitions[partition];
            if known.next.is_some_and(|next| next <= now) || known.recheck.is_some_and(|at| at <= real_now) {
                self.partitions[partition].next = None;
                self.partitions[partition].recheck = None;
                self.mark(u16::try_from(partition).unwrap_or(u16::MAX));
            }
        }
        if self.polled.elapsed() >= POLL {
            self.mark_all();
        }
    }
}

/// What this process knows of the partitions, and of the newest revision.
#[derive(Debug)]
pub(super) struct Wake {
    state: Mutex<State>,
    work: Notify,
    newest: watch::Sender<Revision>,
    closed: AtomicBool,
}

impl Wake {
    /// Nothing is known: every partition may have work.
    pub fn new(partitions: u16) -> Self {
        let mut state = State {
            partitions: vec![Known::default(); usize::from(partitions)],
            queue: VecDeque::new(),
            polled: Instant::now(),
        };
        state.mark_all();
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            newest: watch::Sender::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// A partition may have work.
    pub fn mark(&self, partition: Partition) {
        self.state.lock().mark(partition);
        self.work.notify_one();
    }

    /// Every partition may have work.
    pub fn mark_all(&self) {
        self.state.lock().mark_all();
        self.work.notify_one();
    }

    /// Something happens in a partition at a time.
    pub fn mark_at(&self, partition: Partition, time: Timestamp) {
        let mut state = self.state.lock();
        if let Some(known) = state.partitions.get_mut(usize::from(partition)) {
            known.next = Some(known.next.map_or(time, |next| next.min(time)));
        }
        drop(state);
        self.work.notify_one();
    }

    /// Takes at most `limit` partitions that may have work, those first that waited longest.
    pub fn take(&self, limit: usize, now: Timestamp) -> Vec<Partition> {
        let mut state = self.state.lock();
        state.tick(now);
        let count = limit.min(state.queue.len());
        let taken: Vec<Partition> = state.queue.drain(..count).collect();
        for partition in &taken {
            state.partitions[usize::from(*partition)] = Known::default();
        }
        if !state.queue.is_empty() {
            self.work.notify_one();
        }
        taken
    }

    /// Takes in what a partition answered: whether to ask again at once, when something happens, whether others hold
    /// leases there.
    pub fn learn(&self, partition: Partition, again: bool, next: Option<Timestamp>, others: bool) {
        let mut state = self.state.lock();
        if again {
            state.mark(partition);
            // Whoever else waits may have room.
            self.work.notify_one();
        }
        if let Some(known) = state.partitions.get_mut(usize::from(partition)) {
            if let Some(next) = next {
                known.next = Some(known.next.map_or(next, |known| known.min(next)));
            }
            if others {
                known.recheck = Some(Instant::now() + RECHECK);
            }
        }
    }

    /// Whether no partition waits to be asked.
    pub fn is_quiet(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Nobody waits any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.work.notify_waiters();
        self.nudge();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// There are leases that nobody took yet.
    pub fn tell(&self) {
        self.work.notify_one();
    }

    /// Returns when a partition may have work, or `has_leases`.
    pub async fn wait(&self, clock: &Clock, has_leases: impl Fn() -> bool) {
        while !self.is_closed() {
            let notified = self.work.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_closed() || has_leases() {
                return;
            }
            let (next, recheck) = {
                let mut state = self.state.lock();
                state.tick(clock.now());
                if !state.queue.is_empty() {
                    return;
                }
                let next = state.partitions.iter().filter_map(|known| known.next).min();
                let recheck = state.partitions.iter().filter_map(|known| known.recheck).min();
                (next, recheck.unwrap_or(state.polled + POLL).min(state.polled + POLL))
            };
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep_until(recheck) => {}
                () = async {
                    match next {
                        Some(next) => clock.sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// There are changes up to this revision; tells whether that is news.
    pub fn revise(&self, revision: Revision) -> bool {
        self.newest.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        })
    }

    /// Whoever waits for changes looks again.
    pub fn nudge(&self) {
        self.newest.send_modify(|_| {});
    }

    /// The newest revision known.
    pub fn newest(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }
}

/// Listens to what other processes say, for ever.
pub(super) async fn listen(core: Arc<Core>) {
    loop {
        if let Err(error) = listen_once(&core).await {
            tracing::warn!(error, "lost the subscription to Redis; subscribing again");
        }
        // Changes and work that went unheard meanwhile are found by asking.
        core.wake.work.notify_one();
        tokio::time::sleep(RESUBSCRIBE).await;
    }
}

async fn listen_once(core: &Core) -> Result<(), String> {
    let Core { wake, link, keys, cadence, .. } = core;
    let mut subscriber = link.subscriber().await.map_err(|error| error.to_string())?;
    let mut channels: Vec<String> =
        (0..keys.partitions()).map(|partition| keys.wake_channel(partition)).collect();
    let changes = keys.changes_channel();
    channels.push(changes.clone());
    timeout(REPLY, subscriber.subscribe(&channels))
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let (mut sink, mut messages) = subscriber.split();
    wake.mark_all();
    cadence.ask(Duration::ZERO);
    core.look_for_changes().await.map_err(|error| error.to_string())?;
    loop {
        match timeout(PING, messages.next()).await {
            Ok(Some(message)) => {
                if message.get_channel_name() == changes {
                    let revision = std::str::from_utf8(message.get_payload_bytes()).ok();
                    if wake.revise(revision.and_then(|text| text.parse().ok()).unwrap_or(0)) {
                        // Whoever wrote it may not live to tell its lane.
                        cadence.ask(UNFINISHED);
                    }
                } else if message.get_payload_bytes() == UPKEEP {
                    cadence.ask(Duration::ZERO);
                } else if message.get_payload_bytes() == STAGED {
                    cadence.ask(UNFINISHED);
                } else if message.get_payload_bytes() != core.owner.as_bytes()
                    // What this process did itself it knows.
                    && let Some(partition) = keys.woken(message.get_channel_name())
                {
                    wake.mark(partition);
                }
            }
            Ok(None) => return Err("the connection ended".to_owned()),
            Err(_) => {
                let pong = timeout(REPLY, sink.ping::<redis::Value>()).await;
                pong.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_is_remembered_until_it_was_seen_empty() {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        let wake = Wake::new(2);
        assert_eq!(wake.take(1, clock.now()), [0]);
        wake.wait(&clock, || false).await;
        assert_eq!(wake.take(8, clock.now()), [1]);
        wake.learn(0, false, Some(Timestamp::from_millis(3_000)), false);
        wake.learn(1, false, None, false);
        assert!(wake.take(8, clock.now()).is_empty());
        // A message that comes while the partition is being asked counts.
        wake.mark(1);
        wake.learn(1, false, None, false);
        assert_eq!(wake.take(8, clock.now()), [1]);
        clock.advance(Duration::from_secs(2));
        wake.wait(&clock, || false).await;
        assert_eq!(wake.take(8, clock.now()), [0]);
    }

    #[test]
    fn revisions_only_rise() {
        let wake = Wake::new(1);
        wake.revise(5);
        wake.revise(3);
        assert_eq!(*wake.newest().borrow(), 5);
    }
}
