//! Sends one request within one deadline and reads a bounded answer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::connect::{GuardedConnector, Use, tls};
use super::destination::Destination;
use super::error::{Circumstances, SendError};
use super::guard::AddressPolicy;
use super::library::LIBRARY_ANSWER_BYTES;
use super::resolve::GuardedResolver;

/// The most that is read of an answer's body where the settings say nothing else.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// The longest timeout of a request; a longer one is cut to this.
pub const LONGEST_TIMEOUT: Duration = Duration::from_mins(10);

/// What the client calls itself.
pub(super) const USER_AGENT: &str = concat!("patchbay/", env!("CARGO_PKG_VERSION"));
/// How long a connection waits in the pool. Shorter than what common servers keep, so that a request seldom meets a
/// connection the other side is just closing.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(30);
/// How often a peer of HTTP/2 with requests open is asked whether it is still there, and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What an HTTP/2 peer may send unasked: on one answer, and on all of a connection together.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Headers that say how a message is carried. They are the client's to write: a request that could set them could
/// slip a second request in, or call one host in another's name.
const CARRIAGE: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// How the client behaves towards all peers.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// The time for lookup, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How many connections to one host and port wait in the pool for the next request. Where more requests than that
    /// go out at once, each burst closes what the next has to open again.
    pub pool_idle_per_host: usize,
    /// The most that is read of an answer's body.
    pub body_limit_bytes: usize,
    /// What the client calls itself; visible ASCII.
    pub user_agent: String,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            pool_idle_per_host: 512,
            body_limit_bytes: BODY_LIMIT_BYTES,
            user_agent: USER_AGENT.to_owned(),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Not a header's value.
    #[error("the user agent `{0}` is not visible ASCII")]
    UserAgent(String),
    /// An https URL, and nothing to judge a certificate by.
    #[error("no root certificates found; install ca-certificates")]
    NoRoots(#[source] std::io::Error),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Any method but CONNECT.
    pub method: Method,
    /// Where to; judged anew at each send.
    pub url: Destination,
    /// Headers besides those that say how the message is carried, such as Host and Content-Length: these are refused.
    pub headers: HeaderMap,
    /// The body's bytes as they are sent.
    pub body: Bytes,
    /// The time for everything, lookup to the body's last byte; cut to [`LONGEST_TIMEOUT`].
    pub timeout: Duration,
}

/// An answer: at least its status and headers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status; 3xx is never followed.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or as much as the limit lets through, or what had come when it broke off.
    pub body: Bytes,
    /// Whether there was more than the limit; the rest was not read.
    pub truncated: bool,
    /// Whether the whole body is here. If neither this nor `truncated`, it broke off or was not there in time.
    pub body_complete: bool,
    /// From the call to the last byte that was read.
    pub elapsed: Duration,
}

/// The client. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Egress {
    client: Client<GuardedConnector, Outgoing>,
    policy: Arc<AddressPolicy>,
    user_agent: HeaderValue,
    connect_timeout: Duration,
    body_limit_bytes: usize,
    has_roots: bool,
    pub(super) library_connector: GuardedConnector,
}

