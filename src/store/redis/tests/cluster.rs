//! A real cluster of three masters, and a master behind sentinels.

use redis::Value;

use super::server::ANY_PORT;
use super::*;

/// Three masters that share the slots.
struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    async fn start() -> Self {
        let nodes: Vec<Server> = (0..3).map(|_| node()).collect();
        for (at, node) in nodes.iter().enumerate() {
            let (first, last) = (16_384 * at / 3, 16_384 * (at + 1) / 3 - 1);
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
        }
        for node in &nodes[1..] {
            let bus = node.setting("--cluster-port");
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]).await;
        }
        let cluster = Self { nodes };
        let began = std::time::Instant::now();
        while !cluster.is_whole().await {
            assert!(began.elapsed() < Duration::from_secs(30), "the cluster does not form");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster
    }

    async fn is_whole(&self) -> bool {
        for node in &self.nodes {
            let state: String = redis::from_redis_value(node.command(&["CLUSTER", "INFO"]).await).unwrap();
            if !state.contains("cluster_state:ok") || !state.contains("cluster_known_nodes:3") {
                return false;
            }
        }
        true
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_what_it_took_and_follows_a_moved_slot() {
    let cluster = Cluster::start().await;
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store =
        RedisStore::open(RedisSettings::new(cluster.url()), clock.clone(), ids.clone()).await.unwrap();
    let mut lanes = Vec::new();
    for at in 0..12 {
        let connection = connection(&ids, &format!("tenant{at}"), 16);
        lanes.push((format!("tenant{at}"), connection.id));
        store.put(Record::Connection(Box::new(connection)), Expected::Absent).await.unwrap();
    }
    assert_eq!(store.changes(0, 100).await.unwrap().len(), 12);
    let ingest = async |count: usize| {
        for _ in 0..count {
            for (tenant_name, lane) in &lanes {
                let key = EventKey::from_bits(ids.next());
                let event = named_event(key, &key.to_string(), tenant_name, clock.now(), &[*lane]);
                let mut tries = 0;
                while let Err(error) =
                    store.ingest(Ingest { idempotency: None, events: vec![event.clone()] }).await
                {
                    tries += 1;
                    assert!(tries < 20, "{error}");
                }
            }
        }
    };
    ingest(5).await;
    assert_eq!(store.stats().await.unwrap().open, 60);
    for node in &cluster.nodes {
        let keys: i64 = redis::from_redis_value(node.command(&["DBSIZE"]).await).unwrap();
        assert!(keys > 0, "every master has its share");
    }
    // One partition moves to another master, with all that it holds, while work goes on.
    let partition = store.core.keys.partition(&tenant("tenant0"));
    let tag = format!("{{{partition}}}");
    let slot = redis::from_redis_value::<u16>(cluster.nodes[0].command(&["CLUSTER", "KEYSLOT", &tag]).await);
    move_slot(&cluster, slot.unwrap()).await;
    ingest(5).await;
    let mut delivered_count = 0;
    for _ in 0..200 {
        let leases = store.lease(50, SPAN).await.unwrap();
        let outcomes = leases.iter().map(|lease| settlement(lease, delivered())).collect();
        delivered_count += store.settle(outcomes).await.unwrap();
        if delivered_count >= 120 {
            break;
        }
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((delivered_count, stats.open, stats.leased), (120, 0, 0));
    let log = store
        .deliveries(crate::store::DeliveryQuery { limit: 500, ..crate::store::DeliveryQuery::default() })
        .await
        .unwrap()
        .items;
    assert_eq!(log.len(), 120);
    store.health().await.unwrap();
}

/// Moves a slot to the next master as `redis-cli --cluster reshard` does.
async fn move_slot(cluster: &Cluster, slot: u16) {
    let from = (0..3).find(|at| usize::from(slot) < 16_384 * (at + 1) / 3).unwrap();
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[(from + 1) % 3]);
    let name = async |node: &Server| {
        redis::from_redis_value::<String>(node.command(&["CLUSTER", "MYID"]).await).unwrap()
    };
    let (source_name, target_name) = (name(source).await, name(target).await);
    let slot = slot.to_string();
    target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_name]).await;
    source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_name]).await;
    loop {
        let keys: Vec<Vec<u8>> =
            redis::from_redis_value(source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await)
                .unwrap();
        if keys.is_empty() {
            break;
        }
        for key in keys {
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(target.port).arg(key).arg(0).arg(5_000);
            source.run(&migrate).await.unwrap();
        }
    }
    for node in [target, source] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_name]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_failover_loses_nothing_that_replicas_have() {
    let mut master = Server::with(&["--appendonly", "no"]);
    let replica = Server::with(&["--appendonly", "no", "--replicaof", "127.0.0.1", &master.port.to_string()]);
    let sentinel = sentinel(&master);
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let began = std::time::Instant::now();
    while master.info("replication", "connected_slaves").await < 1.0
        || sentinel.info("sentinel", "sentinel_masters").await < 1.0
        || !knows_replica(&sentinel).await
    {
        assert!(began.elapsed() < Duration::from_secs(30), "the sentinel does not see the replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settings = RedisSettings {
        durability: "replicas:1".parse().unwrap(),
        ..RedisSettings::new(format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port))
    };
    let store = RedisStore::open(settings, clock.clone(), ids.clone()).await.unwrap();
    let lane = connection(&ids, "acme", 256);
    let id = lane.id;
    store.put(Record::Connection(Box::new(lane)), Expected::Absent).await.unwrap();
    for _ in 0..20 {
        let key = EventKey::from_bits(ids.next());
        let event = named_event(key, &key.to_string(), "acme", clock.now(), &[id]);
        // The replica may still be copying.
        while store.ingest(Ingest { idempotency: None, events: vec![event.clone()] }).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30));
        }
    }
    let accepted = store.stats().await.unwrap().open;
    assert!(accepted >= 20);
    master.kill();
    let began = std::time::Instant::now();
    let mut found = 0;
    while found < accepted {
        assert!(began.elapsed() < Duration::from_secs(40), "{found} after the failover");
        match store.lease(256, SPAN).await {
            Ok(leases) => found += leases.len() as u64,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    assert_eq!(found, accepted);
    assert!(replica.info("replication", "connected_slaves").await < 1.0);
}

fn sentinel(master: &Server) -> Server {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.into_temp_path().keep().unwrap();
    let port = master.port;
    std::fs::write(
        &path,
        format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        ),
    )
    .unwrap();
    Server::with(&[path.to_str().unwrap(), "--sentinel"])
}

