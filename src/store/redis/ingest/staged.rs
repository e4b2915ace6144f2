//! Requests too large for one script call: written in bounded steps, accepted in one short one.
//!
//! # Theory of operation
//!
//! 1. *Scout*: lanes that are not known are told of their connections, and jobs for closed ones are not made.
//! 2. *Stage*: the request's name is put into an index of what is on its way in. Then its events and jobs are written, cut
//!    into parts (`parts`), into one hash that nothing reads yet. The step that writes a part also *claims* the dedupe keys of
//!    its events, and tells which of them are repeats. A claim says whose it is, and counts while that name is in one of two
//!    indexes: among what is staged, the key is spoken for; among what is accepted, it is known. Else it says nothing.
//! 3. *Commit*: one script, the same few commands for any request, decides whether the request is a repeat, remembers its
//!    idempotency key, and moves its name from the first index to the second. With that the request and all its
//!    claims are accepted, and what a 202 waits for (replicas, disk) covers everything that was staged before on the same
//!    connection.
//! 4. *Apply*: each part is moved out of the hash and into the lanes by one script call, in which its claims become plain
//!    answers; the last takes the hash and the name away.
//!
//! Whatever dies in between: what is not accepted is removed by upkeep, its claims are void, and nobody was told that it was
//! kept; what is accepted is applied by upkeep of any process. A part is gone from the hash in the step that writes its
//! jobs, so none is written twice.
//!
//! Two requests may claim the same event. A small one is decided at once, so it goes before a large one that is still staged,
//! which is *broken off* and begins anew. Of two large ones the younger waits for the older, and is broken off where
//! it came first: so none waits for one that waits for it. One staged so long ago that upkeep would remove it holds nobody up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use super::parts::{Named, Part, Piece, Request};
use super::{Answer, ROUNDS, Written, read_answer};
use crate::domain::id::ConnectionId;
use crate::store::StoreError;
use crate::store::redis::codec::{self, read_meta, strange, write_meta};
use crate::store::redis::keys::{Base, Keys, Partition};
use crate::store::redis::link::{Step, Waited};
use crate::store::redis::script::Call;
use crate::store::redis::{Core, REPLY};
use crate::store::types::{Dedupe, Ingest, NewEvent, UNANSWERED};

/// Large requests under way at once in this process.
pub(in super::super) const LARGE: usize = 2;
/// Lanes asked about in one step.
const SCOUTED: usize = 500;
/// Parts written or applied in one pipeline.
const PARTS: usize = 16;

/// How often an older request is looked at that has the same events.
const AGAIN: Duration = Duration::from_millis(10);

