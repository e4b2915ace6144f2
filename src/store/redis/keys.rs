//! Every key in Redis: its name, type, owner and retention.
//!
//! # Layout
//!
//! A tenant's things live in one *partition* (a hash of its id, modulo the configured count), and every key of a
//! partition has its hash tag, so that one script can change them all and a cluster puts partitions on its masters.
//! Records live apart, under the control tag. `pb` stands for the configured prefix, `N` for a partition's number.
//!
//! A *base* (11 bytes) names an event inside its partition: 6 bytes of milliseconds, 5 that rise and can't be guessed. A
//! job's id is its event's base, 3 bytes that count the event's jobs, 2 bytes of partition: so a job's id leads to its
//! partition and its event without asking anybody. Times are 6 big-endian bytes of milliseconds wherever they sort.
//!
//! | key | type | holds | ends |
//! |---|---|---|---|
//! | `pb:{N}:state` | string | the partition's counters (msgpack): token, turn, order, open, leased, ring, server times, lanes by class, the walk through the leases | never |
//! | `pb:{N}:lanes` | hash | connection -> lane (msgpack): revision, tenant, cap, width, paused, closed, wait, leased, open, place, batch, doubt, failures in a row, unwanted before, seen | a day after its connection was deleted |
//! | `pb:{N}:queue` | zset, score 0 | every open job that is not leased: connection, `D` and due time or `F` and order (and `+` once its record was written), job id | when leased, ended |
//! | `pb:{N}:ready` | zset, score 0 | lanes that may give: tenant, NUL, turn, connection | when its turn comes |
//! | `pb:{N}:tenants` | zset by turn | tenants with ready lanes | when they have none |
//! | `pb:{N}:timers` | zset by time | lanes that wait for a time | at that time |
//! | `pb:{N}:held` | hash | leased job -> token (6 bytes), owner (32), connection, deadline, place in the queue | when settled, released, lost |
//! | `pb:{N}:owners` | zset by server time | processes with leases here, and when they last spoke | seconds after they fell silent |
//! | `pb:{N}:closing` | zset by time | lanes that are closed, or whose jobs of before a time are not wanted: those are to be cancelled | when that is done |
//! | `pb:{N}:pending` | hash | connection -> what an outcome does to its record, until that is written | when written |
//! | `pb:{N}:gone` | zset by time | lanes of deleted connections | a day after |
//! | `pb:{N}:events` | zset, score 0 | base and count of jobs, of every event | with the event |
//! | `pb:{N}:ages` | hash | ten seconds -> open jobs made in them | when none is left |
//! | `pb:{N}:age` | zset by time | the fields of `ages` | when none is left |
//! | `pb:{N}:staged` | zset by time | large requests that may still be accepted; time 0 where they are broken off | when they are; seconds after their process died |
//! | `pb:{N}:accepted` | zset by time | large requests that were accepted and are not in their lanes yet | when they are |
//! | `pb:{N}:s:<base>` | hash | one of either: parts by number, and once it is accepted how many, how many are left, `x<i>` for events that are repeats | with its entry |
//! | `pb:{N}:e:<base>` | hash | an event and its jobs, see below | `retention` after the last of its jobs ended |
//! | `pb:{N}:t:<tenant>` | zset, score 0 | base and count of jobs, of a tenant's events | with the event |
//! | `pb:{N}:c:<connection>` | zset, score 0 | base and index of a connection's jobs | with the event |
//! | `pb:{N}:ids` | hash | hash of tenant and public id -> bases, newest first, at most 16 | with the event |
//! | `pb:{N}:n:<tenant>` | hash | type -> bases of its newest events, newest first, at most 100; at most 256 types | with the events |
//! | `pb:{N}:k:<connection><day>` | hash | slot -> count: what came of a connection's jobs on a day | 8 days after its first entry (its own expiry) |
//! | `pb:{N}:d:<key>` | string | a dedupe or idempotency key: expiry, content, answer; in place of the answer while a large request claims it: `c`, its name, the event's number (4 bytes), the number of jobs | 24 h (its own expiry) |
//! | `pb:{N}:b:<hash>` | string | a bucket of tokens (by scope and name): when it is full again, in microseconds | when it is full |
//! | `pb:{N}:h:<hash>` | string | a hold (by name): its end, its owner | at its end |
//! | `pb:{c}:docs` | hash | kind and id -> a record's JSON | when deleted |
//! | `pb:{c}:feed` | zset by revision | kind and id of every record there is or was | never: 40 bytes a deleted record |
//! | `pb:{c}:revision` | string | the newest revision | never |
//! | `pb:{c}:unmirrored` | hash | connection -> revision that its lane has yet to hear of | within the same call, or by the next sweep |
//! | `pb:{c}:of:<tenant>` | set | the keys and connections of a tenant | with them |
//! | `pb:{c}:mappings` | hash | version -> a mapping's source | never: one entry a version |
//! | `pb:{c}:layout` | hash | format and count of partitions, when health was last asked for | never |
//! | `pb:{c}:epoch` | string | names this filling of the server: without it the server was emptied | never |
//! | `pb:{c}:rebuilder` | string | the process that writes the records of an emptied server again | seconds (its own expiry) |
//! | `pb:{c}:sweeper` | string | the process that sweeps | 10 s (its own expiry) |
//!
//! Fields of an event: `x` while an event of many jobs is being removed, `m` its meta (count of jobs, key, times, tenant, id, type), `d` its document, `<i>` the record of
//! job `i`, `b<i>` its rendered bytes, `o<i>` the id it had in the store it was moved from, `r<i>` the replay that put it back last, `a<i>.<n>` its `n`-th attempt, of which the newest 100 are kept.
//!
//! Channels: `pb:{c}:changes` tells of a new revision, `pb:wake:N` that a partition's ring is no longer empty, or that
//! something was left to upkeep there.

