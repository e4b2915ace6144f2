//! Writes outcomes back, and what they change of a connection's record.

use std::collections::{BTreeMap, HashMap};

use redis::Value;
use serde::{Deserialize, Serialize};

use super::codec::{self, state_code, strange, time_bytes};
use super::keys::{Partition, place_of};
use super::link::Step;
use super::{Core, REPLY};
use crate::domain::connection::ConnectionState;
use crate::domain::id::{ChoreId, ConnectionId, JobId, MappingVersion};
use crate::domain::settle::{LaneEffect, Next};
use crate::domain::time::Timestamp;
use crate::store::types::{Recorded, Retried, Settlement, UNANSWERED};
use crate::store::{ERASED, StoreError, log};

/// Outcomes in one script call.
const STEP: usize = 64;
/// In place of a slot where there was no attempt.
const NO_SLOT: u8 = 255;

/// What an outcome does to a connection's record, noted in its partition until the record says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Effect {
    pub state: ConnectionState,
}

impl Effect {
    fn of(effect: &LaneEffect, now: Timestamp) -> Option<Self> {
        let state = if let Some(reason) = &effect.close {
            ConnectionState::Closed { reason: reason.clone(), at: now }
        } else {
            let (by, reason) = effect.pause.as_ref()?;
            ConnectionState::Paused { reason: reason.clone(), by: (*by).to_owned(), at: now }
        };
        Some(Self { state })
    }
}

impl Core {
    /// Writes outcomes; see [`Store::settle`](crate::store::Store::settle).
    pub(super) async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, StoreError> {
        let mut by_partition: BTreeMap<Partition, Vec<&Settlement>> = BTreeMap::new();
        for settlement in &settlements {
            if let Some(partition) = self.keys.partition_of(settlement.lease.job) {
                by_partition.entry(partition).or_default().push(settlement);
            }
        }
        let mut groups = Vec::new();
        let mut partitions = Vec::new();
        for (partition, settlements) in by_partition {
            for some in settlements.chunks(STEP) {
                groups.push(vec![self.settle_step(partition, some)?]);
                partitions.push(partition);
            }
        }
        let mut taken = 0;
        let mut result = Ok(());
        let mut effects = Vec::new();
        for (partition, answer) in partitions.into_iter().zip(self.link.run_groups(groups, REPLY).await) {
            let answer = answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(Value::Nil)));
            match answer.and_then(|answer| self.settled(partition, answer, &mut effects)) {
                Ok(count) => taken += count,
                Err(error) => result = Err(error),
            }
        }
        for (partition, connection, effect) in effects {
            self.apply_effect(partition, connection, &effect).await?;
        }
        result?;
        let mut held = self.held.lock();
        for settlement in &settlements {
            held.remove(&settlement.lease.job);
        }
        Ok(taken)
    }

    /// The call that writes outcomes; `settle.lua` says what it is given.
    fn settle_step(&self, partition: Partition, settlements: &[&Settlement]) -> Result<Step<'_>, StoreError> {
        let now = self.clock.now();
        let mut call = self.call(partition);
        for settlement in settlements {
            call.key(self.keys.event(partition, &place_of(settlement.lease.job).0));
        }
        let mut totals: HashMap<ConnectionId, usize> = HashMap::new();
        for settlement in settlements {
            let connection = settlement.lease.connection;
            let totals = *totals
                .entry(connection)
                .or_insert_with(|| call.key(self.keys.tally(partition, connection, log::day_of(now))));
            call.value(head_of(settlement, totals));
            let attempt = settlement.attempt.as_ref().map(serde_json::to_vec).transpose();
            call.value(attempt.map_err(|error| unwritable(&error))?.unwrap_or_default());
            call.value(&settlement.reason).value(effect_of(&settlement.effect, now)?);
            match &settlement.next {
                Next::Done(_) => call.value(if settlement.forget { "1" } else { "" }),
                Next::Due(_) | Next::Requeue => {
                    call.value(settlement.rendered.as_deref().unwrap_or_default())
                }
            };
        }
        Ok(Step::Script(&self.scripts.settle, call))
    }

    /// Writes what came of a triggered job; see [`Store::record`](crate::store::Store::record).
    pub(super) async fn record(&self, recorded: Recorded) -> Result<bool, StoreError> {
        let Some(partition) = self.keys.partition_of(recorded.job) else { return Ok(false) };
        let Some(found) = self.delivery(recorded.job).await? else { return Ok(false) };
        let (base, _) = place_of(recorded.job);
        let mut call = self.call(partition);
        call.key(self.keys.event(partition, &base));
        call.key(self.keys.tally(partition, found.job.connection, log::day_of(self.clock.now())));
        call.value(recorded.job.bits().to_be_bytes())
            .value(UNANSWERED)
            .number(recorded.attempt.number)
            .value(serde_json::to_string(&recorded.attempt).map_err(|error| unwritable(&error))?)
            .number(state_code(recorded.state))
            .value(recorded.reason.as_str());
        let effect = &recorded.effect;
        let (latency, failed) = log::slots_of(&recorded.attempt);
        call.number(health_of(effect))
            .number(effect.wait_until.map_or(0, Timestamp::millis))
            .value(effect_of(effect, self.clock.now())?)
            .number(u8::from(effect.close.is_some()))
            .number(effect.opening.map_or(0, |opening| opening.after))
            .number(effect.opening.map_or(0, |opening| opening.probe_at.millis()))
            .number(latency)
            .number(u8::from(failed));
        let answer = self.link.script(&self.scripts.record, call, REPLY).await?;
        let mut effects = Vec::new();
        let taken = self.settled(partition, answer, &mut effects)?;
        for (partition, connection, effect) in effects {
            self.apply_effect(partition, connection, &effect).await?;
        }
        Ok(taken > 0)
    }

    fn settled(
        &self,
        partition: Partition,
        answer: Value,
        effects: &mut Vec<(Partition, ConnectionId, String)>,
    ) -> Result<usize, StoreError> {
        let mut answer = codec::list(answer)?.into_iter();
        let mut next = || answer.next().ok_or_else(|| strange("a short answer to outcomes"));
        let taken = codec::count(&next()?)?;
        self.look_ahead(partition, &[next()?, next()?])?;
        while let (Some(connection), Some(effect)) = (answer.next(), answer.next()) {
            effects.push((partition, connection_of(connection)?, codec::text(effect)?));
        }
        usize::try_from(taken).map_err(|_| strange("a count of outcomes"))
    }

    /// Writes into a connection's record what an outcome said of it.
    pub(super) async fn apply_effect(
        &self,
        partition: Partition,
        connection: ConnectionId,
        text: &str,
    ) -> Result<(), StoreError> {
        let effect: Effect = serde_json::from_str(text)
            .map_err(|error| StoreError::Corrupt(format!("an effect on {connection}: {error}")))?;
        self.set_state(connection, &effect.state).await?;
        self.mirror_resolved(partition, connection, text).await
    }

    /// Puts a job back; see [`Store::retry`](crate::store::Store::retry) and, for a replay,
    /// [`Kept::replay`](crate::store::Kept::replay).
    pub(super) async fn retry(
        &self,
        id: JobId,
        mapping: Option<MappingVersion>,
        replay: Option<(ChoreId, bool)>,
    ) -> Result<Retried, StoreError> {
        let Some(partition) = self.keys.partition_of(id) else { return Ok(Retried::Missing) };
        let (base, _) = place_of(id);
        let mut call = self.call(partition);
        call.key(self.keys.event(partition, &base));
        call.value(id.bits().to_be_bytes())
            .value(mapping.map(|version| version.bits().to_be_bytes().to_vec()).unwrap_or_default())
            .value(ERASED)
            .value(replay.map(|(replay, _)| replay.bits().to_be_bytes().to_vec()).unwrap_or_default())
            .number(u8::from(replay.is_some_and(|(_, again)| again)));
        let answer = codec::text(self.link.script(&self.scripts.retry, call, REPLY).await?)?;
        Ok(match answer.as_str() {
            "queued" => {
                self.wake.mark(partition);
                Retried::Queued
            }
            "open" => Retried::Open,
            "closed" => Retried::Closed,
            "erased" => Retried::Erased,
            "already" => Retried::Already,
            _ => Retried::Missing,
        })
    }
}

