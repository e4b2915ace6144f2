//! One script call that writes small requests, and the jobs of theirs that it leased to this process at once.

use std::collections::HashMap;

use redis::Value;
use tokio::time::Instant;

use super::Portion;
use crate::domain::breaker::Failing;
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::redis::Core;
use crate::store::redis::codec::{self, strange, write_meta};
use crate::store::redis::credit::Spent;
use crate::store::redis::keys::{Base, Partition, job_id};
use crate::store::redis::link::Step;
use crate::store::redis::script::Call;
use crate::store::types::{Lease, NewEvent, UNANSWERED};

/// Numbers that the script answers for a lease.
const NUMBERS: usize = 7;

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

/// Keys that many events of a call share, by their indexes in it.
#[derive(Debug, Default)]
struct Shared<'a> {
    /// A tenant's log and its newest events.
    tenants: HashMap<&'a TenantId, [usize; 2]>,
    logs: HashMap<ConnectionId, usize>,
}

impl Core {
    /// The call that writes portions; `ingest.lua` says what it is given.
    pub(super) fn write_step(&self, partition: Partition, portions: Vec<Portion>) -> (Step<'_>, Sent) {
        let now = self.clock.now();
        let jobs = portions.iter().flat_map(Portion::events).map(|new| new.jobs.len()).sum();
        let spent = self.credit.spend(jobs, Instant::now());
        let deadline = now.plus(spent.span);
        let mut call = self.call(partition);
        call.value(partition.to_be_bytes()).value(UNANSWERED).number(spent.room).number(deadline.millis());
        let mut bases = Vec::new();
        let mut shared = Shared::default();
        for portion in &portions {
            let key = portion.idempotency.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
            let content = portion.idempotency.map_or([0; 16], |key| key.content);
            let mut head = Vec::with_capacity(20);
            push_index(&mut head, key);
            head.extend_from_slice(&content);
            push_index(&mut head, portion.events.len());
            call.value(head);
            for new in portion.events() {
                let base = self.bases.next(now, &self.ids);
                let head = self.event_head(&mut call, &mut shared, partition, &base, new);
                call.value(head).value(write_meta(&new.event, now)).value(new.event.document.text());
                bases.push(base);
            }
        }
        (Step::Script(&self.scripts.ingest, call), Sent { portions, bases, now, spent, deadline })
    }

    fn event_head<'a>(
        &self,
        call: &mut Call,
        shared: &mut Shared<'a>,
        partition: Partition,
        base: &Base,
        new: &'a NewEvent,
    ) -> Vec<u8> {
        let tenant = &new.event.tenant;
        let (bucket, field) = self.keys.public_id(tenant, &new.event.id);
        let dedupe = new.dedupe.map_or(0, |key| call.key(self.keys.dedupe(partition, &key.key)));
        let [log, newest] = *shared
            .tenants
            .entry(tenant)
            .or_insert_with(|| [call.key(self.keys.tenant_log(tenant)), call.key(self.keys.newest(tenant))]);
        let mut head = Vec::with_capacity(47 + 35 * new.jobs.len());
        head.extend_from_slice(base);
        head.extend_from_slice(&field);
        push_index(&mut head, dedupe);
        head.extend_from_slice(&new.dedupe.map_or([0; 16], |key| key.content));
        push_index(&mut head, call.key(self.keys.event(partition, base)));
        push_index(&mut head, log);
        push_index(&mut head, call.key(bucket));
        push_index(&mut head, newest);
        push_index(&mut head, new.jobs.len());
        for job in &new.jobs {
            let log = *shared
                .logs
                .entry(job.connection)
                .or_insert_with(|| call.key(self.keys.connection_log(partition, job.connection)));
            head.extend_from_slice(&job.connection.bits().to_be_bytes());
            head.extend_from_slice(&job.mapping.bits().to_be_bytes());
            push_index(&mut head, log);
            head.push(u8::from(job.triggered));
        }
        head
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
        let &[event, job, index, token, doubt, failures, since] = numbers.as_slice() else {
            return Err(unknown());
        };
        let at = usize::try_from(event).map_err(|_| unknown())?;
        let base = self.bases.get(at).ok_or_else(unknown)?;
        let new = self.portions.iter().flat_map(Portion::events).nth(at).ok_or_else(unknown)?;
        let job = new.jobs.get(usize::try_from(job).map_err(|_| unknown())?).ok_or_else(unknown)?;
        let id = job_id(base, u32::try_from(index).map_err(|_| unknown())?, partition);
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
            event: std::sync::Arc::clone(&new.event),
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

/// A call has far fewer keys and jobs than two bytes count.
fn push_index(head: &mut Vec<u8>, index: usize) {
    head.extend_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
}