impl Egress {
    /// Makes the client. A machine without root certificates is told in the log; plain http works there, and https
    /// fails with that reason.
    pub fn new(policy: Arc<AddressPolicy>, settings: EgressSettings) -> Result<Self, EgressError> {
        let Ok(user_agent) = HeaderValue::from_str(&settings.user_agent) else {
            return Err(EgressError::UserAgent(settings.user_agent));
        };
        let (tls, roots) = tls();
        if let Err(error) = &roots {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "no root certificates found: https deliveries will fail; install ca-certificates"
            );
        }
        Ok(Self::over(&tls, roots.is_ok(), policy, &settings, user_agent))
    }

    /// The client over this TLS.
    pub(super) fn over(
        tls: &ClientConfig,
        has_roots: bool,
        policy: Arc<AddressPolicy>,
        settings: &EgressSettings,
        user_agent: HeaderValue,
    ) -> Self {
        let EgressSettings { connect_timeout, pool_idle_per_host, body_limit_bytes, .. } = *settings;
        let resolver = GuardedResolver::new(Arc::clone(&policy));
        let connector = |used| {
            GuardedConnector::new(Arc::clone(&policy), resolver.clone(), tls.clone(), connect_timeout, used)
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(pool_idle_per_host)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .build(connector(Use::Any));
        let library_connector = connector(Use::Http1(LIBRARY_ANSWER_BYTES));
        Self { client, policy, user_agent, connect_timeout, body_limit_bytes, has_roots, library_connector }
    }

    /// Sends the request once. An answer of any status is an answer.
    pub async fn send(&self, request: Request) -> Result<Answer, SendError> {
        let Request { method, url, headers, body, timeout } = request;
        self.policy.check_target(&url).map_err(SendError::Refused)?;
        check_carriage(&method, &headers)?;
        let body = Outgoing::new(body);
        let begun = Arc::clone(&body.begun);
        let carried = self.carried(method, &url, headers, body)?;

        let start = Instant::now();
        let limit = timeout.min(LONGEST_TIMEOUT);
        let mut answer = None;
        let ended = timeout_at(start + limit, self.exchange(carried, &mut answer)).await;
        let after_sending = begun.load(Ordering::Acquire);
        match (answer, ended) {
            (Some(answer), _) => Ok(Answer { elapsed: start.elapsed(), ..answer }),
            (None, Ok(Err(error))) => Err(self.circumstances(&url, after_sending).explain(&error)),
            (None, _) => Err(SendError::Timeout { peer: peer(&url), limit, after_sending }),
        }
    }

    /// The request as it is written down.
    fn carried(
        &self,
        method: Method,
        url: &Destination,
        mut headers: HeaderMap,
        body: Outgoing,
    ) -> Result<http::Request<Outgoing>, SendError> {
        let Some(uri) = url.uri() else {
            return Err(SendError::InvalidRequest("its URL can't be written in a request".to_owned()));
        };
        if body.is_end_stream() && !matches!(method, Method::GET | Method::HEAD) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        let mut carried = http::Request::new(body);
        *carried.method_mut() = method;
        *carried.uri_mut() = uri.clone();
        *carried.headers_mut() = headers;
        Ok(carried)
    }

    /// Sends, and reads into `answer`, which is there from the moment that the head of one has come.
    async fn exchange(
        &self,
        carried: http::Request<Outgoing>,
        answer: &mut Option<Answer>,
    ) -> Result<(), Error> {
        let (head, mut body) = self.client.request(carried).await?.into_parts();
        let answer = answer.insert(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Bytes::new(),
            truncated: false,
            body_complete: false,
            elapsed: Duration::ZERO,
        });
        read_body(&mut body, answer, self.body_limit_bytes).await;
        Ok(())
    }

    pub(super) fn circumstances(&self, url: &Url, after_sending: bool) -> Circumstances {
        Circumstances {
            peer: peer(url),
            after_sending,
            connect_timeout: self.connect_timeout,
            has_roots: self.has_roots,
        }
    }
}

fn check_carriage(method: &Method, headers: &HeaderMap) -> Result<(), SendError> {
    if method == Method::CONNECT {
        return Err(SendError::InvalidRequest("the method CONNECT asks for a tunnel".to_owned()));
    }
    match headers.keys().find(|name| CARRIAGE.contains(name)) {
        Some(name) => {
            Err(SendError::InvalidRequest(format!("the header `{name}` is not for a request to set")))
        }
        None => Ok(()),
    }
}

/// Host and port, for an error's words.
pub(super) fn peer(url: &Url) -> String {
    // Both are there: a URL without them has been refused.
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// A request's body. It notes when it is asked for: a connection is there then, and the head is being written. Of a request
/// without a body that cannot be seen, so `begun` is set from the start.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Bytes,
    begun: Arc<AtomicBool>,
}

impl Outgoing {
    pub fn new(body: Bytes) -> Self {
        let begun = Arc::new(AtomicBool::new(body.is_empty()));
        Self { body, begun }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.begun.store(true, Ordering::Release);
        let body = std::mem::take(&mut self.body);
        Poll::Ready(if body.is_empty() { None } else { Some(Ok(Frame::data(body))) })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}

/// Reads until the body ends, breaks off or passes the limit. What has been read is in the answer at any time, for the time
/// may be up meanwhile. Dropping the body closes what is left over.
async fn read_body(body: &mut Incoming, answer: &mut Answer, limit_bytes: usize) {
    loop {
        let chunk = match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            Some(Ok(frame)) => frame.into_data(),
            Some(Err(_)) => return,
            None => return answer.body_complete = true,
        };
        // Else they are trailers, which nobody reads.
        let Ok(mut chunk) = chunk else { continue };
        let room = limit_bytes - answer.body.len();
        let over = chunk.len() > room;
        chunk.truncate(room);
        // Most answers are one chunk, which is kept as it is.
        if answer.body.is_empty() {
            answer.body = chunk;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut answer.body));
            joined.extend_from_slice(&chunk);
            answer.body = joined.freeze();
        }
        if over {
            return answer.truncated = true;
        }
    }
}
