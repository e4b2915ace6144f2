//! Random operations against a simple model of a store; what fails is shrunk.
//!
//! The model knows what was accepted and what became of it, and checks every answer: what is leased may be leased (open,
//! unleased, due, in order, under its cap), settlements count once, counts add up. At the end every lane is resumed, the
//! clock goes past every deadline, and all that is open must come, within a bounded number of calls. What the model
//! doesn't say: which of the lanes gives first, and how wide a lane that failed is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::world::{RETENTION, World, tenant_id};
use super::Engine;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::settle::Next;
use crate::domain::time::Timestamp;
use crate::store::types::DEDUPE_SPAN;
use crate::store::{Accepted, Dedupe, DeliveryQuery, Ingest, Ingested, Lease, RecordId, Retried};

const CASES: u32 = 96;
const LONGEST: usize = 120;
const TENANTS: [&str; 3] = ["a", "b", "c"];
const CONCURRENCIES: [u32; 6] = [1, 1, 1, 2, 3, 20];

#[derive(Debug, Clone)]
enum Op {
    Connect { tenant: usize, concurrency: usize },
    Ingest { tenant: usize, lanes: u16, events: u8, dedupe: Option<u8>, content: u8, idempotency: Option<u8> },
    Lease { room: usize, span_secs: u64 },
    /// Settles up to `count` of what is leased from `first` on.
    Settle { first: usize, count: usize, outcome: Outcome, retry_after: Option<u64> },
    /// Settles a lease that was ever given.
    SettleOld { pick: usize, outcome: Outcome },
    Renew { pick: usize, span_secs: u64 },
    Release { pick: usize },
    Pause { pick: usize },
    Resume { pick: usize },
    Close { pick: usize },
    Delete { pick: usize },
    Cap { pick: usize, concurrency: usize },
    Retry { pick: usize },
    Crash,
    Forward { millis: u64 },
    Back { millis: u64 },
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let pick = 0_usize..1_000;
    let outcome = prop_oneof![
        8 => Just(Outcome::Delivered),
        8 => Just(Outcome::Retry),
        1 => Just(Outcome::Ambiguous),
        2 => Just(Outcome::Throttled),
        1 => Just(Outcome::AuthFailed),
        2 => Just(Outcome::Rejected),
        1 => Just(Outcome::MappingFailed),
    ];
    let with_gone = prop_oneof![40 => outcome.clone(), 1 => Just(Outcome::Gone)];
    let retry_after = prop::option::weighted(0.15, 1_u64..200);
    let few = prop::option::weighted(0.3, 0_u8..4);
    prop_oneof![
        2 => (0..TENANTS.len(), 0..CONCURRENCIES.len())
            .prop_map(|(tenant, concurrency)| Op::Connect { tenant, concurrency }),
        12 => (0..TENANTS.len(), any::<u16>(), 1_u8..4, few.clone(), 0_u8..2, few).prop_map(
            |(tenant, lanes, events, dedupe, content, idempotency)| Op::Ingest {
                tenant, lanes, events, dedupe, content, idempotency
            }
        ),
        14 => (0_usize..24, 1_u64..90).prop_map(|(room, span_secs)| Op::Lease { room, span_secs }),
        14 => (pick.clone(), 1_usize..8, with_gone, retry_after)
            .prop_map(|(first, count, outcome, retry_after)| Op::Settle { first, count, outcome, retry_after }),
        2 => (pick.clone(), outcome).prop_map(|(pick, outcome)| Op::SettleOld { pick, outcome }),
        2 => (pick.clone(), 1_u64..90).prop_map(|(pick, span_secs)| Op::Renew { pick, span_secs }),
        2 => pick.clone().prop_map(|pick| Op::Release { pick }),
        2 => pick.clone().prop_map(|pick| Op::Pause { pick }),
        4 => pick.clone().prop_map(|pick| Op::Resume { pick }),
        1 => pick.clone().prop_map(|pick| Op::Close { pick }),
        1 => pick.clone().prop_map(|pick| Op::Delete { pick }),
        2 => (pick.clone(), 0..CONCURRENCIES.len())
            .prop_map(|(pick, concurrency)| Op::Cap { pick, concurrency }),
        3 => pick.prop_map(|pick| Op::Retry { pick }),
        1 => Just(Op::Crash),
        6 => prop_oneof![1_u64..3_000, 3_000_u64..60_000, 60_000_u64..8_000_000, Just(40 * 3_600_000)]
            .prop_map(|millis| Op::Forward { millis }),
        1 => (1_u64..2_000).prop_map(|millis| Op::Back { millis }),
        1 => Just(Op::Sweep),
    ]
}

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
    standing: Standing,
    wait_until: Timestamp,
    /// Whether it never had another concurrency than 1.
    always_strict: bool,
}

