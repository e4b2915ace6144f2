//! From the fates of a batch's rows to settlements. All that are tried again come at the same time, so that they keep their
//! order.

use std::time::Duration;

use super::api::Failed;
use super::deliver::{Batch, Fate, Item, Stop, wait_of, written};
use crate::connector::Verdict;
use crate::domain::job::{Attempt, Outcome};
use crate::domain::policy::DeliveryPolicy;
use crate::domain::settle::{LaneEffect, Next, decide};
use crate::domain::time::Timestamp;
use crate::store::Settlement;

/// How long a lane rests after an append that took all there was: rows that come meanwhile go together. A little more
/// than the pace of the quota, so that one busy sheet never meets it.
const GATHER: Duration = Duration::from_millis(1_150);
/// How long a lane waits after a 429 that does not say; up to as much again is added at random.
const THROTTLED: Duration = Duration::from_secs(15);

/// A settlement for each item.
pub(super) fn settle(mut batch: Batch<'_>, stop: Option<Stop>, began: Timestamp) -> Vec<Settlement> {
    let gateway = batch.gateway;
    let mut reason = String::new();
    let mut wait = None;
    match &stop {
        None => {}
        Some(Stop::Failed(failed, range)) => {
            let all = range.is_empty();
            for (at, item) in batch.items.iter_mut().enumerate() {
                if item.fate.is_none() && (all || range.contains(&at)) {
                    item.fate = Some(Fate::Failed(failed.clone()));
                }
            }
        }
        Some(stop) => {
            if let Stop::Store(error) = stop {
                reason = format!("the gateway's store failed: {error}");
            }
            wait = Some(gateway.clock.now().plus(wait_of(stop)));
        }
    }
    let now = gateway.clock.now();
    let duration_ms = u64::try_from(now.since(began).as_millis()).unwrap_or(u64::MAX);
    let full = batch.items.len() >= batch.live.record.batch as usize;
    let done = batch.items.iter().filter(|item| matches!(item.fate, Some(Fate::Written(_)))).count();
    let fraction = gateway.entropy.fraction();
    let policy = &batch.working.policy;
    let due = common_due(&batch.items, policy, now, fraction);
    let failed = batch.items.iter().find_map(|item| match &item.fate {
        Some(Fate::Failed(failed)) => Some(failed.clone()),
        _ => None,
    });
    tracing::info!(
        target: "patchbay::attempt",
        connection = %batch.live.record.id,
        tenant = %batch.live.record.tenant,
        rows = batch.items.len(),
        written = done,
        outcome = failed.as_ref().map_or("delivered", |failed| failed.refused.verdict.outcome.name()),
        status = failed.as_ref().and_then(|failed| failed.status),
        duration_ms,
        "rows"
    );
    let settle_one = |item: Item| {
        let number = item.lease.job.tries + 1;
        let attempt = |verdict: &Verdict, failed: Option<&Failed>| {
            gateway.metrics.attempt(verdict.outcome, Duration::from_millis(duration_ms));
            Attempt {
                number,
                at: began,
                duration_ms,
                status: failed.map_or(Some(200), |failed| failed.status),
                outcome: verdict.outcome,
                reason: verdict.reason.clone(),
                remote_id: None,
                headers: Vec::new(),
                body: failed.map(|failed| failed.body.clone()).unwrap_or_default(),
            }
        };
        match item.fate {
            None => Settlement {
                lease: item.lease.reference(),
                attempt: None,
                next: Next::Requeue,
                reason: reason.clone(),
                effect: LaneEffect { wait_until: wait, ..LaneEffect::default() },
                rendered: None,
            },
            Some(Fate::Written(reason)) => {
                let verdict = written(reason);
                let (next, mut effect) = decide(verdict.outcome, "", policy, 0, None, now, fraction);
                effect.wait_until = wait.or_else(|| (!full).then(|| began.plus(GATHER)));
                Settlement {
                    lease: item.lease.reference(),
                    attempt: Some(attempt(&verdict, None)),
                    next,
                    reason: verdict.reason,
                    effect,
                    rendered: None,
                }
            }
            Some(Fate::Failed(failed)) => {
                let verdict = &failed.refused.verdict;
                let after = retry_after(&failed, fraction);
                let spent = item.lease.job.attempts + 1;
                let (mut next, effect) =
                    decide(verdict.outcome, &verdict.reason, policy, spent, after, now, fraction);
                if let (Next::Due(_), Some(due)) = (&next, due) {
                    next = Next::Due(due);
                }
                let kept = item.row.to_bytes();
                Settlement {
                    lease: item.lease.reference(),
                    attempt: Some(attempt(verdict, Some(&failed))),
                    next,
                    reason: verdict.reason.clone(),
                    effect,
                    rendered: (item.lease.rendered.as_ref() != Some(&kept)).then_some(kept),
                }
            }
        }
    };
    let mut settlements: Vec<Settlement> = batch.items.into_iter().map(settle_one).collect();
    gather_effects(&mut settlements);
    settlements
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