async fn knows_replica(sentinel: &Server) -> bool {
    matches!(sentinel.command(&["SENTINEL", "REPLICAS", "main"]).await, Value::Array(found) if !found.is_empty())
}

impl Cluster {
    /// Gives each master a replica.
    async fn replicate(&self) -> Vec<Server> {
        let name = async |node: &Server| {
            redis::from_redis_value::<String>(node.command(&["CLUSTER", "MYID"]).await).unwrap()
        };
        let mut replicas = Vec::new();
        for _ in &self.nodes {
            replicas.push(node());
        }
        let bus = self.nodes[0].setting("--cluster-port");
        for (master, replica) in self.nodes.iter().zip(&replicas) {
            replica.command(&["CLUSTER", "MEET", "127.0.0.1", &self.nodes[0].port.to_string(), &bus]).await;
            let name = name(master).await;
            let mut replicate = redis::cmd("CLUSTER");
            replicate.arg("REPLICATE").arg(&name);
            // It has to hear of its master first.
            until("the replicas follow", async || replica.run(&replicate).await.is_ok()).await;
        }
        for master in &self.nodes {
            until("the replicas are linked", async || {
                master.info("replication", "connected_slaves").await >= 1.0
            })
            .await;
        }
        replicas
    }
}

/// A node that gives up on another within two seconds.
fn node() -> Server {
    Server::with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        ANY_PORT,
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
        "--appendonly",
        "no",
    ])
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(40), "{what}: not within 40 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a load came to.
#[derive(Debug, Default)]
struct Tally {
    accepted: std::collections::BTreeSet<String>,
    delivered: BTreeMap<String, usize>,
}

