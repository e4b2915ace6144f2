//! Removes what is past its retention.
//!
//! An event goes in one script call with all that belongs to it, which looks once more whether all of its jobs ended long
//! ago. One with more jobs than a call should carry is first marked, so that none of its jobs is retried any more; then its
//! jobs are taken out of the logs in steps; then it goes as one without jobs. What a crash leaves marked the next walk ends.

use std::time::Duration;

use redis::Value;

use super::codec::{self, JobRecord, time_bytes, time_of};
use super::keys::{BASE, Base, Keys, Partition};
use super::link::Step;
use super::read::read_records;
use super::upkeep::STEP;
use super::{Core, REPLY};
use crate::domain::time::Timestamp;
use crate::store::{StoreError, Sweep};

/// Jobs of an event that one script call removes, and that one step looks at.
const JOBS: u32 = 200;

/// How often what is kept shorter than the rest is looked at again that had not ended when its time came.
const AGAIN: Duration = Duration::from_hours(1);

/// What of a type that ended before it is removed.
pub(super) type Cutoff<'a> = &'a (dyn Fn(&str) -> Timestamp + Sync);

/// An event in the log of a partition.
struct Entry<'a> {
    bytes: &'a [u8],
    base: Base,
    jobs: u32,
}

impl<'a> Entry<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (base, count) = bytes.split_first_chunk::<BASE>()?;
        let jobs = u32::from_be_bytes([0, *count.first()?, *count.get(1)?, *count.get(2)?]);
        Some(Self { bytes, base: *base, jobs })
    }
}

impl Core {
    /// One step of removing events whose types are kept shorter than the rest; answers when the next one passes its
    /// retention. Each event is looked at once when it is so old, and again now and then.
    pub(super) async fn remove_shorter(
        &self,
        now: Timestamp,
        sweep: &mut Sweep,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut due: Option<Timestamp> = None;
        for span in self.retention.shorter() {
            let until = time_bytes(now.minus(span));
            let partitions = 0..self.keys.partitions();
            let groups = partitions.clone().map(|partition| {
                let mut walk = self.walk.lock();
                let (after, began) = walk.entry((partition, span)).or_insert((Vec::new(), now));
                if began.plus(AGAIN) <= now {
                    (*after, *began) = (Vec::new(), now);
                }
                let first = if after.is_empty() { b"-".to_vec() } else { [b"(", after.as_slice()].concat() };
                let range = |from: Vec<u8>, to: Vec<u8>, limit: usize| {
                    let mut range = redis::cmd("ZRANGEBYLEX");
                    range.arg(self.keys.events(partition)).arg(from).arg(to).arg("LIMIT").arg(0).arg(limit);
                    Step::Plain(range)
                };
                let old = range(first, [b"(".as_slice(), &until].concat(), STEP);
                let young = range([b"[".as_slice(), &until].concat(), b"+".to_vec(), 1);
                vec![old, young]
            });
            let answers = self.reads.run_groups(groups.collect(), REPLY).await;
            for (partition, answer) in partitions.zip(answers) {
                let mut lists = answer?.into_iter();
                let mut next = || {
                    codec::list(lists.next().unwrap_or(Ok(Value::Nil))?)?
                        .into_iter()
                        .map(|entry| Ok(codec::bytes(entry)?.unwrap_or_default()))
                        .collect::<Result<Vec<_>, StoreError>>()
                };
                let (old, young) = (next()?, next()?);
                sweep.removed +=
                    self.remove(partition, &old, &|kind| self.retention.cutoff(kind, now)).await?;
                sweep.more |= old.len() == STEP;
                let young = young.first().and_then(|entry| entry.first_chunk()).map(time_of);
                due = due.into_iter().chain(young.map(|young| young.plus(span))).min();
                if let Some(last) = old.into_iter().next_back()
                    && let Some((after, _)) = self.walk.lock().get_mut(&(partition, span))
                {
                    *after = last;
                }
            }
        }
        Ok(due)
    }

    /// Removes events whose jobs all ended before their type's cutoff; answers how many rows went.
    pub(super) async fn remove(
        &self,
        partition: Partition,
        entries: &[Vec<u8>],
        cutoff: Cutoff<'_>,
    ) -> Result<usize, StoreError> {
        let (small, large): (Vec<Entry<'_>>, Vec<Entry<'_>>) =
            entries.iter().filter_map(|entry| Entry::of(entry)).partition(|entry| entry.jobs <= JOBS);
        let mut removed = self.remove_small(partition, &small, cutoff).await?;
        for entry in large {
            removed += self.remove_large(partition, &entry, cutoff).await?;
        }
        Ok(removed)
    }

