//! Things that go wrong: scripts forgotten, connections cut, servers killed, paused, full, or set up to lose.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::StoreError;

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    for _ in 0..5 {
        bench.server.command(&["SCRIPT", "FLUSH"]).await;
        bench.ingest("acme", &[lane]).await;
        bench.server.command(&["SCRIPT", "FLUSH"]).await;
        let lease = bench.lease(1).await.remove(0);
        bench.server.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
    }
}

#[tokio::test]
async fn cut_connections_heal() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    for round in 0..5 {
        bench.server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        bench.server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let event = bench.event("acme", &[lane]);
        let began = std::time::Instant::now();
        while bench.store.ingest(Ingest { idempotency: None, events: vec![event.clone()] }).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "round {round}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (mut found, began) = (0, std::time::Instant::now());
    while found < 5 {
        assert!(began.elapsed() < Duration::from_secs(20), "{found} of 5");
        found += bench.store.lease(10, SPAN).await.map_or(0, |leases| leases.len());
    }
    assert_eq!(found, 5);
}

#[tokio::test]
async fn nothing_accepted_is_lost_when_the_server_is_killed() {
    const MORE: u64 = 40;
    let mut bench = Bench::on(Server::durable()).await;
    assert_eq!(bench.store.about().note, None);
    let lane = bench.connection("acme", 256).await;
    let accepted = Arc::new(AtomicU64::new(0));
    for _ in 0..3 {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (store, ids, clock) = (Arc::clone(&bench.store), bench.ids.clone(), bench.clock.clone());
                let (stopped, accepted) = (stopped.clone(), Arc::clone(&accepted));
                tokio::spawn(async move {
                    while !*stopped.borrow() {
                        let key = EventKey::from_bits(ids.next());
                        let event = named_event(key, &key.to_string(), "acme", clock.now(), &[lane]);
                        let ingest = Ingest { idempotency: None, events: vec![event] };
                        match store.ingest(ingest).await {
                            Ok(_) => drop(accepted.fetch_add(1, Ordering::Relaxed)),
                            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                    }
                })
            })
            .collect();
        let (began, wanted) = (std::time::Instant::now(), accepted.load(Ordering::Relaxed) + MORE);
        while accepted.load(Ordering::Relaxed) < wanted {
            assert!(began.elapsed() < Duration::from_secs(20), "{accepted:?} of {wanted} accepted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.server.kill();
        stop.send(true).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        bench.server.launch();
    }
    let accepted = accepted.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    let mut stats = bench.store.stats().await;
    while stats.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "{stats:?}");
        stats = bench.store.stats().await;
    }
    let open = stats.unwrap().open;
    assert!(open >= accepted, "{accepted} were accepted, {open} are there");
    // What was not answered may be there too: at most what was under way at each kill.
    assert!(open <= accepted + 3 * 16, "{accepted} were accepted, {open} are there");
    let mut delivered_count = 0;
    loop {
        let leases = bench.lease(256).await;
        if leases.is_empty() {
            break;
        }
        let outcomes = leases.iter().map(|lease| settlement(lease, delivered())).collect();
        delivered_count += u64::try_from(bench.store.settle(outcomes).await.unwrap()).unwrap();
    }
    assert_eq!(delivered_count, open);
}

#[tokio::test]
async fn a_server_that_hangs_costs_two_seconds_and_work_goes_on_after() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 16).await;
    bench.server.pause(true);
    let event = bench.event("acme", &[lane]);
    let ingest = bench.store.ingest(Ingest { idempotency: None, events: vec![event] });
    let refused = tokio::time::timeout(Duration::from_millis(2_500), ingest).await.expect("in time");
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    bench.server.pause(false);
    let began = std::time::Instant::now();
    let event = bench.event("acme", &[lane]);
    while bench.store.ingest(Ingest { idempotency: None, events: vec![event.clone()] }).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    while bench.store.lease(10, SPAN).await.map_or(0, |leases| leases.len()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn leases_whose_answer_was_lost_come_again_soon() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 1).await;
    bench.ingest("acme", &[lane]).await;
    // The server carries the lease out once it goes on, and nobody listens any more.
    bench.server.pause(true);
    assert!(bench.store.lease(10, SPAN).await.is_err());
    bench.server.pause(false);
    let began = std::time::Instant::now();
    let mut lease = Vec::new();
    while lease.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", bench.store.stats().await);
        lease = bench.store.lease(10, SPAN).await.unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.settle(&lease[0], delivered()).await, 1);
}

