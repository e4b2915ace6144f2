//! The bench's generator: sends events over kept-open connections, at a fixed rate or as fast as they are accepted.
//!
//! Requests are made once and stamped in place. At a fixed rate each event has its time and is sent then by whichever
//! connection is free, so that a slow answer delays no later event while connections are left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::mark::Mark;
use super::receiver::Tally;
use super::wire::{Line, exchange, post};

/// Answers of other kinds that a connection bears before it gives up.
const FAULTS_BORNE: usize = 100;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Before a request is sent again that the gateway had no room for.
pub const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// What stands in a batch's answer for each event that was accepted.
const ITEM_ACCEPTED: &[u8] = b"\"status\":202";

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// The gateway.
    pub gateway: SocketAddr,
    /// A key that may publish.
    pub token: String,
    /// Which phase this is.
    pub phase: u8,
    /// How many events.
    pub events: usize,
    /// Events a second; `None` is as fast as they are accepted.
    pub rate: Option<u32>,
    /// Connections at once.
    pub concurrency: usize,
    /// About how large an event is.
    pub payload_bytes: usize,
    /// Events in one request: 1, or a batch.
    pub batch: usize,
    /// Whether a request that the gateway has no room for (503) is sent again, as it is, until it has.
    pub insists: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Sent {
    /// Events answered with 202.
    pub accepted: usize,
    /// Other answers by status; 0 is a broken connection.
    pub refused: BTreeMap<u16, usize>,
    /// Microseconds from sending an event to its 202, sorted.
    pub answers_us: Vec<u32>,
    /// From the first event sent to the last answer.
    pub span: Duration,
}

/// Sends a load; the events' marks are in the tally's time.
pub async fn send(load: &Load, tally: &Arc<Tally>) -> Sent {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..load.concurrency {
        let (load, tally, next) = (load.clone(), Arc::clone(tally), Arc::clone(&next));
        senders.spawn(async move { send_some(&load, &tally, &next, began).await });
    }
    let mut total = Sent::default();
    while let Some(Ok(sent)) = senders.join_next().await {
        total.accepted += sent.accepted;
        total.answers_us.extend(sent.answers_us);
        for (status, count) in sent.refused {
            *total.refused.entry(status).or_default() += count;
        }
    }
    total.span = began.elapsed();
    total.answers_us.sort_unstable();
    total
}

