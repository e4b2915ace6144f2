//! The bench's receiver: reads deliveries over kept-open connections, answers 200, and notes when each arrived.
//!
//! Each delivery has one cell in a [`Tally`], so that what is missing and what came twice is counted exactly, without locks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::mark::Mark;
use crate::cli::http1::{self, Progress};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What arrived in one phase: a cell for each event and endpoint.
#[derive(Debug)]
pub struct Tally {
    phase: u8,
    events: usize,
    began: Instant,
    /// Microseconds from sending to arrival, and one; 0 for what has not arrived.
    cells: Vec<AtomicU32>,
    arrived: AtomicUsize,
    repeated: AtomicUsize,
    last_us: AtomicU64,
}

impl Tally {
    /// An empty tally for `events` events to `fan_out` endpoints.
    pub fn new(phase: u8, events: usize, fan_out: usize, began: Instant) -> Self {
        let cells = std::iter::repeat_with(AtomicU32::default).take(events * fan_out).collect();
        let (arrived, repeated, last_us) = Default::default();
        Self { phase, events, began, cells, arrived, repeated, last_us }
    }

    /// Microseconds since the phase's clock began; the generator stamps its events with it.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Deliveries that arrived, each counted once.
    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Arrivals of what had arrived before.
    pub fn repeated(&self) -> usize {
        self.repeated.load(Ordering::Relaxed)
    }

    /// When the last delivery arrived, by the phase's clock.
    pub fn last(&self) -> Duration {
        Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }

    /// Microseconds from sending to arrival, sorted.
    pub fn latencies_us(&self) -> Vec<u32> {
        let mut latencies: Vec<u32> =
            self.cells.iter().filter_map(|cell| cell.load(Ordering::Relaxed).checked_sub(1)).collect();
        latencies.sort_unstable();
        latencies
    }

    fn note(&self, endpoint: usize, mark: Mark) {
        let index = endpoint.checked_mul(self.events).and_then(|first| first.checked_add(mark.number));
        let Some(cell) = index.and_then(|index| self.cells.get(index)) else { return };
        if mark.phase != self.phase || mark.number >= self.events {
            return;
        }
        let now_us = self.elapsed_us();
        let taken_us = u32::try_from(now_us.saturating_sub(mark.sent_us)).unwrap_or(u32::MAX - 1);
        if cell.compare_exchange(0, taken_us + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.last_us.fetch_max(now_us, Ordering::Relaxed);
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running receiver; it stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    /// Where it listens, on the loopback.
    pub address: SocketAddr,
    tally: Arc<RwLock<Arc<Tally>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Starts on a free loopback port.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let tally = Arc::new(RwLock::new(Arc::new(Tally::new(0, 0, 0, Instant::now()))));
        let shared = Arc::clone(&tally);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(receive(stream, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, tally, accepting })
    }

    /// Counts into `tally` from now on.
    pub fn count_into(&self, tally: Arc<Tally>) {
        *self.tally.write() = tally;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn receive(mut stream: TcpStream, tally: Arc<RwLock<Arc<Tally>>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1_024);
    loop {
        while let Ok(Progress::Whole(frame)) = http1::find_message(&buffer) {
            let endpoint = http1::request_line(&buffer[frame.head.clone()])
                .ok()
                .and_then(|(_, path)| path.rsplit('/').next()?.parse().ok());
            if let (Some(endpoint), Some(mark)) = (endpoint, Mark::find(&buffer[frame.body.clone()])) {
                let current = Arc::clone(&tally.read());
                current.note(endpoint, mark);
            }
            buffer.advance(frame.body.end);
            stream.write_all(ANSWER).await?;
        }
        if http1::find_message(&buffer).is_err() || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delivery_counts_once_and_strangers_never() {
        let tally = Tally::new(2, 3, 2, Instant::now());
        let mark = |phase, number| Mark { phase, number, sent_us: 0 };
        for (endpoint, mark) in [
            (0, mark(2, 0)),
            (1, mark(2, 0)),
            (1, mark(2, 2)),
            (1, mark(2, 2)),
            (0, mark(1, 1)),
            (0, mark(2, 3)),
        ] {
            tally.note(endpoint, mark);
        }
        tally.note(9, mark(2, 0));
        assert_eq!((tally.arrived(), tally.repeated()), (3, 1));
        assert_eq!(tally.latencies_us().len(), 3);
    }
}
