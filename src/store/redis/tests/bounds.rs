//! What things cost: commands for an event, commands of an idle process, the work of one step whatever the backlog, and
//! memory. Counts are checked, not times, but where a time is the promise.

use super::*;
use crate::store::StoreError;

/// Multiplies the sizes here; 1 keeps the suite quick.
const SCALE: usize = 1;

/// Calls by command since the last `CONFIG RESETSTAT`: whatever a client sent and whatever scripts did.
pub(super) async fn calls(server: &Server) -> BTreeMap<String, u64> {
    let text: String = redis::from_redis_value(server.command(&["INFO", "commandstats"]).await).unwrap();
    text.lines()
        .filter_map(|line| {
            let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), stats.split(',').next()?.parse().ok()?))
        })
        .filter(|(name, _)| {
            !["info", "config|resetstat", "auth", "client|setinfo", "slowlog|get", "slowlog|reset"]
                .contains(&&**name)
        })
        .collect()
}

/// Microseconds of processor time that the server has used.
async fn processor(server: &Server) -> f64 {
    (server.info("cpu", "used_cpu_user").await + server.info("cpu", "used_cpu_sys").await) * 1e6
}

/// Commands that took longer than the server was told to log, by its log: how long in microseconds, and their words, of
/// which it cuts what is long. Without those by which a test asks for it.
pub(super) async fn logged(server: &Server) -> Vec<(u64, Vec<Vec<u8>>)> {
    let entries: Vec<Vec<redis::Value>> =
        redis::from_redis_value(server.command(&["SLOWLOG", "GET", "-1"]).await).unwrap();
    entries
        .into_iter()
        .map(|entry| {
            let words: Vec<Vec<u8>> = redis::from_redis_value(entry[3].clone()).unwrap();
            (redis::from_redis_value(entry[2].clone()).unwrap(), words)
        })
        .filter(|(_, words)| ![&b"SLOWLOG"[..], b"CONFIG", b"INFO"].contains(&&words[0][..]))
        .collect()
}

/// How many words a logged command had.
pub(super) fn count_of(words: &[Vec<u8>]) -> usize {
    let last = words.last().map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
    let more = last.strip_prefix("... (").and_then(|more| more.split(' ').next()?.parse::<usize>().ok());
    more.map_or(words.len(), |more| words.len() - 1 + more)
}

/// The longest that the server was busy with one command, in microseconds.
async fn longest(server: &Server) -> u64 {
    logged(server).await.into_iter().map(|(us, _)| us).max().unwrap_or(0)
}

