//! A stand-in for Google on loopback: the token endpoint and the part of the Sheets API that the gateway uses, for the demo and
//! for tests.
//!
//! Faithful where the gateway could be wrong about Google: it verifies what is signed (RS256, `aud`, times), asks permission for
//! every request, counts the quota by the minute, appends below the table that begins at the cell named, puts rows beside a table
//! that a blank header splits, leaves `values` out of what is empty and `tableRange` where there is no table, and speaks errors in
//! Google's own words. On demand it fails as Google and networks do ([`Fault`]). What it is not: formulas, formats, protected
//! ranges below a tab.

mod book;
mod fault;
mod token;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::http1::{self, Progress};
pub use book::{Book, Tab};
pub use fault::Fault;
use token::Issuer;

/// The account that its key is of.
pub const EMAIL: &str = "robot@acme.iam.gserviceaccount.com";
/// The only private key that it knows; it opens nothing but this stand-in.
const KEY: &str = include_str!("key.pem");
const CONNECTIONS: usize = 256;

/// What was asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Access tokens given out.
    pub tokens: usize,
    /// Requests that read.
    pub reads: usize,
    /// Requests that write, appends among them.
    pub writes: usize,
    /// Appends.
    pub appends: usize,
    /// The most appends to one spreadsheet that were under way at once.
    pub most_at_once: usize,
    /// Requests that were refused for the quota.
    pub over_quota: usize,
}

type Plan = Box<dyn FnMut(usize) -> Fault + Send>;

struct State {
    books: BTreeMap<String, Book>,
    counts: Counts,
    under_way: BTreeMap<String, usize>,
    plan: Plan,
    issuer: Issuer,
    /// Requests a minute for the account, reads and writes apart; none for no limit.
    quota: Option<usize>,
    reads: VecDeque<Instant>,
    writes: VecDeque<Instant>,
    api_enabled: bool,
}

struct Shared {
    state: Mutex<State>,
    rows: watch::Sender<usize>,
}

/// A running stand-in; it stops when dropped.
pub struct FakeGoogle {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for FakeGoogle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeGoogle({})", self.address)
    }
}

impl Drop for FakeGoogle {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeGoogle {
    /// Starts to listen on a free port of loopback.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = State {
            books: BTreeMap::new(),
            counts: Counts::default(),
            under_way: BTreeMap::new(),
            plan: Box::new(|_| Fault::None),
            issuer: Issuer::new(KEY, format!("http://{address}/token")),
            quota: None,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            api_enabled: true,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), rows: watch::Sender::new(0) });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// The API's root, as `google.api_root` wants it.
    pub fn api_root(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The key of its account, as Google gives it out.
    pub fn key(&self) -> String {
        json!({
            "type": "service_account", "project_id": "acme", "private_key_id": "fake-1", "private_key": KEY,
            "client_email": EMAIL, "client_id": "1", "token_uri": format!("http://{}/token", self.address),
        })
        .to_string()
    }

    /// Makes a spreadsheet with these tabs, shared with the account.
    pub fn make_book(&self, id: &str, tabs: &[&str]) {
        self.shared.state.lock().books.insert(id.to_owned(), Book::new(tabs));
    }

    /// Does something to a spreadsheet, as a person would.
    pub fn edit<T>(&self, id: &str, edit: impl FnOnce(&mut Book) -> T) -> Option<T> {
        self.shared.state.lock().books.get_mut(id).map(edit)
    }

    /// The rows of a tab, the first row too, as texts.
    pub fn rows(&self, id: &str, tab: &str) -> Vec<Vec<String>> {
        let state = self.shared.state.lock();
        let tab = state.books.get(id).and_then(|book| book.tab(tab));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        tab.map(|tab| tab.rows.iter().map(|row| row.iter().map(text).collect()).collect()).unwrap_or_default()
    }

    /// What goes wrong with the n-th append, from 0.
    pub fn plan(&self, plan: impl FnMut(usize) -> Fault + Send + 'static) {
        self.shared.state.lock().plan = Box::new(plan);
    }

    /// Limits requests a minute, reads and writes apart.
    pub fn limit(&self, quota: Option<usize>) {
        self.shared.state.lock().quota = quota;
    }

    /// Whether the API is enabled in the account's project.
    pub fn enable_api(&self, enabled: bool) {
        self.shared.state.lock().api_enabled = enabled;
    }

    /// Refuses the key from now on, as after its deletion; or takes it again.
    pub fn revoke_key(&self, revoked: bool) {
        self.shared.state.lock().issuer.revoked = revoked;
    }

    /// Takes no token any more that was given out so far.
    pub fn expire_tokens(&self) {
        self.shared.state.lock().issuer.expire();
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        self.shared.state.lock().counts
    }

    /// Counts rows that were appended; changes with each.
    pub fn appended(&self) -> watch::Receiver<usize> {
        self.shared.rows.subscribe()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                // A broken connection is the client's to notice.
                let _ = converse(stream, &shared).await;
            });
        }
    }
}

