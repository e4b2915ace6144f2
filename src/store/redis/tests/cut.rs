//! A network that is cut: before a command arrives, while its answer is on its way, after it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::DeliveryQuery;

/// A proxy that cuts a connection in one of three places, every so many answers.
struct Cutter {
    port: u16,
    /// Answers between two cuts; 0 for none.
    every: Arc<AtomicU64>,
    /// Before a command arrives, after it did, in the middle of its answer.
    cuts: Arc<[AtomicU64; 3]>,
}

impl Cutter {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (every, asked, cuts) = (Arc::new(AtomicU64::new(0)), Arc::default(), Arc::default());
        let (target, shared) = (server.port, (Arc::clone(&every), asked, Arc::clone(&cuts)));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (every, asked, cuts) = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                        pass(client, server, &every, &asked, &cuts).await;
                    }
                });
            }
        });
        Self { port, every, cuts }
    }
}

/// Passes bytes both ways until a cut; what the server was sent it may carry out all the same. `asked` counts over all
/// connections, so that each meets any of the three cuts.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    every: &AtomicU64,
    asked: &AtomicU64,
    cuts: &[AtomicU64; 3],
) {
    let (mut sent, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut count = 0;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                let cut = every.load(Ordering::Relaxed);
                count = asked.fetch_add(1, Ordering::Relaxed) + 1;
                if cut > 0 && count % (3 * cut) == 0 {
                    cuts[0].fetch_add(1, Ordering::Relaxed);
                    return;
                }
                if server.write_all(&sent[..length]).await.is_err() { return; }
                if cut > 0 && count % (3 * cut) == cut {
                    cuts[1].fetch_add(1, Ordering::Relaxed);
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                let cut = every.load(Ordering::Relaxed);
                let half = cut > 0 && count % (3 * cut) == 2 * cut;
                let length = if half { length / 2 } else { length };
                if client.write_all(&answered[..length]).await.is_err() { return; }
                if half {
                    cuts[2].fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_over_a_bad_network_is_delivered_once() {
    let server = Server::start();
    let cutter = Cutter::before(&server).await;
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Entropy::system());
    let url = format!("redis://127.0.0.1:{}", cutter.port);
    let store =
        Arc::new(RedisStore::open(RedisSettings::new(url), clock.clone(), ids.clone()).await.unwrap());
    let lane = connection(&ids, "acme", 256);
    let id = lane.id;
    store.put(Record::Connection(Box::new(lane)), Expected::Absent).await.unwrap();
    cutter.every.store(7, Ordering::Relaxed);
    // A platform that sends each event until it is accepted.
    for at in 0..150_u8 {
        let key = EventKey::from_bits(ids.next());
        let mut event = named_event(key, &format!("lead-{at}"), "acme", clock.now(), &[id]);
        event.dedupe = Some(Dedupe { key: [at; 16], content: [1; 16] });
        while store.ingest(Ingest { idempotency: None, events: vec![event.clone()] }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Workers that settle until it is written.
    let began = std::time::Instant::now();
    let mut taken = 0;
    loop {
        assert!(began.elapsed() < Duration::from_mins(1), "{taken} settled");
        let leases = store.lease(8, SPAN).await.unwrap_or_default();
        for lease in &leases {
            loop {
                match store.settle(vec![settlement(lease, delivered())]).await {
                    Ok(count) => {
                        taken += count;
                        break;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        }
        if leases.is_empty() && store.stats().await.is_ok_and(|stats| stats.open == 0) {
            break;
        }
    }
    cutter.every.store(0, Ordering::Relaxed);
    let cuts = cutter.cuts.each_ref().map(|cuts| cuts.load(Ordering::Relaxed));
    assert!(cuts.iter().all(|cuts| *cuts > 5), "the network was bad in every way: {cuts:?}");
    let log = DeliveryQuery { limit: 1_000, ..DeliveryQuery::default() };
    let mut log = store.deliveries(log.clone()).await;
    while log.is_err() {
        log = store.deliveries(DeliveryQuery { limit: 1_000, ..DeliveryQuery::default() }).await;
    }
    let log = log.unwrap().items;
    assert_eq!(log.len(), 150, "each event once");
    assert!(log.iter().all(|delivery| (delivery.state, delivery.job.tries) == (JobState::Delivered, 1)));
    // An outcome whose answer was lost counted all the same.
    assert!(taken <= 150);
}
