//! Reads for the API: events and the delivery log.
//!
//! A log is walked from its newest entry in pages, and what a page names is read and filtered here; so the server's steps
//! are small whatever the filter.

use redis::{Cmd, Value};

use super::codec::{self, JobRecord, Meta, time_bytes};
use super::keys::{BASE, Base, Keys, Partition, job_id, place_of};
use super::link::{Link, Step};
use super::{Core, REPLY};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{JobId, TenantId};
use crate::domain::job::Attempt;
use crate::store::KEPT_ATTEMPTS;
use crate::store::StoreError;
use crate::store::log::LOOKS;
use crate::store::types::{Delivery, DeliveryPage, DeliveryQuery, Tried};

/// Entries of a log read at once.
const PAGE: usize = 100;

/// A log to walk.
struct Log {
    partition: Partition,
    key: Vec<u8>,
    /// Whether its entries are events with their jobs, or single jobs.
    of_events: bool,
}

/// An event's meta, and the records of its jobs where there are some.
pub(super) type Records = (Meta, Vec<Option<JobRecord>>);

/// An event's name and the jobs of it that are wanted, newest first.
type Entry = (Base, Vec<u32>);

fn entry_of(bytes: &[u8], of_events: bool) -> Option<Entry> {
    let (base, rest) = bytes.split_at_checked(BASE)?;
    let number = u32::from_be_bytes([0, *rest.first()?, *rest.get(1)?, *rest.get(2)?]);
    let indexes = if of_events { (0..number).rev().collect() } else { vec![number] };
    Some((base.try_into().ok()?, indexes))
}

impl Core {
    /// The newest event of a tenant with this public id.
    pub(super) async fn event(&self, tenant: &TenantId, id: &str) -> Result<Option<Event>, StoreError> {
        let partition = self.keys.partition(tenant);
        for base in self.bases(tenant, id).await? {
            let answer = self.reads.plain(self.event_at(partition, &base), REPLY).await?;
            let Some((meta, document)) = read_event(answer)? else { continue };
            if meta.tenant == *tenant && meta.id == id {
                return codec::event(meta, document).map(Some);
            }
        }
        Ok(None)
    }

