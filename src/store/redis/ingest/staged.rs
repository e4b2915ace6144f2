//! Requests too large for one script call: written in bounded steps, accepted in one.
//!
//! # Theory of operation
//!
//! 1. *Scout*: lanes that are not known are told of their connections, and jobs for closed ones are not made.
//! 2. *Stage*: the events and their jobs are cut into parts of at most [`PART`], and written into one hash, which nothing
//!    reads yet. An index of what is staged is written before it.
//! 3. *Commit*: one script decides for the whole request whether it is a repeat, remembers its keys and marks the hash as
//!    accepted. It does a few commands for each event and none for a job. Now the request is accepted, and what a 202
//!    waits for (replicas, disk) covers everything that was staged before on the same connection.
//! 4. *Apply*: each part is moved out of the hash and into the lanes by one script call; the last takes the hash away.
//!
//! Whatever dies in between: what is not accepted is removed by upkeep, and nobody was told that it was kept; what is
//! accepted is applied by upkeep of any process. A part is gone from the hash in the step that writes its jobs, so none is
//! written twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redis::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::{Answer, ROUNDS, read_answer};
use crate::domain::id::ConnectionId;
use crate::store::StoreError;
use crate::store::redis::codec::{self, read_meta, strange, write_meta};
use crate::store::redis::keys::{BASE, Base, Partition};
use crate::store::redis::link::Step;
use crate::store::redis::script::Call;
use crate::store::redis::{Core, REPLY};
use crate::store::types::{Dedupe, Ingest, NewEvent, NewJob, UNANSWERED};

/// Large requests under way at once in this process.
pub(in super::super) const LARGE: usize = 2;
/// Events and jobs in a part: half of what a small request may have, as each may touch a lane of its own.
const PART: usize = 64;
/// Lanes asked about in one step.
const SCOUTED: usize = 500;
/// Bytes of a job in a part: connection, mapping, whether it is triggered.
const JOB: usize = 33;
/// Parts written or applied in one pipeline.
const PARTS: usize = 16;

/// A request that is cut into parts.
struct Staged<'a> {
    name: Base,
    events: Vec<(&'a NewEvent, Base, Vec<NewJob>)>,
    parts: Vec<Vec<u8>>,
}