/// Platforms that send each event until it is accepted.
fn send_on(
    store: &Arc<RedisStore>,
    ids: &Ids,
    lanes: &[(String, ConnectionId)],
    tally: &Arc<parking_lot::Mutex<Tally>>,
    stopped: &tokio::sync::watch::Receiver<bool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    lanes
        .iter()
        .cloned()
        .map(|(tenant_name, lane)| {
            let (store, ids, clock) = (Arc::clone(store), ids.clone(), Clock::system());
            let (tally, stopped) = (Arc::clone(tally), stopped.clone());
            tokio::spawn(async move {
                let mut at = 0_u64;
                while !*stopped.borrow() {
                    at += 1;
                    let key = EventKey::from_bits(ids.next());
                    let id = format!("{tenant_name}-{at}");
                    let mut event = named_event(key, &id, &tenant_name, clock.now(), &[lane]);
                    let mut dedupe = [0; 16];
                    dedupe[..8].copy_from_slice(&at.to_be_bytes());
                    dedupe[8..].copy_from_slice(&lane.bits().to_be_bytes()[8..]);
                    event.dedupe = Some(Dedupe { key: dedupe, content: [1; 16] });
                    let began = std::time::Instant::now();
                    while store
                        .ingest(Ingest { idempotency: None, events: vec![event.clone()] })
                        .await
                        .is_err()
                    {
                        assert!(began.elapsed() < Duration::from_mins(1), "{id} is never accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    tally.lock().accepted.insert(id);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect()
}

/// A worker that notes what it delivers and settles it until that is written.
fn deliver_on(
    store: &Arc<RedisStore>,
    tally: &Arc<parking_lot::Mutex<Tally>>,
) -> tokio::task::JoinHandle<()> {
    let (store, tally) = (Arc::clone(store), Arc::clone(tally));
    tokio::spawn(async move {
        loop {
            let leases = store.lease(64, SPAN).await.unwrap_or_default();
            if leases.is_empty() {
                let _ = tokio::time::timeout(Duration::from_millis(200), store.wait_for_work()).await;
                continue;
            }
            let outcomes: Vec<_> = leases.iter().map(|lease| settlement(lease, delivered())).collect();
            for lease in &leases {
                *tally.lock().delivered.entry(lease.event.id.clone()).or_default() += 1;
            }
            // As the settler: until it is written.
            while store.settle(outcomes.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
}

/// Waits until some more events of every tenant were accepted; how long that took.
async fn all_go_on(tally: &parking_lot::Mutex<Tally>, lanes: &[(String, ConnectionId)]) -> Duration {
    const MORE: usize = 5;
    let accepted = |tenant: &str| {
        let is_of = |id: &&String| id.rsplit_once('-').is_some_and(|(of, _)| of == tenant);
        tally.lock().accepted.iter().filter(is_of).count()
    };
    let began = std::time::Instant::now();
    let wanted: Vec<_> = lanes.iter().map(|(tenant, _)| (tenant, accepted(tenant) + MORE)).collect();
    until("events of every tenant are accepted", async || {
        wanted.iter().all(|(tenant, count)| accepted(tenant) >= *count)
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_under_load_loses_nothing_when_slots_move_and_a_master_fails() {
    let mut cluster = Cluster::start().await;
    let replicas = cluster.replicate().await;
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Entropy::system());
    let settings =
        RedisSettings { durability: "replicas:1".parse().unwrap(), ..RedisSettings::new(cluster.url()) };
    let store = Arc::new(RedisStore::open(settings, clock.clone(), ids.clone()).await.unwrap());
    let mut lanes = Vec::new();
    for at in 0..12 {
        let lane = connection(&ids, &format!("tenant{at}"), 16);
        lanes.push((format!("tenant{at}"), lane.id));
        store.put(Record::Connection(Box::new(lane)), Expected::Absent).await.unwrap();
    }
    let tally = Arc::new(parking_lot::Mutex::new(Tally::default()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let senders = send_on(&store, &ids, &lanes, &tally, &stopped);
    let worker = deliver_on(&store, &tally);
    all_go_on(&tally, &lanes).await;
    let usual = all_go_on(&tally, &lanes).await;
    // Three slots, for one of them may meet a hiccup of the machine.
    let partitions: std::collections::BTreeSet<_> =
        lanes.iter().map(|(of, _)| store.core.keys.partition(&tenant(of))).collect();
    let mut moved = Duration::MAX;
    for partition in partitions.into_iter().take(3) {
        let tag = format!("{{{partition}}}");
        let slot = cluster.nodes[0].command(&["CLUSTER", "KEYSLOT", &tag]).await;
        move_slot(&cluster, redis::from_redis_value(slot).unwrap()).await;
        moved = moved.min(all_go_on(&tally, &lanes).await);
    }
    assert!(moved < usual + Duration::from_secs(1), "{moved:?} or more each time, without a move {usual:?}");
    // The master of the control records' slot, so that nobody is spared.
    let killed = 1;
    cluster.nodes[killed].kill();
    let promoted = &replicas[killed];
    until("the replica takes over", async || {
        let role: Vec<Value> = redis::from_redis_value(promoted.command(&["ROLE"]).await).unwrap();
        matches!(role.first(), Some(Value::BulkString(role)) if role == b"master")
    })
    .await;
    // The old master comes back as the new one's replica; until then its partitions accept nothing.
    cluster.nodes[killed].launch();
    until("the old master follows", async || promoted.info("replication", "connected_slaves").await >= 1.0)
        .await;
    let failed = all_go_on(&tally, &lanes).await;
    println!("all went on {moved:?} after slots moved and {failed:?} after a master came back");
    stop.send(true).unwrap();
    for sender in senders {
        sender.await.unwrap();
    }
    until("everything is delivered", async || {
        store.stats().await.is_ok_and(|stats| stats.open == 0) && {
            let tally = tally.lock();
            tally.accepted.iter().all(|id| tally.delivered.contains_key(id))
        }
    })
    .await;
    worker.abort();
    let tally = tally.lock();
    let lost = tally.accepted.iter().filter(|id| !tally.delivered.contains_key(*id)).count();
    let twice = tally.delivered.values().filter(|times| **times > 1).count();
    println!(
        "a slot moved and a master failed: {} accepted, {} delivered, {lost} lost, {twice} duplicated",
        tally.accepted.len(),
        tally.delivered.len()
    );
    assert_eq!(lost, 0);
}
