//! Leases: which jobs a process may try, and the documents that go with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::codec::{self, Reader, strange};
use super::keys::{Base, Partition, job_id, place_of};
use super::link::Step;
use super::{BEAT, Core, REPLY};
use crate::domain::breaker::Failing;
use crate::domain::id::JobId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Lease, LeaseRef};

/// Jobs that one lane gives before the next one has its turn.
const QUANTUM: usize = 8;
/// Partitions asked at once.
const ASKED: usize = 4;
/// Jobs that one partition gives in one step.
const STEP: usize = 64;
/// Jobs beyond what was asked for that the batches of one partition may bring in one step, but for the last.
const BATCHED: usize = 512;
/// Steps of one call at the most.
const ROUNDS: usize = 64;
/// Leases named in one script call.
const NAMED: usize = 256;
/// How often lost answers are looked for: what was sent on a broken connection may be carried out late.
const LOOKS: u8 = 3;

/// A job given by a partition, not read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub job: JobId,
    pub token: u64,
    /// One of a batch.
    pub batch: bool,
    /// The first of its batch.
    pub first: bool,
    /// An earlier lease of it may have been lost.
    pub doubtful: bool,
    /// Where its record stands as it was made: how often something had been erased in its partition.
    pub new: Option<u64>,
    /// Its lane's failures in a row.
    pub failing: Failing,
}

impl Given {
    /// Bytes of one in an answer; `GIVEN` in `turn.lua` is the same.
    const BYTES: usize = 33;

    /// Reads an answer's leases.
    pub fn read_all(packed: &Value, erasures: &Value) -> Result<Vec<Self>, StoreError> {
        let Value::BulkString(packed) = packed else { return Err(strange("leases that are no text")) };
        let (all, []) = packed.as_chunks::<{ Self::BYTES }>() else { return Err(strange("a cut lease")) };
        let erasures = codec::count(erasures)?;
        let read = |one: &[u8; Self::BYTES]| {
            let mut reader = Reader(one);
            let (job, token, what) = (reader.bits()?, reader.number(6)?, reader.number(1)?);
            Some(Self {
                job: JobId::from_bits(job),
                token,
                batch: what & 1 > 0,
                first: what & 2 > 0,
                doubtful: what & 4 > 0,
                new: (what & 8 > 0).then_some(erasures),
                failing: Failing { count: reader.short()?, since: reader.time()? },
            })
        };
        all.iter().map(|one| read(one).ok_or_else(|| strange("a short lease"))).collect()
    }

    fn lease(self, (job, event, rendered): Read, deadline: Timestamp) -> Lease {
        let Self { token, batch, doubtful, failing, .. } = self;
        Lease { job, event, rendered, token, deadline, batch, doubtful, failing }
    }
}