    /// The command that [`read_event`] reads the answer of.
    pub(super) fn event_at(&self, partition: Partition, base: &Base) -> Cmd {
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.event(partition, base)).arg("m").arg("d");
        get
    }

    /// A tenant's newest events of some types; see [`Store::newest_events`](crate::store::Store::newest_events).
    pub(super) async fn newest_events(
        &self,
        tenant: &TenantId,
        patterns: &[EventPattern],
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let partition = self.keys.partition(tenant);
        let mut get = redis::cmd("HGETALL");
        get.arg(self.keys.newest(tenant));
        let mut fields = codec::list(self.reads.plain(get, REPLY).await?)?.into_iter();
        let mut bases: Vec<Base> = Vec::new();
        while let (Some(kind), Some(list)) = (fields.next(), fields.next()) {
            let kind = codec::text(kind)?;
            if patterns.iter().any(|pattern| pattern.matches(&kind)) {
                let list = codec::bytes(list)?.unwrap_or_default();
                bases.extend(list.as_chunks::<BASE>().0);
            }
        }
        bases.sort_unstable_by(|left, right| right.cmp(left));
        bases.truncate(limit);
        let steps: Vec<Step<'_>> =
            bases.iter().map(|base| Step::Plain(self.event_at(partition, base))).collect();
        let mut found = Vec::new();
        for answer in self.reads.run(&steps, REPLY).await? {
            // One that was removed meanwhile is missing.
            if let Some((meta, document)) = read_event(answer?)? {
                found.push(codec::event(meta, document)?);
            }
        }
        found.retain(|event| !event.is_erased());
        Ok(found)
    }

    /// Events that a public id may name, newest first.
    async fn bases(&self, tenant: &TenantId, id: &str) -> Result<Vec<Base>, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.ids(self.keys.partition(tenant))).arg(Keys::public_id(tenant, id).as_slice());
        let bases = codec::bytes(self.reads.plain(get, REPLY).await?)?.unwrap_or_default();
        Ok(bases.chunks_exact(BASE).filter_map(|base| base.try_into().ok()).collect())
    }

    /// Deliveries that match, newest first.
    pub(super) async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        if let (Some(tenant), Some(event)) = (&query.tenant, &query.event) {
            let mut found = self.of_event(query, tenant, event).await?;
            found.sort_by_key(|delivery| std::cmp::Reverse(delivery.job.id));
            return Ok(DeliveryPage::of(found, query.limit, None));
        }
        let partitions = match &query.tenant {
            Some(tenant) => vec![self.keys.partition(tenant)],
            None => (0..self.keys.partitions()).collect(),
        };
        let looks = LOOKS / partitions.len().max(1);
        let mut found = Vec::new();
        // All logs were walked at least down to here.
        let mut stopped: Option<JobId> = None;
        for partition in partitions {
            let (key, of_events) = match (query.connection, &query.tenant) {
                (Some(connection), _) => (self.keys.connection_log(partition, connection), false),
                (None, Some(tenant)) => (self.keys.tenant_log(tenant), true),
                (None, None) => (self.keys.events(partition), true),
            };
            let (some, end) = self.walk(&Log { partition, key, of_events }, query, looks).await?;
            found.extend(some);
            stopped = stopped.max(end);
        }
        found.retain(|delivery| stopped.is_none_or(|stopped| delivery.job.id >= stopped));
        found.sort_by_key(|delivery| std::cmp::Reverse(delivery.job.id));
        Ok(DeliveryPage::of(found, query.limit, stopped))
    }

    async fn of_event(
        &self,
        query: &DeliveryQuery,
        tenant: &TenantId,
        event: &str,
    ) -> Result<Vec<Delivery>, StoreError> {
        let partition = self.keys.partition(tenant);
        let bases = self.bases(tenant, event).await?;
        let steps = bases
            .iter()
            .map(|base| {
                let mut get = redis::cmd("HGET");
                get.arg(self.keys.event(partition, base)).arg("m");
                Step::Plain(get)
            })
            .collect::<Vec<_>>();
        let mut entries = Vec::new();
        for (base, meta) in bases.iter().zip(self.reads.run(&steps, REPLY).await?) {
            if let Some(meta) = codec::bytes(meta?)?.as_deref().and_then(codec::read_meta) {
                entries.push((*base, (0..meta.jobs).rev().collect()));
            }
        }
        let found = self.read_entries(partition, &entries).await?;
        self.admitted(query, found).await
    }

    /// Those that match, each with what its newest attempt came to.
    async fn admitted(
        &self,
        query: &DeliveryQuery,
        mut found: Vec<Delivery>,
    ) -> Result<Vec<Delivery>, StoreError> {
        found.retain(|delivery| query.admits(delivery));
        let tried = found.iter_mut().filter(|delivery| delivery.job.tries > 0).collect::<Vec<_>>();
        let steps: Vec<Step<'_>> = tried
            .iter()
            .filter_map(|delivery| {
                let (base, index) = place_of(delivery.job.id);
                let mut get = redis::cmd("HGET");
                get.arg(self.keys.event(self.keys.partition_of(delivery.job.id)?, &base))
                    .arg(format!("a{index}.{}", delivery.job.tries));
                Some(Step::Plain(get))
            })
            .collect();
        let answers = self.reads.run(&steps, REPLY).await?;
        for (delivery, answer) in tried.into_iter().zip(answers) {
            let attempt = codec::bytes(answer?)?;
            delivery.last =
                attempt.map(|attempt| serde_json::from_slice(&attempt)).transpose().map_err(|error| {
                    StoreError::Corrupt(format!("an attempt of {}: {error}", delivery.job.id))
                })?;
        }
        found.retain(|delivery| query.admits_last(delivery.last.as_ref()));
        Ok(found)
    }

    /// The newest deliveries of one log that match, and how far it was walked; `None` to its end.
    async fn walk(
        &self,
        log: &Log,
        query: &DeliveryQuery,
        looks: usize,
    ) -> Result<(Vec<Delivery>, Option<JobId>), StoreError> {
        let mut upper = match last_id(query) {
            Some(last) => {
                let (base, index) = place_of(last);
                let mut upper = b"[".to_vec();
                upper.extend_from_slice(&base);
                let index = if log.of_events { u32::MAX } else { index };
                upper.extend_from_slice(&index.to_be_bytes()[1..]);
                upper
            }
            None => b"+".to_vec(),
        };
        let lower = match query.since {
            Some(since) => [b"[".as_slice(), &time_bytes(since)].concat(),
            None => b"-".to_vec(),
        };
        let mut found = Vec::new();
        let mut looked = 0;
        loop {
            let mut range = redis::cmd("ZREVRANGEBYLEX");
            range.arg(&log.key).arg(&upper).arg(&lower).arg("LIMIT").arg(0).arg(PAGE);
            let page = codec::list(self.reads.plain(range, REPLY).await?)?
                .into_iter()
                .map(|entry| Ok(codec::bytes(entry)?.unwrap_or_default()))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let entries: Vec<Entry> =
                page.iter().filter_map(|entry| entry_of(entry, log.of_events)).collect();
            let deliveries = self.read_entries(log.partition, &entries).await?;
            let looked_at = deliveries.len().max(entries.len());
            let some = self.admitted(query, deliveries).await?;
            looked += looked_at - some.len();
            found.extend(some);
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { return Ok((found, None)) };
            let stopped = entries
                .last()
                .map(|(base, indexes)| job_id(base, indexes.last().copied().unwrap_or(0), log.partition));
            if found.len() > query.limit || looked >= looks {
                return Ok((found, stopped));
            }
            upper = [b"(".as_slice(), last].concat();
        }
    }

    async fn read_entries(
        &self,
        partition: Partition,
        entries: &[Entry],
    ) -> Result<Vec<Delivery>, StoreError> {
        let steps: Vec<Step<'_>> = entries
            .iter()
            .map(|(base, indexes)| Step::Plain(self.records_of(partition, base, indexes)))
            .collect();
        let mut found = Vec::new();
        for ((base, indexes), answer) in entries.iter().zip(self.reads.run(&steps, REPLY).await?) {
            let Some((meta, records)) = read_records(answer?)? else { continue };
            for (index, record) in indexes.iter().zip(records) {
                if let Some(record) = record {
                    found.push(delivery(base, *index, partition, &meta, record));
                }
            }
        }
        Ok(found)
    }

    /// The command that reads an event's meta and the records of some of its jobs.
    pub(super) fn records_of(&self, partition: Partition, base: &Base, indexes: &[u32]) -> Cmd {
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.event(partition, base)).arg("m");
        for index in indexes {
            get.arg(*index);
        }
        get
    }

    /// One delivery with its attempts.
    pub(super) async fn delivery(&self, id: JobId) -> Result<Option<Delivery>, StoreError> {
        let Some(partition) = self.keys.partition_of(id) else { return Ok(None) };
        let (base, index) = place_of(id);
        let answer = self.reads.plain(self.records_of(partition, &base, &[index]), REPLY).await?;
        let Some((meta, mut records)) = read_records(answer)? else { return Ok(None) };
        let Some(record) = records.pop().flatten() else { return Ok(None) };
        let tries = record.tries;
        let mut delivery = delivery(&base, index, partition, &meta, record);
        if tries > 0 {
            let mut get = redis::cmd("HMGET");
            get.arg(self.keys.event(partition, &base));
            for number in tries.saturating_sub(KEPT_ATTEMPTS - 1).max(1)..=tries {
                get.arg(format!("a{index}.{number}"));
            }
            for attempt in codec::list(self.reads.plain(get, REPLY).await?)? {
                let Some(attempt) = codec::bytes(attempt)? else { continue };
                delivery.attempts.push(
                    serde_json::from_slice::<Attempt>(&attempt)
                        .map_err(|error| StoreError::Corrupt(format!("an attempt of {id}: {error}")))?,
                );
            }
            delivery.last = delivery.attempts.last().map(Tried::from);
        }
        Ok(Some(delivery))
    }
}

