//! Small requests: those that come together share one pipeline, and in it one script call for each partition.
//!
//! The first request goes at once; what comes while pipelines are under way gathers for the next. So batches grow with the
//! load, and an idle store adds no delay. Requests in one call are decided one after the other, each as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Answer, Portion, WEIGHT, read_answer};
use crate::store::StoreError;
use crate::store::redis::codec::{self, strange, write_meta};
use crate::store::redis::keys::Partition;
use crate::store::redis::link::{Answers, Link, Step};
use crate::store::redis::{Core, REPLY};
use crate::store::types::UNANSWERED;

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
    let link = Arc::new(core.link.again());
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
        let mut groups = Vec::new();
        let mut waiting = Vec::new();
        for (partition, portions) in by_partition {
            let mut steps = Vec::new();
            let mut chunks = Vec::new();
            for chunk in chunks_of(portions) {
                steps.push(self.write_step(partition, &chunk));
                chunks.push(chunk);
            }
            steps.extend(self.durability.command().map(Step::Plain));
            groups.push(steps);
            waiting.push((partition, chunks));
        }
        let answers = link.run_groups(groups, REPLY).await;
        for ((partition, chunks), answers) in waiting.into_iter().zip(answers) {
            self.answer(partition, chunks, answers);
        }
    }

    fn write_step(&self, partition: Partition, portions: &[Portion]) -> Step<'_> {
        let now = self.clock.now();
        let mut call = self.call(partition);
        call.value(partition.to_be_bytes()).value(UNANSWERED);
        for portion in portions {
            let key = portion.idempotency.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
            call.number(key)
                .value(portion.idempotency.map_or([0; 16], |key| key.content))
                .number(portion.events.len());
            for new in portion.events() {
                let event = &new.event;
                let base = self.bases.next(now, &self.ids);
                let dedupe = new.dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
                let (bucket, field) = self.keys.public_id(&event.tenant, &event.id);
                let at = call.key(self.keys.event(partition, &base));
                call.key(self.keys.tenant_log(&event.tenant));
                call.key(bucket);
                call.key(self.keys.newest(&event.tenant));
                call.value(base)
                    .value(write_meta(event, now))
                    .value(&event.document.text()[..])
                    .value(event.kind.as_str())
                    .value(event.id.as_str());
                call.value(field)
                    .number(dedupe)
                    .value(new.dedupe.map_or([0; 16], |key| key.content))
                    .number(at)
                    .number(new.jobs.len());
                for job in &new.jobs {
                    let log = call.key(self.keys.connection_log(partition, job.connection));
                    call.value(job.connection.bits().to_be_bytes())
                        .value(job.mapping.bits().to_be_bytes())
                        .number(log)
                        .number(u8::from(job.triggered));
                }
            }
        }
        Step::Script(&self.scripts.ingest, call)
    }

    fn answer(&self, partition: Partition, chunks: Vec<Vec<Portion>>, answers: Result<Answers, StoreError>) {
        let mut answers = match answers {
            Ok(answers) => answers.into_iter(),
            Err(error) => return fail(chunks.into_iter().flatten(), &error),
        };
        let written: Vec<_> = answers.by_ref().take(chunks.len()).collect();
        let kept = match answers.next() {
            Some(answer) => self.durability.holds(answer),
            None => Ok(()),
        };
        let mut stored = false;
        for (portions, answer) in chunks.into_iter().zip(written) {
            let parsed = kept.clone().and(answer).and_then(codec::list);
            let answers = match parsed {
                Ok(answers) if answers.len() == portions.len() => answers,
                Ok(_) => return fail(portions.into_iter(), &strange("fewer answers than requests")),
                Err(error) => {
                    fail(portions.into_iter(), &error);
                    continue;
                }
            };
            for (portion, answer) in portions.into_iter().zip(answers) {
                let answer = read_answer(answer);
                stored |= matches!(&answer, Ok(Answer::Stored(_)));
                // Nobody waits any more: the write stands all the same.
                let _ = portion.reply.send(answer);
            }
        }
        if stored {
            self.wake.mark(partition);
        }
    }
}

fn fail(portions: impl Iterator<Item = Portion>, error: &StoreError) {
    for portion in portions {
        let _ = portion.reply.send(Err(error.clone()));
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
