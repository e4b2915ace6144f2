//! What it holds in memory and does at once is bounded.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;

#[test]
fn idle_lanes_are_forgotten() {
    let mut lanes = Lanes::default();
    for connection in 1..=100 {
        lanes.apply(Effect::Rule { connection: lane(connection), rule: rule(1, "a", 2) }, NOW);
        made(&mut lanes, lane(connection), [connection]);
    }
    for one in lease(&mut lanes, 100, NOW) {
        ended(&mut lanes, &one);
        lanes.apply(Effect::Worked { connection: one.job.connection }, NOW);
        if one.job.id.bits() % 2 == 0 {
            lanes.apply(Effect::Wait { connection: one.job.connection, until: at(9) }, NOW);
        }
    }
    assert_eq!(lanes.all.len(), 50, "those that wait are remembered");
    assert!(lease(&mut lanes, 9, at(9)).is_empty());
    assert!(lanes.all.is_empty() && lanes.timers.is_empty() && lanes.rings.is_empty());
    assert!(lanes.known.is_empty() && lanes.deadlines.is_empty() && lanes.window_bytes == 0);
}

#[test]
fn windows_stay_within_their_limit_and_budget() {
    let mut lanes = with_rule(1, rule(1, "a", 100));
    made(&mut lanes, lane(1), 1..=5_000);
    check(&lanes);
    assert_eq!(lanes.all[&lane(1)].window.len(), WINDOW);
    assert_eq!(lanes.open, 5_000);

    // Big documents: the budget ends first, and then nothing is read while somebody can give.
    let big = BUDGET_BYTES / 4;
    let mut lanes = Lanes::default();
    for connection in [2, 1] {
        lanes.apply(Effect::Rule { connection: lane(connection), rule: rule(1, "a", 100) }, NOW);
    }
    lanes.restore(lane(2), Restored { open: 9, fresh: true, next_due: None, oldest: NOW }, NOW);
    for id in 101..=120 {
        lanes.apply(Effect::Made(slot(lane(1), id, big)), NOW);
    }
    assert_eq!(lanes.window_bytes, BUDGET_BYTES);
    let turn = lanes.tenants.front().cloned().unwrap();
    assert_eq!(lanes.rings[&turn], [lane(2), lane(1)]);
    lanes.lease(1, at(60), NOW);
    lanes.apply(Effect::Made(slot(lane(1), 121, big)), NOW);
    assert_eq!(lanes.window_bytes, BUDGET_BYTES - big, "what follows jobs on disk is on disk");
    let (connection, plan) = lanes.next_refill(NOW).unwrap();
    assert_eq!((connection, plan.want_bytes), (lane(2), big));
    let fresh = (1..=8).map(|id| slot(connection, id, big)).collect();
    lanes.refilled(connection, plan, Refill { fresh, more_fresh: true, ..Refill::default() }, NOW);
    check(&lanes);
    lanes.refills.push_back(connection);
    assert!(lanes.next_refill(NOW).is_none());
    assert_eq!(lanes.lease(9, at(60), NOW).len(), 9);
    assert!(lanes.next_refill(NOW).is_some());
}

#[test]
fn rendered_bytes_count_too_and_the_last_ones_stay() {
    let mut lanes = with_rule(1, rule(1, "a", 1));
    made(&mut lanes, lane(1), [1]);
    for body in ["first", "second"] {
        let leases = lease(&mut lanes, 1, NOW);
        lanes.claim(&leases[0].reference(), false, NOW).unwrap();
        let rendered = Some(Bytes::from(body));
        lanes.apply(Effect::Back { job: leases[0].job.clone(), rendered }, NOW);
        check(&lanes);
    }
    assert_eq!(lanes.window_bytes, 10 + "second".len());
    assert_eq!(lease(&mut lanes, 1, NOW)[0].rendered.as_deref(), Some(&b"second"[..]));
}

#[test]
fn a_storm_of_retries_is_read_by_half_windows() {
    let mut lanes = with_rule(1, rule(1, "a", 4));
    lanes.restore(lane(1), Restored { open: 20_000, fresh: false, next_due: Some(NOW), oldest: NOW }, NOW);
    let mut disk: VecDeque<u128> = (1..=20_000).collect();
    let mut given = 0;
    let mut refills = 0;
    while given < 20_000 {
        while let Some((connection, plan)) = lanes.next_refill(NOW) {
            refills += 1;
            let due: Vec<Slot> =
                disk.drain(..plan.want_due.min(disk.len())).map(|id| retry(connection, id, NOW)).collect();
            let next_due = (!disk.is_empty()).then_some(NOW);
            lanes.refilled(connection, plan, Refill { due, next_due, ..Refill::default() }, NOW);
            assert!(lanes.all[&connection].window.len() <= 4 * WINDOW_PER_WIDTH);
        }
        let leases = lanes.lease(9, at(60), NOW);
        given += leases.len();
        for one in leases {
            lanes.apply(Effect::Ended(one.job.id), NOW);
        }
    }
    check(&lanes);
    assert!(refills <= 20_000 / (4 * WINDOW_PER_WIDTH * 3 / 8) + 2, "{refills} reads");
}

#[test]
fn one_call_visits_a_bounded_number_of_lanes_and_timers() {
    let mut lanes = Lanes::default();
    let many = 3 * TIMERS as u128;
    for connection in 1..=many {
        lanes.apply(Effect::Rule { connection: lane(connection), rule: rule(1, "a", 2) }, NOW);
        let restored = Restored { open: 1, fresh: false, next_due: Some(at(1)), oldest: NOW };
        lanes.restore(lane(connection), restored, NOW);
    }
    let mut calls = 0;
    while lanes.refills.len() < many as usize {
        let before = lanes.refills.len();
        assert!(lanes.lease(10, at(60), at(1)).is_empty());
        assert!(lanes.refills.len() - before <= TURNS + 10);
        assert!(lanes.has_work() || lanes.next_time() <= Some(at(1)) || lanes.refills.len() == many as usize);
        calls += 1;
    }
    assert!(calls <= 1 + many as usize / TURNS);
}