use std::io::Write;
use std::sync::Arc;

use crate::domain::id::{ConnectionId, JobId, TenantId};
use sha2::{Digest, Sha256};

/// Bytes of a base.
pub(super) const BASE: usize = 11;
/// Keys that every script of a partition declares.
#[cfg(test)]
pub(super) const FIXED: usize = 17;

/// Number of a partition.
pub(super) type Partition = u16;

/// Names keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    partitions: u16,
    /// Of each partition.
    fixed: Arc<[Arc<[Vec<u8>]>]>,
}

/// An event's name inside its partition.
pub(super) type Base = [u8; BASE];

impl Keys {
    /// `partitions` is at least 1.
    pub fn new(prefix: &str, partitions: u16) -> Self {
        let partitions = partitions.max(1);
        let fixed = (0..partitions).map(|partition| fixed(prefix, partition)).collect();
        Self { prefix: prefix.to_owned(), partitions, fixed }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Where a tenant's things are.
    pub fn partition(&self, tenant: &TenantId) -> Partition {
        self.partition_by(tenant.as_str())
    }

    fn partition_by(&self, name: &str) -> Partition {
        let hash = hash(&[name.as_bytes()]);
        let short = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        u16::try_from(short % u32::from(self.partitions)).unwrap_or(0)
    }

    /// Where a job is; `None` when its id was not made for this layout.
    pub fn partition_of(&self, job: JobId) -> Option<Partition> {
        let bytes = job.bits().to_be_bytes();
        Some(u16::from_be_bytes([bytes[14], bytes[15]])).filter(|partition| *partition < self.partitions)
    }

    /// The keys that every script of a partition declares first, in the order that `partition.lua` reads.
    pub fn fixed(&self, partition: Partition) -> Arc<[Vec<u8>]> {
        self.fixed.get(usize::from(partition)).cloned().unwrap_or_else(|| fixed(&self.prefix, partition))
    }

    fn named(&self, partition: Partition, name: &str, rest: &[u8]) -> Vec<u8> {
        named(&self.prefix, partition, name, rest)
    }

    /// A partition's counters.
    pub fn state(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "state", b"")
    }

