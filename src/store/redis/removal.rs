//! Removes what is past its retention.
//!
//! An event goes in one script call with all that belongs to it, which looks once more whether all of its jobs ended long
//! ago. One with more jobs than a call should carry is first marked, so that none of its jobs is retried any more; then its
//! jobs are taken out of the logs in steps; then it goes as one without jobs. What a crash leaves marked the next walk ends.

use super::codec::{self, JobRecord};
use super::keys::{BASE, Base, Partition};
use super::link::Step;
use super::read::read_records;
use super::{Core, REPLY};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Jobs of an event that one script call removes, and that one step looks at.
const JOBS: u32 = 200;

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
    /// Removes events whose jobs all ended before `cutoff`; answers how many rows went.
    pub(super) async fn remove(
        &self,
        partition: Partition,
        entries: &[Vec<u8>],
        cutoff: Timestamp,
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
        cutoff: Timestamp,
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
                    call.value(entry.bytes).value(field).number(cutoff.millis()).value(meta.kind);
                }
                None => {
                    // Nothing is left of it but its entry.
                    call.key(self.keys.events(partition));
                    call.key(self.keys.event(partition, &entry.base));
                    call.key(self.keys.event(partition, &entry.base));
                    call.value(entry.bytes).value("").number(cutoff.millis()).value("");
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
        cutoff: Timestamp,
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
        cutoff: Timestamp,
    ) -> Result<bool, StoreError> {
        for indexes in in_steps(entry.jobs) {
            let answer = self.reads.plain(self.records_of(partition, &entry.base, &indexes), REPLY).await?;
            let Some((_, records)) = read_records(answer)? else { return Ok(false) };
            if records.iter().flatten().any(|record| is_kept(record, cutoff)) {
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