    async fn remove_small(
        &self,
        partition: Partition,
        entries: &[Entry<'_>],
        cutoff: Cutoff<'_>,
    ) -> Result<usize, StoreError> {
        let reads: Vec<Step<'_>> = entries
            .iter()
            .map(|entry| {
                let all: Vec<u32> = (0..entry.jobs).collect();
                Step::Plain(self.records_of(partition, &entry.base, &all))
            })
            .collect();
        let answers = self.reads.run(&reads, REPLY).await?;
        let mut steps = Vec::new();
        for (entry, answer) in entries.iter().zip(answers) {
            let mut call = self.call(partition);
            call.key(self.keys.event(partition, &entry.base));
            match read_records(answer?)? {
                Some((meta, records))
                    if time_of(&entry.base) >= cutoff(&meta.kind)
                        || records.iter().flatten().any(|record| is_kept(record, cutoff(&meta.kind))) =>
                {
                    continue;
                }
                Some((meta, records)) => {
                    let field = Keys::public_id(&meta.tenant, &meta.id);
                    call.key(self.keys.tenant_log(&meta.tenant));
                    call.key(self.keys.newest(&meta.tenant));
                    for record in records {
                        let log = record.map_or_else(
                            || self.keys.events(partition),
                            |record| self.keys.connection_log(partition, record.connection),
                        );
                        call.key(log);
                    }
                    let cutoff = cutoff(&meta.kind).millis();
                    call.value(entry.bytes).value(field).number(cutoff).value(meta.kind);
                }
                None => {
                    // Nothing is left of it but its entry.
                    call.key(self.keys.events(partition));
                    call.key(self.keys.event(partition, &entry.base));
                    call.value(entry.bytes).value("").number(0).value("");
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

    /// Removes an event of many jobs; a step of it never carries more than [`JOBS`].
    async fn remove_large(
        &self,
        partition: Partition,
        entry: &Entry<'_>,
        cutoff: Cutoff<'_>,
    ) -> Result<usize, StoreError> {
        if self.is_kept(partition, entry, cutoff).await? {
            return Ok(0);
        }
        let event = self.keys.event(partition, &entry.base);
        let mut mark = redis::cmd("HSET");
        mark.arg(&event).arg("x").arg(1);
        self.link.plain(mark, REPLY).await?;
        if self.is_kept(partition, entry, cutoff).await? {
            // A job was retried before the mark was there.
            let mut unmark = redis::cmd("HDEL");
            unmark.arg(&event).arg("x");
            self.link.plain(unmark, REPLY).await?;
            return Ok(0);
        }
        let mut removed = 0;
        for indexes in in_steps(entry.jobs) {
            let answer = self.reads.plain(self.records_of(partition, &entry.base, &indexes), REPLY).await?;
            let Some((_, records)) = read_records(answer)? else { break };
            let mut steps = Vec::new();
            let mut forget = redis::cmd("HDEL");
            forget.arg(&event);
            for (index, record) in indexes.iter().zip(&records) {
                let Some(record) = record else { continue };
                let mut out = redis::cmd("ZREM");
                let place = [entry.base.as_slice(), &index.to_be_bytes()[1..]].concat();
                out.arg(self.keys.connection_log(partition, record.connection)).arg(place);
                steps.push(Step::Plain(out));
                forget.arg(*index);
                removed += 1;
            }
            if steps.is_empty() {
                continue;
            }
            // The records go last: they say in which logs the jobs are.
            steps.push(Step::Plain(forget));
            for answer in self.link.run(&steps, REPLY).await? {
                answer?;
            }
        }
        let bare = Entry { bytes: entry.bytes, base: entry.base, jobs: 0 };
        Ok(removed + self.remove_small(partition, &[bare], cutoff).await?)
    }

    async fn is_kept(
        &self,
        partition: Partition,
        entry: &Entry<'_>,
        cutoff: Cutoff<'_>,
    ) -> Result<bool, StoreError> {
        let mut stands = redis::cmd("ZSCORE");
        stands.arg(self.keys.events(partition)).arg(entry.bytes);
        if self.reads.plain(stands, REPLY).await? == Value::Nil {
            // It got another job since its entry was read.
            return Ok(true);
        }
        for indexes in in_steps(entry.jobs) {
            let answer = self.reads.plain(self.records_of(partition, &entry.base, &indexes), REPLY).await?;
            let Some((meta, records)) = read_records(answer)? else { return Ok(false) };
            let cutoff = cutoff(&meta.kind);
            if time_of(&entry.base) >= cutoff
                || records.iter().flatten().any(|record| is_kept(record, cutoff))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The indexes of so many jobs, a step's worth at a time.
fn in_steps(jobs: u32) -> impl Iterator<Item = Vec<u32>> {
    (0..jobs).step_by(JOBS as usize).map(move |first| (first..jobs.min(first + JOBS)).collect())
}

fn is_kept(record: &JobRecord, cutoff: Timestamp) -> bool {
    record.state.is_open() || record.finished.is_some_and(|finished| finished >= cutoff)
}