    /// All events of a partition.
    pub fn events(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "events", b"")
    }

    /// An event and its jobs.
    pub fn event(&self, partition: Partition, base: &Base) -> Vec<u8> {
        self.named(partition, "e:", base)
    }

    /// Large requests that may still be accepted.
    pub fn staged(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "staged", b"")
    }

    /// Large requests that were accepted and are not in their lanes yet.
    pub fn accepted(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "accepted", b"")
    }

    /// One of either.
    pub fn staging(&self, partition: Partition, name: &Base) -> Vec<u8> {
        self.named(partition, "s:", name)
    }

    /// A tenant's events.
    pub fn tenant_log(&self, tenant: &TenantId) -> Vec<u8> {
        self.named(self.partition(tenant), "t:", tenant.as_str().as_bytes())
    }

    /// A connection's jobs.
    pub fn connection_log(&self, partition: Partition, connection: ConnectionId) -> Vec<u8> {
        self.named(partition, "c:", &connection.bits().to_be_bytes())
    }

    /// What came of a connection's jobs on a day, counted from 1970.
    pub fn tally(&self, partition: Partition, connection: ConnectionId, day: i64) -> Vec<u8> {
        let name = [&connection.bits().to_be_bytes()[..], &day.to_be_bytes()].concat();
        self.named(partition, "k:", &name)
    }

    /// Open jobs that are not leased.
    pub fn queue(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "queue", b"")
    }

    /// Public ids and the events that they name.
    pub fn ids(&self, partition: Partition) -> Vec<u8> {
        self.named(partition, "ids", b"")
    }

    /// The field of a tenant's public id among them.
    pub fn public_id(tenant: &TenantId, id: &str) -> [u8; 8] {
        let hash = hash(&[tenant.as_str().as_bytes(), b"\0", id.as_bytes()]);
        [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
    }

    /// A tenant's newest events by type.
    pub fn newest(&self, tenant: &TenantId) -> Vec<u8> {
        self.named(self.partition(tenant), "n:", tenant.as_str().as_bytes())
    }

    /// A dedupe or idempotency key.
    pub fn dedupe(&self, partition: Partition, key: &[u8; 16]) -> Vec<u8> {
        self.named(partition, "d:", key)
    }

    /// A bucket of tokens. All of a scope lie in one partition, so that one call can take from several.
    pub fn bucket(&self, scope: &str, name: &str) -> Vec<u8> {
        let hash = hash(&[scope.as_bytes(), b"\0", name.as_bytes()]);
        self.named(self.partition_by(scope), "b:", &hash[..16])
    }

    /// A hold.
    pub fn hold(&self, name: &str) -> Vec<u8> {
        self.named(self.partition_by(name), "h:", &hash(&[name.as_bytes()])[..16])
    }

    fn control(&self, name: &str) -> Vec<u8> {
        format!("{}:{{c}}:{name}", self.prefix).into_bytes()
    }

    /// Records' documents.
    pub fn docs(&self) -> Vec<u8> {
        self.control("docs")
    }

    /// Records by revision.
    pub fn feed(&self) -> Vec<u8> {
        self.control("feed")
    }

    /// The newest revision.
    pub fn revision(&self) -> Vec<u8> {
        self.control("revision")
    }

    /// Connections whose lanes have yet to follow.
    pub fn unmirrored(&self) -> Vec<u8> {
        self.control("unmirrored")
    }

    /// What a tenant owns.
    pub fn owned_by(&self, tenant: &str) -> Vec<u8> {
        self.control(&format!("of:{tenant}"))
    }

    /// Mappings' sources.
    pub fn mappings(&self) -> Vec<u8> {
        self.control("mappings")
    }

    /// Format and count of partitions.
    pub fn layout(&self) -> Vec<u8> {
        self.control("layout")
    }

    /// Names this filling of the server.
    pub fn epoch(&self) -> Vec<u8> {
        self.control("epoch")
    }

    /// The process that writes the records of an emptied server again.
    pub fn rebuilder(&self) -> Vec<u8> {
        self.control("rebuilder")
    }

    /// The process that sweeps.
    pub fn sweeper(&self) -> Vec<u8> {
        self.control("sweeper")
    }

    /// Tells of new revisions.
    pub fn changes_channel(&self) -> String {
        format!("{}:{{c}}:changes", self.prefix)
    }

    /// Tells that a partition has work.
    pub fn wake_channel(&self, partition: Partition) -> String {
        format!("{}:wake:{partition}", self.prefix)
    }

    /// The partition that a wake-up channel speaks of.
    pub fn woken(&self, channel: &str) -> Option<Partition> {
        channel.strip_prefix(&self.prefix)?.strip_prefix(":wake:")?.parse().ok()
    }
}

