//! Upkeep in bounded steps, safe to run in any number of processes at once: cancels what can never be sent, removes what is
//! past its retention, finishes what a crash left half done. And the counts of what there is.

use std::time::Duration;

use redis::Value;

use super::cadence::UNFINISHED;
use super::codec::{self, strange, time_bytes, time_of};
use super::keys::{BASE, Base, Partition, place_of};
use super::link::Step;
use super::read::read_records;
use super::settle::connection_of;
use super::{Core, REPLY};
use crate::domain::connection::unwanted;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{LaneCounts, Stats, Sweep};

/// Jobs or events that one step touches in each partition.
pub(super) const STEP: usize = 200;
/// Lanes left behind that one step tells of their records, about.
const LEFT_BEHIND: usize = 100;
/// How often events past their retention are looked at again that were kept.
const WALK_AGAIN: Duration = Duration::from_mins(10);
/// How long a lane is kept after its connection was deleted, for processes that have yet to hear of it.
const GONE: Duration = Duration::from_hours(24);
/// Where a partition's counters count open jobs: `S_OPEN` in `partition.lua`, from 0.
const OPEN: usize = 3;
/// Large requests that one look shows of those staged and of those accepted; `peek.lua` has the same.
const STAGED: usize = 4;
/// Milliseconds in one of the spans that open jobs are counted by.
const AGE: i64 = 10_000;
/// Events looked at to find the oldest open job.
const LOOKED_AT: usize = 100;

/// The last entry that a walk over a partition looked at, and when the walk began.
pub(super) type Walked = (Vec<u8>, Timestamp);

/// Jobs of a lane that is closed or has some that nobody wants, by their members of the queue.
#[derive(Debug)]
struct Closing {
    connection: ConnectionId,
    members: Vec<Vec<u8>>,
    is_all: bool,
    /// Those made before are to go; `None` for all of a closed lane.
    before: Option<Timestamp>,
}

/// What there is to do in a partition.
#[derive(Debug, Default)]
struct Found {
    closing: Vec<Closing>,
    /// Whether more lanes are to be cancelled.
    more_closing: bool,
    old: Vec<Vec<u8>>,
    pending: Vec<(ConnectionId, String)>,
    /// The first event that is not past its retention.
    young: Option<Timestamp>,
    /// Large requests on their way in, and since when.
    staged: Vec<(Base, Timestamp)>,
}

impl Core {
    /// One step; see [`Store::sweep`](crate::store::Store::sweep).
    pub(super) async fn sweep(&self) -> Result<Sweep, StoreError> {
        self.cadence.begin();
        let now = self.clock.now();
        let mut sweep = Sweep { more: self.mirror_left_behind().await? >= LEFT_BEHIND, ..Sweep::default() };
        let all = self.retention.all();
        let cutoff = now.minus(all);
        let forget = now.minus(GONE);
        let mut due: Option<Timestamp> = None;
        let groups = (0..self.keys.partitions())
            .map(|partition| {
                let mut walk = self.walk.lock();
                // What was kept because it had not ended, or not long ago, is looked at again now and then.
                let (after, _) = walk
                    .entry((partition, all))
                    .and_modify(|(after, began)| {
                        if began.plus(WALK_AGAIN) <= now {
                            (*after, *began) = (Vec::new(), now);
                        }
                    })
                    .or_insert((Vec::new(), now));
                let mut call = self.call(partition);
                call.value(after.clone()).value(time_bytes(cutoff)).number(STEP).number(forget.millis());
                vec![Step::Script(&self.scripts.peek, call)]
            })
            .collect();
        let answers = self.link.run_groups(groups, REPLY).await;
        for (partition, answer) in (0..self.keys.partitions()).zip(answers) {
            let found = read_found(answer?.pop().unwrap_or(Ok(Value::Nil))?)?;
            for (connection, effect) in &found.pending {
                self.apply_effect(partition, *connection, effect).await?;
            }
            sweep.cancelled += self.cancel(partition, &found.closing).await?;
            sweep.more |= found.more_closing || found.closing.iter().any(|lane| !lane.is_all);
            for (name, since) in &found.staged {
                if since.plus(UNFINISHED) <= now {
                    self.end_staged(partition, name).await?;
                    sweep.more |= found.staged.len() >= STAGED;
                } else {
                    self.cadence.ask(UNFINISHED);
                }
            }
            sweep.removed +=
                self.remove(partition, &found.old, &|kind| self.retention.cutoff(kind, now)).await?;
            sweep.more |= found.old.len() == STEP;
            due = due.into_iter().chain(found.young.map(|young| young.plus(all))).min();
            if let Some(last) = found.old.into_iter().next_back()
                && let Some((after, _)) = self.walk.lock().get_mut(&(partition, all))
            {
                *after = last;
            }
        }
        let sooner = self.remove_shorter(now, &mut sweep).await?;
        self.cadence.end(due.into_iter().chain(sooner).min());
        Ok(sweep)
    }

