//! Writes outcomes back, and what they change of a connection's record.

use std::collections::BTreeMap;

use futures::future::join_all;
use redis::Value;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::codec::{self, state_code, strange};
use super::keys::{Partition, place_of};
use super::lease::Given;
use super::link::Step;
use super::{Core, REPLY};
use crate::domain::connection::ConnectionState;
use crate::domain::id::{ChoreId, ConnectionId, JobId, MappingVersion};
use crate::domain::settle::LaneEffect;
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
        let mut calls = Vec::new();
        for (partition, settlements) in by_partition {
            for some in settlements.chunks(STEP) {
                calls.push((partition, some.len(), self.settle_call(partition, some)?));
            }
        }
        // Until what was leased is noted, so that nobody takes it for lost.
        let leasing = self.leasing.read().await;
        let (mut groups, mut asked) = (Vec::new(), Vec::new());
        for (partition, count, mut call) in calls {
            // As many as have places then.
            let spent = self.credit.spend(count, Instant::now());
            let deadline = self.clock.now().plus(spent.span);
            call.number(spent.room).number(deadline.millis());
            groups.push(vec![Step::Script(&self.scripts.settle, call)]);
            asked.push((partition, spent, deadline));
        }
        let answers = self.link.run_groups(groups, REPLY).await;
        let (mut taken, mut result) = (0, Ok(()));
        let (mut effects, mut next) = (Vec::new(), Vec::new());
        for ((partition, spent, deadline), answer) in asked.into_iter().zip(answers) {
            let answer = answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(Value::Nil)));
            match answer.and_then(|answer| self.settled(partition, answer, &mut effects)) {
                Ok((count, given)) => {
                    taken += count;
                    next.push((partition, spent, deadline, given));
                }
                Err(error) => {
                    self.lose_leased(partition, spent);
                    result = Err(error);
                }
            }
        }
        if result.is_ok() {
            self.held.forget(settlements.iter().map(|settlement| settlement.lease.job));
        }
        join_all(next.into_iter().map(async |(partition, spent, deadline, given)| {
            self.held.note(given.iter().map(|given| given.job), deadline);
            // What can't be read goes back, and was logged.
            let (leases, _) = self.read_leases(given, deadline).await;
            self.hand_in(partition, spent, deadline, leases);
        }))
        .await;
        drop(leasing);
        for (partition, connection, effect) in effects {
            self.apply_effect(partition, connection, &effect).await?;
        }
        result.map(|()| taken)
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
        let (taken, _) = self.settled(partition, answer, &mut effects)?;
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
    ) -> Result<(usize, Vec<Given>), StoreError> {
        let answer = codec::list(answer)?;
        let [taken, _, _, changed, leased @ ..] = answer.as_slice() else {
            return Err(strange("a short answer to outcomes"));
        };
        self.look_ahead(partition, &answer[1..])?;
        let mut changed = codec::list(changed.clone())?.into_iter();
        while let (Some(connection), Some(effect)) = (changed.next(), changed.next()) {
            effects.push((partition, connection_of(connection)?, codec::text(effect)?));
        }
        let given = match leased {
            [erasures, packed] => Given::read_all(packed, erasures)?,
            _ => Vec::new(),
        };
        Ok((usize::try_from(codec::count(taken)?).map_err(|_| strange("a count of outcomes"))?, given))
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

pub(super) fn unwritable(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("an attempt cannot be written: {error}"))
}

/// Whether an outcome says that its endpoint works, as scripts read it: 0, 1, or 2 where it says neither.
pub(super) fn health_of(effect: &LaneEffect) -> u8 {
    effect.healthy.map_or(2, u8::from)
}

/// What an outcome does to its connection's record, as it is noted; empty for nothing.
pub(super) fn effect_of(effect: &LaneEffect, now: Timestamp) -> Result<Vec<u8>, StoreError> {
    let change = Effect::of(effect, now).as_ref().map(serde_json::to_vec).transpose();
    Ok(change.map_err(|error| unwritable(&error))?.unwrap_or_default())
}

/// A connection's id as scripts give it.
pub(super) fn connection_of(value: Value) -> Result<ConnectionId, StoreError> {
    let bytes = codec::bytes(value)?.unwrap_or_default();
    let bits = bytes.try_into().map_err(|_| strange("a connection's id"))?;
    Ok(ConnectionId::from_bits(u128::from_be_bytes(bits)))
}