async fn send_some(load: &Load, tally: &Tally, next: &AtomicUsize, began: Instant) -> Sent {
    let mut sent = Sent::default();
    let mut request = Request::new(load, load.batch.max(1));
    let mut line = None;
    let mut faults = 0;
    while faults < FAULTS_BORNE {
        let number = next.fetch_add(load.batch.max(1), Ordering::Relaxed);
        if number >= load.events {
            break;
        }
        let events = load.batch.max(1).min(load.events - number);
        if events < request.events() {
            request = Request::new(load, events);
        }
        if let Some(rate) = load.rate {
            let due = began + Duration::from_secs_f64(to_f64(number) / f64::from(rate));
            tokio::time::sleep_until(due.into()).await;
        }
        let began_us = tally.elapsed_us();
        request.stamp(Mark { phase: load.phase, number, sent_us: began_us });
        let (status, accepted) = loop {
            let answered = ask(&mut line, load.gateway, &request).await;
            if !load.insists || answered.0 != 503 {
                break answered;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        sent.accepted += accepted;
        if accepted == events {
            let taken_us = tally.elapsed_us().saturating_sub(began_us);
            sent.answers_us.push(u32::try_from(taken_us).unwrap_or(u32::MAX));
        } else {
            faults += 1;
            *sent.refused.entry(status).or_default() += events - accepted;
        }
    }
    sent
}

/// Sends a request once; the answer's status, and how many of its events were accepted.
async fn ask(line: &mut Option<Line>, gateway: SocketAddr, request: &Request) -> (u16, usize) {
    let asked = exchange(line, gateway, &request.bytes, |status, body| match status {
        202 if request.is_batch => (status, count(body, ITEM_ACCEPTED)),
        202 => (status, 1),
        _ => (status, 0),
    });
    if let Ok(Ok(answered)) = tokio::time::timeout(ANSWER_LIMIT, asked).await {
        return answered;
    }
    *line = None;
    (0, 0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of events stay far below 2^52")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// How often `part` stands in `text`.
fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// A prepared request whose marks and ids are stamped in place.
struct Request {
    bytes: Vec<u8>,
    is_batch: bool,
    /// Where the marks' digits are: of each event in its id and in its data.
    marks: Vec<usize>,
}

/// Marks of one event.
const MARKS: usize = 2;

impl Request {
    fn new(load: &Load, events: usize) -> Self {
        let event = body_of(load.payload_bytes);
        let is_batch = load.batch > 1;
        let body = if is_batch { format!("[{}]", vec![event; events].join(",")) } else { event };
        let text = post(load.gateway, "/v1/events", &load.token, &body);
        let blank = blank_mark();
        let marks = text.match_indices(&blank).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), is_batch, marks }
    }

    fn events(&self) -> usize {
        self.marks.len() / MARKS
    }

    /// The first event gets `mark`, those after it the numbers that follow.
    fn stamp(&mut self, mark: Mark) {
        for (event, places) in self.marks.chunks(MARKS).enumerate() {
            let text = Mark { number: mark.number + event, ..mark }.text();
            for at in places {
                self.bytes[*at..*at + text.len()].copy_from_slice(text.as_bytes());
            }
        }
    }
}

fn blank_mark() -> String {
    Mark { phase: 0, number: 0, sent_us: 0 }.text()
}

/// An event of about `bytes` bytes: a lead, as a platform would send it.
fn body_of(bytes: usize) -> String {
    let mark = blank_mark();
    let event = |notes: &str| {
        serde_json::json!({
            "type": "lead.captured",
            "id": format!("bench-{mark}"),
            "source": "bench",
            "time": "2026-05-03T14:22:08Z",
            "data": {
                "mark": mark,
                "lead": { "name": "Jane Smith", "email": "jane@example.com", "phone": "+15555550123", "status": "new" },
                "agent": { "id": "bot_xyz", "name": "Acme Plumbing Bot" },
                "intent": "request_quote",
                "conversation_id": "conv_abc",
                "notes": notes,
            },
        })
        .to_string()
    };
    let bare = event("").len();
    event(
        &"A leaking pipe under the sink, since Monday. ".repeat(1 + bytes / 40)[..bytes.saturating_sub(bare)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http1::{self, Progress};

    fn load(batch: usize) -> Load {
        Load {
            gateway: SocketAddr::from(([127, 0, 0, 1], 1)),
            token: "secret".to_owned(),
            phase: 1,
            events: 1,
            rate: None,
            concurrency: 1,
            payload_bytes: 600,
            batch,
            insists: false,
        }
    }

    fn body(request: &Request) -> &[u8] {
        let Ok(Progress::Whole(frame)) = http1::find_message(&request.bytes) else { panic!("no message") };
        &request.bytes[frame.body]
    }

    #[test]
    fn a_request_is_stamped_in_place() {
        let mut request = Request::new(&load(1), 1);
        let mark = Mark { phase: 3, number: 7, sent_us: 99 };
        request.stamp(mark);
        let body = body(&request);
        assert_eq!(body.len(), 600);
        assert_eq!(Mark::find(body), Some(mark));
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(event["id"], format!("bench-{}", mark.text()));
    }

    #[test]
    fn each_event_of_a_batch_has_a_number_of_its_own() {
        let mut request = Request::new(&load(10), 3);
        assert_eq!(request.events(), 3);
        request.stamp(Mark { phase: 3, number: 7, sent_us: 99 });
        let events: Vec<serde_json::Value> = serde_json::from_slice(body(&request)).unwrap();
        for (event, number) in events.iter().zip(7..) {
            let text = Mark { phase: 3, number, sent_us: 99 }.text();
            assert_eq!(
                (&event["id"], &event["data"]["mark"]),
                (&format!("bench-{text}").into(), &text.into())
            );
        }
        assert_eq!(events.len(), 3);
        assert_eq!(count(br#"{"status":202},{"status":409},{"status":202}"#, ITEM_ACCEPTED), 2);
    }
}