    /// Cancels jobs of closed lanes, and those of others that nobody wants.
    async fn cancel(&self, partition: Partition, lanes: &[Closing]) -> Result<usize, StoreError> {
        let mut steps = Vec::new();
        for lane in lanes {
            let reason =
                lane.before.map_or_else(|| "its connection was closed or deleted".to_owned(), unwanted);
            let mut call = self.call(partition);
            call.value(lane.connection.bits().to_be_bytes())
                .value(reason)
                .number(u8::from(lane.is_all))
                .number(lane.before.map_or(0, Timestamp::millis))
                .value(lane.members.last().cloned().unwrap_or_default());
            for member in &lane.members {
                let id = member.last_chunk().ok_or_else(|| strange("a short member of the queue"))?;
                let id = JobId::from_bits(u128::from_be_bytes(*id));
                let (base, _) = place_of(id);
                if lane.before.is_some_and(|before| time_of(&base) >= before) {
                    continue;
                }
                call.key(self.keys.event(partition, &base));
                call.value(&member[..]);
            }
            steps.push(Step::Script(&self.scripts.cancel, call));
        }
        let mut cancelled = 0;
        for (lane, answer) in lanes.iter().zip(self.link.run(&steps, REPLY).await?) {
            let answer = codec::list(answer?)?;
            let [count, told] = answer.as_slice() else { return Err(strange("a count of cancelled jobs")) };
            let count = usize::try_from(codec::count(count)?);
            cancelled += count.map_err(|_| strange("a count of cancelled jobs"))?;
            if let Some(before) = lane.before.filter(|_| codec::count(told).is_ok_and(|told| told == 1)) {
                self.end_clearing(lane.connection, before).await?;
            }
        }
        Ok(cancelled)
    }

    /// Counts of what is there; see [`Store::stats`](crate::store::Store::stats).
    pub(super) async fn stats(&self) -> Result<Stats, StoreError> {
        let partitions = self.busy_partitions().await?;
        let groups = partitions
            .iter()
            .map(|partition| vec![Step::Script(&self.scripts.stats, self.call(*partition))])
            .collect();
        let mut stats = Stats::default();
        let mut spans = Vec::new();
        for (partition, answer) in partitions.into_iter().zip(self.link.run_groups(groups, REPLY).await) {
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

    /// Partitions that hold open jobs.
    async fn busy_partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let all = 0..self.keys.partitions();
        let states: Vec<Value> = if self.link.is_cluster() {
            let get = |partition| vec![Step::Plain(get_all([self.keys.state(partition)]))];
            let mut states = Vec::new();
            for answer in self.link.run_groups(all.clone().map(get).collect(), REPLY).await {
                states.extend(codec::list(answer?.pop().unwrap_or(Ok(Value::Nil))?)?);
            }
            states
        } else {
            let get = get_all(all.clone().map(|partition| self.keys.state(partition)));
            codec::list(self.link.plain(get, REPLY).await?)?
        };
        let mut busy = Vec::new();
        for (partition, state) in all.zip(states) {
            let Some(state) = codec::bytes(state)? else { continue };
            let counters = codec::read_counters(&state).ok_or_else(|| strange("a partition's counters"))?;
            if counters.get(OPEN).is_none_or(|open| *open != 0) {
                busy.push(partition);
            }
        }
        Ok(busy)
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

fn get_all(keys: impl IntoIterator<Item = Vec<u8>>) -> redis::Cmd {
    let mut get = redis::cmd("MGET");
    keys.into_iter().for_each(|key| {
        get.arg(key);
    });
    get
}

fn read_found(answer: Value) -> Result<Found, StoreError> {
    let mut parts = codec::list(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let bytes_of = |value: Value| {
        codec::list(value)?
            .into_iter()
            .map(|item| Ok(codec::bytes(item)?.unwrap_or_default()))
            .collect::<Result<Vec<_>, StoreError>>()
    };
    let mut closing = Vec::new();
    for lane in codec::list(next())? {
        let mut lane = codec::list(lane)?.into_iter();
        let mut part = || lane.next().unwrap_or(Value::Nil);
        closing.push(Closing {
            connection: connection_of(part())?,
            members: bytes_of(part())?,
            is_all: codec::count(&part())? == 1,
            before: Some(codec::number(&part())?).filter(|before| *before > 0).map(Timestamp::from_millis),
        });
    }
    let more_closing = codec::count(&next())? > 0;
    let old = bytes_of(next())?;
    let mut pending = Vec::new();
    let mut noted = codec::list(next())?.into_iter();
    let young = codec::bytes(next())?.and_then(|entry| entry.first_chunk().map(time_of));
    while let (Some(connection), Some(effect)) = (noted.next(), noted.next()) {
        pending.push((connection_of(connection)?, codec::text(effect)?));
    }
    let mut staged = Vec::new();
    let mut entries = codec::list(next())?.into_iter();
    while let (Some(name), Some(since)) = (entries.next(), entries.next()) {
        let name = codec::bytes(name)?.and_then(|name| name.try_into().ok());
        let since = match since {
            Value::Double(since) => format!("{since:.0}").parse().unwrap_or(0),
            since => codec::number(&since)?,
        };
        staged.push((name.ok_or_else(|| strange("a staged request"))?, Timestamp::from_millis(since)));
    }
    Ok(Found { closing, more_closing, old, pending, young, staged })
}