fn named(prefix: &str, partition: Partition, name: &str, rest: &[u8]) -> Vec<u8> {
    // A partition's number has at most five digits.
    let mut key = Vec::with_capacity(prefix.len() + name.len() + rest.len() + 9);
    // Memory takes whatever is written to it.
    let _ = write!(key, "{prefix}:{{{partition}}}:{name}");
    key.extend_from_slice(rest);
    key
}

fn fixed(prefix: &str, partition: Partition) -> Arc<[Vec<u8>]> {
    [
        "state", "lanes", "queue", "ready", "tenants", "timers", "held", "owners", "closing", "pending",
        "gone", "events", "ages", "age", "staged", "accepted", "ids",
    ]
    .iter()
    .map(|name| named(prefix, partition, name, b""))
    .collect()
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The id of an event's job.
pub(super) fn job_id(base: &Base, index: u32, partition: Partition) -> JobId {
    let mut bytes = [0; 16];
    bytes[..BASE].copy_from_slice(base);
    bytes[BASE..14].copy_from_slice(&index.to_be_bytes()[1..]);
    bytes[14..].copy_from_slice(&partition.to_be_bytes());
    JobId::from_bits(u128::from_be_bytes(bytes))
}

/// The event and the index that a job's id tells.
pub(super) fn place_of(job: JobId) -> (Base, u32) {
    let bytes = job.bits().to_be_bytes();
    let mut base = [0; BASE];
    base.copy_from_slice(&bytes[..BASE]);
    (base, u32::from_be_bytes([0, bytes[11], bytes[12], bytes[13]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_id_leads_to_its_event_and_partition() {
        let keys = Keys::new("pb", 16);
        let base = *b"abcdefghijk";
        let id = job_id(&base, 70_000, 15);
        assert_eq!(place_of(id), (base, 70_000));
        assert_eq!(keys.partition_of(id), Some(15));
        assert_eq!(Keys::new("pb", 8).partition_of(id), None);
        assert!(job_id(&base, 1, 15) < job_id(&base, 2, 0), "jobs of one event sort by their index");
    }

    #[test]
    fn every_key_of_a_partition_has_its_tag() {
        let keys = Keys::new("pb", 16);
        let tenant: TenantId = "acme".parse().unwrap();
        let partition = keys.partition(&tenant);
        let mut all = keys.fixed(partition).to_vec();
        assert_eq!(all.len(), FIXED);
        all.push(keys.event(partition, b"abcdefghijk"));
        all.push(keys.tenant_log(&tenant));
        all.push(keys.connection_log(partition, ConnectionId::from_bits(7)));
        all.push(keys.tally(partition, ConnectionId::from_bits(7), 20_000));
        all.push(keys.ids(partition));
        all.push(keys.newest(&tenant));
        all.push(keys.dedupe(partition, &[7; 16]));
        all.push(keys.bucket("acme", "writes"));
        all.push(keys.hold("acme"));
        let tag = format!("pb:{{{partition}}}:");
        for key in all {
            assert!(key.starts_with(tag.as_bytes()), "{}", String::from_utf8_lossy(&key));
        }
        assert_eq!(keys.woken(&keys.wake_channel(3)), Some(3));
    }
}
