//! Takes events in: requests that come together share one pipeline, and in it one script call for each partition.
//!
//! The first request goes at once; what comes while pipelines are under way gathers for the next. So batches grow with the
//! load, and an idle store adds no delay. Requests in one call are decided one after the other, each as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::codec::{self, strange, write_meta};
use super::keys::{BASE, Base, Partition};
use super::link::{Answers, Link, Step};
use super::{Core, REPLY};
use crate::clock::Ids;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Accepted, Dedupe, Ingest, Ingested, NewEvent, UNANSWERED};

/// Requests that may wait.
const QUEUE: usize = 8_192;
/// Requests in one pipeline at the most.
const BATCH: usize = 512;
/// Pipelines under way at once: one is carried out while the next is on its way.
const PIPELINES: usize = 2;
/// Events and jobs in one script call, which bounds how long it runs; a single request may be larger.
const WEIGHT: usize = 128;
/// How often a request is sent again because a lane had to be told of its connection, or an id was taken.
const ROUNDS: usize = 8;

/// The part of a request that lies in one partition.
#[derive(Debug)]
struct Portion {
    partition: Partition,
    idempotency: Option<Dedupe>,
    ingest: Arc<Ingest>,
    /// Which of the events.
    events: Vec<usize>,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

impl Portion {
    fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.events.iter().filter_map(|at| self.ingest.events.get(*at))
    }

    fn weight(&self) -> usize {
        self.events().map(|event| 1 + event.jobs.len()).sum::<usize>().max(1)
    }
}

/// What a partition did with a portion.
#[derive(Debug)]
enum Answer {
    Stored(Vec<Written>),
    Repeated(Vec<(String, Written)>),
    Reused,
    /// An id was taken already.
    Collision,
    /// These lanes are not known there yet.
    Unruled(Vec<ConnectionId>),
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    New(u32),
    Duplicate(u32),
    Reused,
}

impl Written {
    fn parse(text: &str) -> Result<Self, StoreError> {
        if text == "reused" {
            return Ok(Self::Reused);
        }
        let count: i64 = text.parse().map_err(|_| strange(text))?;
        let jobs = |count: i64| u32::try_from(count).map_err(|_| strange(text));
        if count < 0 { jobs(-1 - count).map(Self::Duplicate) } else { jobs(count).map(Self::New) }
    }

    fn accepted(self, id: &str) -> Accepted {
        let id = id.to_owned();
        match self {
            Self::New(jobs) => Accepted::Stored { id, jobs, duplicate: false },
            Self::Duplicate(jobs) => Accepted::Stored { id, jobs, duplicate: true },
            Self::Reused => Accepted::IdReused { id },
        }
    }
}

/// Gives names to events: 6 bytes of milliseconds and 5 that rise within them by random steps.
#[derive(Debug, Default)]
pub(super) struct Bases(Mutex<(u64, u64)>);

impl Bases {
    /// Every later name sorts after this one: for a store that was written under a clock that ran ahead.
    pub fn after(&self, base: &Base) {
        let [time @ .., _, _, _, _, _] = *base;
        let millis = time.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let rest = base[6..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut last = self.0.lock();
        *last = (*last).max((millis, rest));
    }

    fn next(&self, now: Timestamp, ids: &Ids) -> Base {
        let random = u64::try_from(ids.next() & 0xFFFF_FFFF_FFFF).unwrap_or(0);
        let millis = u64::try_from(now.millis()).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
        let mut last = self.0.lock();
        let (mut time, mut rest) = if millis > last.0 {
            (millis, random & 0x7F_FFFF_FFFF)
        } else {
            (last.0, last.1 + 1 + (random & 0xFFFF))
        };
        if rest >> 40 > 0 {
            (time, rest) = (time + 1, random & 0x7F_FFFF_FFFF);
        }
        *last = (time, rest);
        let mut base = [0; BASE];
        base[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        base[6..].copy_from_slice(&rest.to_be_bytes()[3..]);
        base
    }
}

/// Where requests gather.
#[derive(Debug)]
pub(super) struct Intake {
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

    fn send(&self, portion: Portion) -> Result<(), StoreError> {
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
    /// Writes a request; see [`Store::ingest`](crate::store::Store::ingest).
    pub(super) async fn ingest(&self, intake: &Intake, ingest: Ingest) -> Result<Ingested, StoreError> {
        match timeout(REPLY, self.ingest_parts(intake, Arc::new(ingest))).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!("no answer from Redis within {REPLY:?}"))),
        }
    }