/// Fills lanes as many writers at once do.
pub(super) async fn fill(bench: &Bench, tenant_name: &str, lanes: &[ConnectionId], count: usize) {
    let tasks: Vec<_> = (0..64)
        .map(|at| {
            let (store, ids, clock) = (Arc::clone(&bench.store), bench.ids.clone(), bench.clock.clone());
            let (tenant_name, lanes) = (tenant_name.to_owned(), lanes.to_vec());
            tokio::spawn(async move {
                for _ in 0..(count / 64 + usize::from(at < count % 64)) {
                    let key = EventKey::from_bits(ids.next());
                    let event = named_event(key, &key.to_string(), &tenant_name, clock.now(), &lanes);
                    store.ingest(Ingest { idempotency: None, events: vec![event] }).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Leases and settles until nothing comes; gives how many.
pub(super) async fn drain(bench: &Bench, next: impl Fn() -> Next) -> usize {
    let mut count = 0;
    loop {
        let leases = bench.lease(256).await;
        if leases.is_empty() {
            return count;
        }
        let outcomes = leases.iter().map(|lease| {
            let mut outcome = settlement(lease, next());
            outcome.effect.healthy = None;
            outcome
        });
        count += bench.store.settle(outcomes.collect()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_costs_few_round_trips() {
    for fan_out in [1, 10] {
        let bench = Bench::new().await;
        let mut lanes = Vec::new();
        for _ in 0..fan_out {
            lanes.push(bench.connection("acme", 256).await);
        }
        let events = 2_000 * SCALE;
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let (began, used) = (std::time::Instant::now(), processor(&bench.server).await);
        fill(&bench, "acme", &lanes, events).await;
        let (filled, fill_used) = (began.elapsed(), processor(&bench.server).await - used);
        let ingest = calls(&bench.server).await;
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let (began, used) = (std::time::Instant::now(), processor(&bench.server).await);
        assert_eq!(drain(&bench, delivered).await, events * fan_out);
        let (drained, drain_used) = (began.elapsed(), processor(&bench.server).await - used);
        let deliver = calls(&bench.server).await;
        let each =
            |calls: u64| f64::from(u32::try_from(calls).unwrap()) / f64::from(u32::try_from(events).unwrap());
        let sum = |calls: &BTreeMap<String, u64>| each(calls.values().sum());
        let sent = |calls: &BTreeMap<String, u64>, names: &[&str]| {
            each(names.iter().filter_map(|name| calls.get(*name)).sum())
        };
        let scripts = ["evalsha", "eval"];
        println!(
            "fan-out {fan_out}: ingest {:.2} scripts and {:.1} commands an event, {:.0} events/s; lease and settle {:.2} \
             scripts, {:.2} reads and {:.1} commands an event, {:.0} jobs/s",
            sent(&ingest, &scripts),
            sum(&ingest),
            f64::from(u32::try_from(events).unwrap()) / filled.as_secs_f64(),
            sent(&deliver, &scripts),
            sent(&deliver, &["hmget"]),
            sum(&deliver),
            f64::from(u32::try_from(events * fan_out).unwrap()) / drained.as_secs_f64(),
        );
        let of_events = f64::from(u32::try_from(events).unwrap());
        println!(
            "  the server's processor: {:.1} us an event, {:.1} us a job",
            fill_used / of_events,
            drain_used / of_events / f64::from(u32::try_from(fan_out).unwrap()),
        );
        println!("  ingest {ingest:?}\n  deliver {deliver:?}");
        assert!(sent(&ingest, &scripts) < 0.2, "requests that come together share a call");
        // What a script does once counts the more, the fewer requests come together.
        assert!(sum(&ingest) < 6.0 + f64::from(u32::try_from(fan_out).unwrap()), "{ingest:?}");
        assert!(sum(&deliver) < 2.0 + 5.0 * f64::from(u32::try_from(fan_out).unwrap()), "{deliver:?}");
    }
}

#[tokio::test]
async fn an_idle_gateway_is_nearly_silent() {
    /// Of a minute: what comes less often than once in ten seconds is counted below.
    const LISTENED: Duration = Duration::from_secs(12);
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    bench.ingest("acme", &[lane]).await;
    let lease = bench.lease(1).await.remove(0);
    bench.settle(&lease, delivered()).await;
    // As a gateway does: tasks wait for work, for changes and for upkeep; probes and scrapes come every ten seconds.
    let waits = act_as_gateway(&bench.store);
    settle_down(&bench).await;
    bench.server.command(&["CONFIG", "RESETSTAT"]).await;
    let began = std::time::Instant::now();
    for at in 0..=1 {
        tokio::time::sleep_until((began + Duration::from_secs(10 * at)).into()).await;
        bench.store.health().await.unwrap();
        bench.store.stats().await.unwrap();
    }
    tokio::time::sleep_until((began + LISTENED).into()).await;
    let listened = calls(&bench.server).await;
    // What happens every five and every ten minutes.
    let cost = async || {
        let count = calls(&bench.server).await.values().sum::<u64>();
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        count
    };
    cost().await;
    bench.store.core.wake.mark_all();
    while !bench.store.core.wake.is_quiet() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.lease(1).await;
    let polled = cost().await;
    bench.store.sweep().await.unwrap();
    let swept = cost().await;
    // Two probes, two scrapes and two looks for changes in as many seconds are six of each a minute.
    let sum: u64 = listened.values().sum();
    // A silent subscription is pinged every 15 s.
    let minute = sum * 60 / 20 + polled / 5 + swept / 10 + 4;
    println!(
        "idle for {LISTENED:?}: {listened:?}; asking every partition for work {polled}, a sweep {swept}: \
         {minute} commands a minute"
    );
    assert!(minute < 60, "{minute}");
    waits.iter().for_each(tokio::task::JoinHandle::abort);
}

/// What a gateway leaves running over its store.
fn act_as_gateway(store: &Arc<RedisStore>) -> [tokio::task::JoinHandle<()>; 3] {
    let (feed, follow, sweep) = (Arc::clone(store), Arc::clone(store), Arc::clone(store));
    [
        tokio::spawn(async move {
            loop {
                feed.wait_for_work().await;
                feed.lease(64, SPAN).await.unwrap();
            }
        }),
        tokio::spawn(async move {
            let mut since = 0;
            loop {
                follow.wait_for_change(since).await;
                let changes = follow.changes(since, 1_000).await.unwrap();
                since = changes.last().map_or(since, |change| change.revision);
            }
        }),
        tokio::spawn(async move {
            loop {
                while sweep.sweep().await.unwrap().more {}
                sweep.wait_for_upkeep().await;
            }
        }),
    ]
}

/// Returns when a second has passed without a command of the store's.
async fn settle_down(bench: &Bench) {
    let began = std::time::Instant::now();
    loop {
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if calls(&bench.server).await.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", calls(&bench.server).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_processes_one_sweeps_and_soon_where_something_is_left() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    for _ in 0..20 {
        bench.ingest("acme", &[lane]).await;
    }
    let mut stores = vec![Arc::clone(&bench.store)];
    for _ in 0..3 {
        stores.push(Arc::new(bench.another().await));
    }
    let sweeps = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sweepers: Vec<_> = stores
        .into_iter()
        .map(|store| {
            let sweeps = Arc::clone(&sweeps);
            tokio::spawn(async move {
                loop {
                    store.wait_for_upkeep().await;
                    sweeps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    while store.sweep().await.unwrap().more {}
                }
            })
        })
        .collect();
    let began = std::time::Instant::now();
    while sweeps.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.set_state(lane, ConnectionState::Closed { reason: "over".to_owned(), at: START }).await;
    let closed = std::time::Instant::now();
    while bench.store.stats().await.unwrap().open > 0 {
        assert!(closed.elapsed() < Duration::from_secs(5), "cancelled without anybody asking");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("cancelled {:?} after the lane was closed", closed.elapsed());
    tokio::time::sleep(Duration::from_secs(9).saturating_sub(began.elapsed())).await;
    let count = sweeps.load(std::sync::atomic::Ordering::Relaxed);
    assert!(count <= 4, "{count} sweeps of four processes for three reasons");
    sweepers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_work_is_picked_up_at_once_by_another_process() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let worker = bench.another().await;
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let working = tokio::spawn(async move {
        loop {
            worker.wait_for_work().await;
            for lease in worker.lease(64, SPAN).await.unwrap() {
                sender.send(std::time::Instant::now()).unwrap();
                worker.settle(vec![settlement(&lease, delivered())]).await.unwrap();
            }
        }
    });
    // Until the other process listens.
    bench.ingest("acme", &[lane]).await;
    received.recv().await.unwrap();
    // The promise is the store's; a machine that other tests keep busy is given time to show it.
    let patience = std::time::Instant::now() + Duration::from_secs(90);
    let mut at_once = false;
    while !at_once && std::time::Instant::now() < patience {
        let (mut waits, mut trips) = (Vec::new(), Vec::new());
        for _ in 0..200 * SCALE {
            bench.ingest("acme", &[lane]).await;
            let began = std::time::Instant::now();
            let found = received.recv().await.unwrap();
            waits.push(found.saturating_duration_since(began));
            let began = std::time::Instant::now();
            bench.store.core.link.plain(redis::cmd("PING"), SPAN).await.unwrap();
            trips.push(began.elapsed());
        }
        waits.sort();
        trips.sort();
        let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100];
        let (p99, trip) = (at(&waits, 99), at(&trips, 99));
        println!("from accepted to leased elsewhere: median {:?}, p99 {p99:?}", at(&waits, 50));
        println!("to the server and back: median {:?}, p99 {trip:?}", at(&trips, 50));
        // It is told, asks, and reads: three ways, one of them no longer than there and back.
        at_once = p99 < (3 * trip).max(Duration::from_millis(5));
    }
    assert!(at_once);
    working.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_costs_the_same_whatever_is_waiting() {
    let mut costs = Vec::new();
    for size in [500, 5_000 * SCALE] {
        let bench = Bench::new().await.without_beat();
        bench.server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "500"]).await;
        bench.server.command(&["CONFIG", "SET", "slowlog-max-len", "10000"]).await;
        let lane = bench.connection("acme", 256).await;
        fill(&bench, "acme", &[lane], size).await;
        let due = bench.later(60);
        assert_eq!(drain(&bench, || Next::Due(due)).await, size);
        bench.advance(60);
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let (began, used) = (std::time::Instant::now(), processor(&bench.server).await);
        let first = bench.lease(100).await;
        let (took, used) = (began.elapsed(), processor(&bench.server).await - used);
        println!(
            "the first lease of {size} due at once took {took:?} and {used:.0} us of the server's processor"
        );
        assert_eq!(first.len(), 100);
        let leased = calls(&bench.server).await;
        bench.store.release(&first.iter().map(Lease::reference).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(drain(&bench, delivered).await, size);
        // The same of a closed lane: cancelled in steps.
        fill(&bench, "acme", &[lane], size).await;
        bench.set_state(lane, ConnectionState::Closed { reason: "gone".to_owned(), at: START }).await;
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let used = processor(&bench.server).await;
        let sweep = bench.store.sweep().await.unwrap();
        println!("one sweep took {:.0} us of the server's processor", processor(&bench.server).await - used);
        assert!(sweep.cancelled <= 200 && sweep.more, "{sweep:?}");
        let swept = calls(&bench.server).await;
        while bench.store.sweep().await.unwrap().more {}
        // And of one that is resumed without its backlog.
        let lane = bench.connection("acme", 256).await;
        fill(&bench, "acme", &[lane], size).await;
        let (mut resumed, revision) = bench.record(lane).await;
        resumed.unwanted_before = Some(bench.later(1));
        bench.store.put(Record::Connection(Box::new(resumed)), Expected::At(revision)).await.unwrap();
        bench.server.command(&["CONFIG", "RESETSTAT"]).await;
        let sweep = bench.store.sweep().await.unwrap();
        assert!(sweep.cancelled <= 200 && sweep.more, "{sweep:?}");
        let cleared = calls(&bench.server).await;
        println!("{size}: the longest command took {} us", longest(&bench.server).await);
        costs.push([leased, swept, cleared].map(|calls| calls.values().sum::<u64>()));
    }
    println!("commands of one lease and of two sweeps, small and large: {costs:?}");
    assert!(costs[0].iter().zip(costs[1]).all(|(small, large)| large <= small + 4), "{costs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_what_the_documents_say_and_levels_off() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    let memory = async || bench.server.info("memory", "used_memory_dataset").await;
    fill(&bench, "acme", &[lane], 100).await;
    drain(&bench, delivered).await;
    let before = memory().await;
    let count = 5_000 * SCALE;
    let document = bench.event("acme", &[lane]).event.document.text().len();
    fill(&bench, "acme", &[lane], count).await;
    let each = |bytes: f64| bytes / f64::from(u32::try_from(count).unwrap());
    let queued = each(memory().await - before);
    drain(&bench, delivered).await;
    let settled = each(memory().await - before);
    println!(
        "bytes of a queued job {queued:.0}, of a settled delivery {settled:.0}, of which its document {document}"
    );
    assert!(queued < 1_400.0 && settled < 1_500.0);
    // A steady load of days: what is past its retention goes as new things come.
    let mut levels = Vec::new();
    for _ in 0..4 {
        bench.advance(8 * 24 * 3_600);
        while bench.store.sweep().await.unwrap().more {}
        fill(&bench, "acme", &[lane], count).await;
        drain(&bench, delivered).await;
        levels.push(memory().await);
    }
    println!("memory after each span of retention: {levels:?}");
    assert!(levels[3] < levels[0] * 1.1, "{levels:?}");
    assert_eq!(bench.store.health().await, Ok::<(), StoreError>(()));
}