/// A request, read.
struct Asked {
    method: String,
    path: String,
    query: String,
    token: String,
    body: Value,
    form: String,
}

/// What to do with a connection.
enum Reply {
    Answer(u16, Option<u32>, String),
    Page(u16),
    Drop,
}

async fn converse(mut stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1_024);
    loop {
        match http1::find_message(&buffer) {
            Ok(Progress::Whole(frame)) => {
                let message = buffer.split_to(frame.body.end).freeze();
                let head = &message[frame.head];
                let Ok((method, target)) = http1::request_line(head) else { return Ok(()) };
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let token = http1::header(head, "authorization").unwrap_or_default();
                let body = &message[frame.body];
                let asked = Asked {
                    method: method.to_owned(),
                    // `!` and `%21` are the same.
                    path: percent_decode_str(path).decode_utf8_lossy().into_owned(),
                    query: query.to_owned(),
                    token: token.trim_start_matches("Bearer ").to_owned(),
                    body: serde_json::from_slice(body).unwrap_or_default(),
                    form: String::from_utf8_lossy(body).into_owned(),
                };
                let bytes = match answer(shared, &asked).await {
                    Reply::Drop => return Ok(()),
                    Reply::Page(status) => {
                        http1::answer(status, &[], "<!DOCTYPE html><title>Error 502</title>")
                    }
                    Reply::Answer(status, after, body) => {
                        let headers: Vec<(&str, String)> =
                            after.map(|secs| ("retry-after", secs.to_string())).into_iter().collect();
                        http1::answer(status, &headers, &body)
                    }
                };
                stream.write_all(&bytes).await?;
            }
            Ok(Progress::Partial | Progress::Continue) => {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            Err(_) => return Ok(()),
        }
    }
}

fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({"error": {"code": status, "message": message, "status": code}});
    Reply::Answer(status, None, body.to_string())
}

async fn answer(shared: &Arc<Shared>, asked: &Asked) -> Reply {
    if asked.path == "/token" {
        let mut state = shared.state.lock();
        let (status, body) = state.issuer.issue(&asked.form);
        state.counts.tokens += usize::from(status == 200);
        return Reply::Answer(status, None, body.to_string());
    }
    let Some(rest) = asked.path.strip_prefix("/v4/spreadsheets/") else {
        return refuse(404, "NOT_FOUND", "Requested entity was not found.");
    };
    let end = rest.find(['/', ':']).unwrap_or(rest.len());
    let (id, action) = rest.split_at(end);
    let writes = asked.method != "GET";
    let appends = action.ends_with(":append");
    if let Some(refused) = admit(&mut shared.state.lock(), asked, id, writes) {
        return refused;
    }
    if !appends {
        return done(shared.state.lock().books.get_mut(id), |book| book.act(action, asked));
    }
    let fault = fault::begin(&mut shared.state.lock(), id);
    let reply = fault::append(shared, asked, (id, action), fault).await;
    if let Some(under_way) = shared.state.lock().under_way.get_mut(id) {
        *under_way -= 1;
    }
    reply
}

/// What stands before every request: token, quota, API, permission.
fn admit(state: &mut State, asked: &Asked, id: &str, writes: bool) -> Option<Reply> {
    if !state.issuer.knows(&asked.token) {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        return Some(refuse(401, "UNAUTHENTICATED", message));
    }
    let counts = &mut state.counts;
    *(if writes { &mut counts.writes } else { &mut counts.reads }) += 1;
    if let Some(quota) = state.quota {
        let window = if writes { &mut state.writes } else { &mut state.reads };
        while window.front().is_some_and(|first| first.elapsed() >= Duration::from_mins(1)) {
            window.pop_front();
        }
        if window.len() >= quota {
            counts.over_quota += 1;
            let what = if writes { "Write" } else { "Read" };
            let message = format!("Quota exceeded for quota metric '{what} requests' per minute per user");
            return Some(refuse(429, "RESOURCE_EXHAUSTED", &message));
        }
        window.push_back(Instant::now());
    }
    if !state.api_enabled {
        let message = "Google Sheets API has not been used in project acme before or it is disabled.";
        return Some(refuse(403, "PERMISSION_DENIED", message));
    }
    let Some(book) = state.books.get(id) else {
        return Some(refuse(404, "NOT_FOUND", "Requested entity was not found."));
    };
    if !(book.shared || (book.public && !writes)) {
        return Some(refuse(403, "PERMISSION_DENIED", "The caller does not have permission"));
    }
    None
}

impl Asked {
    fn empty() -> Self {
        let none = String::new;
        Self { method: none(), path: none(), query: none(), token: none(), body: Value::Null, form: none() }
    }
}

fn done(book: Option<&mut Book>, act: impl FnOnce(&mut Book) -> Result<Value, (u16, String)>) -> Reply {
    match book.map(act) {
        Some(Ok(answer)) => Reply::Answer(200, None, answer.to_string()),
        Some(Err((status, message))) => refuse(status, "INVALID_ARGUMENT", &message),
        None => refuse(404, "NOT_FOUND", "Requested entity was not found."),
    }
}
