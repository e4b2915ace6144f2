//! From the fates of a batch's rows to settlements. All that are tried again come at the same time, so that they keep their
//! order.

use std::sync::Arc;
use std::time::Duration;

use super::api::Failed;
use super::deliver::{Batch, Fate, Item, Stop};
use crate::connector::{Verdict, without_words};
use crate::domain::breaker::{Failing, weigh};
use crate::domain::event::Event;
use crate::domain::job::{Attempt, JobState, Outcome};
use crate::domain::policy::DeliveryPolicy;
use crate::domain::settle::{LaneEffect, Next, decide};
use crate::domain::time::Timestamp;
use crate::service::Gateway;
use crate::service::traces::Attempted;
use crate::service::watch::Tried;
use crate::store::{Lease, Settlement};

/// How long a lane rests after an append that took all there was: rows that come meanwhile go together. A little more
/// than the pace of the quota, so that one busy sheet never meets it.
const GATHER: Duration = Duration::from_millis(1_150);
/// How long a lane waits when the store failed.
const OWN_FAULT: Duration = Duration::from_secs(2);
/// How long a lane waits after a 429 that does not say; up to as much again is added at random.
const THROTTLED: Duration = Duration::from_secs(15);

/// What all settlements of a batch have in common.
struct Common<'a> {
    gateway: &'a Gateway,
    connector: &'a str,
    policy: &'a DeliveryPolicy,
    began: Timestamp,
    now: Timestamp,
    duration_ms: u64,
    fraction: f64,
    /// When those that failed are due, all together.
    due: Option<Timestamp>,
    /// Until when what was not touched waits.
    wait: Option<Timestamp>,
    /// Why it was not touched, where that is worth telling.
    untouched: String,
    /// Whether there may be more rows already.
    full: bool,
}

/// A settlement for each item.
pub(super) fn settle(mut batch: Batch<'_>, stop: Option<&Stop>, began: Timestamp) -> Vec<Settlement> {
    let gateway = batch.gateway;
    if let Some(Stop::Failed(failed, range)) = stop {
        let all = range.is_empty();
        for (at, item) in batch.items.iter_mut().enumerate() {
            if item.fate.is_none() && (all || range.contains(&at)) {
                item.fate = Some(Fate::Failed(failed.clone()));
            }
        }
    }
    let now = gateway.clock.now();
    let fraction = gateway.entropy.fraction();
    let policy = &batch.working.policy;
    if !policy.log_bodies {
        for item in &mut batch.items {
            if let Some(Fate::Failed(failed)) = &mut item.fate {
                failed.body.clear();
                failed.refused.verdict.reason = without_words(&failed.refused.verdict, failed.status);
            }
        }
    }
    let common = Common {
        gateway,
        connector: &batch.working.connector.id,
        policy,
        began,
        now,
        duration_ms: u64::try_from(now.since(began).as_millis()).unwrap_or(u64::MAX),
        fraction,
        due: common_due(&batch.items, policy, now, fraction),
        wait: stop.and_then(wait_of).map(|wait| now.plus(wait)),
        untouched: match stop {
            Some(Stop::Store(error)) => format!("the gateway's store failed: {error}"),
            _ => String::new(),
        },
        full: batch.items.len() >= batch.live.record.batch as usize,
    };
    log(&batch, &common);
    let failing = batch.items.first().map(|item| item.lease.failing).unwrap_or_default();
    let reason = first_failed(&batch).map(|failed| failed.refused.verdict.reason.clone()).unwrap_or_default();
    let record = &batch.live.record;
    // Where all is well alerts need nothing.
    let is_well = failing.count == 0 && !record.unproven && first_failed(&batch).is_none();
    let told_of = if is_well { 0 } else { batch.items.len() };
    let events: Vec<Arc<Event>> =
        batch.items.iter().take(told_of).map(|item| Arc::clone(&item.lease.event)).collect();
    let mut settlements: Vec<Settlement> =
        batch.items.into_iter().map(|item| common.settlement(item)).collect();
    gather_effects(&mut settlements);
    if let Some(Settlement { effect, .. }) = settlements.first_mut() {
        weigh(effect, &reason, &policy.breaker, failing, now, gateway.entropy.fraction());
    }
    let watched = Watched { gateway, events: &events, failing, policy, unproven: record.unproven };
    watched.notice(&settlements);
    if let Some((by, reason)) = settlements.first().and_then(|settlement| settlement.effect.pause.as_ref()) {
        tracing::warn!(connection = %record.id, tenant = %record.tenant, by, reason, "a connection was paused");
    }
    settlements
}