/// What came of a part's step.
enum Staged {
    /// What becomes of the events that begin in it.
    Claimed(Vec<Written>),
    /// An older request may yet have one of them.
    Busy,
    /// An id was taken, or the request was broken off.
    Collision,
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
        let deadline = Instant::now() + REPLY;
        for _ in 0..ROUNDS {
            let request = self.cut(&events, &open);
            let Some(written) = self.stage(partition, &request, deadline).await? else { continue };
            let (answer, kept) = self.commit(partition, idempotency, &request, &events, &written).await?;
            match answer {
                Answer::Collision => {}
                Answer::Stored(_) => {
                    if written.iter().any(|one| one.is_new()) {
                        self.apply_beside(partition, request.name, request.parts.len(), permit).await;
                    }
                    return kept.map(|()| Answer::Stored(written));
                }
                answer => return kept.map(|()| answer),
            }
        }
        Ok(Answer::Collision)
    }

    /// Stages a request, and commits it where `between` says so; tells whether it was accepted. What follows is left to
    /// others, as when a process dies.
    #[cfg(test)]
    pub(in super::super) async fn in_steps(
        &self,
        partition: Partition,
        ingest: &Ingest,
        between: impl Future<Output = bool>,
    ) -> bool {
        let events: Vec<&NewEvent> = ingest.events.iter().collect();
        let open = self.scout(partition, &events).await.unwrap();
        let request = self.cut(&events, &open);
        let written = self.stage(partition, &request, Instant::now()).await.unwrap().unwrap();
        if !between.await {
            return false;
        }
        let committed = self.commit(partition, ingest.idempotency, &request, &events, &written).await;
        matches!(committed.unwrap().0, Answer::Stored(_))
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

    fn cut<'a>(&self, events: &[&'a NewEvent], open: &HashSet<ConnectionId>) -> Request<'a> {
        let now = self.clock.now();
        Request::cut(events.iter().map(|new| Named {
            new,
            base: self.bases.next(now, &self.ids),
            meta: write_meta(&new.event, now),
            jobs: new.jobs.iter().filter(|job| open.contains(&job.connection)).copied().collect(),
        }))
    }

    /// Writes a request where nobody reads it yet and claims its events' keys; tells what becomes of each event, or `None`
    /// where it has to begin anew.
    async fn stage(
        &self,
        partition: Partition,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        let mut note = redis::cmd("ZADD");
        note.arg(self.keys.staged(partition)).arg("NX");
        note.arg(self.clock.now().millis()).arg(request.name.as_slice());
        if codec::count(&self.bulk.plain(note, REPLY).await?)? == 0 {
            return Ok(None);
        }
        let staged = self.stage_parts(partition, request, deadline).await;
        if !matches!(staged, Ok(Some(_))) {
            // At once what upkeep would do: nobody should wait for it.
            let _ = self.discard(partition, &request.name).await;
        }
        staged
    }

    async fn stage_parts(
        &self,
        partition: Partition,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        let mut written = BTreeMap::new();
        let numbers: Vec<usize> = (0..request.parts.len()).collect();
        for group in numbers.chunks(PARTS) {
            let mut left = group.to_vec();
            loop {
                let steps: Vec<Step<'_>> = left
                    .iter()
                    .filter_map(|number| Some((*number, request.parts.get(*number)?)))
                    .map(|(number, part)| self.stage_step(partition, request.name, number, part))
                    .collect();
                let mut busy = Vec::new();
                for (number, answer) in left.into_iter().zip(self.bulk.run(&steps, REPLY).await?) {
                    match read_staged(answer?)? {
                        Staged::Claimed(some) => {
                            let heads = request.parts.get(number).map_or(&[][..], |part| &part.heads);
                            written.extend(heads.iter().map(|head| head.at).zip(some));
                        }
                        Staged::Busy => busy.push(number),
                        Staged::Collision => return Ok(None),
                    }
                }
                if busy.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    let words = "another request with the same events is still on its way in";
                    return Err(StoreError::Unavailable(words.to_owned()));
                }
                sleep(AGAIN).await;
                left = busy;
            }
        }
        Ok(Some(written.into_values().collect()))
    }

    fn stage_step(&self, partition: Partition, name: Base, number: usize, part: &Part<'_>) -> Step<'_> {
        let mut call = self.call(partition);
        call.key(self.keys.staging(partition, &name));
        for head in &part.heads {
            call.key(self.keys.event(partition, &head.base));
        }
        call.value(name).number(number).value(&part.bytes[..]);
        for head in &part.heads {
            let dedupe = head.new.dedupe;
            let key = dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
            let content = dedupe.map_or([0; 16], |key| key.content);
            call.number(head.at).number(key).value(content).number(head.jobs);
        }
        Step::Script(&self.scripts.stage, call)
    }

    /// The answer, and whether it has survived what it should.
    async fn commit(
        &self,
        partition: Partition,
        idempotency: Option<Dedupe>,
        request: &Request<'_>,
        events: &[&NewEvent],
        written: &[Written],
    ) -> Result<(Answer, Result<(), StoreError>), StoreError> {
        let mut call = self.call(partition);
        call.key(self.keys.staging(partition, &request.name));
        if let Some(key) = idempotency {
            call.key(self.keys.dedupe(partition, &key.key));
        }
        let repeats = written.iter().filter(|one| !one.is_new()).count();
        call.value(request.name).number(request.parts.len()).number(events.len()).number(repeats);
        if let Some(key) = idempotency {
            let ids = events.iter().map(|new| &new.event.id);
            let answer: Vec<(&String, String)> = ids.zip(written.iter().map(Written::to_string)).collect();
            let answer = serde_json::to_vec(&answer).map_err(|error| strange(&error.to_string()))?;
            call.value(key.content).value(answer);
        }
        let (steps, wait) = ([Step::Script(&self.scripts.commit, call)], self.durability.command());
        let Waited { mut answers, wait } = self.bulk.run_and_wait(&steps, wait.as_ref(), REPLY).await?;
        let answer = read_answer(answers.pop().unwrap_or(Ok(Value::Nil))?)?;
        Ok((answer, wait.map_or(Ok(()), |waited| self.durability.holds(waited))))
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
        let mut rest = part;
        while !rest.is_empty() {
            let piece = Piece::read(&mut rest)?;
            let event = call.key(self.keys.event(partition, &piece.base));
            let jobs = piece.jobs();
            call.number(piece.at).number(event).value(piece.base);
            call.number(piece.all).number(piece.first).number(jobs.len());
            if let Some(head) = piece.head {
                // The meta of an event that is written begins with its count of jobs.
                let read = read_meta(&[&[0; 3], head.meta].concat())?;
                let field = Keys::public_id(&read.tenant, &read.id);
                call.key(self.keys.tenant_log(&read.tenant));
                call.key(self.keys.newest(&read.tenant));
                let dedupe = head.dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key)));
                call.value(head.meta).value(head.document).value(read.kind).value(field).number(dedupe);
            } else {
                call.value(*b"").value(*b"").value(*b"").value(*b"").number(0);
            }
            for job in jobs {
                let log = *logs
                    .entry(job.connection)
                    .or_insert_with(|| call.key(self.keys.connection_log(partition, job.connection)));
                call.value(job.connection.bits().to_be_bytes())
                    .value(job.mapping)
                    .number(log)
                    .number(u8::from(job.triggered));
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

fn read_staged(answer: Value) -> Result<Staged, StoreError> {
    let mut parts = codec::list(answer)?.into_iter();
    let kind = codec::text(parts.next().unwrap_or(Value::Nil))?;
    Ok(match kind.as_str() {
        "staged" => Staged::Claimed(Written::read_all(parts)?),
        "busy" => Staged::Busy,
        "collision" => Staged::Collision,
        other => return Err(strange(other)),
    })
}
