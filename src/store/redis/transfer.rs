//! Gives all events to another store, and takes them from one.
//!
//! An event's name here is made of its key, so that the same event has the same one however often it is taken: a move that
//! broke off goes on where it was. What is large is written first, beside the queue; the script that makes an event known
//! and puts its jobs into their lanes comes last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use redis::Value;

use super::codec::{self, state_code, strange, time_bytes, write_meta};
use super::keys::{BASE, Base, Keys, Partition};
use super::link::Step;
use super::read::delivery;
use super::settle::connection_of;
use super::{Core, REPLY};
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Cursor, DEDUPE_SPAN, Exported, KeptEvent, KeptJob, Tried};

/// Jobs in one script call.
const WEIGHT: usize = 128;
/// Fields written by one command.
const FIELDS: usize = 500;
/// How often a call is made again because a lane had to be told of its connection.
const ROUNDS: usize = 8;

type Fields = HashMap<Vec<u8>, Vec<u8>>;

/// An event to be written, under its name here.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    base: Base,
    kept: &'a KeptEvent,
}

impl Core {
    /// A page of events; see [`Store::export`](crate::store::Store::export).
    pub(super) async fn export(&self, after: Option<&Cursor>, limit: usize) -> Result<Exported, StoreError> {
        let (mut partition, mut last) = match after {
            Some(Cursor(bytes)) => {
                let (number, last) = bytes
                    .split_first_chunk()
                    .ok_or_else(|| StoreError::Corrupt("a cursor of another store".to_owned()))?;
                (u16::from_be_bytes(*number), last.to_vec())
            }
            None => (0, Vec::new()),
        };
        while partition < self.keys.partitions() {
            if last.is_empty() {
                self.end_accepted(partition).await?;
            }
            let lower =
                if last.is_empty() { b"-".to_vec() } else { [b"(".as_slice(), last.as_slice()].concat() };
            let mut range = redis::cmd("ZRANGEBYLEX");
            range.arg(self.keys.events(partition)).arg(lower).arg("+").arg("LIMIT").arg(0).arg(limit);
            let entries = codec::list(self.reads.plain(range, REPLY).await?)?
                .into_iter()
                .map(|entry| Ok(codec::bytes(entry)?.unwrap_or_default()))
                .collect::<Result<Vec<_>, StoreError>>()?;
            if entries.is_empty() {
                (partition, last) = (partition + 1, Vec::new());
                continue;
            }
            let events = self.export_events(partition, &entries).await?;
            let newest = entries.last().map(Vec::as_slice).unwrap_or_default();
            let next = Cursor([&partition.to_be_bytes(), newest].concat());
            return Ok(Exported { events, next: Some(next) });
        }
        Ok(Exported::default())
    }

