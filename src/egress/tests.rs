//! The client against real sockets on the loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::time::Instant;

use super::*;

mod bodies;
mod secure;

/// What a receiver does with a connection after it has read a whole request.
#[derive(Clone)]
enum Manner {
    /// Writes this and keeps the connection for the next request.
    Answer(String),
    /// Answers so when as many requests wait as the barrier is for.
    Together(String, Arc<Barrier>),
    /// Writes this and then nothing more, holding the connection.
    Stall(&'static str),
    /// Writes the head and then bytes without end.
    Flood,
    /// Closes at once.
    Close,
    /// Writes this and closes.
    AnswerAndClose(&'static str),
}

struct Receiver {
    port: u16,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    last: Arc<parking_lot::Mutex<String>>,
}

impl Receiver {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            connections: Arc::default(),
            last: Arc::default(),
        };
        let (requests, connections, last) =
            (this.requests.clone(), this.connections.clone(), this.last.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(attend(stream, manner.clone(), requests.clone(), last.clone()));
            }
        });
        this
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?token=secret", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn attend(
    mut stream: TcpStream,
    manner: Manner,
    requests: Arc<AtomicUsize>,
    last: Arc<parking_lot::Mutex<String>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        *last.lock() = request;
        requests.fetch_add(1, Ordering::SeqCst);
        match &manner {
            Manner::Together(text, barrier) => {
                barrier.wait().await;
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            Manner::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Manner::Stall(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                // Ends when the client hangs up.
                while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
                return;
            }
            Manner::Flood => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
                return;
            }
            Manner::Close => return,
            Manner::AnswerAndClose(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                return;
            }
        }
    }
}

/// Head and body of one request; `None` when the client has hung up.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&chunk[..count]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse::<usize>().unwrap() {
                return Some(whole);
            }
        }
    }
}

fn loopback() -> Egress {
    egress(&["127.0.0.0/8", "::1/128"])
}

fn egress(allowed: &[&str]) -> Egress {
    let policy =
        AddressPolicy { allow_http: true, allowed: allowed.iter().map(|net| net.parse().unwrap()).collect() };
    Egress::new(Arc::new(policy), EgressSettings::default()).unwrap()
}

fn post(url: &str, timeout_millis: u64) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Request {
        method: Method::POST,
        url: url.parse::<Url>().unwrap().into(),
        headers,
        body: Bytes::from_static(b"{\"a\":1}"),
        timeout: Duration::from_millis(timeout_millis),
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: r1\r\n\r\nok";

#[tokio::test]
async fn a_request_arrives_as_it_is_and_connections_are_kept() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    let egress = loopback();
    for _ in 0..3 {
        let answer = egress.send(post(&receiver.url(), 5_000)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert!(answer.body_complete && !answer.truncated);
        assert_eq!(answer.headers["x-request-id"], "r1");
        assert!(answer.elapsed < Duration::from_secs(5));
        // The connection goes back to the pool in a task of its own.
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.requests(), 3);
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);

    let sent = receiver.last.lock().to_lowercase();
    assert!(sent.starts_with("post /hook?token=secret http/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n{\"a\":1}"), "{sent}");
    for line in [
        "content-length: 7".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: 127.0.0.1:{}", receiver.port),
        format!("user-agent: patchbay/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line} is missing in {sent}");
    }
    for absent in ["transfer-encoding", "accept-encoding", "referer", "cookie"] {
        assert!(!sent.contains(&format!("\r\n{absent}:")), "{absent} is in {sent}");
    }
}

#[tokio::test]
async fn a_burst_goes_over_the_connections_of_the_one_before() {
    const BURST: usize = 64;
    let together = Manner::Together(OK.to_owned(), Arc::new(Barrier::new(BURST)));
    let receiver = Receiver::start(together).await;
    let egress = loopback();
    for _ in 0..8 {
        let sends = (0..BURST).map(|_| egress.send(post(&receiver.url(), 5_000)));
        assert!(futures::future::join_all(sends).await.iter().all(Result::is_ok));
    }
    assert_eq!(receiver.requests(), 8 * BURST);
    // One may be opened while another is on its way back to the pool; with fewer kept, each burst opens more.
    let opened = receiver.connections.load(Ordering::SeqCst);
    assert!(opened < 2 * BURST, "{opened} connections");
}

