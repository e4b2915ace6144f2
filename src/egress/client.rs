//! Sends one request within one deadline and reads a bounded answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, redirect, retry};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::error::{Circumstances, SendError};
use super::guard::AddressPolicy;
use super::library::GuardedConnector;
use super::resolve::GuardedResolver;

/// The most that is read of an answer's body where the settings say nothing else.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// The longest timeout of a request; a longer one is cut to this.
pub const LONGEST_TIMEOUT: Duration = Duration::from_mins(10);

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
    /// How many connections to one host and port wait in the pool for the next request.
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
            pool_idle_per_host: 32,
            body_limit_bytes: BODY_LIMIT_BYTES,
            user_agent: concat!("patchbay/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Not a header's value.
    #[error("the user agent `{0}` is not visible ASCII")]
    UserAgent(String),
    /// The library does not start.
    #[error("the HTTP client does not start")]
    Client(#[source] reqwest::Error),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Any method but CONNECT.
    pub method: Method,
    /// Where to; judged anew at each send.
    pub url: Url,
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
    client: reqwest::Client,
    policy: Arc<AddressPolicy>,
    pub(super) connect_timeout: Duration,
    body_limit_bytes: usize,
    pub(super) has_roots: bool,
    pub(super) connector: GuardedConnector,
}

impl Egress {
    /// Makes the client. A machine without root certificates is told in the log; plain http works there, and https
    /// fails with that reason.
    pub fn new(policy: Arc<AddressPolicy>, settings: EgressSettings) -> Result<Self, EgressError> {
        let EgressSettings { connect_timeout, pool_idle_per_host, body_limit_bytes, user_agent } = settings;
        let Ok(user_agent) = HeaderValue::from_str(&user_agent) else {
            return Err(EgressError::UserAgent(user_agent));
        };
        // An error says that a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();

        let resolver = GuardedResolver::new(Arc::clone(&policy));
        let builder = || {
            reqwest::Client::builder()
                .user_agent(user_agent.clone())
                .connect_timeout(connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(pool_idle_per_host)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .redirect(redirect::Policy::none())
                // The second call spares a copy of each request that would be kept for a retry.
                .retry(retry::never().max_retries_per_request(0))
                .referer(false)
                .no_proxy()
                .dns_resolver(resolver.clone())
        };
        let (client, has_roots) = match builder().build() {
            Ok(client) => (client, true),
            // Nearly always for want of root certificates; if it is not, the second attempt tells.
            Err(error) => {
                let client = builder().tls_certs_only([]).build().map_err(EgressError::Client)?;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no root certificates found: https deliveries will fail; install ca-certificates"
                );
                (client, false)
            }
        };
        let connector = GuardedConnector::new(Arc::clone(&policy), resolver, connect_timeout);
        Ok(Self { client, policy, connect_timeout, body_limit_bytes, has_roots, connector })
    }

    /// Sends the request once. An answer of any status is an answer.
    pub async fn send(&self, request: Request) -> Result<Answer, SendError> {
        let Request { method, url, headers, body, timeout } = request;
        self.policy.check_target(&url).map_err(SendError::Refused)?;
        check_carriage(&method, &headers)?;

        let start = Instant::now();
        let limit = timeout.min(LONGEST_TIMEOUT);
        let deadline = start + limit;
        let peer = Peer::of(&url);
        let mut carried = reqwest::Request::new(method, url);
        *carried.headers_mut() = headers;
        let sending = Sending::attach(body, &mut carried);

        let mut response = match timeout_at(deadline, self.client.execute(carried)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let circumstances = Circumstances {
                    peer: peer.name(),
                    after_sending: sending.may_have_begun(),
                    connect_timeout: self.connect_timeout,
                    has_roots: self.has_roots,
                };
                return Err(circumstances.classify(&error));
            }
            Err(_) => {
                let after_sending = sending.may_have_begun();
                return Err(SendError::Timeout { peer: peer.name(), limit, after_sending });
            }
        };
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let (body, ending) = read_body(response, deadline, self.body_limit_bytes).await;
        Ok(Answer {
            status,
            headers,
            body,
            truncated: ending == Ending::Truncated,
            body_complete: ending == Ending::Complete,
            elapsed: start.elapsed(),
        })
    }
}

fn check_carriage(method: &Method, headers: &HeaderMap) -> Result<(), SendError> {
    if method == Method::CONNECT {
        return Err(SendError::InvalidRequest("the method CONNECT asks for a tunnel".to_owned()));
    }
    match CARRIAGE.iter().find(|name| headers.contains_key(*name)) {
        Some(name) => {
            Err(SendError::InvalidRequest(format!("the header `{name}` is not for a request to set")))
        }
        None => Ok(()),
    }
}

/// Host and port, for an error's words.
pub(super) struct Peer {
    host: String,
    port: u16,
}

impl Peer {
    pub(super) fn of(url: &Url) -> Self {
        // Both are there: a URL without them has been refused.
        Self {
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Knows whether the request may be on its way: the body is asked for only when a connection is there and the head is
/// being written. Of a request without a body that cannot be seen, so it counts as sent.
struct Sending(Option<Arc<AtomicBool>>);

impl Sending {
    /// Gives the request its body and watches it go.
    fn attach(body: Bytes, request: &mut reqwest::Request) -> Self {
        if body.is_empty() {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            return Self(None);
        }
        // With its length told, the one-chunk stream goes out as a plain body, not in chunked coding.
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        let stream = futures::stream::once(async move {
            seen.store(true, Ordering::Release);
            Ok::<_, Infallible>(body)
        });
        *request.body_mut() = Some(reqwest::Body::wrap_stream(stream));
        Self(Some(begun))
    }

    fn may_have_begun(&self) -> bool {
        self.0.as_ref().is_none_or(|begun| begun.load(Ordering::Acquire))
    }
}

/// How reading a body ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Complete,
    Truncated,
    Broken,
}

/// Reads until the body ends, the limit is passed or the time is up. Dropping the response closes what is left over.
async fn read_body(
    mut response: reqwest::Response,
    deadline: Instant,
    limit_bytes: usize,
) -> (Bytes, Ending) {
    // Most answers are one chunk, which is kept as it is.
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let ending = loop {
        let mut chunk = match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => break Ending::Complete,
            Ok(Err(_)) | Err(_) => break Ending::Broken,
        };
        let room = limit_bytes - first.len().max(joined.len());
        let over = chunk.len() > room;
        chunk.truncate(room);
        if first.is_empty() {
            first = chunk;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&chunk);
        }
        if over {
            break Ending::Truncated;
        }
    };
    (if joined.is_empty() { first } else { joined.freeze() }, ending)
}