/// What alerts need to know of a batch.
struct Watched<'a> {
    gateway: &'a Gateway,
    /// The events of its items, in order.
    events: &'a [Arc<Event>],
    failing: Failing,
    policy: &'a DeliveryPolicy,
    unproven: bool,
}

impl Watched<'_> {
    /// Notes what is worth telling: what became of the lane by the first that failed, and the first that ended undelivered.
    fn notice(&self, settlements: &[Settlement]) {
        let Some(effect) = settlements.first().map(|settlement| &settlement.effect) else { return };
        let attempts = || {
            let pairs = settlements.iter().zip(self.events);
            pairs.filter_map(|(settlement, event)| Some((settlement, event, settlement.attempt.as_ref()?)))
        };
        let failed = attempts().find(|(_, _, attempt)| attempt.outcome != Outcome::Delivered);
        if let Some((settlement, event, attempt)) = failed.or_else(|| attempts().next()) {
            self.gateway.notice(&self.tried(settlement, event, attempt), &Next::Requeue, effect);
        }
        let ended = |next: &Next| matches!(next, Next::Done(state) if *state != JobState::Delivered);
        if let Some((settlement, event, attempt)) =
            attempts().find(|(settlement, ..)| ended(&settlement.next))
        {
            let none = LaneEffect::default();
            self.gateway.notice(&self.tried(settlement, event, attempt), &settlement.next, &none);
        }
    }

    fn tried<'t>(&'t self, settlement: &Settlement, event: &'t Event, attempt: &'t Attempt) -> Tried<'t> {
        Tried {
            job: settlement.lease.job,
            connection: settlement.lease.connection,
            kind: &event.kind,
            outcome: attempt.outcome,
            status: attempt.status,
            reason: &attempt.reason,
            failing: self.failing,
            breaker: &self.policy.breaker,
            unproven: self.unproven,
        }
    }
}

/// Of what was leased together only the first failure counts against the endpoint, whichever way its jobs were settled.
pub(super) fn count_once(settlements: &mut [Settlement]) {
    let failures = settlements.iter_mut().filter(|settlement| settlement.effect.healthy == Some(false));
    for settlement in failures.skip(1) {
        settlement.effect.healthy = None;
        settlement.effect.opening = None;
    }
}

fn first_failed<'b>(batch: &'b Batch<'_>) -> Option<&'b Failed> {
    batch.items.iter().find_map(|item| match &item.fate {
        Some(Fate::Failed(failed)) => Some(failed),
        _ => None,
    })
}

/// One line a batch.
fn log(batch: &Batch<'_>, common: &Common<'_>) {
    let written = batch.items.iter().filter(|item| matches!(item.fate, Some(Fate::Written(_)))).count();
    let failed = first_failed(batch);
    tracing::info!(
        target: "patchbay::attempt",
        connection = %batch.live.record.id,
        tenant = %batch.live.record.tenant,
        rows = batch.items.len(),
        written,
        outcome = failed.map_or("delivered", |failed| failed.refused.verdict.outcome.name()),
        status = failed.and_then(|failed| failed.status),
        duration_ms = common.duration_ms,
        "rows"
    );
}

impl Common<'_> {
    fn settlement(&self, item: Item) -> Settlement {
        let lease = item.lease.reference();
        match item.fate {
            None => Settlement {
                lease,
                attempt: None,
                next: Next::Requeue,
                reason: self.untouched.clone(),
                effect: LaneEffect { wait_until: self.wait, ..LaneEffect::default() },
                rendered: None,
                forget: false,
            },
            Some(Fate::Written(reason)) => {
                let verdict = Verdict::plain(Outcome::Delivered, reason);
                let (next, mut effect) =
                    decide(verdict.outcome, "", self.policy, 0, None, self.now, self.fraction);
                effect.wait_until = self.wait.or_else(|| (!self.full).then(|| self.began.plus(GATHER)));
                let attempt = Some(self.attempt(&item.lease, &verdict, None));
                self.gateway.metrics.flow.follows(&next);
                Settlement {
                    lease,
                    attempt,
                    next,
                    reason: verdict.reason,
                    effect,
                    rendered: None,
                    forget: !self.policy.log_bodies,
                }
            }
            Some(Fate::Failed(failed)) => {
                let verdict = &failed.refused.verdict;
                let after = retry_after(&failed, self.fraction);
                let spent = item.lease.job.attempts + 1;
                let (mut next, effect) = decide(
                    verdict.outcome,
                    &verdict.reason,
                    self.policy,
                    spent,
                    after,
                    self.now,
                    self.fraction,
                );
                if let (Next::Due(_), Some(due)) = (&next, self.due) {
                    next = Next::Due(due);
                }
                self.gateway.metrics.flow.follows(&next);
                let kept = item.row.to_bytes();
                Settlement {
                    lease,
                    attempt: Some(self.attempt(&item.lease, verdict, Some(&failed))),
                    next,
                    reason: verdict.reason.clone(),
                    effect,
                    rendered: (item.lease.rendered.as_ref() != Some(&kept)).then_some(kept),
                    forget: !self.policy.log_bodies,
                }
            }
        }
    }

    fn attempt(&self, lease: &Lease, verdict: &Verdict, failed: Option<&Failed>) -> Attempt {
        let took = Duration::from_millis(self.duration_ms);
        self.gateway.metrics.attempt(self.connector, verdict.outcome, took);
        let attempt = Attempt {
            number: lease.job.tries + 1,
            at: self.began,
            duration_ms: self.duration_ms,
            status: failed.map_or(Some(200), |failed| failed.status),
            outcome: verdict.outcome,
            reason: verdict.reason.clone(),
            remote_id: None,
            headers: Vec::new(),
            body: failed.map(|failed| failed.body.clone()).unwrap_or_default(),
        };
        let (connection, job) = (lease.job.connection, lease.job.name);
        let attempted =
            Attempted { event: &lease.event, connector: self.connector, connection, job, attempt: &attempt };
        self.gateway.traces.tell_attempt(&attempted, &self.gateway.metrics);
        attempt
    }
}