impl ModelLane {
    fn takes_jobs(&self) -> bool {
        matches!(self.standing, Standing::Active | Standing::Paused)
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
    /// Whether that lease may have been lost by a crash.
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
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
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
            Op::Connect { tenant, concurrency } => {
                let concurrency = CONCURRENCIES[concurrency];
                let id = self.world().connect(TENANTS[tenant], concurrency).await;
                self.lanes.push(ModelLane {
                    id,
                    tenant,
                    concurrency,
                    standing: Standing::Active,
                    wait_until: Timestamp::default(),
                    always_strict: concurrency == 1,
                });
            }
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
                let held = self.jobs.get_mut(&lease.job.id).and_then(|job| job.lease.as_mut());
                held.unwrap().deadline = deadline;
            }
            Op::Release { pick } => {
                let Some(lease) = picked(&self.held(), pick).cloned() else { return Ok(()) };
                self.world().store.release(&[lease.reference()]).await.unwrap();
                self.jobs.get_mut(&lease.job.id).unwrap().lease = None;
            }
            Op::Pause { pick } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    self.world().pause(self.lanes[lane].id).await;
                    self.lanes[lane].standing = Standing::Paused;
                }
            }
            Op::Resume { pick } => {
                if let Some(lane) = self.pick_lane(pick, |lane| lane.standing == Standing::Paused) {
                    self.world().resume(self.lanes[lane].id).await;
                    self.lanes[lane].standing = Standing::Active;
                }
            }
            Op::Close { pick } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    self.world().close_connection(self.lanes[lane].id).await;
                    self.lanes[lane].standing = Standing::Closed;
                }
            }
            Op::Delete { pick } => {
                if let Some(lane) = self.pick_lane(pick, |lane| lane.standing != Standing::Deleted) {
                    let id = RecordId::Connection(self.lanes[lane].id);
                    prop_assert_eq!(self.world().store.delete(id).await, Ok(true));
                    self.lanes[lane].standing = Standing::Deleted;
                }
            }
            Op::Cap { pick, concurrency } => {
                if let Some(lane) = self.pick_lane(pick, ModelLane::takes_jobs) {
                    let concurrency = CONCURRENCIES[concurrency];
                    self.world()
                        .change(self.lanes[lane].id, |connection| connection.concurrency = concurrency)
                        .await;
                    self.lanes[lane].concurrency = concurrency;
                    self.lanes[lane].always_strict &= concurrency == 1;
                }
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
        }
        Ok(())
    }

    /// Leases that nothing has ended yet, live or run out, in order of jobs.
    fn held(&self) -> Vec<Lease> {
        self.jobs.values().filter_map(|job| job.lease.clone()).collect()
    }

    fn pick_lane(&self, pick: usize, fits: impl Fn(&ModelLane) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.lanes.len()).filter(|at| fits(&self.lanes[*at])).collect();
        picked(&fitting, pick).copied()
    }

    async fn ingest(
        &mut self,
        tenant: usize,
        lanes: u16,
        count: u8,
        dedupe: Option<u8>,
        content: u8,
        idempotency: Option<u8>,
    ) -> Result<(), TestCaseError> {
        let now = self.now();
        let chosen: Vec<usize> = (0..self.lanes.len())
            .filter(|at| self.lanes[*at].tenant == tenant && lanes >> (at % 16) & 1 == 1)
            .collect();
        let to: Vec<ConnectionId> = chosen.iter().map(|at| self.lanes[*at].id).collect();
        let taking = chosen.iter().filter(|at| self.lanes[**at].takes_jobs()).count();
        let taking = u32::try_from(taking).unwrap();
        let key = |key: u8| Dedupe { key: [key; 16], content: [content; 16] };
        let mut events = Vec::new();
        let mut wanted = Vec::new();
        let remembered =
            idempotency.and_then(|key| self.requests.get(&key)).filter(|(_, _, expires)| *expires > now);
        let is_new = remembered.is_none();
        for at in 0..count {
            let mut event = self.world().event(TENANTS[tenant], &to);
            let id = event.event.id.clone();
            // Only the first has a key, so that it is the repeats that repeat.
            let dedupe = dedupe.filter(|_| at == 0);
            event.dedupe = dedupe.map(|dedupe| key(100 + dedupe));
            let seen =
                dedupe.and_then(|key| self.events.get(&key)).filter(|(_, _, expires)| *expires > now).copied();
            wanted.push(match seen {
                Some((other, ..)) if other != content => Accepted::IdReused { id },
                Some((_, jobs, _)) => Accepted::Stored { id, jobs, duplicate: true },
                None => {
                    if let Some(dedupe) = dedupe.filter(|_| is_new) {
                        self.events.insert(dedupe, (content, taking, now.plus(DEDUPE_SPAN)));
                    }
                    Accepted::Stored { id, jobs: taking, duplicate: false }
                }
            });
            events.push(event);
        }
        let ingest = Ingest { idempotency: idempotency.map(key), events: events.clone() };
        let answer = self.world().store.ingest(ingest).await.unwrap();
        match remembered {
            Some((other, ..)) if *other != content => {
                prop_assert_eq!(answer, Ingested::KeyReused);
                return Ok(());
            }
            Some((_, first, _)) => {
                prop_assert_eq!(answer, Ingested::Repeated(first.clone()));
                return Ok(());
            }
            None => prop_assert_eq!(answer, Ingested::Stored(wanted.clone())),
        }
        if let Some(key) = idempotency {
            self.requests.insert(key, (content, wanted.clone(), now.plus(DEDUPE_SPAN)));
        }
        for accepted in wanted {
            if let Accepted::Stored { id, jobs, duplicate: false } = accepted {
                self.learn_jobs(tenant, &id, jobs).await?;
            }
        }
        Ok(())
    }

    /// Finds the jobs of an event in the log.
    async fn learn_jobs(&mut self, tenant: usize, event: &str, jobs: u32) -> Result<(), TestCaseError> {
        let query = DeliveryQuery {
            tenant: Some(tenant_id(TENANTS[tenant])),
            event: Some(event.to_owned()),
            limit: 100,
            ..DeliveryQuery::default()
        };
        let made = self.world().store.deliveries(query).await.unwrap();
        prop_assert_eq!(made.len(), jobs as usize);
        for delivery in made {
            let lane = self.lanes.iter().position(|lane| lane.id == delivery.job.connection).unwrap();
            prop_assert!(self.lanes[lane].takes_jobs());
            let job = ModelJob {
                lane,
                state: JobState::Queued,
                due: None,
                finished: None,
                attempts: 0,
                tries: 0,
                lease: None,
                shaken: false,
                by_hand: false,
            };
            prop_assert!(self.jobs.insert(delivery.job.id, job).is_none());
        }
        Ok(())
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
            prop_assert!(job.due.is_none_or(|due| due <= latest), "{} is not due", id);
            prop_assert_eq!((lease.job.attempts, lease.job.tries), (job.attempts, job.tries), "{}", id);
            if lane.always_strict && !job.by_hand {
                let before = self.jobs.range(..id).find(|(_, other)| {
                    other.lane == job.lane && other.state.is_open() && !other.by_hand
                });
                prop_assert!(before.is_none(), "{} passes {:?}", id, before);
            }
            let lane = job.lane;
            let cap = self.lanes[lane].concurrency as usize;
            let job = self.jobs.get_mut(&id).unwrap();
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
            prop_assert!(taken == 0 || is_newest(self, &lease), "{} was settled by a lost lease", lease.job.id);
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
        if !matches!(settlement.next, Next::Requeue) {
            job.attempts += 1;
        }
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

    /// After a sweep to the end, closed lanes hold only what may still be under way.
    async fn swept(&mut self) -> Result<(), TestCaseError> {
        let now = self.now();
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            let job = &self.jobs[&id];
            if !job.state.is_open() || self.lanes[job.lane].takes_jobs() {
                continue;
            }
            let delivery = self.world().delivery(id).await;
            let job = self.jobs.get_mut(&id).unwrap();
            if delivery.state == JobState::Cancelled {
                end(job, JobState::Cancelled, now);
                job.lease = None;
            } else {
                prop_assert!(job.lease.is_some() && !job.shaken, "{} was not cancelled", id);
            }
        }
        Ok(())
    }

    async fn check_counts(&self) -> Result<(), TestCaseError> {
        let stats = self.world().stats().await;
        let open: Vec<&ModelJob> = self.jobs.values().filter(|job| job.state.is_open()).collect();
        prop_assert_eq!(stats.open, open.len() as u64);
        let held = open.iter().filter(|job| job.lease.is_some()).count() as u64;
        let sure = open
            .iter()
            .filter(|job| !job.shaken && job.lease.as_ref().is_some_and(|held| held.deadline > self.latest));
        let sure = sure.count() as u64;
        prop_assert!((sure..=held).contains(&stats.leased), "{} leased, not {}..={}", stats.leased, sure, held);
        let mut lanes: Vec<usize> = open.iter().map(|job| job.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let counts = stats.lanes;
        let counted = counts.ready + counts.waiting + counts.full + counts.paused;
        prop_assert_eq!(counted, lanes.len() as u64);
        prop_assert_eq!(stats.oldest.is_some(), stats.open > 0);
        let oldest = self.jobs.iter().find(|(_, job)| job.state.is_open()).map(|(id, _)| id.time());
        prop_assert!(stats.oldest <= oldest, "{:?} is older than {:?}", oldest, stats.oldest);
        Ok(())
    }

    /// Opens every lane, lets all time pass, and takes all that is left; then the log must agree.
    async fn finish(mut self) -> Result<(), TestCaseError> {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].standing == Standing::Paused {
                self.world().resume(self.lanes[lane].id).await;
                self.lanes[lane].standing = Standing::Active;
            }
        }
        self.world().clock.advance(Duration::from_hours(48));
        self.latest = self.latest.max(self.now());
        let open = self.jobs.values().filter(|job| job.state.is_open()).count();
        for _ in 0..=open {
            let span = Duration::from_secs(60);
            let leases = self.world().lease_for(50, span).await;
            if leases.is_empty() {
                break;
            }
            self.leased(leases.clone(), span)?;
            self.settle(leases, Outcome::Delivered, None).await?;
        }
        self.world().sweep().await;
        self.swept().await?;
        for (id, job) in &self.jobs {
            prop_assert!(!job.state.is_open(), "{} is forgotten: {:?}", id, job);
            let delivery = self.world().store.delivery(*id).await.unwrap();
            let Some(delivery) = delivery else {
                let old = job.finished.is_some_and(|finished| finished.plus(RETENTION) < self.latest);
                prop_assert!(old, "{} was removed early", id);
                continue;
            };
            prop_assert_eq!(delivery.state, job.state, "{}", id);
            prop_assert_eq!((delivery.job.attempts, delivery.job.tries), (job.attempts, job.tries), "{}", id);
            prop_assert_eq!(delivery.attempts.len(), job.tries as usize, "{}", id);
            prop_assert_eq!(delivery.finished, job.finished, "{}", id);
        }
        let stats = self.world().stats().await;
        prop_assert_eq!((stats.open, stats.leased), (0, 0));
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
