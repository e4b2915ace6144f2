//! One script call that writes small requests, and the jobs of theirs that it leased to this process at once.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;
use tokio::time::Instant;

use super::{Answer, Portion};
use crate::domain::breaker::Failing;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::job::JobState;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::redis::Core;
use crate::store::redis::codec::{self, JobRecord, Reader, strange, time_bytes, write_meta, write_record};
use crate::store::redis::credit::Spent;
use crate::store::redis::fresh::Made;
use crate::store::redis::keys::{Base, Keys, Partition, job_id, place_of};
use crate::store::redis::link::Step;
use crate::store::redis::script::Call;
use crate::store::types::{DEDUPE_SPAN, Lease, NewEvent, NewJob, UNANSWERED};

/// Bytes that the script answers for a lease; `LEASE` in `ingest.lua` is the same.
const LEASE: usize = 21;

/// What one call writes.
#[derive(Debug)]
pub(super) struct Sent {
    pub portions: Vec<Portion>,
    /// The names of their events, in order.
    bases: Vec<Base>,
    /// When they were made.
    now: Timestamp,
    /// What the call may lease, and until when.
    pub spent: Spent,
    deadline: Timestamp,
}

/// What many events of a call share.
#[derive(Debug, Default)]
struct Shared<'a> {
    /// The number of a record that jobs are made with, from 1.
    records: HashMap<&'a NewJob, usize>,
    /// The number of a connection's lane, and of its log among the keys, from 1.
    lanes: HashMap<ConnectionId, usize>,
    /// The indexes of a tenant's log and of its newest events.
    tenants: HashMap<&'a TenantId, [usize; 2]>,
}

impl Core {
    /// The call that writes portions; `ingest.lua` says what it is given.
    pub(super) fn write_step(&self, partition: Partition, portions: Vec<Portion>) -> (Step<'_>, Sent) {
        let now = self.clock.now();
        let mut call = self.call(partition);
        let mut shared = Shared::default();
        let mut connections = Vec::new();
        let (mut bases, mut records, mut jobs) = (Vec::new(), Vec::new(), 0);
        for portion in &portions {
            for new in portion.events() {
                bases.push(self.bases.next(now, &self.ids));
                for job in portion.jobs(new) {
                    jobs += 1;
                    let next = shared.records.len() + 1;
                    shared.records.entry(job).or_insert_with(|| {
                        records.push(new_record(job, now));
                        next
                    });
                    let next = shared.lanes.len() + 1;
                    shared.lanes.entry(job.connection).or_insert_with(|| {
                        connections.extend_from_slice(&job.connection.bits().to_be_bytes());
                        call.key(self.keys.connection_log(partition, job.connection));
                        next
                    });
                }
            }
        }
        for base in &bases {
            call.key(self.keys.event(partition, base));
        }
        let spent = self.credit.spend(jobs, Instant::now());
        let deadline = now.plus(spent.span);
        call.value(partition.to_be_bytes()).number(spent.room).number(deadline.millis());
        call.value(connections).number(bases.len()).number(records.len());
        for record in records {
            call.value(record);
        }
        let mut named = bases.iter();
        for portion in &portions {
            let key = portion.idempotency.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
            let mut head = Vec::with_capacity(20);
            push_index(&mut head, key);
            head.extend_from_slice(&portion.idempotency.map_or([0; 16], |key| key.content));
            push_index(&mut head, portion.events.len());
            call.value(head);
            for (new, base) in portion.events().zip(named.by_ref()) {
                self.push_event(&mut call, &mut shared, partition, now, (portion, new, base));
            }
        }
        (Step::Script(&self.scripts.ingest, call), Sent { portions, bases, now, spent, deadline })
    }