/// The newest event of each partition that has some.
pub(super) async fn newest(link: &Link, keys: &Keys) -> Result<Vec<Base>, StoreError> {
    let groups = (0..keys.partitions())
        .map(|partition| {
            let mut range = redis::cmd("ZREVRANGEBYLEX");
            range.arg(keys.events(partition)).arg("+").arg("-").arg("LIMIT").arg(0).arg(1);
            vec![Step::Plain(range)]
        })
        .collect();
    let mut found = Vec::new();
    for answer in link.run_groups(groups, REPLY).await {
        for entry in codec::list(answer?.pop().unwrap_or(Ok(Value::Nil))?)? {
            found.extend(codec::bytes(entry)?.and_then(|entry| entry.first_chunk().copied()));
        }
    }
    Ok(found)
}

/// An event's meta and document; `None` when there is no such event.
pub(super) fn read_event(answer: Value) -> Result<Option<(Meta, Vec<u8>)>, StoreError> {
    let mut fields = codec::list(answer)?.into_iter();
    let mut next = || codec::bytes(fields.next().unwrap_or(Value::Nil));
    Ok(next()?.as_deref().and_then(codec::read_meta).zip(next()?))
}

/// An event's meta and records out of the answer to [`Core::records_of`]; `None` when there is no such event.
pub(super) fn read_records(answer: Value) -> Result<Option<Records>, StoreError> {
    let mut fields = codec::list(answer)?.into_iter();
    let meta = codec::bytes(fields.next().unwrap_or(Value::Nil))?;
    let Some(meta) = meta.as_deref().and_then(codec::read_meta) else { return Ok(None) };
    let records = fields
        .map(|field| Ok(codec::bytes(field)?.as_deref().and_then(codec::read_record)))
        .collect::<Result<_, StoreError>>()?;
    Ok(Some((meta, records)))
}

pub(super) fn delivery(
    base: &Base,
    index: u32,
    partition: Partition,
    meta: &Meta,
    record: JobRecord,
) -> Delivery {
    Delivery {
        job: codec::job(base, index, partition, meta, &record),
        event_id: meta.id.clone(),
        kind: meta.kind.clone(),
        state: record.state,
        due: record.due,
        finished: record.finished,
        reason: record.reason,
        last: None,
        attempts: Vec::new(),
    }
}

/// The id that everything wanted sorts before.
fn last_id(query: &DeliveryQuery) -> Option<JobId> {
    let until = query.until.map(|until| {
        let mut base = [0; BASE];
        base[..6].copy_from_slice(&time_bytes(until));
        job_id(&base, 0, 0)
    });
    until.into_iter().chain(query.before).min()
}
