//! The scheduler by itself: no disk, time passed in. A refill is whatever a test says was read.

mod bounds;
mod fairness;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::domain::breaker::Failing;
use crate::domain::event::Event;
use crate::domain::id::{EventKey, MappingVersion};
use crate::domain::job::Job;
use crate::store::types::Revision;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn at(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

fn lane(bits: u128) -> ConnectionId {
    ConnectionId::from_bits(bits)
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn rule(revision: Revision, owner: &str, concurrency: u32) -> LaneRule {
    LaneRule {
        revision,
        tenant: tenant(owner),
        concurrency,
        batch: 1,
        paused: false,
        closed: false,
        unwanted_before: None,
    }
}

fn closing(connection: ConnectionId, leased: u32) -> Closing {
    Closing { connection, leased, before: None, seen: (0, [0; 16]) }
}

fn slot(connection: ConnectionId, id: u128, bytes: usize) -> Slot {
    let event = Event {
        key: EventKey::from_bits(id),
        id: String::new(),
        kind: "a".to_owned(),
        tenant: tenant("t"),
        source: None,
        received: NOW,
        document: json!({}).into(),
    };
    let job = Job {
        id: JobId::from_bits(id),
        name: JobId::from_bits(id),
        tenant: tenant("t"),
        connection,
        event: event.key,
        mapping: MappingVersion::from_bits(0),
        created: NOW,
        attempts: 0,
        tries: 0,
    };
    Slot { job, event: Arc::new(event), document_bytes: bytes, rendered: None, due: None }
}

fn retry(connection: ConnectionId, id: u128, due: Timestamp) -> Slot {
    Slot { due: Some(due), ..slot(connection, id, 10) }
}

fn made(lanes: &mut Lanes, connection: ConnectionId, ids: impl IntoIterator<Item = u128>) {
    for id in ids {
        lanes.apply(Effect::Made(slot(connection, id, 10)), NOW);
    }
}

fn with_rule(connection: u128, rule: LaneRule) -> Lanes {
    let mut lanes = Lanes::default();
    lanes.apply(Effect::Rule { connection: lane(connection), rule }, NOW);
    lanes
}

fn lease(lanes: &mut Lanes, room: usize, now: Timestamp) -> Vec<Lease> {
    let leases = lanes.lease(room, now.plus(Duration::from_mins(1)), now);
    check(lanes);
    leases
}

fn ids(leases: &[Lease]) -> Vec<u128> {
    leases.iter().map(|lease| lease.job.id.bits()).collect()
}

fn ended(lanes: &mut Lanes, lease: &Lease) {
    assert!(lanes.claim(&lease.reference(), false, NOW).is_some());
    lanes.apply(Effect::Ended(lease.job.id), NOW);
    check(lanes);
}

fn failed(lanes: &mut Lanes, lease: &Lease, due: Timestamp, now: Timestamp) {
    assert!(lanes.claim(&lease.reference(), false, NOW).is_some());
    let job = Job { attempts: lease.job.attempts + 1, tries: lease.job.tries + 1, ..lease.job.clone() };
    lanes.apply(Effect::Again { job, due, rendered: None }, now);
    check(lanes);
}

/// What must hold at any time.
fn check(lanes: &Lanes) {
    let windows: usize = lanes.all.values().map(|lane| lane.window.bytes()).sum();
    assert_eq!(windows, lanes.window_bytes);
    let held: usize = lanes.all.values().map(|lane| lane.window.len()).sum();
    assert_eq!(held + lanes.leases.len(), lanes.known.len());
    for (connection, lane) in &lanes.all {
        assert!(lane.window.len() <= WINDOW + WINDOW / 2 + lane.concurrency as usize);
        let leased = lanes.leases.values().filter(|entry| entry.connection() == *connection).count();
        assert_eq!(lane.leased as usize, leased);
        assert!(lane.freed <= lane.leased);
        let in_ring: usize = lanes.rings.values().flatten().filter(|other| *other == connection).count();
        assert_eq!(in_ring, usize::from(lane.in_ring), "once in the ring or not at all");
    }
    for (owner, ring) in &lanes.rings {
        assert_eq!(ring.is_empty(), !lanes.tenants.contains(owner));
    }
    let open: u64 = lanes.all.values().map(|lane| lane.open).sum();
    assert_eq!(open, lanes.open);
    assert_eq!(lanes.timers.len(), lanes.all.values().filter(|lane| lane.timer.is_some()).count());
}

#[test]
fn turns_go_round_tenants_then_lanes() {
    let mut lanes = Lanes::default();
    for (connection, owner) in [(1, "a"), (2, "a"), (3, "b")] {
        lanes.apply(Effect::Rule { connection: lane(connection), rule: rule(1, owner, 100) }, NOW);
        made(&mut lanes, lane(connection), connection * 100..connection * 100 + 50);
    }
    let leases = lease(&mut lanes, 6 * QUANTUM, NOW);
    let turns: Vec<u128> = leases.chunks(QUANTUM).map(|turn| turn[0].job.connection.bits()).collect();
    assert_eq!(turns, [1, 3, 2, 3, 1, 3]);
    assert!(
        leases.chunks(QUANTUM).all(|turn| turn.iter().all(|l| l.job.connection == turn[0].job.connection))
    );
    // A turn cut short by the caller's room goes on with the next lane.
    let turns: Vec<u128> = (0..3).map(|_| lease(&mut lanes, 1, NOW)[0].job.connection.bits()).collect();
    assert_eq!(turns, [2, 3, 1]);
}

#[test]
fn concurrency_caps_and_a_settlement_makes_room() {
    let mut lanes = with_rule(1, rule(1, "a", 2));
    made(&mut lanes, lane(1), 1..=5);
    let two = lease(&mut lanes, 9, NOW);
    assert_eq!(ids(&two), [1, 2]);
    assert!(!lanes.has_work());
    ended(&mut lanes, &two[1]);
    assert!(lanes.has_work());
    assert_eq!(ids(&lease(&mut lanes, 9, NOW)), [3]);
}

#[test]
fn width_narrows_by_failures_and_widens_by_successes() {
    let mut lanes = with_rule(1, rule(1, "a", 8));
    made(&mut lanes, lane(1), 1..=40);
    let mut count = 0;
    let mut health = |lanes: &mut Lanes, works| {
        count = if works { 0 } else { count + 1 };
        let (connection, failing) = (lane(1), Failing { count, since: NOW });
        lanes.apply(
            if works { Effect::Worked { connection } } else { Effect::Failed { connection, failing } },
            NOW,
        );
    };
    let mut next = 1;
    for (works, width) in [(false, 4), (false, 2), (false, 1), (false, 1), (true, 2), (true, 3)] {
        health(&mut lanes, works);
        let leases = lease(&mut lanes, 40, NOW);
        assert_eq!(ids(&leases), (next..next + width).collect::<Vec<_>>());
        next += width;
        for one in leases {
            ended(&mut lanes, &one);
        }
    }
}

#[test]
fn in_a_strict_lane_a_waiting_job_holds_back_the_rest() {
    let mut lanes = with_rule(1, rule(1, "a", 1));
    made(&mut lanes, lane(1), 1..=3);
    let first = lease(&mut lanes, 9, NOW);
    assert_eq!(ids(&first), [1]);
    failed(&mut lanes, &first[0], at(5), NOW);
    assert_eq!(ids(&lease(&mut lanes, 9, at(4))), [] as [u128; 0]);
    assert_eq!(lanes.next_time(), Some(at(5)));
    let again = lease(&mut lanes, 9, at(5));
    assert_eq!((ids(&again), again[0].job.attempts), (vec![1], 1));
    ended(&mut lanes, &again[0]);
    assert_eq!(ids(&lease(&mut lanes, 9, at(5))), [2]);
}

#[test]
fn in_a_wide_lane_a_waiting_job_leaves_memory_and_comes_back_first() {
    let mut lanes = with_rule(1, rule(1, "a", 4));
    made(&mut lanes, lane(1), 1..=3);
    let first = lease(&mut lanes, 1, NOW);
    failed(&mut lanes, &first[0], at(5), NOW);
    assert!(!lanes.knows(JobId::from_bits(1)));
    let leases = lanes.lease(1, at(60), at(5));
    assert_eq!(ids(&leases), [2], "it gives what it has meanwhile");
    let (connection, plan) = lanes.next_refill(at(5)).unwrap();
    let want_bytes = BUDGET_BYTES - 10;
    assert_eq!(plan, RefillPlan { want_due: 128, want_fresh: 128, want_bytes, known: 2, strict: false });
    let refill = Refill { due: vec![retry(connection, 1, at(5))], ..Refill::default() };
    lanes.refilled(connection, plan, refill, at(5));
    assert_eq!(ids(&lease(&mut lanes, 9, at(5))), [1, 3]);
    assert!(!lanes.may_refill());
}

#[test]
fn a_pause_drops_the_window_and_a_resume_asks_for_it() {
    let mut lanes = with_rule(1, rule(1, "a", 4));
    made(&mut lanes, lane(1), 1..=3);
    let first = lease(&mut lanes, 1, NOW);
    lanes
        .apply(Effect::Rule { connection: lane(1), rule: LaneRule { paused: true, ..rule(2, "a", 4) } }, NOW);
    assert_eq!(lanes.window_bytes, 0);
    assert!(lease(&mut lanes, 9, NOW).is_empty());
    assert!(lanes.next_refill(NOW).is_none());
    // An older rule changes nothing.
    lanes.apply(Effect::Rule { connection: lane(1), rule: rule(1, "a", 4) }, NOW);
    assert!(lease(&mut lanes, 9, NOW).is_empty());
    lanes.release(&first[0].reference(), NOW);
    lanes.apply(Effect::Rule { connection: lane(1), rule: rule(3, "a", 4) }, NOW);
    assert!(lease(&mut lanes, 9, NOW).is_empty());
    let (connection, plan) = lanes.next_refill(NOW).unwrap();
    let fresh = (1..=3).map(|id| slot(connection, id, 10)).collect();
    lanes.refilled(connection, plan, Refill { fresh, ..Refill::default() }, NOW);
    assert_eq!(ids(&lease(&mut lanes, 9, NOW)), [1, 2, 3]);
}

#[test]
fn a_refill_that_a_pause_overtakes_is_dropped_and_asked_for_again() {
    for overtaking in ["pause", "lost lease"] {
        let mut lanes = with_rule(1, rule(1, "a", 4));
        lanes.restore(lane(1), Restored { open: 4, fresh: true, next_due: None, oldest: NOW }, NOW);
        lease(&mut lanes, 9, NOW);
        let (connection, plan) = lanes.next_refill(NOW).unwrap();
        let fresh = vec![slot(connection, 1, 10), slot(connection, 2, 10)];
        lanes.refilled(connection, plan, Refill { fresh, more_fresh: true, ..Refill::default() }, NOW);
        let first = lease(&mut lanes, 1, NOW);
        let (connection, plan) = lanes.next_refill(NOW).unwrap();
        // While the rows after 1 and 2 are read, those two go back to disk.
        let pause = LaneRule { paused: true, ..rule(2, "a", 4) };
        lanes.apply(Effect::Rule { connection, rule: pause }, NOW);
        if overtaking == "lost lease" {
            lanes.release(&first[0].reference(), NOW);
        }
        lanes.apply(Effect::Rule { connection, rule: rule(3, "a", 4) }, NOW);
        let fresh = vec![slot(connection, 3, 10), slot(connection, 4, 10)];
        lanes.refilled(connection, plan, Refill { fresh, ..Refill::default() }, NOW);
        check(&lanes);
        assert!(lease(&mut lanes, 9, NOW).is_empty(), "{overtaking}: the rows were dropped");
        assert!(lanes.next_refill(NOW).is_some(), "{overtaking}: and asked for again");
    }
}

#[test]
fn a_wait_holds_the_lane_and_its_timer_brings_it_back() {
    let mut lanes = with_rule(1, rule(1, "a", 4));
    made(&mut lanes, lane(1), 1..=3);
    let wait = |lanes: &mut Lanes, secs| {
        lanes.apply(Effect::Wait { connection: lane(1), until: at(secs) }, NOW);
    };
    wait(&mut lanes, 60);
    wait(&mut lanes, 30);
    assert!(lease(&mut lanes, 9, at(59)).is_empty());
    assert_eq!(lanes.next_time(), Some(at(60)));
    assert_eq!(ids(&lease(&mut lanes, 9, at(60))), [1, 2, 3]);
}

#[test]
fn leases_run_out_are_renewed_released_and_fenced() {
    let mut lanes = with_rule(1, rule(1, "a", 4));
    made(&mut lanes, lane(1), 1..=3);
    let leases = lease(&mut lanes, 3, NOW);
    lanes.renew(&leases[0].reference(), at(100));
    lanes.release(&leases[1].reference(), NOW);
    assert!(lanes.claim(&leases[1].reference(), false, NOW).is_none(), "it was given back");
    assert!(lanes.claim(&leases[2].reference(), false, NOW).is_some());
    assert!(lanes.claim(&leases[2].reference(), false, NOW).is_none(), "claimed once");
    lanes.release(&leases[2].reference(), NOW);
    lanes.renew(&leases[2].reference(), at(1_000));
    assert_eq!(ids(&lease(&mut lanes, 9, at(99))), [2], "neither the renewed nor the claimed one");
    let lost = lease(&mut lanes, 9, at(100));
    assert_eq!(ids(&lost), [1]);
    assert!(lanes.claim(&leases[0].reference(), false, NOW).is_none());
    // A settlement that could not be written: the lease runs on, and is overdue by now.
    lanes.unclaim(&LeaseRefOf(&leases[0]).stale());
    lanes.unclaim(&leases[2].reference());
    assert_eq!(ids(&lease(&mut lanes, 9, at(101))), [3]);
}

#[test]
fn an_endpoint_that_answered_has_the_next_job_before_the_outcome_is_written() {
    for (concurrency, next) in [(2, vec![3]), (1, vec![])] {
        let mut lanes = with_rule(1, rule(1, "a", concurrency));
        made(&mut lanes, lane(1), 1..=4);
        let leases = lease(&mut lanes, 9, NOW);
        assert_eq!(leases.len(), concurrency as usize);
        lanes.claim(&leases[0].reference(), true, NOW).unwrap();
        assert_eq!(lanes.has_work(), concurrency > 1, "a strict lane waits for the outcome");
        assert_eq!(ids(&lease(&mut lanes, 9, NOW)), next);
        // It was not written: there is one more under way than the lane is wide, and none comes until two have ended.
        assert!(lanes.unclaim(&leases[0].reference()));
        check(&lanes);
        ended(&mut lanes, &leases[0]);
        assert_eq!(lease(&mut lanes, 9, NOW).len(), usize::from(concurrency == 1));
    }
    let mut lanes = with_rule(1, rule(1, "a", 2));
    made(&mut lanes, lane(1), 1..=4);
    let leases = lease(&mut lanes, 9, NOW);
    lanes.claim(&leases[0].reference(), true, NOW).unwrap();
    assert_eq!(lease(&mut lanes, 9, NOW).len(), 1);
    lanes.apply(Effect::Ended(leases[0].job.id), NOW);
    assert!(lease(&mut lanes, 9, NOW).is_empty(), "its place was given already");
    assert!(!lanes.unclaim(&leases[0].reference()), "it has ended");
}

/// Makes a reference that no lease has.
struct LeaseRefOf<'a>(&'a Lease);

impl LeaseRefOf<'_> {
    fn stale(&self) -> crate::store::LeaseRef {
        crate::store::LeaseRef { token: u64::MAX, ..self.0.reference() }
    }
}

