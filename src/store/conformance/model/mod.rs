//! Random operations against a simple model of a store; what fails is shrunk.
//!
//! The model knows what was accepted and what became of it, and checks every answer: what is leased may be leased (open,
//! unleased, due, in order, under its cap), settlements count once, counts add up. At the end every lane is resumed, the
//! clock goes past every deadline, and all that is open must come, within a bounded number of calls. What the model
//! doesn't say: which of the lanes gives first, and how wide a lane that failed is.

mod checks;
mod connections;
mod ingest;
mod ops;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Engine;
use super::world::{RETENTION, World};
use crate::domain::breaker::Failing;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::settle::{LaneEffect, Next};
use crate::domain::time::Timestamp;
use crate::store::{Accepted, Lease, Retried};
use ops::{Op, op};

const CASES: u32 = 256;
const LONGEST: usize = 120;
const TENANTS: [&str; 3] = ["a", "b", "c"];
/// Concurrency and batch.
const WIDTHS: [(u32, u32); 8] = [(1, 1), (1, 1), (1, 1), (2, 1), (3, 1), (20, 1), (1, 2), (1, 9)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Active,
    Paused,
    Closed,
    Deleted,
}

#[derive(Debug)]
struct ModelLane {
    id: ConnectionId,
    tenant: usize,
    concurrency: u32,
    batch: u32,
    standing: Standing,
    wait_until: Timestamp,
    failing: Failing,
    /// Whether it never had another concurrency than 1.
    always_strict: bool,
}

impl ModelLane {
    fn takes_jobs(&self) -> bool {
        matches!(self.standing, Standing::Active | Standing::Paused)
    }

