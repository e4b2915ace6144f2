//! Small requests: those that come together share one pipeline, and in it one script call for each partition.
//!
//! The first request goes at once; what comes while pipelines are under way gathers for the next. So batches grow with the
//! load, and an idle store adds no delay. Requests in one call are decided one after the other, each as a whole. What the
//! call leased of their jobs is handed to whoever waits for work (`leased`).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::leased::Sent;
use super::{Portion, WEIGHT, read_answer};
use crate::store::StoreError;
use crate::store::redis::codec::{self, strange};
use crate::store::redis::keys::Partition;
use crate::store::redis::link::{Link, Waited};
use crate::store::redis::{Core, REPLY};

/// Requests that may wait.
const QUEUE: usize = 8_192;
/// Requests in one pipeline at the most.
const BATCH: usize = 512;
/// Pipelines under way at once: one is carried out while the next is on its way.
const PIPELINES: usize = 2;

/// Where requests gather.
#[derive(Debug)]
pub(in super::super) struct Intake {
    portions: Mutex<Option<mpsc::Sender<Portion>>>,
    pipelines: Arc<Semaphore>,
}

impl Intake {
    /// Starts the task that sends them.
    pub fn start(core: &Arc<Core>) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let pipelines = Arc::new(Semaphore::new(PIPELINES));
        let task = tokio::spawn(take(Arc::clone(core), receiver, Arc::clone(&pipelines)));
        (Self { portions: Mutex::new(Some(sender)), pipelines }, task)
    }

    pub(super) fn send(&self, portion: Portion) -> Result<(), StoreError> {
        let portions = self.portions.lock();
        let sender = portions.as_ref().ok_or(StoreError::Closed)?;
        sender.try_send(portion).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }

    /// Takes no more and lets what is under way end.
    pub async fn drain(&self) {
        let sender = self.portions.lock().take();
        let Some(sender) = sender else { return };
        let empty = async {
            while sender.capacity() < sender.max_capacity() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            // An error would mean that the semaphore was closed, which nobody does.
            let _ = self.pipelines.acquire_many(u32::try_from(PIPELINES).unwrap_or(1)).await;
        };
        let _ = timeout(REPLY, empty).await;
    }
}

/// Sends what waits, whenever a pipeline is free.
async fn take(core: Arc<Core>, mut received: mpsc::Receiver<Portion>, pipelines: Arc<Semaphore>) {
    let link = Arc::new(core.link.opening_with(core.scripts.opening(core.durability)));
    let mut batch = Vec::new();
    loop {
        let Ok(permit) = Arc::clone(&pipelines).acquire_owned().await else { return };
        if received.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let portions = std::mem::take(&mut batch);
        let (core, link) = (Arc::clone(&core), Arc::clone(&link));
        tokio::spawn(async move {
            core.send(&link, portions).await;
            drop(permit);
        });
    }
}

impl Core {
    /// Sends portions and answers them.
    async fn send(&self, link: &Link, portions: Vec<Portion>) {
        let mut by_partition: BTreeMap<Partition, Vec<Portion>> = BTreeMap::new();
        for portion in portions {
            by_partition.entry(portion.partition).or_default().push(portion);
        }
        // Until what was leased is noted, so that nobody takes it for lost.
        let _leasing = self.leasing.read().await;
        let mut groups = Vec::new();
        let mut waiting = Vec::new();
        for (partition, portions) in by_partition {
            let mut steps = Vec::new();
            let mut sent = Vec::new();
            for chunk in chunks_of(portions) {
                let (step, one) = self.write_step(partition, chunk);
                steps.push(step);
                sent.push(one);
            }
            groups.push(steps);
            waiting.push((partition, sent));
        }
        let wait = self.durability.command();
        let answers = link.run_groups_and_wait(groups, wait.as_ref(), REPLY).await;
        for ((partition, sent), answers) in waiting.into_iter().zip(answers) {
            self.answer(partition, sent, answers);
        }
    }

    fn answer(&self, partition: Partition, sent: Vec<Sent>, waited: Result<Waited, StoreError>) {
        let Waited { answers, wait } = match waited {
            Ok(waited) => waited,
            Err(error) => return sent.into_iter().for_each(|sent| self.fail(partition, sent, &error)),
        };
        let kept = wait.map_or(Ok(()), |answer| self.durability.holds(answer));
        for (sent, answer) in sent.into_iter().zip(answers) {
            let parsed = kept.clone().and(answer).and_then(codec::list);
            let mut answers = match parsed {
                Ok(answers) => answers,
                Err(error) => {
                    self.fail(partition, sent, &error);
                    continue;
                }
            };
            let leased = answers.pop().unwrap_or(Value::Nil);
            if answers.len() != sent.portions.len() {
                self.fail(partition, sent, &strange("fewer answers than requests"));
                continue;
            }
            let answers: Vec<_> = answers.into_iter().map(read_answer).collect();
            self.take_leased(partition, &sent, leased, &answers);
            for (portion, answer) in sent.portions.into_iter().zip(answers) {
                // Nobody waits any more: the write stands all the same.
                let _ = portion.reply.send(answer);
            }
        }
    }

    fn fail(&self, partition: Partition, sent: Sent, error: &StoreError) {
        self.lose_leased(partition, sent.spent);
        for portion in sent.portions {
            let _ = portion.reply.send(Err(error.clone()));
        }
    }
}

/// As many portions in each as one script call should carry.
fn chunks_of(portions: Vec<Portion>) -> Vec<Vec<Portion>> {
    let mut chunks: Vec<Vec<Portion>> = Vec::new();
    let mut weight = WEIGHT;
    for portion in portions {
        let own = portion.weight();
        if weight + own > WEIGHT {
            chunks.push(Vec::new());
            weight = 0;
        }
        weight += own;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(portion);
        }
    }
    chunks
}