    /// Puts into their lanes what was accepted by a process that died since.
    async fn end_accepted(&self, partition: Partition) -> Result<(), StoreError> {
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.keys.accepted(partition)).arg(0).arg(-1);
        for name in codec::list(self.reads.plain(range, REPLY).await?)? {
            let name = codec::bytes(name)?.and_then(|name| name.try_into().ok());
            self.end_staged(partition, &name.ok_or_else(|| strange("an accepted request"))?).await?;
        }
        Ok(())
    }

    async fn export_events(
        &self,
        partition: Partition,
        entries: &[Vec<u8>],
    ) -> Result<Vec<KeptEvent>, StoreError> {
        let bases: Vec<Base> =
            entries.iter().filter_map(|entry| entry.get(..BASE)?.try_into().ok()).collect();
        let steps: Vec<Step<'_>> = bases
            .iter()
            .map(|base| {
                let mut get = redis::cmd("HGETALL");
                get.arg(self.keys.event(partition, base));
                Step::Plain(get)
            })
            .collect();
        let mut events = Vec::with_capacity(bases.len());
        for (base, answer) in bases.iter().zip(self.reads.run(&steps, REPLY).await?) {
            let mut pairs = codec::list(answer?)?.into_iter();
            let mut fields = Fields::new();
            while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
                fields.insert(
                    codec::bytes(name)?.unwrap_or_default(),
                    codec::bytes(value)?.unwrap_or_default(),
                );
            }
            events.push(kept_event(base, partition, &fields)?);
        }
        Ok(events)
    }

    /// Writes events; see [`Store::import`](crate::store::Store::import).
    pub(super) async fn import(&self, events: &[KeptEvent]) -> Result<usize, StoreError> {
        let mut by_partition: BTreeMap<Partition, Vec<&KeptEvent>> = BTreeMap::new();
        for kept in events {
            by_partition.entry(self.keys.partition(&kept.event.tenant)).or_default().push(kept);
        }
        let mut new = 0;
        for (partition, events) in by_partition {
            let placed = self.place(partition, &events).await?;
            let mut steps = Vec::new();
            for event in &placed {
                self.write_fields(partition, event, &mut steps);
            }
            for some in steps.chunks(FIELDS) {
                for answer in self.link.run(some, REPLY).await? {
                    answer?;
                }
            }
            let mut rest = placed.as_slice();
            while !rest.is_empty() {
                let mut weight = 0;
                let fitting = rest.iter().take_while(|event| {
                    weight += 1 + event.kept.jobs.len();
                    weight <= WEIGHT
                });
                let (some, others) = rest.split_at(fitting.count().max(1));
                new += self.make_known(partition, some).await?;
                rest = others;
            }
        }
        Ok(new)
    }

    /// A name for each event that is not there yet: its key's own, or one of the next where another event has that.
    async fn place<'a>(
        &self,
        partition: Partition,
        events: &[&'a KeptEvent],
    ) -> Result<Vec<Placed<'a>>, StoreError> {
        let mut wanted: Vec<Placed<'a>> = events
            .iter()
            .map(|kept| {
                let mut base = [0; BASE];
                base.copy_from_slice(&kept.event.key.bits().to_be_bytes()[..BASE]);
                Placed { base, kept }
            })
            .collect();
        let mut placed = Vec::with_capacity(wanted.len());
        let mut taken: HashSet<Base> = HashSet::new();
        while !wanted.is_empty() {
            let steps: Vec<Step<'_>> = wanted
                .iter()
                .map(|event| {
                    let mut get = redis::cmd("HGET");
                    get.arg(self.keys.event(partition, &event.base)).arg("m");
                    Step::Plain(get)
                })
                .collect();
            let answers = self.link.run(&steps, REPLY).await?;
            let mut again = Vec::new();
            for (mut event, answer) in wanted.into_iter().zip(answers) {
                let meta = codec::bytes(answer?)?.as_deref().and_then(codec::read_meta);
                let is_same = meta.as_ref().is_some_and(|meta| meta.key == event.kept.event.key);
                if is_same {
                    continue;
                }
                if meta.is_none() && taken.insert(event.base) {
                    placed.push(event);
                } else {
                    event.base = after(event.base);
                    again.push(event);
                }
            }
            wanted = again;
        }
        // In the order of writing again.
        let order: HashMap<_, usize> =
            events.iter().enumerate().map(|(at, kept)| (kept.event.key.bits(), at)).collect();
        placed.sort_by_key(|event| order.get(&event.kept.event.key.bits()).copied());
        Ok(placed)
    }

    /// What is large of an event, and its dedupe key.
    fn write_fields(&self, partition: Partition, event: &Placed<'_>, steps: &mut Vec<Step<'_>>) {
        let key = self.keys.event(partition, &event.base);
        let mut fields: Vec<(String, Vec<u8>)> =
            vec![("d".to_owned(), event.kept.event.document.text().to_vec())];
        for (index, job) in event.kept.jobs.iter().enumerate() {
            let name = job.delivery.job.name.bits().to_be_bytes();
            fields.push((format!("o{index}"), name.to_vec()));
            fields.extend(job.rendered.iter().map(|body| (format!("b{index}"), body.to_vec())));
            for attempt in &job.delivery.attempts {
                // It was read from JSON a moment ago.
                let text = serde_json::to_vec(attempt).unwrap_or_default();
                fields.push((format!("a{index}.{}", attempt.number), text));
            }
        }
        for some in fields.chunks(FIELDS) {
            let mut set = redis::cmd("HSET");
            set.arg(&key);
            for (name, value) in some {
                set.arg(name).arg(value);
            }
            steps.push(Step::Plain(set));
        }
        let expires = event.kept.event.received.plus(DEDUPE_SPAN);
        let left = expires.since(self.clock.now());
        if let Some(dedupe) = event.kept.dedupe.filter(|_| !left.is_zero()) {
            let mut value = time_bytes(expires).to_vec();
            value.extend_from_slice(&dedupe.content);
            value.extend_from_slice(event.kept.jobs.len().to_string().as_bytes());
            let mut set = redis::cmd("SET");
            set.arg(self.keys.dedupe(partition, &dedupe.key))
                .arg(value)
                .arg("PX")
                .arg(left.as_millis().to_string());
            steps.push(Step::Plain(set));
        }
    }

    /// Makes events known and puts their open jobs into their lanes.
    async fn make_known(&self, partition: Partition, events: &[Placed<'_>]) -> Result<usize, StoreError> {
        for _ in 0..ROUNDS {
            let mut call = self.call(partition);
            call.value(partition.to_be_bytes());
            for Placed { base, kept } in events {
                let event = Arc::as_ref(&kept.event);
                let created = kept.jobs.first().map_or(event.received, |job| job.delivery.job.created);
                let field = Keys::public_id(&event.tenant, &event.id);
                let at = call.key(self.keys.event(partition, base));
                call.key(self.keys.tenant_log(&event.tenant));
                call.key(self.keys.newest(&event.tenant));
                call.value(*base)
                    .value(write_meta(event, created))
                    .value(field)
                    .number(at)
                    .value(event.kind.as_str())
                    .number(kept.jobs.len());
                for KeptJob { delivery, .. } in &kept.jobs {
                    let job = &delivery.job;
                    let log = call.key(self.keys.connection_log(partition, job.connection));
                    call.value(job.connection.bits().to_be_bytes())
                        .value(job.mapping.bits().to_be_bytes())
                        .number(state_code(delivery.state))
                        .number(job.attempts)
                        .number(job.tries)
                        .number(delivery.due.map_or(0, Timestamp::millis))
                        .number(delivery.finished.map_or(0, Timestamp::millis))
                        .value(delivery.reason.as_str())
                        .number(log);
                }
            }
            let answer = self.link.script(&self.scripts.import, call, REPLY).await?;
            let mut answer = codec::list(answer)?.into_iter();
            let mut next = || answer.next().unwrap_or(Value::Nil);
            if codec::text(next())? == "written" {
                self.wake.mark(partition);
                return usize::try_from(codec::count(&next())?).map_err(|_| strange("a count of events"));
            }
            let unruled: HashSet<ConnectionId> =
                answer.map(connection_of).collect::<Result<_, StoreError>>()?;
            self.teach(partition, &unruled.into_iter().collect::<Vec<_>>()).await?;
        }
        Err(StoreError::Unavailable("the lanes of imported jobs can't be settled".to_owned()))
    }
}

