//! A local receiver: takes requests on a loopback port, verifies their signatures, answers as told, and passes on what
//! it saw. `listen` and `demo` show it to a person.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::http1::{self, Progress, WireError};
use crate::clock::Clock;
use crate::domain::time::Timestamp;

/// Connections served at once; more wait in the backlog.
const CONNECTIONS: usize = 256;
/// Requests that may wait to be shown; beyond, senders wait.
const SHOWN_LATER: usize = 1_024;
/// How long a connection may stand still.
const IDLE_LIMIT: Duration = Duration::from_mins(2);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When its last byte came.
    pub at: Timestamp,
    /// `POST`
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Arrival {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(written, _)| written == name).map(|(_, value)| value.as_str())
    }
}

/// What the check of a signature came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Verified,
    /// It does not, for this reason.
    Refused(String),
    /// There is no secret to check it by.
    Unchecked,
}

/// How to answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Seconds for a `Retry-After`.
    pub retry_after_secs: Option<u32>,
    /// How long to wait before answering.
    pub after: Duration,
}

impl Answer {
    /// An answer at once.
    pub fn at_once(status: u16) -> Self {
        Self { status, retry_after_secs: None, after: Duration::ZERO }
    }
}

/// A request, the verdict over it, and how it was answered.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The request.
    pub arrival: Arrival,
    /// Whether its signature fits.
    pub verdict: Verdict,
    /// The answer.
    pub answer: Answer,
}

/// Decides over a request.
pub type Judge = dyn Fn(&Arrival) -> (Verdict, Answer) + Send + Sync;

/// A running receiver; it stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw, in the order of arrival.
    pub seen: mpsc::Receiver<Seen>,
    open: watch::Receiver<usize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Starts to listen; `judge` is asked about each request.
    pub async fn start(address: SocketAddr, clock: Clock, judge: Arc<Judge>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, seen) = mpsc::channel(SHOWN_LATER);
        let (counter, open) = watch::channel(0);
        let desk = Arc::new(Desk { clock, judge, seen: sender, open: counter });
        let accepting = tokio::spawn(accept(listener, desk));
        Ok(Self { address, seen, open, accepting })
    }

    /// Waits until every request that was seen is answered, but no longer than `limit`.
    pub async fn finish(mut self, limit: Duration) {
        // An error means that the time is up, or that nobody is left to answer.
        let _ = tokio::time::timeout(limit, self.open.wait_for(|open| *open == 0)).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all connections share.
struct Desk {
    clock: Clock,
    judge: Arc<Judge>,
    seen: mpsc::Sender<Seen>,
    /// Requests that were seen and are not answered yet.
    open: watch::Sender<usize>,
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file handles, most likely: some will be free again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            // A broken connection is the sender's to notice.
            let _ = converse(stream, &desk).await;
            drop(permit);
        });
    }
}

async fn converse(mut stream: TcpStream, desk: &Desk) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1_024);
    let mut told_to_go_on = false;
    loop {
        match http1::find_message(&buffer) {
            Ok(Progress::Whole(frame)) => {
                told_to_go_on = false;
                let message = buffer.split_to(frame.body.end).freeze();
                let head = &message[frame.head];
                let Ok((method, path)) = http1::request_line(head) else {
                    return refuse(&mut stream, WireError::Malformed).await;
                };
                let arrival = Arrival {
                    at: desk.clock.now(),
                    method: method.to_owned(),
                    path: path.to_owned(),
                    headers: http1::headers(head),
                    body: message.slice(frame.body),
                };
                respond(&mut stream, arrival, desk).await?;
                continue;
            }
            Ok(Progress::Continue) if !told_to_go_on => {
                told_to_go_on = true;
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            Ok(Progress::Continue | Progress::Partial) => {}
            Err(error) => return refuse(&mut stream, error).await,
        }
        match tokio::time::timeout(IDLE_LIMIT, stream.read_buf(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(Err(error)) => return Err(error),
            _ => return Ok(()),
        }
    }
}

async fn respond(stream: &mut TcpStream, arrival: Arrival, desk: &Desk) -> std::io::Result<()> {
    let (verdict, answer) = (desk.judge)(&arrival);
    let closing = arrival.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    desk.open.send_modify(|open| *open += 1);
    let seen = Seen { arrival, verdict, answer: answer.clone() };
    // Shown before it is answered: what the sender knows of, the person has seen.
    let shown = desk.seen.send(seen).await;
    tokio::time::sleep(answer.after).await;
    let mut headers = Vec::new();
    if let Some(secs) = answer.retry_after_secs {
        headers.push(("retry-after", secs.to_string()));
    }
    let body = if answer.status < 300 { r#"{"received":true}"# } else { r#"{"received":false}"# };
    let written = match shown {
        Ok(()) => stream.write_all(&http1::answer(answer.status, &headers, body)).await,
        Err(_) => Ok(()),
    };
    desk.open.send_modify(|open| *open -= 1);
    written?;
    if closing { stream.shutdown().await } else { Ok(()) }
}

async fn refuse(stream: &mut TcpStream, error: WireError) -> std::io::Result<()> {
    let status = match error {
        WireError::TooLarge => 413,
        WireError::Malformed => 400,
        WireError::LengthUnknown => 411,
    };
    let body = serde_json::json!({ "error": error.to_string() }).to_string();
    stream.write_all(&http1::answer(status, &[("connection", "close".to_owned())], &body)).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_judged_answered_and_passed_on() {
        let judge = |arrival: &Arrival| {
            if arrival.body == "good" {
                return (Verdict::Verified, Answer::at_once(200));
            }
            let answer = Answer { retry_after_secs: Some(7), ..Answer::at_once(429) };
            (Verdict::Refused("wrong".to_owned()), answer)
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = Receiver::start(address, Clock::system(), Arc::new(judge)).await.unwrap();
        let mut stream = TcpStream::connect(receiver.address).await.unwrap();
        let two = "POST /a HTTP/1.1\r\nX-Id: 1\r\ncontent-length: 4\r\n\r\ngoodPOST /b HTTP/1.1\r\n\
                   connection: close\r\ncontent-length: 3\r\n\r\nbad";
        stream.write_all(two.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("HTTP/1.1 429 Too Many Requests\r\n"), "{text}");
        assert!(text.contains("retry-after: 7\r\n"), "{text}");
        let first = receiver.seen.recv().await.unwrap();
        assert_eq!((first.arrival.path.as_str(), first.arrival.header("x-id")), ("/a", Some("1")));
        assert_eq!(first.verdict, Verdict::Verified);
        assert_eq!(receiver.seen.recv().await.unwrap().verdict, Verdict::Refused("wrong".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_and_never_shown() {
        let judge = |_: &Arrival| (Verdict::Unchecked, Answer::at_once(200));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = Receiver::start(address, Clock::system(), Arc::new(judge)).await.unwrap();
        for (request, status) in [
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "411"),
            ("nonsense\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", "413"),
        ] {
            let mut stream = TcpStream::connect(receiver.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        }
        assert!(receiver.seen.try_recv().is_err());
    }
}
