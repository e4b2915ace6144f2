//! Serves HTTP on a listener until it is told to stop, and then lets what is under way end.
//!
//! # Stopping
//!
//! Nothing more is accepted: on a socket that outlives the process the next one takes what waits there. A connection with a
//! request under way answers it, says `connection: close`, and ends. One without (its client has connected and is about to
//! send, or keeps it for its next request) is kept for [`GRACE`]: a request that is on its way when the process stops is
//! answered, and not cut off.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Request, Response, Version};
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::listener::{BoundedListener, BoundedStream};
use crate::api::Peer;

/// How long a request's head may take, from the end of the last one. Longer than proxies keep an idle connection (60 s is
/// common), so that none sends a request into one that is just closed.
pub const HEAD_LIMIT: Duration = Duration::from_secs(75);
/// How long a stopping process waits for the next request of a connection.
pub const GRACE: Duration = Duration::from_secs(1);
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 200;

/// Serves until `stopped` turns true, and ends when the last connection has.
pub async fn serve(
    mut listener: BoundedListener,
    router: Router,
    stopped: watch::Receiver<bool>,
    head: Duration,
) {
    let mut connections = JoinSet::new();
    let mut stopping = stopped.clone();
    loop {
        tokio::select! {
            // A drop of the sender is a stop too.
            _ = stopping.wait_for(|stopped| *stopped) => break,
            (stream, peer) = listener.accept() => {
                connections.spawn(connection(stream, Peer(peer), router.clone(), stopped.clone(), head));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Requests of a connection that are under way.
#[derive(Default)]
struct UnderWay {
    count: AtomicUsize,
    begun: Notify,
}

async fn connection(
    stream: BoundedStream,
    peer: Peer,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    head: Duration,
) {
    let under_way = Arc::new(UnderWay::default());
    let (seen, stopping) = (Arc::clone(&under_way), stopped.clone());
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (router, seen, stopping) = (router.clone(), Arc::clone(&seen), stopping.clone());
        seen.count.fetch_add(1, Ordering::AcqRel);
        seen.begun.notify_one();
        async move {
            let is_http1 = request.version() <= Version::HTTP_11;
            let Ok(mut answer) = router.oneshot(request.map(Body::new)).await;
            if is_http1 && *stopping.borrow() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            seen.count.fetch_sub(1, Ordering::AcqRel);
            Ok::<Response<Body>, Infallible>(answer)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // Errors are of clients: they broke off, or sent what is no HTTP.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    let begun = async {
        while under_way.count.load(Ordering::Acquire) == 0 {
            under_way.begun.notified().await;
        }
    };
    tokio::select! {
        _ = serving.as_mut() => return,
        () = begun => {}
        () = tokio::time::sleep(GRACE) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    struct Started {
        address: std::net::SocketAddr,
        stop: watch::Sender<bool>,
        server: JoinHandle<()>,
        /// A request for `/slow` is under way, and may be answered.
        begun: Arc<Notify>,
        go: Arc<Notify>,
    }

    async fn start(head: Duration) -> Started {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
        let slow = move || async move {
            tell.notify_one();
            wait.notified().await;
            "late"
        };
        let router = Router::new().route("/", get(|| async { "now" })).route("/slow", get(slow));
        let (stop, stopped) = watch::channel(false);
        let listener = BoundedListener::new(listener, 100, Duration::from_mins(1));
        let server = tokio::spawn(serve(listener, router, stopped, head));
        Started { address, stop, server, begun, go }
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn what_is_under_way_or_on_its_way_when_it_stops_is_answered() {
        let Started { address, stop, server, begun, go } = start(Duration::from_mins(1)).await;
        let mut fresh = TcpStream::connect(address).await.unwrap();
        let mut kept = TcpStream::connect(address).await.unwrap();
        let mut answer_of_kept = [0; 15];
        kept.write_all(REQUEST).await.unwrap();
        kept.read_exact(&mut answer_of_kept).await.unwrap();
        assert_eq!(&answer_of_kept, b"HTTP/1.1 200 OK");
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Connections are accepted in the order in which they came, so all three are.
        begun.notified().await;
        stop.send_replace(true);
        // What comes to a connection that the server knows, though it stops.
        fresh.write_all(REQUEST).await.unwrap();
        let text = answer(&mut fresh).await;
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("connection: close"), "{text}");
        kept.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut kept).await.contains("HTTP/1.1 200 OK"));
        go.notify_one();
        assert!(answer(&mut busy).await.ends_with("late"));
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nothing more is accepted");
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_ends_its_connection() {
        let Started { address, stop: _stop, .. } = start(Duration::from_millis(200)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nx-long: ").await.unwrap();
        // It says something all the time, and is cut off all the same: writing fails, or its end is read.
        let (mut read, mut write) = slow.split();
        let trickle = async {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let mut text = Vec::new();
        tokio::select! {
            () = trickle => {}
            _ = read.read_to_end(&mut text) => {}
        }
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(answer(&mut other).await.starts_with("HTTP/1.1 200 OK"));
    }
}
