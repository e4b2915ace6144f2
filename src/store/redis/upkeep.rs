//! Upkeep in bounded steps, safe to run in any number of processes at once: cancels what can never be sent, removes what is
//! past its retention, finishes what a crash left half done. And the counts of what there is.

use std::time::Duration;

use redis::Value;

use super::codec::{self, JobRecord, strange, time_bytes};
use super::keys::{BASE, Base, Partition, place_of};
use super::link::Step;
use super::read::read_records;
use super::settle::connection_of;
use super::{Core, REPLY};
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Duty, LaneCounts, Stats, Sweep};

/// Jobs or events that one step touches in each partition.
const STEP: usize = 200;
/// How long a lane is kept after its connection was deleted, for processes that have yet to hear of it.
const GONE: Duration = Duration::from_hours(24);
/// Milliseconds in one of the spans that open jobs are counted by.
const AGE: i64 = 10_000;
/// Events looked at to find the oldest open job.
const LOOKED_AT: usize = 100;

/// What there is to do in a partition.
#[derive(Debug, Default)]
struct Found {
    closing: Option<ConnectionId>,
    members: Vec<Vec<u8>>,
    old: Vec<Vec<u8>>,
    pending: Vec<(ConnectionId, String)>,
    all_closing: u64,
}

impl Core {
    /// One step; see [`Store::sweep`](crate::store::Store::sweep).
    pub(super) async fn sweep(&self) -> Result<Sweep, StoreError> {
        let mut sweep = Sweep::default();
        self.mirror_left_behind().await?;
        let cutoff = self.clock.now().minus(self.retention);
        let forget = self.clock.now().minus(GONE);
        let groups = (0..self.keys.partitions())
            .map(|partition| {
                let after = self.walk.lock().get(&partition).cloned().unwrap_or_default();
                let mut call = self.call(partition);
                call.value(after).value(time_bytes(cutoff)).number(STEP).number(forget.millis());
                vec![Step::Script(&self.scripts.peek, call)]
            })
            .collect();
        let answers = self.link.run_groups(groups, REPLY).await;
        for (partition, answer) in (0..self.keys.partitions()).zip(answers) {
            let found = read_found(answer?.pop().unwrap_or(Ok(Value::Nil))?)?;
            for (connection, effect) in &found.pending {
                self.apply_effect(partition, *connection, effect).await?;
            }
            if let Some(connection) = found.closing {
                sweep.cancelled += self.cancel(partition, connection, &found.members).await?;
                sweep.more |= found.members.len() == STEP || found.all_closing > 1;
            }
            sweep.removed += self.remove(partition, &found.old, cutoff).await?;
            let full = found.old.len() == STEP;
            sweep.more |= full;
            let mut walk = self.walk.lock();
            match found.old.into_iter().next_back().filter(|_| full) {
                Some(last) => walk.insert(partition, last),
                None => walk.remove(&partition),
            };
        }
        Ok(sweep)
    }

    async fn cancel(
        &self,
        partition: Partition,
        connection: ConnectionId,
        members: &[Vec<u8>],
    ) -> Result<usize, StoreError> {
        let mut call = self.call(partition);
        call.value(connection.bits().to_be_bytes())
            .value("its connection was closed or deleted")
            .number(u8::from(members.len() < STEP));
        for member in members {
            let id = member.last_chunk().ok_or_else(|| strange("a short member of the queue"))?;
            let (base, _) = place_of(JobId::from_bits(u128::from_be_bytes(*id)));
            call.key(self.keys.event(partition, &base));
            call.value(&member[..]);
        }
        let cancelled = self.link.script(&self.scripts.cancel, call, REPLY).await?;
        usize::try_from(codec::count(&cancelled)?).map_err(|_| strange("a count of cancelled jobs"))
    }

    /// Takes or keeps a duty; see [`Store::claim`](crate::store::Store::claim).
    pub(super) async fn claim(&self, duty: Duty, span: Duration) -> Result<bool, StoreError> {
        let key = self.keys.duty(duty.name());
        let mut take = redis::cmd("SET");
        take.arg(&key).arg(&self.owner).arg("NX").arg("PX").arg(span.as_millis().max(1).to_string());
        let mut holder = redis::cmd("GET");
        holder.arg(&key);
        let mut answers = self.link.run(&[Step::Plain(take), Step::Plain(holder)], REPLY).await?.into_iter();
        let taken = !matches!(answers.next().unwrap_or(Ok(Value::Nil))?, Value::Nil);
        if taken {
            return Ok(true);
        }
        let holder = codec::bytes(answers.next().unwrap_or(Ok(Value::Nil))?)?;
        if holder.as_deref() != Some(self.owner.as_bytes()) {
            return Ok(false);
        }
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(&key).arg(span.as_millis().max(1).to_string());
        Ok(codec::number(&self.link.plain(keep, REPLY).await?)? == 1)
    }

