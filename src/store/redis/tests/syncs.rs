//! `durability = "fsync"` with `WAITAOF`: a 202 waits for the sync, also where the server syncs once a second.
//!
//! The command is answered by a proxy before a real server, as Redis 7.2 documents it (`WAITAOF numlocal numreplicas
//! timeout` answers how many synced here and at replicas), so that a sync that doesn't come can be had when it is wanted,
//! and the server may be an older one.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::StoreError;
use crate::store::redis::Durability;
use crate::store::redis::link::{Step, Waited};

/// A proxy that answers `WAITAOF` itself.
#[derive(Default)]
struct Syncing {
    /// What it answers: 1 when the writes before it are on disk here, 0 when they were not in time.
    synced: AtomicI64,
    asked: AtomicUsize,
    /// Scripts that ran, and how many of them before it was last asked.
    ran: AtomicUsize,
    ran_before: AtomicUsize,
}

impl Syncing {
    /// Starts it before a server; its port.
    async fn before(self: &Arc<Self>, server: &Server) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, proxy) = (server.port, Arc::clone(self));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = Arc::clone(&proxy);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                    // A connection that ends is no fault of the test.
                    let _ = proxy.pass(client, server).await;
                });
            }
        });
        port
    }

    async fn pass(&self, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        let (asks, mut answers) = client.into_split();
        let (replies, mut commands) = server.into_split();
        let (mut asks, mut replies) = (BufReader::new(asks), BufReader::new(replies));
        loop {
            let command = frame(&mut asks).await?;
            let words = String::from_utf8_lossy(&command).to_ascii_uppercase();
            let words: Vec<&str> = words.split("\r\n").skip(2).step_by(2).collect();
            match words[..] {
                ["WAITAOF", "1", "0", _, ..] => {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    self.ran_before.store(self.ran.load(Ordering::Relaxed), Ordering::Relaxed);
                    let synced = self.synced.load(Ordering::Relaxed);
                    answers.write_all(format!("*2\r\n:{synced}\r\n:0\r\n").as_bytes()).await?;
                }
                ["COMMAND", "INFO", "WAITAOF", ..] => {
                    answers.write_all(b"*1\r\n*1\r\n$7\r\nwaitaof\r\n").await?;
                }
                ["SUBSCRIBE" | "PSUBSCRIBE", ..] => {
                    commands.write_all(&command).await?;
                    return both(asks, answers, replies, commands).await;
                }
                _ => {
                    commands.write_all(&command).await?;
                    let reply = frame(&mut replies).await?;
                    let ran = matches!(words[..], ["EVAL" | "EVALSHA", ..]) && reply.first() != Some(&b'-');
                    self.ran.fetch_add(usize::from(ran), Ordering::Relaxed);
                    answers.write_all(&reply).await?;
                }
            }
        }
    }
}

/// Passes everything both ways.
async fn both(
    mut asks: BufReader<OwnedReadHalf>,
    mut answers: OwnedWriteHalf,
    mut replies: BufReader<OwnedReadHalf>,
    mut commands: OwnedWriteHalf,
) -> std::io::Result<()> {
    tokio::select! {
        ended = tokio::io::copy(&mut asks, &mut commands) => ended.map(|_| ()),
        ended = tokio::io::copy(&mut replies, &mut answers) => ended.map(|_| ()),
    }
}

/// One command or one reply (RESP2), as it is on the wire.
async fn frame(reader: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    let mut left = 1_usize;
    while left > 0 {
        left -= 1;
        let begin = frame.len();
        if reader.read_until(b'\n', &mut frame).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&frame[begin..]).trim_end().to_owned();
        let count = line.get(1..).and_then(|count| count.parse::<usize>().ok());
        match (line.as_bytes().first(), count) {
            (Some(b'*'), Some(count)) => left += count,
            (Some(b'$'), Some(count)) => {
                let begin = frame.len();
                frame.resize(begin + count + 2, 0);
                reader.read_exact(&mut frame[begin..]).await?;
            }
            _ => {}
        }
    }
    Ok(frame)
}

/// A store behind a proxy whose syncs come.
async fn synced() -> (Bench, Arc<Syncing>) {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let proxy = Arc::new(Syncing { synced: AtomicI64::new(1), ..Syncing::default() });
    let url = format!("redis://127.0.0.1:{}", proxy.before(&server).await);
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let settings = RedisSettings { durability: Durability::Fsync, ..RedisSettings::new(url) };
    let store = Arc::new(RedisStore::open(settings, clock.clone(), ids.clone()).await.unwrap());
    assert_eq!((store.about().durability.as_str(), store.about().note), ("fsync", None));
    (Bench { server, store, clock, ids }, proxy)
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_waited_for_all_the_same() {
    let (bench, proxy) = synced().await;
    bench.server.command(&["SCRIPT", "FLUSH"]).await;
    let before = proxy.ran.load(Ordering::Relaxed);
    bench.ingest("acme", &[]).await;
    let ran = proxy.ran.load(Ordering::Relaxed);
    assert!(ran > before);
    assert_eq!(proxy.ran_before.load(Ordering::Relaxed), ran);
}

#[tokio::test]
async fn several_partitions_of_one_server_wait_once() {
    let (bench, proxy) = synced().await;
    let asked = proxy.asked.load(Ordering::Relaxed);
    let wait = Durability::Fsync.command();
    let write = |key: &str| vec![Step::Plain(redis::cmd("SET").arg(key).arg(1).clone())];
    let limit = Duration::from_secs(10);
    let link = &bench.store.core.link;
    let waited = link.run_groups_and_wait(vec![write("a"), write("b")], wait.as_ref(), limit).await;
    assert_eq!(proxy.asked.load(Ordering::Relaxed), asked + 1);
    for ran in waited {
        let Waited { answers, wait } = ran.unwrap();
        assert_eq!(answers, [Ok(redis::Value::Okay)]);
        Durability::Fsync.holds(wait.unwrap()).unwrap();
    }
}

#[tokio::test]
async fn an_accepted_event_waits_for_the_sync() {
    let (bench, proxy) = synced().await;
    let lane = bench.connection("acme", 16).await;
    let asked = proxy.asked.load(Ordering::Relaxed);
    bench.ingest("acme", &[lane]).await;
    assert_eq!(proxy.asked.load(Ordering::Relaxed), asked + 1);

    proxy.synced.store(0, Ordering::Relaxed);
    let dedupe = Some(Dedupe { key: [1; 16], content: [1; 16] });
    let ingest =
        Ingest { idempotency: None, events: vec![NewEvent { dedupe, ..bench.event("acme", &[lane]) }] };
    let refused = bench.store.ingest(ingest.clone()).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("may be stored")),
        "{refused:?}"
    );
    // Sent again once the disk works, it is accepted, and known as the one that was written.
    proxy.synced.store(1, Ordering::Relaxed);
    assert!(bench.store.ingest(ingest).await.is_ok());
    assert_eq!(bench.lease(10).await.len(), 2);
}
