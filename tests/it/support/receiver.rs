//! An HTTP endpoint that a test programs: it keeps every request, answers by a script, and checks Standard Webhooks
//! signatures by the receiver's rules, with code of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// What the endpoint does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with this status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// Answers with this status and this body.
    Text(u16, &'static str),
    /// Answers with this status as soon as it is told to.
    After(Arc<Notify>, u16),
    /// Answers 200 after a while.
    Slow(Duration),
    /// Sends headers and then a body that never ends.
    Endless,
    /// Sends a body without an end, as fast as it is read.
    Flood,
    /// Never answers.
    Silence,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub method: String,
    pub path: String,
    pub at: Instant,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether a `whsec_` secret verifies it: <https://www.standardwebhooks.com>, "Verifying webhooks".
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        let wanted = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').any(|signature| signature == wanted)
    }
}

struct Shared {
    keeps: bool,
    arrivals: Mutex<Vec<Arrival>>,
    script: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
    count: watch::Sender<usize>,
    /// Requests that wait for their answer now, and the most that ever did.
    open: Mutex<(usize, usize)>,
}

/// A running endpoint.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Listens on a free port of loopback; answers 200 unless told otherwise.
    pub async fn start() -> Self {
        Self::keeping(true).await
    }

    /// The same, which counts requests and keeps none of them.
    pub async fn forgetful() -> Self {
        Self::keeping(false).await
    }

    async fn keeping(keeps: bool) -> Self {
        let shared = Arc::new(Shared {
            keeps,
            arrivals: Mutex::default(),
            script: Mutex::default(),
            otherwise: Mutex::new(Reply::status(200)),
            count: watch::Sender::new(0),
            open: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// Answers the next requests so, in order; then as otherwise.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().extend(replies);
    }

    /// Answers so whenever the script is at its end.
    pub fn otherwise(&self, reply: Reply) {
        *self.shared.otherwise.lock() = reply;
    }

    /// All requests so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().clone()
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// The most requests that ever waited for their answers at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.open.lock().1
    }

    /// All requests, once none came for so long.
    pub async fn quiet_after(&self, span: Duration) -> Vec<Arrival> {
        let mut seen = self.shared.count.subscribe();
        while tokio::time::timeout(span, seen.changed()).await.is_ok() {}
        self.arrivals()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for(&self, count: usize) -> Vec<Arrival> {
        let mut seen = self.shared.count.subscribe();
        super::within(&format!("{count} requests"), async {
            let _ = seen.wait_for(|seen| *seen >= count).await;
        })
        .await;
        self.arrivals()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap_or_default();
    let reply = shared.script.lock().pop_front().unwrap_or_else(|| shared.otherwise.lock().clone());
    if shared.keeps {
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let arrival = Arrival { method, path, at: Instant::now(), headers: parts.headers, body };
        shared.arrivals.lock().push(arrival);
    }
    {
        let mut open = shared.open.lock();
        open.0 += 1;
        open.1 = open.1.max(open.0);
    }
    shared.count.send_modify(|count| *count += 1);
    let response = give(reply).await;
    shared.open.lock().0 -= 1;
    response
}

async fn give(reply: Reply) -> Response<Body> {
    match reply {
        Reply::Status(status, headers) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from("answered by the test")).unwrap()
        }
        Reply::Text(status, text) => Response::builder().status(status).body(Body::from(text)).unwrap(),
        Reply::After(told, status) => {
            told.notified().await;
            Response::builder().status(status).body(Body::empty()).unwrap()
        }
        Reply::Slow(wait) => {
            tokio::time::sleep(wait).await;
            Response::new(Body::from("late"))
        }
        Reply::Endless => {
            let chunks = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
            });
            Response::new(Body::from_stream(chunks))
        }
        Reply::Flood => {
            let chunks =
                futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 8_192])));
            Response::new(Body::from_stream(chunks))
        }
        Reply::Silence => std::future::pending().await,
    }
}
