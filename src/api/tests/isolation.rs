//! A fault stays in its lane: many endpoints that never answer, beside one that works.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use super::TestApi;
use super::receiver::Receiver;
use crate::worker::{self, WorkerSettings};

const SILENT: usize = 100;
/// Fewer places than silent endpoints have jobs.
const PLACES: usize = 64;

/// Awaits what must happen by itself; fails loudly if it doesn't.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited for {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_silent_endpoints_do_not_hold_back_one_that_works() {
    let api = TestApi::start().await;
    let (silent, working) = (Receiver::start([]).await, Receiver::start([]).await);
    silent.hold();
    let (acme, other) = (api.full_tenant("acme").await, api.full_tenant("other").await);
    for number in 0..SILENT {
        let url = format!("{}/{number}", silent.url);
        // Longer than this test waits for anything.
        let policy = json!({ "timeout_secs": 60 });
        api.connection(&acme, json!({ "target": { "url": url }, "policy": policy })).await;
    }
    api.connection(&other, json!({ "target": { "url": working.url } })).await;
    let settings = WorkerSettings { concurrency: PLACES, ..WorkerSettings::default() };
    let workers = worker::start(&api.gateway, &settings, Duration::ZERO).unwrap();
    let publish = async |key: &str, count: usize| {
        for number in 0..count {
            let event = json!({ "type": "lead.captured", "data": { "number": number } });
            let made = api.post("/v1/events", key, &event).await;
            assert_eq!(made.status, 202, "{made:?}");
        }
    };
    // Two jobs each: more than there are places, and more than the tenant may hold of both rooms.
    publish(&acme, 2).await;
    let mut held = 0;
    until("every place to be held", || {
        held += silent.came().len();
        held == PLACES
    })
    .await;
    publish(&other, 10).await;
    // One second on, those that don't answer make room; their timeouts are still far away.
    api.clock.advance(Duration::from_secs(1));
    let mut arrived = HashSet::new();
    until("the deliveries of the one that works", || {
        arrived.extend(working.came().into_iter().map(|came| came.body));
        arrived.len() == 10
    })
    .await;
    until("silent endpoints in the room that was made", || {
        held += silent.came().len();
        held >= 2 * PLACES
    })
    .await;
    // They may take no more than they leave free for others: the rest waits, and spends no attempt.
    api.clock.advance(Duration::from_secs(1));
    until("silent endpoints that are held back", || {
        let text = api.gateway.metrics.expose(None, true, api.clock.now());
        let throttled = text.lines().find_map(|line| line.strip_prefix("patchbay_throttled_total "));
        throttled.is_some_and(|count| count != "0")
    })
    .await;
    publish(&other, 10).await;
    until("further deliveries", || {
        arrived.extend(working.came().into_iter().map(|came| came.body));
        arrived.len() == 20
    })
    .await;
    held += silent.came().len();
    // Half of the room aside, and a place each: less than both rooms, and than its jobs.
    assert!(held <= 3 * PLACES / 2 + PLACES, "{held}");
    workers.drain().await;
}