fn unwritable(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("an attempt cannot be written: {error}"))
}

/// What `HEAD` of `settle.lua` reads of a settlement; `totals` is the index of its connection's totals.
fn head_of(settlement: &Settlement, totals: usize) -> Vec<u8> {
    let Settlement { lease, attempt, effect, .. } = settlement;
    let (next, value) = match &settlement.next {
        Next::Done(state) => (0, [0, 0, 0, 0, 0, u8::try_from(state_code(*state)).unwrap_or(u8::MAX)]),
        Next::Due(due) => (1, time_bytes(*due)),
        Next::Requeue => (2, [0; 6]),
    };
    let (latency, failed) = attempt.as_ref().map_or((NO_SLOT, false), log::slots_of);
    let (opens_after, probe_at) =
        effect.opening.map_or((0, [0; 6]), |opening| (opening.after, time_bytes(opening.probe_at)));
    let number = attempt.as_ref().map_or(0, |attempt| attempt.number);
    let index = place_of(lease.job).1.to_string();
    let field = format!("a{index}.{number}");
    let mut head = Vec::with_capacity(64 + index.len() + field.len());
    head.extend_from_slice(&lease.job.bits().to_be_bytes());
    head.extend_from_slice(&lease.token.to_be_bytes()[2..]);
    head.extend_from_slice(&number.to_be_bytes());
    head.push(next);
    head.extend_from_slice(&value);
    head.push(health_of(effect));
    head.extend_from_slice(&effect.wait_until.map_or([0; 6], time_bytes));
    head.push(u8::from(effect.close.is_some()));
    head.extend_from_slice(&opens_after.to_be_bytes());
    head.extend_from_slice(&probe_at);
    head.extend_from_slice(&[latency, u8::from(failed)]);
    // A call has far fewer keys than two bytes count, and both names are short.
    head.extend_from_slice(&u16::try_from(totals).unwrap_or(u16::MAX).to_be_bytes());
    for name in [index, field] {
        head.push(u8::try_from(name.len()).unwrap_or(0));
        head.extend_from_slice(name.as_bytes());
    }
    head
}

/// Whether an outcome says that its endpoint works, as scripts read it: 0, 1, or 2 where it says neither.
fn health_of(effect: &LaneEffect) -> u8 {
    effect.healthy.map_or(2, u8::from)
}

/// What an outcome does to its connection's record, as it is noted; empty for nothing.
fn effect_of(effect: &LaneEffect, now: Timestamp) -> Result<Vec<u8>, StoreError> {
    let change = Effect::of(effect, now).as_ref().map(serde_json::to_vec).transpose();
    Ok(change.map_err(|error| unwritable(&error))?.unwrap_or_default())
}

/// A connection's id as scripts give it.
pub(super) fn connection_of(value: Value) -> Result<ConnectionId, StoreError> {
    let bytes = codec::bytes(value)?.unwrap_or_default();
    let bits = bytes.try_into().map_err(|_| strange("a connection's id"))?;
    Ok(ConnectionId::from_bits(u128::from_be_bytes(bits)))
}