/// How long a lane waits for what stopped its batch.
fn wait_of(stop: &Stop) -> Option<Duration> {
    match stop {
        Stop::Wait(wait) => Some(*wait),
        Stop::Store(_) => Some(OWN_FAULT),
        Stop::Failed(..) => None,
    }
}

/// What a batch does to its lane and its connection is done once, by its first settlement.
fn gather_effects(settlements: &mut [Settlement]) {
    let mut all = LaneEffect::default();
    for effect in settlements.iter_mut().map(|settlement| std::mem::take(&mut settlement.effect)) {
        all.wait_until = all.wait_until.max(effect.wait_until);
        all.pause = all.pause.or(effect.pause);
        all.close = all.close.or(effect.close);
        all.healthy = all.healthy.or(effect.healthy);
    }
    if let Some(first) = settlements.first_mut() {
        first.effect = all;
    }
}

fn retry_after(failed: &Failed, fraction: f64) -> Option<Duration> {
    let said = failed.retry_after.map(Duration::from_secs);
    let throttled = failed.refused.verdict.outcome == Outcome::Throttled;
    let base = said.or_else(|| throttled.then_some(THROTTLED))?;
    Some(if throttled { base.mul_f64(1.0 + fraction) } else { base })
}

/// When those that failed are due: all together, after the longest of their delays.
fn common_due(items: &[Item], policy: &DeliveryPolicy, now: Timestamp, fraction: f64) -> Option<Timestamp> {
    let failed = items.iter().filter_map(|item| match &item.fate {
        Some(Fate::Failed(failed)) => Some((item.lease.job.attempts + 1, failed)),
        _ => None,
    });
    failed
        .filter_map(|(spent, failed)| {
            let delay = policy.retry.delay(spent, fraction)?.max(Duration::from_millis(1));
            let floor = retry_after(failed, fraction).unwrap_or_default();
            Some(now.plus(delay.max(floor)))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::breaker::Opening;
    use crate::domain::id::{ConnectionId, JobId};
    use crate::store::LeaseRef;

    fn settled(healthy: Option<bool>) -> Settlement {
        let opening = (healthy == Some(false)).then(|| Opening { after: 5, probe_at: Timestamp::default() });
        let wait_until = Some(Timestamp::from_millis(7));
        Settlement {
            lease: LeaseRef { job: JobId::from_bits(1), connection: ConnectionId::from_bits(2), token: 3 },
            attempt: None,
            next: Next::Requeue,
            reason: String::new(),
            effect: LaneEffect { wait_until, healthy, opening, ..LaneEffect::default() },
            rendered: None,
            forget: false,
        }
    }

    #[test]
    fn a_batch_counts_as_one_failure() {
        let mut settlements = [None, Some(false), Some(false), Some(true), Some(false)].map(settled);
        count_once(&mut settlements);
        let health: Vec<_> = settlements.iter().map(|settlement| settlement.effect.healthy).collect();
        assert_eq!(health, [None, Some(false), None, Some(true), None]);
        let openings = settlements.iter().filter(|settlement| settlement.effect.opening.is_some()).count();
        assert_eq!(openings, 1);
        assert!(
            settlements.iter().all(|settlement| settlement.effect.wait_until.is_some()),
            "what else it does to its lane stays"
        );
    }
}