impl Core {
    /// Writes a large request; answers once it is accepted.
    pub(super) async fn staged(
        self: &Arc<Self>,
        partition: Partition,
        idempotency: Option<Dedupe>,
        ingest: &Ingest,
        events: &[usize],
    ) -> Result<Answer, StoreError> {
        let permit = timeout(REPLY, Arc::clone(&self.large).acquire_owned()).await;
        let permit = permit.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Closed)?;
        let events: Vec<&NewEvent> = events.iter().filter_map(|at| ingest.events.get(*at)).collect();
        let open = self.scout(partition, &events).await?;
        for _ in 0..ROUNDS {
            let staged = self.cut(&events, &open);
            self.stage(partition, &staged).await?;
            let (answer, kept) = self.commit(partition, idempotency, &staged).await?;
            if matches!(answer, Answer::Collision) {
                continue;
            }
            if matches!(answer, Answer::Stored(_)) {
                self.apply_beside(partition, staged.name, staged.parts.len(), permit).await;
            }
            return kept.map(|()| answer);
        }
        Ok(Answer::Collision)
    }

    /// The lanes that take jobs, of all that a request names; those that were not known are told of their connections.
    async fn scout(
        &self,
        partition: Partition,
        events: &[&NewEvent],
    ) -> Result<HashSet<ConnectionId>, StoreError> {
        let wanted: HashSet<ConnectionId> =
            events.iter().flat_map(|event| event.jobs.iter().map(|job| job.connection)).collect();
        let mut unseen: Vec<ConnectionId> = wanted.into_iter().collect();
        let mut open = HashSet::new();
        for _ in 0..ROUNDS {
            let mut unknown = Vec::new();
            for some in unseen.chunks(SCOUTED) {
                let mut call = self.call(partition);
                for connection in some {
                    call.value(connection.bits().to_be_bytes());
                }
                let states = codec::list(self.link.script(&self.scripts.scout, call, REPLY).await?)?;
                for (connection, state) in some.iter().zip(states) {
                    match codec::number(&state)? {
                        1 => {
                            open.insert(*connection);
                        }
                        0 => {}
                        _ => unknown.push(*connection),
                    }
                }
            }
            if unknown.is_empty() {
                return Ok(open);
            }
            for some in unknown.chunks(SCOUTED) {
                self.teach(partition, some).await?;
            }
            unseen = unknown;
        }
        Err(StoreError::Unavailable("the lanes of this request can't be settled".to_owned()))
    }

    fn cut<'a>(&self, events: &[&'a NewEvent], open: &HashSet<ConnectionId>) -> Staged<'a> {
        let now = self.clock.now();
        let mut named = Vec::with_capacity(events.len());
        let mut parts = vec![Vec::new()];
        let mut room = PART;
        for (at, new) in events.iter().enumerate() {
            let base = self.bases.next(now, &self.ids);
            let jobs: Vec<NewJob> =
                new.jobs.iter().filter(|job| open.contains(&job.connection)).copied().collect();
            let mut first = 0;
            loop {
                if room < 2 {
                    parts.push(Vec::new());
                    room = PART;
                }
                let some = &jobs[first..jobs.len().min(first + room - 1)];
                if let Some(part) = parts.last_mut() {
                    write_piece(part, at, &base, jobs.len(), first, some);
                    let head = first == 0;
                    let meta = if head { write_meta(&new.event, now) } else { Vec::new() };
                    write_bytes(part, &meta);
                    write_bytes(part, if head { new.event.document.text() } else { b"" });
                }
                room -= 1 + some.len();
                first += some.len();
                if first >= jobs.len() {
                    break;
                }
            }
            named.push((*new, base, jobs));
        }
        let name = named.first().map_or([0; BASE], |(_, base, _)| *base);
        Staged { name, events: named, parts }
    }

    async fn stage(&self, partition: Partition, staged: &Staged<'_>) -> Result<(), StoreError> {
        let mut note = redis::cmd("ZADD");
        note.arg(self.keys.staged(partition)).arg(self.clock.now().millis()).arg(staged.name.as_slice());
        self.bulk.plain(note, REPLY).await?;
        let key = self.keys.staging(partition, &staged.name);
        for (group, parts) in staged.parts.chunks(PARTS).enumerate() {
            let steps: Vec<Step<'_>> = parts
                .iter()
                .enumerate()
                .map(|(at, part)| {
                    let mut set = redis::cmd("HSET");
                    set.arg(&key).arg(group * PARTS + at).arg(part.as_slice());
                    Step::Plain(set)
                })
                .collect();
            for answer in self.bulk.run(&steps, REPLY).await? {
                if let Err(error) = answer {
                    // At once what upkeep would do: the server may be full.
                    let _ = self.discard(partition, &staged.name).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The answer, and whether it has survived what it should.
    async fn commit(
        &self,
        partition: Partition,
        idempotency: Option<Dedupe>,
        staged: &Staged<'_>,
    ) -> Result<(Answer, Result<(), StoreError>), StoreError> {
        let mut call = self.call(partition);
        call.key(self.keys.staging(partition, &staged.name));
        if let Some(key) = idempotency {
            call.key(self.keys.dedupe(partition, &key.key));
        }
        for (_, base, _) in &staged.events {
            call.key(self.keys.event(partition, base));
        }
        call.value(staged.name)
            .number(staged.parts.len())
            .number(u8::from(idempotency.is_some()))
            .value(idempotency.map_or([0; 16], |key| key.content))
            .number(staged.events.len());
        for (new, _, jobs) in &staged.events {
            let dedupe = new.dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
            call.value(new.event.id.as_str())
                .number(dedupe)
                .value(new.dedupe.map_or([0; 16], |key| key.content))
                .number(jobs.len());
        }
        let mut steps = vec![Step::Script(&self.scripts.commit, call)];
        steps.extend(self.durability.command().map(Step::Plain));
        let mut answers = self.bulk.run(&steps, REPLY).await?.into_iter();
        let answer = read_answer(answers.next().unwrap_or(Ok(Value::Nil))?)?;
        Ok((answer, answers.next().map_or(Ok(()), |waited| self.durability.holds(waited))))
    }

    /// Applies what was accepted, in a task that whoever asked need not wait for; waits for it a while all the same, so
    /// that what was answered can mostly be read at once.
    async fn apply_beside(
        self: &Arc<Self>,
        partition: Partition,
        name: Base,
        parts: usize,
        permit: OwnedSemaphorePermit,
    ) {
        let core = Arc::clone(self);
        let applying = tokio::spawn(async move {
            if let Err(error) = core.apply(partition, &name, parts).await {
                tracing::warn!(%error, "a large request was accepted and is not in its lanes yet; upkeep puts it there");
            }
            drop(permit);
        });
        // However it ends, upkeep looks after it.
        let _ = timeout(REPLY / 2, applying).await;
    }

    /// Puts the parts that are left of an accepted request into their lanes.
    async fn apply(&self, partition: Partition, name: &Base, parts: usize) -> Result<(), StoreError> {
        let key = self.keys.staging(partition, name);
        for first in (0..parts).step_by(PARTS) {
            let numbers: Vec<usize> = (first..parts.min(first + PARTS)).collect();
            let mut get = redis::cmd("HMGET");
            get.arg(&key).arg(&numbers);
            let found = codec::list(self.bulk.plain(get, REPLY).await?)?;
            let mut steps = Vec::new();
            for (number, part) in numbers.into_iter().zip(found) {
                let Some(part) = codec::bytes(part)? else { continue };
                let call = self.apply_call(partition, name, number, &part);
                steps.push(Step::Script(&self.scripts.apply, call.ok_or_else(|| strange("a staged part"))?));
            }
            for answer in self.bulk.run(&steps, REPLY).await? {
                self.look_ahead(partition, &codec::list(answer?)?)?;
            }
        }
        Ok(())
    }

    fn apply_call(&self, partition: Partition, name: &Base, number: usize, part: &[u8]) -> Option<Call> {
        let mut call = self.call(partition);
        call.key(self.keys.staging(partition, name));
        call.value(*name).number(number).value(partition.to_be_bytes()).value(UNANSWERED);
        let mut logs: HashMap<ConnectionId, usize> = HashMap::new();
        let mut pieces = Pieces(part);
        while !pieces.0.is_empty() {
            let (at, base) = (pieces.number()?, Base::try_from(pieces.take(BASE)?).ok()?);
            let (all, first, count) = (pieces.number()?, pieces.number()?, pieces.number()?);
            let jobs = pieces.take(usize::try_from(count).ok()?.checked_mul(JOB)?)?;
            let (meta, document) = (pieces.bytes()?, pieces.bytes()?);
            let event = call.key(self.keys.event(partition, &base));
            let (mut kind, mut field) = (String::new(), Vec::new());
            if !document.is_empty() {
                // The meta of an event that is written begins with its count of jobs.
                let read = read_meta(&[&[0; 3], meta].concat())?;
                let (bucket, own) = self.keys.public_id(&read.tenant, &read.id);
                call.key(self.keys.tenant_log(&read.tenant));
                call.key(bucket);
                call.key(self.keys.newest(&read.tenant));
                kind = read.kind;
                field = own.to_vec();
            }
            call.number(at).number(event).value(base).number(all).number(first).number(count);
            call.value(meta).value(document).value(kind).value(field);
            for job in jobs.chunks_exact(JOB) {
                let (connection, rest) = job.split_at(16);
                let (mapping, triggered) = rest.split_at(16);
                let id = ConnectionId::from_bits(u128::from_be_bytes(connection.try_into().ok()?));
                let log =
                    *logs.entry(id).or_insert_with(|| call.key(self.keys.connection_log(partition, id)));
                call.value(connection).value(mapping).number(log).number(u8::from(triggered == [1]));
            }
        }
        Some(call)
    }

    /// Ends what a process left staged: applies what was accepted, forgets the rest.
    pub(in super::super) async fn end_staged(
        &self,
        partition: Partition,
        name: &Base,
    ) -> Result<(), StoreError> {
        let parts = self.discard(partition, name).await?;
        self.apply(partition, name, parts).await
    }

    /// Forgets what was not accepted; of what was, gives the number of parts.
    async fn discard(&self, partition: Partition, name: &Base) -> Result<usize, StoreError> {
        let mut call = self.call(partition);
        call.key(self.keys.staging(partition, name));
        call.value(*name);
        let parts = self.bulk.script(&self.scripts.discard, call, REPLY).await?;
        usize::try_from(codec::count(&parts)?).map_err(|_| strange("a count of parts"))
    }
}

/// Some jobs of an event: its number in the request, base, number of all its jobs, the first of these, and they.
fn write_piece(part: &mut Vec<u8>, at: usize, base: &Base, all: usize, first: usize, jobs: &[NewJob]) {
    write_number(part, at);
    part.extend_from_slice(base);
    write_number(part, all);
    write_number(part, first);
    write_number(part, jobs.len());
    for job in jobs {
        part.extend_from_slice(&job.connection.bits().to_be_bytes());
        part.extend_from_slice(&job.mapping.bits().to_be_bytes());
        part.push(u8::from(job.triggered));
    }
}

fn write_number(part: &mut Vec<u8>, number: usize) {
    // A request has at most some thousand events and connections.
    part.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn write_bytes(part: &mut Vec<u8>, bytes: &[u8]) {
    write_number(part, bytes.len());
    part.extend_from_slice(bytes);
}

/// What is left to read of a part.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }
}
