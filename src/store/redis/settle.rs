//! Writes outcomes back, and what they change of a connection's record.

use std::collections::BTreeMap;

use redis::Value;
use serde::{Deserialize, Serialize};

use super::codec::{self, state_code, strange};
use super::keys::{Partition, place_of};
use super::link::Step;
use super::script::Call;
use super::{Core, REPLY};
use crate::domain::connection::ConnectionState;
use crate::domain::id::{ChoreId, ConnectionId, JobId, MappingVersion};
use crate::domain::job::Attempt;
use crate::domain::settle::{LaneEffect, Next};
use crate::domain::time::Timestamp;
use crate::store::types::{Recorded, Retried, Settlement, UNANSWERED};
use crate::store::{ERASED, StoreError, log};

/// Outcomes in one script call.
const STEP: usize = 64;

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

    fn settle_step(&self, partition: Partition, settlements: &[&Settlement]) -> Result<Step<'_>, StoreError> {
        let now = self.clock.now();
        let mut call = self.call(partition);
        for settlement in settlements {
            let job = settlement.lease.job;
            let (base, _) = place_of(job);
            call.key(self.keys.event(partition, &base));
            let attempt = settlement
                .attempt
                .as_ref()
                .map(serde_json::to_string)
                .transpose()
                .map_err(|error| unwritable(&error))?;
            call.value(job.bits().to_be_bytes())
                .number(settlement.lease.token)
                .number(settlement.attempt.as_ref().map_or(0, |attempt| attempt.number))
                .value(attempt.unwrap_or_default());
            match &settlement.next {
                Next::Done(state) => call.value("done").number(state_code(*state)),
                Next::Due(due) => call.value("due").number(due.millis()),
                Next::Requeue => call.value("requeue").number(0),
            };
            call.value(settlement.reason.as_str());
            push_effect(&mut call, &settlement.effect, now)?;
            match &settlement.next {
                Next::Done(_) => call.value(if settlement.forget { "1" } else { "" }),
                Next::Due(_) | Next::Requeue => {
                    call.value(settlement.rendered.as_deref().unwrap_or_default())
                }
            };
            push_slots(&mut call, settlement.attempt.as_ref());
        }
        for settlement in settlements {
            call.key(self.keys.tally(partition, settlement.lease.connection, log::day_of(now)));
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
        push_effect(&mut call, &recorded.effect, self.clock.now())?;
        push_slots(&mut call, Some(&recorded.attempt));
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

/// The two values of where an attempt is counted.
fn push_slots(call: &mut Call, attempt: Option<&Attempt>) {
    match attempt.map(log::slots_of) {
        Some((latency, failed)) => call.number(latency).number(u8::from(failed)),
        None => call.value("").number(0),
    };
}

/// The six values of what an outcome does to its lane.
fn push_effect(call: &mut Call, effect: &LaneEffect, now: Timestamp) -> Result<(), StoreError> {
    let change = Effect::of(effect, now);
    let change =
        change.as_ref().map(serde_json::to_string).transpose().map_err(|error| unwritable(&error))?;
    call.number(effect.healthy.map_or(-1, i32::from))
        .number(effect.wait_until.map_or(0, Timestamp::millis))
        .value(change.unwrap_or_default())
        .number(u8::from(effect.close.is_some()))
        .number(effect.opening.map_or(0, |opening| opening.after))
        .number(effect.opening.map_or(0, |opening| opening.probe_at.millis()));
    Ok(())
}

/// A connection's id as scripts give it.
pub(super) fn connection_of(value: Value) -> Result<ConnectionId, StoreError> {
    let bytes = codec::bytes(value)?.unwrap_or_default();
    let bits = bytes.try_into().map_err(|_| strange("a connection's id"))?;
    Ok(ConnectionId::from_bits(u128::from_be_bytes(bits)))
}
