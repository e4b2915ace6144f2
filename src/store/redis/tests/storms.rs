//! How much one step does when very much is there. Sizes are those of the promise with `PATCHBAY_SOAK=1`, else a hundredth.

use super::bounds::{calls, count_of, drain, logged};
use super::*;

/// What a phase cost the server.
struct Cost {
    phase: &'static str,
    scripts: u64,
    /// Commands that scripts and plain commands did.
    commands: u64,
    longest_us: u64,
}

async fn measured<T>(bench: &Bench, phase: &'static str, work: impl Future<Output = T>) -> (T, Cost) {
    bench.server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "500"]).await;
    bench.server.command(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    bench.server.command(&["SLOWLOG", "RESET"]).await;
    bench.server.command(&["CONFIG", "RESETSTAT"]).await;
    let done = work.await;
    let calls = calls(&bench.server).await;
    let scripts = ["evalsha", "eval"].iter().filter_map(|name| calls.get(*name)).sum::<u64>();
    let commands = calls.values().sum::<u64>();
    let mut slow = logged(&bench.server).await;
    slow.sort_by_key(|(us, _)| std::cmp::Reverse(*us));
    for (us, words) in slow.iter().take(4) {
        println!("    {us} us: {} with {} words", String::from_utf8_lossy(&words[0]), count_of(words));
    }
    let over = |limit: u64| slow.iter().filter(|(us, _)| *us > limit).count();
    println!(
        "    {} took more than 2 ms, {} more than 5 ms, {} more than 10 ms",
        over(2_000),
        over(5_000),
        over(10_000)
    );
    let longest_us = slow.first().map_or(0, |(us, _)| *us);
    let cost = Cost { phase, scripts, commands, longest_us };
    println!(
        "{phase}: {scripts} scripts, {:.0} commands each, the longest took {} us",
        f64::from(u32::try_from(commands).unwrap()) / f64::from(u32::try_from(scripts.max(1)).unwrap()),
        cost.longest_us
    );
    (done, cost)
}

/// Batches of a thousand events to some lanes.
async fn pour(bench: &Bench, tenant: &str, lanes: &[ConnectionId], events: usize) {
    let mut left = events;
    while left > 0 {
        let some = left.min(1_000);
        let batch = (0..some).map(|_| bench.event(tenant, lanes)).collect();
        bench.store.ingest(Ingest { idempotency: None, events: batch }).await.unwrap();
        left -= some;
        applied(&bench.store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_step_grows_with_what_is_there() {
    let scale = if is_soak() { 100 } else { 1 };
    let bench = Bench::new().await;
    let mut costs = Vec::new();

    // A lane of a million jobs.
    let lane = bench.connection("long", 256).await;
    let ((), cost) =
        measured(&bench, "a long lane fills", pour(&bench, "long", &[lane], 10_000 * scale)).await;
    costs.push(cost);
    let (leases, cost) = measured(&bench, "a lease of it", bench.lease(64)).await;
    assert_eq!(leases.len(), 64);
    costs.push(cost);
    bench.store.release(&leases.iter().map(Lease::reference).collect::<Vec<_>>()).await.unwrap();
    let closed = ConnectionState::Closed { reason: "over".to_owned(), at: START };
    bench.set_state(lane, closed).await;
    let swept = async { while bench.store.sweep().await.unwrap().more {} };
    costs.push(measured(&bench, "it is cancelled", swept).await.1);
    assert_eq!(bench.store.stats().await.unwrap().open, 0);

    // A storm of a hundred thousand retries that are due at once.
    let lane = bench.connection("storm", 256).await;
    let storm = 1_000 * scale;
    pour(&bench, "storm", &[lane], storm).await;
    let due = bench.later(60);
    assert_eq!(drain(&bench, || Next::Due(due)).await, storm);
    bench.advance(60);
    let (count, cost) = measured(&bench, "a storm of retries", drain(&bench, delivered)).await;
    assert_eq!(count, storm);
    costs.push(cost);

    // A hundred thousand connections, all of one tenant; one event to all of them.
    let mut lanes = Vec::new();
    for _ in 0..1_000 * scale {
        lanes.push(bench.connection("wide", 16).await);
    }
    let wide = lanes.len().min(10_000);
    costs.push(measured(&bench, "events to very many", pour(&bench, "wide", &lanes[..wide], 3)).await.1);
    assert_eq!(bench.store.stats().await.unwrap().open, 3 * wide as u64);
    let (changes, cost) = measured(&bench, "all records are read", bench.store.changes(0, usize::MAX)).await;
    costs.push(cost);
    let (newest, records) = {
        let changes = changes.unwrap();
        (changes.last().unwrap().revision, changes.into_iter().filter_map(|change| change.record))
    };
    let records: Vec<Record> = records.collect();
    let tenant_record = Tenant { id: tenant("wide"), name: "Wide".to_owned(), created: START };
    bench.store.put(Record::Tenant(tenant_record), Expected::Absent).await.unwrap();
    let deleted = bench.store.delete(crate::store::RecordId::Tenant(tenant("wide")));
    let (deleted, cost) = measured(&bench, "the tenant is deleted", deleted).await;
    assert_eq!(deleted, Ok(true));
    costs.push(cost);
    let swept = async { while bench.store.sweep().await.unwrap().more {} };
    costs.push(measured(&bench, "its jobs are cancelled", swept).await.1);
    assert_eq!(bench.store.stats().await.unwrap().open, 0);
    bench.advance(8 * 24 * 3_600);
    let swept = async { while bench.store.sweep().await.unwrap().more {} };
    costs.push(measured(&bench, "all of it is past its retention", swept).await.1);
    bench.server.command(&["FLUSHALL"]).await;
    let rebuilt = bench.store.rebuild(records, newest);
    let (rebuilt, cost) = measured(&bench, "all records are written again", rebuilt).await;
    assert_eq!(rebuilt, Ok(true));
    costs.push(cost);

    for cost in &costs {
        // A script that does everything at once would do tens of thousands.
        let each = cost.commands / cost.scripts.max(1);
        assert!(each < 2_600, "{}: {each} commands a script", cost.phase);
    }
    let longest = costs.iter().max_by_key(|cost| cost.longest_us).unwrap();
    println!("the longest of all: {} us, while {}", longest.longest_us, longest.phase);
}