#[tokio::test]
async fn a_request_without_a_body_says_so() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    let egress = loopback();
    for (method, expects_length) in [(Method::POST, true), (Method::GET, false)] {
        let request = Request { method, body: Bytes::new(), ..post(&receiver.url(), 5_000) };
        assert_eq!(egress.send(request).await.unwrap().status, 200);
        assert_eq!(receiver.last.lock().contains("content-length: 0\r\n"), expects_length);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = Receiver::start(Manner::Answer(OK.to_owned())).await;
    let text = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url()
    );
    let receiver = Receiver::start(Manner::Answer(text)).await;
    let answer = loopback().send(post(&receiver.url(), 5_000)).await.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(answer.headers[header::LOCATION], elsewhere.url());
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn no_status_makes_a_second_try() {
    let receiver = Receiver::start(Manner::Answer(
        "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ))
    .await;
    assert_eq!(loopback().send(post(&receiver.url(), 5_000)).await.unwrap().status, 503);
    assert_eq!(receiver.requests(), 1);
}

#[tokio::test]
async fn a_refused_connection_has_not_arrived() {
    // A port that is taken, and where nobody listens.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error =
        loopback().send(post(&format!("http://127.0.0.1:{port}/a?key=secret"), 5_000)).await.unwrap_err();
    assert!(matches!(error, SendError::Connect { .. }), "{error:?}");
    assert!(!error.may_have_arrived());
    assert_eq!(error.reason(), format!("could not connect to 127.0.0.1:{port}: connection refused"));
}

#[tokio::test]
async fn a_connection_closed_over_the_request_may_have_arrived() {
    let receiver = Receiver::start(Manner::Close).await;
    let error = loopback().send(post(&receiver.url(), 5_000)).await.unwrap_err();
    assert!(matches!(error, SendError::Dropped { after_sending: true, .. }), "{error:?}");
    assert!(error.may_have_arrived());
    assert!(!error.reason().contains("secret"), "{error}");
    assert_eq!(receiver.requests(), 1, "nothing is sent twice");
}

#[tokio::test]
async fn what_is_not_http_is_told_as_such() {
    let receiver = Receiver::start(Manner::AnswerAndClose("220 mail.example ESMTP\r\n")).await;
    let error = loopback().send(post(&receiver.url(), 5_000)).await.unwrap_err();
    assert!(matches!(error, SendError::Dropped { .. }), "{error:?}");
    assert!(error.may_have_arrived());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_a_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = AddressPolicy { allow_http: false, allowed: vec!["127.0.0.0/8".parse().unwrap()] };
    let settings =
        EgressSettings { connect_timeout: Duration::from_millis(150), ..EgressSettings::default() };
    let egress = Egress::new(Arc::new(policy), settings).unwrap();

    let url = format!("https://127.0.0.1:{port}/");
    let error = egress.send(post(&url, 20_000)).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout { .. }), "{error:?}");
    assert!(!error.may_have_arrived());

    // When the whole exchange has less time than the connect, the request is known not to have left.
    let error = egress.send(post(&url, 50)).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { after_sending: false, .. }), "{error:?}");
    assert!(!error.may_have_arrived());
    assert!(error.reason().ends_with("the request had not been sent yet"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_peer_without_tls_is_told_as_such_and_both_protocols_are_offered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = rustls::server::Acceptor::default();
        let offered: Vec<Vec<u8>> = loop {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            hello.read_tls(&mut &chunk[..count]).unwrap();
            if let Some(accepted) = hello.accept().map_err(|(error, _)| error).unwrap() {
                break accepted.client_hello().alpn().unwrap().map(<[u8]>::to_vec).collect();
            }
        };
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Ends when the client hangs up.
        while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
        offered
    });
    let error = loopback().send(post(&format!("https://127.0.0.1:{port}/"), 5_000)).await.unwrap_err();
    assert!(matches!(error, SendError::Tls { .. }), "{error:?}");
    assert!(!error.may_have_arrived());
    assert_eq!(peer.await.unwrap(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_at_the_connection() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    // The guard on URLs lets `localhost` pass, for one of its addresses is allowed; the receiver's is not.
    let error = egress(&["::1/128"])
        .send(post(&format!("http://localhost:{}/", receiver.port), 5_000))
        .await
        .unwrap_err();
    let SendError::Refused(Refusal::Resolved { host, range }) = &error else { panic!("{error:?}") };
    assert_eq!((host.as_str(), range.ground), ("localhost", Ground::Loopback));
    assert!(!error.may_have_arrived());

    let by_name =
        loopback().send(post(&format!("http://localhost:{}/", receiver.port), 5_000)).await.unwrap();
    assert_eq!(by_name.status, 200);
    assert_eq!(receiver.requests(), 1);
}

#[tokio::test]
async fn a_literal_address_is_judged_at_each_send() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let error =
            egress(&[]).send(post(&format!("http://{host}:{}/", receiver.port), 5_000)).await.unwrap_err();
        assert!(matches!(error, SendError::Refused(Refusal::Address { .. })), "{error:?}");
    }
    assert_eq!(receiver.requests(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_as_such() {
    // RFC 6761: no resolver knows `.invalid`.
    let error = loopback().send(post("http://nowhere.invalid/hook?token=secret", 30_000)).await.unwrap_err();
    assert!(matches!(error, SendError::Dns { .. } | SendError::ConnectTimeout { .. }), "{error:?}");
    assert!(error.reason().contains("nowhere.invalid:80"), "{error}");
    assert!(!error.reason().contains("secret"), "{error}");
    assert!(!error.may_have_arrived());
}

#[tokio::test]
async fn a_request_cannot_say_how_it_is_carried() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade"] {
        let mut request = post(&receiver.url(), 5_000);
        request.headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("chunked"));
        let error = loopback().send(request).await.unwrap_err();
        assert!(matches!(error, SendError::InvalidRequest(_)), "{name}: {error:?}");
    }
    let tunnel = Request { method: Method::CONNECT, ..post(&receiver.url(), 5_000) };
    assert!(matches!(loopback().send(tunnel).await, Err(SendError::InvalidRequest(_))));
    assert_eq!(receiver.requests(), 0);
}

#[test]
fn a_user_agent_must_be_a_header() {
    let settings = EgressSettings { user_agent: "a\nb".to_owned(), ..EgressSettings::default() };
    assert!(matches!(Egress::new(Arc::default(), settings), Err(EgressError::UserAgent(_))));
}