#[tokio::test]
async fn a_full_server_refuses_events_whole_and_lets_work_end() {
    let bench = Bench::new().await;
    let lane = bench.connection("acme", 256).await;
    for _ in 0..50 {
        bench.ingest("acme", &[lane]).await;
    }
    let leases = bench.lease(10).await;
    bench.server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let keys = bench.server.command(&["DBSIZE"]).await;
    let event = bench.event("acme", &[lane]);
    let refused = bench.store.ingest(Ingest { idempotency: None, events: vec![event] }).await;
    assert!(matches!(&refused, Err(StoreError::Full(words)) if words.contains("maxmemory")), "{refused:?}");
    assert_eq!(bench.server.command(&["DBSIZE"]).await, keys, "nothing of it was written");
    assert!(matches!(bench.store.health().await, Err(StoreError::Full(_))));
    // What was accepted is delivered all the same, and frees memory in time.
    for lease in leases {
        assert_eq!(bench.settle(&lease, delivered()).await, 1);
    }
    let mut left = 40;
    while left > 0 {
        for lease in bench.lease(100).await {
            assert_eq!(bench.settle(&lease, delivered()).await, 1);
            left -= 1;
        }
    }
    bench.server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    bench.ingest("acme", &[lane]).await;
    bench.store.health().await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_with_the_fix() {
    let server = Server::with(&["--maxmemory-policy", "allkeys-lru"]);
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let error = RedisStore::open(RedisSettings::new(server.url()), clock, ids).await.unwrap_err();
    assert!(error.to_string().contains("noeviction"), "{error}");
}

#[tokio::test]
async fn settings_that_do_not_fit_are_refused_and_weak_ones_named() {
    let server = Server::start();
    let clock = Clock::manual(START);
    let open = async |settings: RedisSettings| {
        let ids = Ids::new(clock.clone(), Entropy::system());
        RedisStore::open(settings, clock.clone(), ids).await
    };
    let store = open(RedisSettings::new(server.url())).await.unwrap();
    assert!(store.about().note.unwrap().contains("LOST"));
    let fsync = RedisSettings { durability: "fsync".parse().unwrap(), ..RedisSettings::new(server.url()) };
    assert!(open(fsync).await.unwrap_err().to_string().contains("appendonly"));
    let other = RedisSettings { partitions: 8, ..RedisSettings::new(server.url()) };
    assert!(open(other).await.unwrap_err().to_string().contains("16 partitions"));
    store.close().await;
    assert_eq!(store.stats().await, Err(StoreError::Closed));
    let password = RedisSettings::new("redis://:hunter2@127.0.0.1:1");
    assert!(!format!("{password:?}").contains("hunter2"));
    assert!(!open(password).await.unwrap_err().to_string().contains("hunter2"));
}

#[tokio::test]
async fn an_event_without_the_wanted_replicas_is_not_accepted() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];
    let server = Server::with(&settings);
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let settings =
        RedisSettings { durability: "replicas:1".parse().unwrap(), ..RedisSettings::new(server.url()) };
    let store = RedisStore::open(settings, clock.clone(), ids.clone()).await.unwrap();
    let key = EventKey::from_bits(ids.next());
    let ingest =
        || Ingest { idempotency: None, events: vec![named_event(key, "one", "acme", clock.now(), &[])] };
    // On a busy machine the answer itself may come too late.
    let began = std::time::Instant::now();
    let mut refused = String::new();
    while !refused.contains("0 of 1 replicas") {
        assert!(began.elapsed() < Duration::from_secs(30), "{refused}");
        refused = store.ingest(ingest()).await.unwrap_err().to_string();
    }
    let replica = Server::with(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    while replica.info("replication", "master_sync_in_progress").await > 0.0
        || server.info("replication", "connected_slaves").await < 1.0
    {
        tokio::task::yield_now().await;
    }
    let began = std::time::Instant::now();
    while store.ingest(ingest()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_two_seconds_a_request_and_workers_resume_by_themselves() {
    let outage = Duration::from_secs(if is_soak() { 30 } else { 5 });
    let mut bench = Bench::on(Server::durable()).await;
    let lane = bench.connection("acme", 256).await;
    let store = Arc::clone(&bench.store);
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let worker = tokio::spawn(async move {
        loop {
            match store.lease(16, SPAN).await {
                Ok(leases) if leases.is_empty() => {
                    let _ = tokio::time::timeout(Duration::from_secs(5), store.wait_for_work()).await;
                }
                Ok(leases) => {
                    for lease in leases {
                        while store.settle(vec![settlement(&lease, delivered())]).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                        sender.send(lease.event.id.clone()).unwrap();
                    }
                }
                // As the feed does.
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    });
    let named = |at: u8| {
        let mut event = bench.event("acme", &[lane]);
        event.dedupe = Some(Dedupe { key: [at; 16], content: [1; 16] });
        Ingest { idempotency: None, events: vec![event] }
    };
    let requests: Vec<Ingest> = (0..6).map(named).collect();
    bench.store.ingest(requests[0].clone()).await.unwrap();
    assert!(received.recv().await.is_some());
    bench.server.kill();
    let gone = std::time::Instant::now();
    let mut refused = 0;
    while gone.elapsed() < outage {
        for request in &requests[1..] {
            let ingest = bench.store.ingest(request.clone());
            let answer = tokio::time::timeout(Duration::from_millis(2_300), ingest).await.expect("in time");
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            refused += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.server.launch();
    let back = std::time::Instant::now();
    for request in &requests[1..] {
        while bench.store.ingest(request.clone()).await.is_err() {
            assert!(back.elapsed() < Duration::from_secs(20), "the same event is taken again");
        }
    }
    let mut found = std::collections::BTreeSet::new();
    while found.len() < 5 {
        let id = tokio::time::timeout(Duration::from_secs(20), received.recv()).await.unwrap().unwrap();
        assert!(found.insert(id), "once");
    }
    println!(
        "{refused} refused while the server was away; all delivered {:?} after it was back",
        back.elapsed()
    );
    worker.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_fan_out_whose_process_died_only_what_was_not_settled_comes_again() {
    let bench = Bench::new().await;
    let mut lanes = Vec::new();
    for _ in 0..10 {
        lanes.push(bench.connection("acme", 4).await);
    }
    bench.ingest("acme", &lanes).await;
    let dying = bench.another().await;
    let leases = dying.lease(10, SPAN).await.unwrap();
    assert_eq!(leases.len(), 10);
    let outcomes = leases[..4].iter().map(|lease| settlement(lease, delivered())).collect();
    assert_eq!(dying.settle(outcomes).await, Ok(4));
    drop(dying);
    let died = std::time::Instant::now();
    let mut again = Vec::new();
    while again.len() < 6 {
        assert!(died.elapsed() < COMES_AGAIN, "{} came again", again.len());
        let _ = tokio::time::timeout(Duration::from_millis(100), bench.store.wait_for_work()).await;
        again.extend(bench.lease(16).await);
    }
    println!("six of ten came again {:?} after the process died", died.elapsed());
    let of =
        |leases: &[Lease]| leases.iter().map(|lease| lease.job.id).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(of(&again), of(&leases[4..]));
    // What the dead one might still send is fenced off.
    let late: Vec<_> =
        leases[4..].iter().map(|lease| settlement(lease, Next::Done(JobState::Dead))).collect();
    assert_eq!(bench.store.settle(late).await, Ok(0));
    let outcomes = again.iter().map(|lease| settlement(lease, delivered())).collect();
    assert_eq!(bench.store.settle(outcomes).await, Ok(6));
    assert!(bench.lease(16).await.is_empty());
    let log = crate::store::DeliveryQuery { limit: 50, ..crate::store::DeliveryQuery::default() };
    let log = bench.store.deliveries(log).await.unwrap().items;
    assert!(log.iter().all(|one| (one.state, one.job.tries) == (JobState::Delivered, 1)));
}