    fn push_event<'a>(
        &self,
        call: &mut Call,
        shared: &mut Shared<'a>,
        partition: Partition,
        now: Timestamp,
        (portion, new, base): (&'a Portion, &'a NewEvent, &Base),
    ) {
        let NewEvent { event, dedupe, .. } = new;
        let count = portion.jobs(new).count();
        let counted = &u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()[1..];
        let field = Keys::public_id(&event.tenant, &event.id);
        let key = dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
        let [log, newest] = *shared.tenants.entry(&event.tenant).or_insert_with(|| {
            [call.key(self.keys.tenant_log(&event.tenant)), call.key(self.keys.newest(&event.tenant))]
        });
        let mut head = Vec::with_capacity(44 + event.kind.len() + 5 * count);
        head.extend_from_slice(base);
        head.extend_from_slice(base);
        head.extend_from_slice(counted);
        head.extend_from_slice(&field);
        for index in [key, log, newest, count] {
            push_index(&mut head, index);
        }
        // Types have at most 128 bytes.
        head.push(u8::try_from(event.kind.len()).unwrap_or(0));
        head.extend_from_slice(event.kind.as_bytes());
        for job in portion.jobs(new) {
            push_index(&mut head, shared.lanes.get(&job.connection).copied().unwrap_or_default());
            push_index(&mut head, shared.records.get(job).copied().unwrap_or_default());
            head.push(u8::from(job.triggered));
        }
        call.value(head);
        call.value(dedupe.map_or_else(Vec::new, |key| {
            [&time_bytes(now.plus(DEDUPE_SPAN))[..], &key.content, count.to_string().as_bytes()].concat()
        }));
        call.value([counted, &write_meta(event, now)].concat()).value(event.document.text());
    }

    /// Hands what a call leased to whoever waits for work, and takes in what it says of what comes. What became of its
    /// requests is in `answers`, what the call leased in `last`: events with jobs that wait are kept for those that this process leases.
    pub(super) fn take_leased(
        &self,
        partition: Partition,
        sent: &Sent,
        last: Value,
        answers: &[Result<Answer, StoreError>],
    ) {
        let read = codec::list(last).and_then(|last| {
            let [_, _, erasures, packed] = last.as_slice() else { return Err(strange("no leases")) };
            self.look_ahead(partition, &last)?;
            Ok((sent.leases(partition, packed)?, codec::count(erasures)?))
        });
        let (leases, erasures) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "what was leased can't be read; giving it back");
                return self.lose_leased(partition, sent.spent);
            }
        };
        if self.credit.is_lively() {
            self.keep_fresh(partition, sent, &leases, erasures, answers);
        }
        self.held.note(leases.iter().map(|lease| lease.job.id), sent.deadline);
        self.held.note_new(&leases);
        self.hand_in(partition, sent.spent, sent.deadline, leases);
    }

    fn keep_fresh(
        &self,
        partition: Partition,
        sent: &Sent,
        leases: &[Lease],
        erasures: u64,
        answers: &[Result<Answer, StoreError>],
    ) {
        let mut bases = sent.bases.iter();
        let mut gone: HashMap<Base, usize> = HashMap::new();
        for lease in leases {
            *gone.entry(place_of(lease.job.id).0).or_default() += 1;
        }
        for (portion, answer) in sent.portions.iter().zip(answers) {
            let written = if let Ok(Answer::Stored(written)) = answer { &written[..] } else { &[] };
            for ((n, at), base) in portion.events.iter().enumerate().zip(bases.by_ref()) {
                if !written.get(n).is_some_and(|written| written.is_new()) {
                    continue;
                }
                let (ingest, closed) = (Arc::clone(&portion.ingest), portion.closed.clone());
                let made = Made { ingest, at: *at, closed, created: sent.now };
                let waiting = made.in_lanes().saturating_sub(gone.get(base).copied().unwrap_or_default());
                self.fresh.keep(partition, *base, made, waiting, erasures);
            }
        }
    }

    /// Hands in what a call leased that was sent with this credit.
    pub(in super::super) fn hand_in(
        &self,
        partition: Partition,
        spent: Spent,
        deadline: Timestamp,
        leases: Vec<Lease>,
    ) {
        let has_some = !leases.is_empty();
        if has_some {
            self.wake.mark_at(partition, deadline);
        }
        self.credit.settle(spent, leases);
        if has_some {
            self.wake.tell();
        }
    }

    /// Nobody knows what a call leased: it goes back.
    pub(in super::super) fn lose_leased(&self, partition: Partition, spent: Spent) {
        if spent.room > 0 {
            self.doubt([partition]);
        }
        self.credit.settle(spent, Vec::new());
    }
}

impl Sent {
    /// The leases of an answer, as `LEASE` of `ingest.lua` packs them.
    fn leases(&self, partition: Partition, packed: &Value) -> Result<Vec<Lease>, StoreError> {
        let Value::BulkString(packed) = packed else { return Err(strange("leases that are no text")) };
        let (all, []) = packed.as_chunks::<LEASE>() else { return Err(strange("a cut lease")) };
        let unknown = || strange("a lease of a job that nobody sent");
        all.iter().map(|one| self.lease(partition, one).ok_or_else(unknown)).collect()
    }

    fn lease(&self, partition: Partition, packed: &[u8; LEASE]) -> Option<Lease> {
        let mut reader = Reader(packed);
        let at = usize::try_from(reader.number(2)?).ok()?;
        let index = u32::try_from(reader.number(2)?).ok()?;
        let (token, doubtful) = (reader.number(6)?, reader.number(1)? > 0);
        let failing = Failing { count: reader.short()?, since: reader.time()? };
        let id = job_id(self.bases.get(at)?, index, partition);
        let mut all =
            self.portions.iter().flat_map(|portion| portion.events().map(move |new| (portion, new)));
        let (portion, new) = all.nth(at)?;
        let job = portion.jobs(new).nth(usize::try_from(index).ok()?)?;
        Some(Lease {
            job: job.of(id, &new.event, self.now),
            event: Arc::clone(&new.event),
            rendered: None,
            token,
            deadline: self.deadline,
            batch: false,
            doubtful,
            failing,
        })
    }
}

/// The record of a job as it is made. Whoever triggers one tries it outside its lane: until it is told what came of that,
/// it counts as one whose outcome is not known.
fn new_record(job: &NewJob, now: Timestamp) -> Vec<u8> {
    let (connection, mapping) = (job.connection, job.mapping);
    let (state, finished, reason) =
        if job.triggered { (JobState::Dead, Some(now), UNANSWERED) } else { (JobState::Queued, None, "") };
    let reason = reason.to_owned();
    write_record(&JobRecord {
        connection,
        mapping,
        state,
        attempts: 0,
        tries: 0,
        due: None,
        finished,
        reason,
    })
}

/// A call has far fewer keys and jobs than two bytes count.
fn push_index(head: &mut Vec<u8>, index: usize) {
    head.extend_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_keep_a_key_as_long() {
        let line = format!("local DAY = '{}'\n", DEDUPE_SPAN.as_millis());
        assert!(include_str!("../lua/dedupe.lua").contains(&line));
    }
}