#[test]
fn a_closed_lane_lists_what_nobody_holds_until_it_is_cancelled() {
    let mut lanes = with_rule(1, rule(1, "a", 2));
    made(&mut lanes, lane(1), 1..=5);
    let two = lease(&mut lanes, 2, NOW);
    lanes.apply(Effect::Deleted { connection: lane(1), revision: 2 }, NOW);
    check(&lanes);
    assert!(lanes.is_closed(lane(1)));
    assert_eq!(lanes.closing(), Some(closing(lane(1), 2)));
    lanes.apply(Effect::Cancelled { connection: lane(1), count: 3, seen: (0, [0; 16]) }, NOW);
    assert_eq!(lanes.closing(), None, "what is under way ends by its settlement");
    ended(&mut lanes, &two[0]);
    lanes.release(&two[1].reference(), NOW);
    assert_eq!(lanes.closing(), Some(closing(lane(1), 0)), "or is listed again");
    lanes.apply(Effect::Cancelled { connection: lane(1), count: 1, seen: (0, [0; 16]) }, NOW);
    assert!(lanes.all.is_empty() && lanes.open == 0);
    // Written in the batch that closed it.
    made(&mut lanes, lane(1), [9]);
    assert_eq!(lanes.closing(), Some(closing(lane(1), 0)));
    // An old rule does not bring it back; a newer one does, and nothing is cancelled then.
    lanes.apply(Effect::Rule { connection: lane(1), rule: rule(1, "a", 2) }, NOW);
    assert_eq!(lanes.closing(), Some(closing(lane(1), 0)));
    lanes.apply(Effect::Rule { connection: lane(1), rule: rule(3, "a", 2) }, NOW);
    lanes.apply(Effect::Deleted { connection: lane(1), revision: 2 }, NOW);
    assert_eq!(lanes.closing(), None);
    assert!(lanes.has_work());
}
