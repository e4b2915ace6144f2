//! Accepts HTTP connections within bounds: so many at once, and none that stands still.
//!
//! A client that opens connections and says nothing, or stops in the middle of a request, would hold them for ever. Here a
//! connection that sends nothing for [`IDLE_LIMIT`] is closed, and while [`most_connections`] are open further ones wait to be
//! accepted. The limit on silence is longer than any request takes to answer, so that it meets no client that waits.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections that are open at once, where the process may have as many files open and a third more.
const MOST_CONNECTIONS: usize = 16_384;
/// How long a connection may send nothing. A connection's test, the longest request, takes a minute at most.
pub const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// How many connections may be open at once: three quarters of the files that the process may open, so that some are left for the
/// store and for deliveries.
pub fn most_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files(&limits).map_or(MOST_CONNECTIONS, |files| (files / 4 * 3).clamp(1, MOST_CONNECTIONS))
}

/// The soft limit of open files, out of `/proc/self/limits`; `None` where there is none.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Accepts within the bounds.
#[derive(Debug)]
pub struct BoundedListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    idle: Duration,
}

impl BoundedListener {
    /// Bounds `listener`.
    pub fn new(listener: TcpListener, most: usize, idle: Duration) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(most)), idle }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // Answers are small; to wait for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let silence = Box::pin(sleep(self.idle));
        (BoundedStream { stream, idle: self.idle, silence, _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is closed when it sends nothing for too long.
#[derive(Debug)]
pub struct BoundedStream {
    stream: TcpStream,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            let deadline = Instant::now() + self.idle;
            self.silence.as_mut().reset(deadline);
            return Poll::Ready(read);
        }
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listener(most: usize, idle: Duration) -> BoundedListener {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        BoundedListener::new(listener, most, idle)
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_one_that_speaks_does_not() {
        let mut listener = listener(2, Duration::from_millis(200)).await;
        let address = listener.local_addr().unwrap();
        let mut speaking = TcpStream::connect(address).await.unwrap();
        let (mut heard, _) = Listener::accept(&mut listener).await;
        let began = Instant::now();
        let mut spoke = began;
        let mut byte = [0];
        while began.elapsed() < Duration::from_millis(400) {
            spoke = Instant::now();
            speaking.write_all(b"x").await.unwrap();
            heard.read_exact(&mut byte).await.unwrap();
        }
        let error = heard.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(spoke.elapsed() >= Duration::from_millis(200));
    }

    #[test]
    fn connections_leave_files_for_others() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 20000                files\n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(open_files("Max open files unlimited unlimited files"), None);
        assert!((1..=MOST_CONNECTIONS).contains(&most_connections()));
    }

    #[tokio::test]
    async fn beyond_the_limit_connections_wait_for_others_to_end() {
        let mut listener = listener(1, Duration::from_mins(1)).await;
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let (open, _) = Listener::accept(&mut listener).await;
        let mut waiting = std::pin::pin!(Listener::accept(&mut listener));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(open);
        waiting.await;
    }
}