impl Core {
    /// Leases jobs; see [`Store::lease`](crate::store::Store::lease).
    pub(super) async fn lease(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError> {
        let (leases, has_credit) = self.credit.ask(room);
        if !leases.is_empty() {
            // Whatever else there is the next call finds.
            if self.wake.is_quiet() {
                self.credit.open(room - leases.len(), span);
            }
            return Ok(leases);
        }
        // While some are asked for, what comes in may take the rest.
        let asked = if has_credit { room.min(STEP) } else { room };
        self.credit.open(room - asked, span);
        let leases = self.lease_waiting(asked, span).await?;
        if leases.len() < asked && self.wake.is_quiet() {
            self.credit.open(room - leases.len(), span);
        }
        Ok(leases)
    }

    /// Leases jobs that wait in their lanes.
    async fn lease_waiting(&self, room: usize, span: Duration) -> Result<Vec<Lease>, StoreError> {
        let deadline = self.clock.now().plus(span);
        let mut leases: Vec<Lease> = Vec::new();
        // What counts against the room: a batch is one.
        let mut given = 0;
        let _leasing = self.leasing.read().await;
        for _ in 0..ROUNDS {
            let left = room.saturating_sub(given);
            let partitions = if left == 0 || leases.len() >= room.saturating_add(BATCHED) {
                Vec::new()
            } else {
                self.wake.take(ASKED.min(left), self.clock.now())
            };
            if partitions.is_empty() {
                break;
            }
            let some = match self.ask(&partitions, left, deadline).await {
                Ok(given) => given,
                // What was leased before is not given up for that.
                Err(error) if leases.is_empty() => return Err(error),
                Err(_) => break,
            };
            given += some.iter().filter(|one| one.first || !one.batch).count();
            let some = self.cut_batches(some).await;
            match self.read_leases(some, deadline).await {
                (read, Some(error)) if read.is_empty() && leases.is_empty() => return Err(error),
                (read, _) => leases.extend(read),
            }
        }
        Ok(leases)
    }

    /// Asks partitions for jobs, each for its share of the room.
    async fn ask(
        &self,
        partitions: &[Partition],
        room: usize,
        deadline: Timestamp,
    ) -> Result<Vec<Given>, StoreError> {
        let share = (room / partitions.len()).clamp(1, STEP);
        let groups = partitions
            .iter()
            .map(|partition| {
                let mut call = self.call(*partition);
                call.number(share).number(deadline.millis()).number(QUANTUM).number(BATCHED);
                vec![Step::Script(&self.scripts.lease, call)]
            })
            .collect();
        let answers = self.link.run_groups(groups, REPLY).await;
        let mut given = Vec::new();
        let mut failed = None;
        for (partition, answer) in partitions.iter().zip(answers) {
            let answer = answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(Value::Nil)));
            match answer.and_then(|answer| self.learn(*partition, answer)) {
                Ok(own) => given.extend(own),
                Err(error) => {
                    // It may have given jobs all the same.
                    self.doubt([*partition]);
                    self.wake.mark(*partition);
                    failed = Some(error);
                }
            }
        }
        self.held.note(given.iter().map(|given| given.job), deadline);
        match failed {
            Some(error) if given.is_empty() => Err(error),
            _ => Ok(given),
        }
    }

    fn learn(&self, partition: Partition, answer: Value) -> Result<Vec<Given>, StoreError> {
        let answer = codec::list(answer)?;
        let [again, next, others, erasures, given] = answer.as_slice() else {
            return Err(strange("a lease without its head"));
        };
        let next = Some(codec::number(next)?).filter(|next| *next > 0).map(Timestamp::from_millis);
        self.wake.learn(partition, codec::number(again)? != 0, next, codec::number(others)? != 0);
        Given::read_all(given, erasures)
    }

    /// Reads what was given, but for what came in here lately: each event once, and the bytes of jobs that were tried.
    /// What can't be read is given back before long.
    pub(super) async fn read_leases(
        &self,
        given: Vec<Given>,
        deadline: Timestamp,
    ) -> (Vec<Lease>, Option<StoreError>) {
        let mut leases = Vec::with_capacity(given.len());
        let mut events: Vec<(Partition, Base, Vec<u32>)> = Vec::new();
        let mut places: HashMap<(Partition, Base), usize> = HashMap::new();
        for one in &given {
            let Some(partition) = self.keys.partition_of(one.job) else { continue };
            let (base, index) = place_of(one.job);
            if let Some((job, event)) = self.fresh.take(partition, one) {
                leases.push(one.lease((job, event, None), deadline));
                continue;
            }
            let at = *places.entry((partition, base)).or_insert_with(|| {
                events.push((partition, base, Vec::new()));
                events.len() - 1
            });
            events[at].2.push(index);
        }
        if events.is_empty() {
            self.held.note_new(&leases);
            return (leases, None);
        }
        let mut groups: Vec<Vec<Step<'_>>> = Vec::new();
        for (partition, base, indexes) in &events {
            let mut get = redis::cmd("HMGET");
            get.arg(self.keys.event(*partition, base)).arg("m").arg("d");
            for index in indexes {
                get.arg(*index).arg(format!("b{index}")).arg(format!("o{index}"));
            }
            groups.push(vec![Step::Plain(get)]);
        }
        let answers = self.link.run_groups(groups, REPLY).await;
        let known: HashMap<JobId, (usize, Given)> =
            given.iter().enumerate().map(|(at, given)| (given.job, (at, *given))).collect();
        let mut failed = None;
        for ((partition, base, indexes), answer) in events.iter().zip(answers) {
            let read = answer
                .and_then(|mut answers| answers.pop().unwrap_or(Ok(Value::Nil)))
                .and_then(|fields| read_event(fields, *partition, base, indexes));
            match read {
                Ok(read) => leases.extend(
                    read.into_iter().filter_map(|read| Some(known.get(&read.0.id)?.1.lease(read, deadline))),
                ),
                Err(error) => {
                    tracing::error!(%error, "leased jobs cannot be read; giving them back");
                    self.held.forget(indexes.iter().map(|index| job_id(base, *index, *partition)));
                    self.doubt([*partition]);
                    failed = Some(error);
                }
            }
        }
        // The order in which they were given is the order of the lanes.
        leases.sort_by_key(|lease| known.get(&lease.job.id).map(|(at, _)| *at));
        self.held.note_new(
            leases.iter().filter(|lease| known.get(&lease.job.id).is_some_and(|(_, one)| one.new.is_some())),
        );
        if failed.is_some() {
            leases = self.cut_torn(&given, leases).await;
        }
        (leases, failed)
    }

    /// Renews leases by a span from now, or gives them back: jobs with their tokens.
    pub(super) async fn hold(
        &self,
        leases: &[(JobId, u64)],
        renew: Option<Duration>,
    ) -> Result<(), StoreError> {
        let deadline = self.clock.now().plus(renew.unwrap_or_default());
        let mut by_partition: HashMap<Partition, Vec<(JobId, u64)>> = HashMap::new();
        for (job, token) in leases {
            if let Some(partition) = self.keys.partition_of(*job) {
                by_partition.entry(partition).or_default().push((*job, *token));
            }
        }
        let mut groups = Vec::new();
        let mut partitions = Vec::new();
        for (partition, leases) in by_partition {
            for some in leases.chunks(NAMED) {
                let mut call = self.call(partition);
                call.value(if renew.is_some() { "renew" } else { "release" }).number(deadline.millis());
                for (job, token) in some {
                    call.value(job.bits().to_be_bytes()).number(token);
                }
                groups.push(vec![Step::Script(&self.scripts.hold, call)]);
                partitions.push(partition);
            }
        }
        let jobs = leases.iter().map(|(job, _)| *job);
        match renew {
            Some(_) => self.held.renew(jobs, deadline),
            None => self.held.forget(jobs),
        }
        let mut result = Ok(());
        for (partition, answer) in partitions.into_iter().zip(self.link.run_groups(groups, REPLY).await) {
            match answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(Value::Nil))) {
                Ok(ahead) => self.look_ahead(partition, &codec::list(ahead)?)?,
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Gives back the leases that nobody took for so long.
    pub(super) async fn give_back(&self, after: Duration) {
        let unwanted = self.credit.unwanted(after);
        let references: Vec<LeaseRef> = unwanted.iter().map(Lease::reference).collect();
        if !references.is_empty()
            && let Err(error) = self.hold(&named(&references), None).await
        {
            tracing::warn!(%error, jobs = references.len(), "cannot give jobs back; trying again");
            self.doubt(references.iter().filter_map(|lease| self.keys.partition_of(lease.job)));
        }
    }

    /// What these partitions leased is looked into: this process may not know of all of it.
    pub(super) fn doubt(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.doubtful.lock().extend(partitions.into_iter().map(|partition| (partition, LOOKS)));
    }

    /// Takes in what scripts say of what comes: how many lanes the ring holds, and when something happens by itself.
    pub(super) fn look_ahead(&self, partition: Partition, ahead: &[Value]) -> Result<(), StoreError> {
        let [ring, next, ..] = ahead else { return Err(strange("nothing of what comes")) };
        if codec::count(ring)? > 0 {
            self.wake.mark(partition);
        }
        let next = codec::number(next)?;
        if next > 0 {
            self.wake.mark_at(partition, Timestamp::from_millis(next));
        }
        Ok(())
    }

    /// Gives back leases whose answers were lost.
    pub(super) async fn reclaim(&self) -> Result<(), StoreError> {
        if self.doubtful.lock().is_empty() {
            return Ok(());
        }
        let _alone = self.leasing.write().await;
        let partitions: Vec<Partition> = self.doubtful.lock().keys().copied().collect();
        for partition in partitions {
            self.reclaim_in(partition).await?;
            let mut doubtful = self.doubtful.lock();
            match doubtful.get_mut(&partition) {
                Some(looks) if *looks > 1 => *looks -= 1,
                _ => {
                    doubtful.remove(&partition);
                }
            }
        }
        Ok(())
    }

    /// Walks through all the leases of a partition.
    async fn reclaim_in(&self, partition: Partition) -> Result<(), StoreError> {
        let held = self.held.jobs();
        let mut at = b"0".to_vec();
        loop {
            let mut call = self.call(partition);
            call.value(&at);
            for job in held.iter().filter(|job| self.keys.partition_of(**job) == Some(partition)) {
                call.value(job.bits().to_be_bytes());
            }
            let answer = codec::list(self.link.script(&self.scripts.reclaim, call, REPLY).await?)?;
            self.look_ahead(partition, &answer)?;
            at = answer.into_iter().nth(2).map(codec::bytes).transpose()?.flatten().unwrap_or_default();
            if at.is_empty() || at == b"0" {
                return Ok(());
            }
        }
    }

    /// Says in these partitions that this process lives.
    pub(super) async fn beat(&self, partitions: impl Iterator<Item = Partition>) -> Result<(), StoreError> {
        let groups = partitions
            .map(|partition| vec![Step::Script(&self.scripts.beat, self.call(partition))])
            .collect();
        for answer in self.link.run_groups(groups, BEAT).await {
            answer?.pop().unwrap_or(Ok(Value::Nil))?;
        }
        Ok(())
    }
}