    /// Removes events whose jobs all ended before `cutoff`.
    async fn remove(
        &self,
        partition: Partition,
        entries: &[Vec<u8>],
        cutoff: Timestamp,
    ) -> Result<usize, StoreError> {
        let parsed: Vec<(&[u8], Base, u32)> = entries
            .iter()
            .filter_map(|entry| {
                let (base, count) = entry.split_at_checked(BASE)?;
                let count = u32::from_be_bytes([0, *count.first()?, *count.get(1)?, *count.get(2)?]);
                Some((entry.as_slice(), base.try_into().ok()?, count))
            })
            .collect();
        let reads: Vec<Step<'_>> = parsed
            .iter()
            .map(|(_, base, count)| {
                Step::Plain(self.records_of(partition, base, &(0..*count).collect::<Vec<_>>()))
            })
            .collect();
        let answers = self.reads.run(&reads, REPLY).await?;
        let mut steps = Vec::new();
        for ((entry, base, _), answer) in parsed.iter().zip(answers) {
            let mut call = self.call(partition);
            call.key(self.keys.event(partition, base));
            match read_records(answer?)? {
                Some((_, records)) if records.iter().flatten().any(|record| is_kept(record, cutoff)) => {
                    continue;
                }
                Some((meta, records)) => {
                    let (bucket, field) = self.keys.public_id(&meta.tenant, &meta.id);
                    call.key(self.keys.tenant_log(&meta.tenant));
                    call.key(bucket);
                    call.key(self.keys.newest(&meta.tenant));
                    for record in records {
                        let log = record.map_or_else(
                            || self.keys.events(partition),
                            |record| self.keys.connection_log(partition, record.connection),
                        );
                        call.key(log);
                    }
                    call.value(*entry).value(field).number(cutoff.millis()).value(meta.kind);
                }
                None => {
                    // Nothing is left of it but its entry.
                    call.key(self.keys.events(partition));
                    call.key(self.keys.event(partition, base));
                    call.key(self.keys.event(partition, base));
                    call.value(*entry).value("").number(cutoff.millis()).value("");
                }
            }
            steps.push(Step::Script(&self.scripts.remove, call));
        }
        let mut removed = 0;
        for answer in self.link.run(&steps, REPLY).await? {
            if let Ok(jobs) = usize::try_from(codec::number(&answer?)?) {
                removed += jobs + 1;
            }
        }
        Ok(removed)
    }

    /// Counts of what is there; see [`Store::stats`](crate::store::Store::stats).
    pub(super) async fn stats(&self) -> Result<Stats, StoreError> {
        let groups = (0..self.keys.partitions())
            .map(|partition| vec![Step::Script(&self.scripts.stats, self.call(partition))])
            .collect();
        let mut stats = Stats::default();
        let mut spans = Vec::new();
        for (partition, answer) in (0..self.keys.partitions()).zip(self.link.run_groups(groups, REPLY).await)
        {
            let answer = codec::list(answer?.pop().unwrap_or(Ok(Value::Nil))?)?;
            let [open, leased, ready, waiting, full, paused, oldest] = answer.as_slice() else {
                return Err(strange("counts"));
            };
            stats.open += codec::count(open)?;
            stats.leased += codec::count(leased)?;
            let lanes = LaneCounts {
                ready: stats.lanes.ready + codec::count(ready)?,
                waiting: stats.lanes.waiting + codec::count(waiting)?,
                full: stats.lanes.full + codec::count(full)?,
                paused: stats.lanes.paused + codec::count(paused)?,
            };
            stats.lanes = lanes;
            let span = codec::number(oldest)?;
            if span >= 0 {
                spans.push((span, partition));
            }
        }
        let first = spans.iter().map(|(span, _)| *span).min();
        for (span, partition) in spans.into_iter().filter(|(span, _)| Some(*span) == first) {
            let oldest = self.oldest(partition, Timestamp::from_millis(span * AGE)).await?;
            stats.oldest = Some(stats.oldest.map_or(oldest, |other| other.min(oldest)));
        }
        Ok(stats)
    }

    /// When the oldest open job of a partition was made, which was not before `span`.
    async fn oldest(&self, partition: Partition, span: Timestamp) -> Result<Timestamp, StoreError> {
        let lower = [b"[".as_slice(), &time_bytes(span)].concat();
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(self.keys.events(partition)).arg(lower).arg("+").arg("LIMIT").arg(0).arg(LOOKED_AT);
        for entry in codec::list(self.reads.plain(range, REPLY).await?)? {
            let entry = codec::bytes(entry)?.unwrap_or_default();
            let Some((base, count)) = entry.split_first_chunk::<BASE>() else { continue };
            let count = count.iter().fold(0, |count, byte| count << 8 | u32::from(*byte));
            let get = self.records_of(partition, base, &(0..count).collect::<Vec<_>>());
            let Some((meta, records)) = read_records(self.reads.plain(get, REPLY).await?)? else { continue };
            if records.iter().flatten().any(|record| record.state.is_open()) {
                return Ok(meta.created);
            }
        }
        Ok(span)
    }
}

fn is_kept(record: &JobRecord, cutoff: Timestamp) -> bool {
    record.state.is_open() || record.finished.is_some_and(|finished| finished >= cutoff)
}

fn read_found(answer: Value) -> Result<Found, StoreError> {
    let mut parts = codec::list(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let closing = match codec::bytes(next())? {
        Some(bytes) if !bytes.is_empty() => Some(connection_of(Value::BulkString(bytes))?),
        _ => None,
    };
    let bytes_of = |value: Value| {
        codec::list(value)?
            .into_iter()
            .map(|item| Ok(codec::bytes(item)?.unwrap_or_default()))
            .collect::<Result<Vec<_>, StoreError>>()
    };
    let (members, old) = (bytes_of(next())?, bytes_of(next())?);
    let mut pending = Vec::new();
    let mut noted = codec::list(next())?.into_iter();
    let all_closing = codec::count(&next())?;
    while let (Some(connection), Some(effect)) = (noted.next(), noted.next()) {
        pending.push((connection_of(connection)?, codec::text(effect)?));
    }
    Ok(Found { closing, members, old, pending, all_closing })
}