    async fn ingest_parts(&self, intake: &Intake, ingest: Arc<Ingest>) -> Result<Ingested, StoreError> {
        let mut parts: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (at, event) in ingest.events.iter().enumerate() {
            parts.entry(self.keys.partition(&event.event.tenant)).or_default().push(at);
        }
        if parts.is_empty() {
            parts.insert(0, Vec::new());
        }
        if let (Some(key), true) = (ingest.idempotency, parts.len() > 1) {
            // Other content under the same key may touch other partitions: one place decides for all.
            let (home, claim) = (u16::from(key.key[0]) % self.keys.partitions(), claim_of(key));
            let nothing = Arc::new(Ingest { idempotency: None, events: Vec::new() });
            if let Answer::Reused = self.portion(intake, home, Some(claim), &nothing, &[]).await? {
                return Ok(Ingested::KeyReused);
            }
        }
        let mut accepted: Vec<Option<Accepted>> = vec![None; ingest.events.len()];
        let mut repeated = true;
        for (partition, events) in &parts {
            match self.portion(intake, *partition, ingest.idempotency, &ingest, events).await? {
                Answer::Stored(written) => {
                    repeated = false;
                    for (at, written) in events.iter().zip(written) {
                        let id = ingest.events.get(*at).map_or("", |event| &event.event.id);
                        accepted[*at] = Some(written.accepted(id));
                    }
                }
                Answer::Repeated(written) if parts.len() == 1 => {
                    let first = written.into_iter().map(|(id, written)| written.accepted(&id)).collect();
                    return Ok(Ingested::Repeated(first));
                }
                Answer::Repeated(written) => {
                    for (at, (id, written)) in events.iter().zip(written) {
                        accepted[*at] = Some(written.accepted(&id));
                    }
                }
                Answer::Reused => return Ok(Ingested::KeyReused),
                Answer::Collision | Answer::Unruled(_) => {
                    return Err(StoreError::Unavailable(
                        "the lanes of this request can't be settled".to_owned(),
                    ));
                }
            }
        }
        let accepted = accepted
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| strange("fewer answers than events"))?;
        Ok(if repeated { Ingested::Repeated(accepted) } else { Ingested::Stored(accepted) })
    }

    /// Writes the part of a request that lies in one partition, telling the partition of lanes that it does not know.
    async fn portion(
        &self,
        intake: &Intake,
        partition: Partition,
        idempotency: Option<Dedupe>,
        ingest: &Arc<Ingest>,
        events: &[usize],
    ) -> Result<Answer, StoreError> {
        for _ in 0..ROUNDS {
            let (reply, answer) = oneshot::channel();
            let ingest = Arc::clone(ingest);
            intake.send(Portion { partition, idempotency, ingest, events: events.to_vec(), reply })?;
            match answer.await.unwrap_or(Err(StoreError::Closed))? {
                Answer::Collision => {}
                Answer::Unruled(connections) => {
                    self.teach(partition, &connections).await?;
                }
                answer => return Ok(answer),
            }
        }
        Ok(Answer::Collision)
    }

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
                    .value(&new.document[..])
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

fn claim_of(key: Dedupe) -> Dedupe {
    let mut claim = key;
    claim.key[15] ^= 0x80;
    claim
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

fn read_answer(answer: Value) -> Result<Answer, StoreError> {
    let mut parts = codec::list(answer)?.into_iter();
    let kind = codec::text(parts.next().unwrap_or(Value::Nil))?;
    Ok(match kind.as_str() {
        "stored" => Answer::Stored(
            parts.map(|part| Written::parse(&codec::text(part)?)).collect::<Result<_, StoreError>>()?,
        ),
        "repeated" => {
            let json = codec::text(parts.next().unwrap_or(Value::Nil))?;
            let kept: Vec<(String, String)> =
                serde_json::from_str(&json).map_err(|_| strange("an answer that can't be read"))?;
            Answer::Repeated(
                kept.into_iter().map(|(id, written)| Ok((id, Written::parse(&written)?))).collect::<Result<
                    _,
                    StoreError,
                >>(
                )?,
            )
        }
        "reused" => Answer::Reused,
        "collision" => Answer::Collision,
        "unruled" => Answer::Unruled(
            parts
                .map(|part| {
                    let bytes = codec::bytes(part)?.unwrap_or_default();
                    let bits = bytes.try_into().map_err(|_| strange("a connection's id"))?;
                    Ok(ConnectionId::from_bits(u128::from_be_bytes(bits)))
                })
                .collect::<Result<_, StoreError>>()?,
        ),
        other => return Err(strange(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Entropy};

    #[test]
    fn names_rise_even_when_the_clock_does_not() {
        let clock = Clock::manual(Timestamp::from_millis(1_777_777_777_777));
        let ids = Ids::new(clock.clone(), Entropy::seeded(3));
        let bases = Bases::default();
        let made: Vec<Base> = (0..10_000)
            .map(|at| bases.next(Timestamp::from_millis(clock.now().millis() - (at % 3)), &ids))
            .collect();
        assert!(made.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn what_a_script_wrote_reads_back() {
        assert_eq!(Written::parse("3").unwrap(), Written::New(3));
        assert_eq!(Written::parse("-1").unwrap(), Written::Duplicate(0));
        assert_eq!(Written::parse("-4").unwrap(), Written::Duplicate(3));
        assert_eq!(Written::parse("reused").unwrap(), Written::Reused);
        assert!(Written::parse("x").is_err());
    }
}