/// Jobs with the tokens of their leases.
pub(super) fn named(leases: &[LeaseRef]) -> Vec<(JobId, u64)> {
    leases.iter().map(|lease| (lease.job, lease.token)).collect()
}

type Read = (crate::domain::job::Job, Arc<crate::domain::event::Event>, Option<Bytes>);

fn read_event(
    fields: Value,
    partition: Partition,
    base: &Base,
    indexes: &[u32],
) -> Result<Vec<Read>, StoreError> {
    let mut fields = codec::list(fields)?.into_iter();
    let mut next = || codec::bytes(fields.next().unwrap_or(Value::Nil));
    let gone = || StoreError::Corrupt(format!("{} has no event", job_id(base, 0, partition)));
    let meta = codec::read_meta(&next()?.ok_or_else(gone)?).ok_or_else(gone)?;
    let document = next()?.ok_or_else(gone)?;
    let event = Arc::new(codec::event(meta.clone(), document)?);
    indexes
        .iter()
        .map(|index| {
            let record = next()?.as_deref().and_then(codec::read_record).ok_or_else(gone)?;
            let rendered = next()?.map(Bytes::from);
            let mut job = codec::job(base, *index, partition, &meta, &record);
            job.name = next()?.as_deref().and_then(codec::read_id).unwrap_or(job.name);
            Ok((job, Arc::clone(&event), rendered))
        })
        .collect()
}