/// The next name, in the same millisecond.
fn after(base: Base) -> Base {
    let number = base.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte)) + 1;
    let mut next = [0; BASE];
    next.copy_from_slice(&number.to_be_bytes()[16 - BASE..]);
    next
}

fn kept_event(base: &Base, partition: Partition, fields: &Fields) -> Result<KeptEvent, StoreError> {
    let gone = || StoreError::Corrupt(format!("an event of partition {partition} is not whole"));
    let field = |name: &str| fields.get(name.as_bytes());
    let meta = field("m").and_then(|meta| codec::read_meta(meta)).ok_or_else(gone)?;
    let document = field("d").ok_or_else(gone)?;
    let mut attempts: BTreeMap<(u32, u32), &[u8]> = BTreeMap::new();
    for (name, value) in fields {
        let place = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix('a')?.split_once('.'));
        if let Some((Ok(index), Ok(number))) = place.map(|(index, number)| (index.parse(), number.parse())) {
            attempts.insert((index, number), value);
        }
    }
    let mut jobs = Vec::new();
    for index in 0..meta.jobs {
        let record = field(&index.to_string()).and_then(|record| codec::read_record(record));
        let mut delivery = delivery(base, index, partition, &meta, record.ok_or_else(gone)?);
        let name = field(&format!("o{index}")).and_then(|name| codec::read_id(name));
        delivery.job.name = name.unwrap_or(delivery.job.name);
        delivery.attempts = attempts
            .range((index, 0)..=(index, u32::MAX))
            .map(|(_, text)| serde_json::from_slice(text))
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::Corrupt(format!("an attempt: {error}")))?;
        delivery.last = delivery.attempts.last().map(Tried::from);
        let rendered = field(&format!("b{index}")).cloned().map(Bytes::from);
        jobs.push(KeptJob { delivery, rendered });
    }
    let event = Arc::new(codec::event(meta, document.clone())?);
    Ok(KeptEvent { event, dedupe: None, jobs })
}
