//! One script call that writes small requests, and the jobs of theirs that it leased to this process at once.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;
use tokio::time::Instant;

use super::Portion;
use crate::domain::breaker::Failing;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::job::{Job, JobState};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::redis::Core;
use crate::store::redis::codec::{self, JobRecord, strange, time_bytes, write_meta, write_record};
use crate::store::redis::credit::Spent;
use crate::store::redis::keys::{Base, Partition, job_id};
use crate::store::redis::link::Step;
use crate::store::redis::script::Call;
use crate::store::types::{DEDUPE_SPAN, Lease, NewEvent, NewJob, UNANSWERED};

/// Numbers that the script answers for a lease.
const NUMBERS: usize = 6;

/// What one call writes.
#[derive(Debug)]
pub(super) struct Sent {
    pub portions: Vec<Portion>,
    /// The names of their events, in order.
    bases: Vec<Base>,
    /// When they were made.
    now: Timestamp,
    /// What the call may lease, and until when.
    spent: Spent,
    deadline: Timestamp,
}

/// What many events of a call share.
#[derive(Debug, Default)]
struct Shared<'a> {
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
        let (mut bases, mut jobs) = (Vec::new(), 0);
        for portion in &portions {
            for new in portion.events() {
                bases.push(self.bases.next(now, &self.ids));
                for job in portion.jobs(new) {
                    jobs += 1;
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
        call.value(connections).number(bases.len());
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
        let (bucket, field) = self.keys.public_id(&event.tenant, &event.id);
        let key = dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
        let [log, newest] = *shared.tenants.entry(&event.tenant).or_insert_with(|| {
            [call.key(self.keys.tenant_log(&event.tenant)), call.key(self.keys.newest(&event.tenant))]
        });
        let mut head = Vec::with_capacity(44 + event.kind.len() + 3 * count);
        head.extend_from_slice(base);
        head.extend_from_slice(base);
        head.extend_from_slice(counted);
        head.extend_from_slice(&field);
        for index in [key, log, call.key(bucket), newest, count] {
            push_index(&mut head, index);
        }
        // Types have at most 128 bytes.
        head.push(u8::try_from(event.kind.len()).unwrap_or(0));
        head.extend_from_slice(event.kind.as_bytes());
        for job in portion.jobs(new) {
            push_index(&mut head, shared.lanes.get(&job.connection).copied().unwrap_or_default());
            head.push(u8::from(job.triggered));
        }
        call.value(head);
        call.value(dedupe.map_or_else(Vec::new, |key| {
            [&time_bytes(now.plus(DEDUPE_SPAN))[..], &key.content, count.to_string().as_bytes()].concat()
        }));
        call.value([counted, &write_meta(event, now)].concat()).value(event.document.text());
        for (index, job) in portion.jobs(new).enumerate() {
            call.number(index).value(new_record(job, now));
        }
    }

    /// Hands what a call leased to whoever waits for work, and takes in what it says of what comes.
    pub(super) fn take_leased(&self, partition: Partition, sent: &Sent, answer: Value) {
        let read = codec::list(answer).and_then(|answer| {
            let [ring, next, leased @ ..] = answer.as_slice() else { return Err(strange("no leases")) };
            self.look_ahead(partition, &[ring.clone(), next.clone()])?;
            leased.chunks_exact(NUMBERS).map(|one| sent.lease(partition, one)).collect()
        });
        let leases: Vec<Lease> = match read {
            Ok(leases) => leases,
            Err(error) => {
                tracing::error!(%error, "what was leased can't be read; giving it back");
                return self.lose_leased(partition, sent);
            }
        };
        if leases.is_empty() {
            return self.credit.settle(sent.spent, leases);
        }
        self.held.lock().extend(leases.iter().map(|lease| (lease.job.id, lease.deadline)));
        self.wake.mark_at(partition, sent.deadline);
        self.credit.settle(sent.spent, leases);
        self.wake.tell();
    }

    /// Nobody knows what a call leased: it goes back.
    pub(super) fn lose_leased(&self, partition: Partition, sent: &Sent) {
        if sent.spent.room > 0 {
            self.doubt([partition]);
        }
        self.credit.settle(sent.spent, Vec::new());
    }
}

impl Sent {
    /// A lease out of its numbers, as `ingest.lua` answers them.
    fn lease(&self, partition: Partition, numbers: &[Value]) -> Result<Lease, StoreError> {
        let unknown = || strange("a lease of a job that nobody sent");
        let numbers = numbers.iter().map(codec::count).collect::<Result<Vec<u64>, StoreError>>()?;
        let &[event, job, token, doubt, failures, since] = numbers.as_slice() else {
            return Err(unknown());
        };
        let (at, index) = (usize::try_from(event), u32::try_from(job));
        let (at, index) = (at.map_err(|_| unknown())?, index.map_err(|_| unknown())?);
        let base = self.bases.get(at).ok_or_else(unknown)?;
        let mut all =
            self.portions.iter().flat_map(|portion| portion.events().map(move |new| (portion, new)));
        let (portion, new) = all.nth(at).ok_or_else(unknown)?;
        let place = usize::try_from(index).map_err(|_| unknown())?;
        let job = portion.jobs(new).nth(place).ok_or_else(unknown)?;
        let id = job_id(base, index, partition);
        Ok(Lease {
            job: Job {
                id,
                name: id,
                tenant: new.event.tenant.clone(),
                connection: job.connection,
                event: new.event.key,
                mapping: job.mapping,
                created: self.now,
                attempts: 0,
                tries: 0,
            },
            event: Arc::clone(&new.event),
            rendered: None,
            token,
            deadline: self.deadline,
            batch: false,
            doubtful: doubt > 0,
            failing: Failing {
                count: u32::try_from(failures).unwrap_or(u32::MAX),
                since: Timestamp::from_millis(i64::try_from(since).unwrap_or(0)),
            },
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