    /// Counts failures, and opens the breaker.
    fn learn(&mut self, effect: &LaneEffect, now: Timestamp) {
        match (effect.healthy, effect.opening) {
            (Some(true), _) => self.failing = Failing::default(),
            (Some(false), Some(opening)) => {
                if self.failing.count == 0 {
                    self.failing.since = now;
                }
                if self.failing.count < opening.after || self.wait_until <= now {
                    self.failing.count += 1;
                }
                if self.failing.count >= opening.after {
                    self.wait_until = self.wait_until.max(opening.probe_at);
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct ModelJob {
    lane: usize,
    state: JobState,
    due: Option<Timestamp>,
    finished: Option<Timestamp>,
    attempts: u32,
    tries: u32,
    /// The newest lease, until it is settled or released.
    lease: Option<Lease>,
    /// Whether that lease may have been lost by a crash or before it was renewed.
    shaken: bool,
    /// A person put it back: it has no place in the order any more.
    by_hand: bool,
}

struct Model {
    world: Option<World>,
    lanes: Vec<ModelLane>,
    jobs: BTreeMap<JobId, ModelJob>,
    events: HashMap<u8, (u8, u32, Timestamp)>,
    requests: HashMap<u8, (u8, Vec<Accepted>, Timestamp)>,
    old: Vec<Lease>,
    /// The latest that the clock has shown: what was due then may come after it went back.
    latest: Timestamp,
}

/// Runs the model test with stores of this engine.
pub fn run<E: Engine + 'static>(engine: impl Fn() -> E) {
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ops = prop::collection::vec(op(), 1..LONGEST);
    TestRunner::new(config)
        .run(&ops, |ops| {
            runtime.block_on(async {
                let mut model = Model::new(World::open(engine()).await);
                for (at, op) in ops.iter().enumerate() {
                    model.run(op.clone()).await.map_err(|error| at_step(at, op, error))?;
                    model.check_counts().await.map_err(|error| at_step(at, op, error))?;
                }
                model.finish().await
            })
        })
        .unwrap();
}

fn at_step(at: usize, op: &Op, error: TestCaseError) -> TestCaseError {
    match error {
        TestCaseError::Fail(reason) => TestCaseError::fail(format!("step {at}, {op:?}: {reason}")),
        reject @ TestCaseError::Reject(_) => reject,
    }
}

impl Model {
    fn new(world: World) -> Self {
        let latest = world.now();
        Self {
            world: Some(world),
            lanes: Vec::new(),
            jobs: BTreeMap::new(),
            events: HashMap::new(),
            requests: HashMap::new(),
            old: Vec::new(),
            latest,
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.world().now()
    }

    async fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Ingest { tenant, lanes, events, dedupe, content, idempotency } => {
                return self.ingest(tenant, lanes, events, dedupe, content, idempotency).await;
            }
            Op::Lease { room, span_secs } => {
                let span = Duration::from_secs(span_secs);
                let leases = self.world().lease_for(room, span).await;
                return self.leased(leases, span);
            }
            Op::Settle { first, count, outcome, retry_after } => {
                let held: Vec<Lease> = self.held();
                if held.is_empty() {
                    return Ok(());
                }
                let first = first % held.len();
                let some = held[first..held.len().min(first + count)].to_vec();
                return self.settle(some, outcome, retry_after).await;
            }
            Op::SettleOld { pick, outcome } => {
                if let Some(lease) = picked(&self.old, pick).cloned() {
                    return self.settle(vec![lease], outcome, None).await;
                }
            }
            Op::Renew { pick, span_secs } => {
                let Some(lease) = picked(&self.held(), pick).cloned() else { return Ok(()) };
                let span = Duration::from_secs(span_secs);
                self.world().store.renew(&[lease.reference()], span).await.unwrap();
                let deadline = self.now().plus(span);
                let latest = self.latest;
                let job = self.jobs.get_mut(&lease.job.id).unwrap();
                // One that has run out may have been lost already, or be renewed in time.
                job.shaken |= lease.deadline <= latest;
                job.lease.as_mut().unwrap().deadline = deadline;
            }
            Op::Release { pick } => {
                let Some(lease) = picked(&self.held(), pick).cloned() else { return Ok(()) };
                self.world().store.release(&[lease.reference()]).await.unwrap();
                self.jobs.get_mut(&lease.job.id).unwrap().lease = None;
            }
            Op::Retry { pick } => return self.retry(pick).await,
            Op::Crash => {
                let world = self.world.take().unwrap();
                self.world = Some(world.crash().await);
                for job in self.jobs.values_mut() {
                    job.shaken = job.lease.is_some();
                }
            }
            Op::Forward { millis } => {
                self.world().clock.advance(Duration::from_millis(millis));
                self.latest = self.latest.max(self.now());
            }
            Op::Back { millis } => {
                let to = self.now().minus(Duration::from_millis(millis));
                self.world().clock.set(to);
            }
            Op::Sweep => {
                self.world().sweep().await;
                return self.swept().await;
            }
            Op::Connect { .. }
            | Op::Pause { .. }
            | Op::Resume { .. }
            | Op::Close { .. }
            | Op::Delete { .. }
            | Op::Cap { .. } => return self.change(op).await,
        }
        Ok(())
    }

    /// Leases that nothing has ended yet, live or run out, in order of jobs.
    fn held(&self) -> Vec<Lease> {
        self.jobs.values().filter_map(|job| job.lease.clone()).collect()
    }

    fn leased(&mut self, leases: Vec<Lease>, span: Duration) -> Result<(), TestCaseError> {
        let now = self.now();
        let latest = self.latest;
        for lease in leases {
            let id = lease.job.id;
            prop_assert_eq!(lease.deadline, now.plus(span));
            let job = self.jobs.get(&id);
            prop_assert!(job.is_some(), "{} was never accepted", id);
            let job = &self.jobs[&id];
            let lane = &self.lanes[job.lane];
            prop_assert!(job.state.is_open(), "{} has ended", id);
            let free = job.lease.as_ref().is_none_or(|held| job.shaken || held.deadline <= latest);
            prop_assert!(free, "{} is leased already", id);
            prop_assert_eq!(lane.standing, Standing::Active);
            prop_assert!(lane.wait_until <= now, "{} waits", id);
            prop_assert_eq!(lease.failing.count, lane.failing.count, "{}", id);
            prop_assert!(lane.failing.count == 0 || lease.failing == lane.failing, "{}", id);
            prop_assert!(job.due.is_none_or(|due| due <= latest), "{} is not due", id);
            prop_assert_eq!((lease.job.attempts, lease.job.tries), (job.attempts, job.tries), "{}", id);
            if lane.always_strict && !job.by_hand {
                // Of a batch, what waits for its retry may come before what only lost its lease.
                let batched = lane.batch > 1;
                let beside = |other: &ModelJob| {
                    let together = other.lease.as_ref().is_some_and(|held| held.deadline == lease.deadline);
                    batched && (together || job.due.is_some())
                };
                let before = self.jobs.range(..id).find(|(_, other)| {
                    other.lane == job.lane && other.state.is_open() && !other.by_hand && !beside(other)
                });
                prop_assert!(before.is_none(), "{} passes {:?}", id, before);
            }
            let lane = job.lane;
            let cap = (self.lanes[lane].concurrency * self.lanes[lane].batch) as usize;
            prop_assert_eq!(lease.batch, self.lanes[lane].batch > 1);
            let job = self.jobs.get_mut(&id).unwrap();
            // What was done under a lease that was lost is not known, and it says so.
            prop_assert!(lease.doubtful || job.lease.is_none(), "{} was leased before", id);
            job.lease = Some(lease.clone());
            job.shaken = false;
            self.old.push(lease);
            let under_way = self.jobs.values().filter(|job| {
                job.lane == lane
                    && !job.shaken
                    && job.lease.as_ref().is_some_and(|held| held.deadline > latest)
            });
            prop_assert!(under_way.count() <= cap, "the lane of {} gives more than {}", id, cap);
        }
        Ok(())
    }

    async fn settle(
        &mut self,
        leases: Vec<Lease>,
        outcome: Outcome,
        retry_after: Option<u64>,
    ) -> Result<(), TestCaseError> {
        let now = self.now();
        // One that has run out or was shaken by a crash may or may not count: alone, so that the answer tells.
        let is_newest = |model: &Self, lease: &Lease| {
            model.jobs[&lease.job.id].lease.as_ref().is_some_and(|held| held.token == lease.token)
        };
        let is_sure = |model: &Self, lease: &Lease| {
            let job = &model.jobs[&lease.job.id];
            is_newest(model, lease)
                && !job.shaken
                && job.lease.as_ref().is_some_and(|held| held.deadline > model.latest)
        };
        let (sure, unsure): (Vec<Lease>, Vec<Lease>) =
            leases.into_iter().partition(|lease| is_sure(self, lease));
        let batch = sure.iter().map(|lease| self.world().settlement(lease, outcome, retry_after)).collect();
        let count = sure.len();
        prop_assert_eq!(self.world().store.settle(batch).await, Ok(count));
        for lease in sure {
            self.settled(&lease, outcome, retry_after, now);
        }
        for lease in unsure {
            let settlement = self.world().settlement(&lease, outcome, retry_after);
            let taken = self.world().store.settle(vec![settlement]).await.unwrap();
            prop_assert!(
                taken == 0 || is_newest(self, &lease),
                "{} was settled by a lost lease",
                lease.job.id
            );
            if taken == 1 {
                self.settled(&lease, outcome, retry_after, now);
            }
        }
        Ok(())
    }

    fn settled(&mut self, lease: &Lease, outcome: Outcome, retry_after: Option<u64>, now: Timestamp) {
        let settlement = self.world().settlement(lease, outcome, retry_after);
        let job = self.jobs.get_mut(&lease.job.id).unwrap();
        let lane = &mut self.lanes[job.lane];
        let closed = !lane.takes_jobs() || settlement.effect.close.is_some();
        job.lease = None;
        job.shaken = false;
        job.tries += 1;
        match settlement.next {
            Next::Due(_) | Next::Requeue if closed => end(job, JobState::Cancelled, now),
            Next::Done(state) => end(job, state, now),
            Next::Due(due) => {
                job.state = JobState::Waiting;
                job.due = Some(due);
            }
            Next::Requeue => {}
        }
        job.attempts += u32::from(settlement.next.spends_attempt());
        lane.learn(&settlement.effect, now);
        if let Some(until) = settlement.effect.wait_until {
            lane.wait_until = lane.wait_until.max(until);
        }
        if lane.takes_jobs() {
            if settlement.effect.close.is_some() {
                lane.standing = Standing::Closed;
            } else if settlement.effect.pause.is_some() {
                lane.standing = Standing::Paused;
            }
        }
    }

    async fn retry(&mut self, pick: usize) -> Result<(), TestCaseError> {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        let Some(id) = picked(&ids, pick).copied() else { return Ok(()) };
        let answer = self.world().store.retry(id, None).await.unwrap();
        let now = self.now();
        let latest = self.latest;
        let job = self.jobs.get_mut(&id).unwrap();
        let lane = &self.lanes[job.lane];
        let live = job.lease.as_ref().is_some_and(|held| !job.shaken && held.deadline > latest);
        match answer {
            Retried::Missing => {
                let old = job.finished.is_some_and(|finished| finished.plus(RETENTION) < latest);
                prop_assert!(old, "{} is missing", id);
            }
            Retried::Open => prop_assert!(job.state == JobState::Queued || job.lease.is_some()),
            Retried::Closed => prop_assert!(!lane.takes_jobs()),
            Retried::Erased | Retried::Already => prop_assert!(false, "nothing was erased or replayed"),
            Retried::Queued => {
                prop_assert!(lane.takes_jobs() && job.state != JobState::Queued && !live);
                job.state = JobState::Waiting;
                job.due = Some(now);
                job.finished = None;
                job.attempts = 0;
                job.by_hand = true;
            }
        }
        Ok(())
    }
}

fn end(job: &mut ModelJob, state: JobState, now: Timestamp) {
    job.state = state;
    job.due = None;
    job.finished = Some(now);
}

fn picked<T>(all: &[T], pick: usize) -> Option<&T> {
    if all.is_empty() { None } else { all.get(pick % all.len()) }
}
