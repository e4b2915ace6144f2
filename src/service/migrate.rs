//! Moves everything from one store to another: records, mappings, events, and jobs wherever they stand.
//!
//! Nobody may write to either store meanwhile. Each step may be repeated, so a move that broke off is begun again and goes
//! on where it was; and in the end both stores are walked and what they hold is compared.
//!
//! Not moved: `Idempotency-Key`s of whole requests (those of single events are made anew), and how long a lane still had
//! to wait by a `Retry-After`.

use std::collections::{BTreeMap, HashSet};

use crate::domain::connection::MappingChoice;
use crate::domain::id::MappingVersion;
use crate::domain::job::JobState;
use crate::mapping::Mapping;
use crate::service::ingest::dedupe_of;
use crate::service::live::UNPINNED;
use crate::spec::mapping_version;
use crate::store::{Expected, Exported, Record, Store, StoreError};

/// Events moved in one step.
const STEP: usize = 100;
/// Records read in one step.
const RECORDS: usize = 500;

/// Why a move did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// Jobs of the source are under way.
    #[error("{0} jobs of the source are under way: a gateway runs on it")]
    Busy(u64),
    /// The target holds something, and nothing was said of going on.
    #[error("the target is not empty")]
    NotEmpty,
    /// A record of the target stands in the way.
    #[error("the target has another {0} already")]
    Taken(String),
    /// The source failed.
    #[error("the source: {0}")]
    Source(StoreError),
    /// The target failed.
    #[error("the target: {0}")]
    Target(StoreError),
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// How many of each, by a name for people.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Census {
    fn add(&mut self, name: &'static str, count: usize) {
        *self.counts.entry(name).or_default() += count as u64;
    }

    fn add_record(&mut self, record: &Record) {
        self.add(
            match record {
                Record::Tenant(_) => "tenants",
                Record::Key(_) => "keys",
                Record::Connection(_) => "connections",
                Record::Source(_) => "sources",
                Record::Chore(_) => "replays and erasures",
            },
            1,
        );
    }

    fn add_page(&mut self, page: &Exported) {
        self.add("events", page.events.len());
        for job in page.events.iter().flat_map(|event| &event.jobs) {
            self.add("jobs", 1);
            self.add(state_name(job.delivery.state), 1);
            self.add("attempts", job.delivery.attempts.len());
        }
    }

    /// Names whose counts differ, with both counts: this one's first.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, u64, u64)> {
        let names: std::collections::BTreeSet<_> = self.counts.keys().chain(other.counts.keys()).collect();
        let count = |census: &Self, name| census.counts.get(name).copied().unwrap_or_default();
        names
            .into_iter()
            .map(|name| (*name, count(self, name), count(other, name)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .collect()
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "jobs queued",
        JobState::Waiting => "jobs waiting",
        JobState::MappingFailed => "jobs mapping_failed",
        JobState::Delivered => "jobs delivered",
        JobState::Dead => "jobs dead",
        JobState::Rejected => "jobs rejected",
        JobState::Gone => "jobs gone",
        JobState::Cancelled => "jobs cancelled",
    }
}

/// What both stores hold after a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The store that was read.
    pub source: Census,
    /// The store that was written.
    pub target: Census,
}

/// Copies everything of `source` into `target`, which must be empty unless `resume`. `progress` is told how many events are
/// through.
pub async fn migrate(
    source: &dyn Store,
    target: &dyn Store,
    resume: bool,
    mut progress: impl FnMut(u64),
) -> Result<Migrated, MigrateError> {
    let leased = source.stats().await.map_err(MigrateError::Source)?.leased;
    if leased > 0 {
        return Err(MigrateError::Busy(leased));
    }
    if !resume && !is_empty(target).await.map_err(MigrateError::Target)? {
        return Err(MigrateError::NotEmpty);
    }
    let mut mappings = Mappings { source, target, moved: HashSet::from([UNPINNED]) };
    move_records(&mut mappings).await?;
    let (mut after, mut through) = (None, 0);
    loop {
        let page = source.export(after, STEP).await.map_err(MigrateError::Source)?;
        for job in page.events.iter().flat_map(|event| &event.jobs) {
            mappings.carry(job.delivery.job.mapping).await?;
        }
        through += page.events.len() as u64;
        let mut events = page.events;
        for kept in &mut events {
            kept.dedupe = dedupe_of(&kept.event);
        }
        target.import(events).await.map_err(MigrateError::Target)?;
        progress(through);
        if page.next.is_none() {
            break;
        }
        after = page.next;
    }
    Ok(Migrated {
        source: census(source).await.map_err(MigrateError::Source)?,
        target: census(target).await.map_err(MigrateError::Target)?,
    })
}

async fn is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(records(store).await?.is_empty() && store.export(None, 1).await?.events.is_empty())
}

/// Every record there is, in the order of their last changes.
async fn records(store: &dyn Store) -> Result<Vec<Record>, StoreError> {
    let mut found = Vec::new();
    let mut since = 0;
    loop {
        let changes = store.changes(since, RECORDS).await?;
        let Some(last) = changes.last() else { return Ok(found) };
        since = last.revision;
        found.extend(changes.into_iter().filter_map(|change| change.record));
    }
}

/// Counts what a store holds, by walking it.
async fn census(store: &dyn Store) -> Result<Census, StoreError> {
    let mut census = Census::default();
    records(store).await?.iter().for_each(|record| census.add_record(record));
    let mut after = None;
    loop {
        let page = store.export(after, STEP).await?;
        census.add_page(&page);
        if page.next.is_none() {
            return Ok(census);
        }
        after = page.next;
    }
}

async fn move_records(mappings: &mut Mappings<'_>) -> Result<(), MigrateError> {
    let there = records(mappings.target).await.map_err(MigrateError::Target)?;
    for record in records(mappings.source).await.map_err(MigrateError::Source)? {
        if let Record::Connection(connection) = &record
            && let MappingChoice::Inline(source) = &connection.mapping
            && let Ok(mapping) = Mapping::from_json(source)
        {
            let version = mapping_version(&mapping);
            mappings.target.put_mapping(version, source).await.map_err(MigrateError::Target)?;
        }
        match there.iter().find(|other| other.id() == record.id()) {
            Some(same) if *same == record => {}
            Some(_) => return Err(MigrateError::Taken(format!("{:?}", record.id()))),
            None => {
                let put = mappings.target.put(record, Expected::Absent).await;
                put.map_err(MigrateError::Target)?;
            }
        }
    }
    Ok(())
}

/// Mappings that jobs are pinned to, each moved once.
struct Mappings<'a> {
    source: &'a dyn Store,
    target: &'a dyn Store,
    moved: HashSet<MappingVersion>,
}

impl Mappings<'_> {
    async fn carry(&mut self, version: MappingVersion) -> Result<(), MigrateError> {
        if !self.moved.insert(version) {
            return Ok(());
        }
        // A source that has lost one can't give it; its jobs say so when they are tried.
        if let Some(source) = self.source.mapping(version).await.map_err(MigrateError::Source)? {
            self.target.put_mapping(version, &source).await.map_err(MigrateError::Target)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_both_counts() {
        let census = |counts: &[(&'static str, u64)]| Census { counts: counts.iter().copied().collect() };
        let (ours, theirs) = (census(&[("events", 3), ("keys", 1)]), census(&[("events", 2), ("keys", 1)]));
        assert_eq!(ours.differences(&theirs), [("events", 3, 2)]);
        assert_eq!(ours.differences(&ours), []);
        assert_eq!(ours.differences(&Census::default()).len(), 2);
    }
}
