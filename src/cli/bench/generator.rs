//! The bench's generator: sends events over kept-open connections, at a fixed rate or as fast as they are accepted.
//!
//! Requests are made once and stamped in place. At a fixed rate each event has its time and is sent then by whichever
//! connection is free, so that a slow answer delays no later event while connections are left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::mark::Mark;
use super::receiver::Tally;
use crate::cli::http1::{self, Progress, WireError};

/// Answers of other kinds that a connection bears before it gives up.
const FAULTS_BORNE: usize = 100;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

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
    let mut request = Request::new(load);
    let mut line = None;
    let mut faults = 0;
    while faults < FAULTS_BORNE {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.events {
            break;
        }
        if let Some(rate) = load.rate {
            let due = began + Duration::from_secs_f64(to_f64(number) / f64::from(rate));
            tokio::time::sleep_until(due.into()).await;
        }
        let began_us = tally.elapsed_us();
        request.stamp(Mark { phase: load.phase, number, sent_us: began_us });
        let asked = exchange(&mut line, load.gateway, &request.bytes);
        let status = if let Ok(Ok(status)) = tokio::time::timeout(ANSWER_LIMIT, asked).await {
            status
        } else {
            line = None;
            0
        };
        if status == 202 {
            sent.accepted += 1;
            let taken_us = tally.elapsed_us().saturating_sub(began_us);
            sent.answers_us.push(u32::try_from(taken_us).unwrap_or(u32::MAX));
        } else {
            faults += 1;
            *sent.refused.entry(status).or_default() += 1;
        }
    }
    sent
}

#[expect(clippy::cast_precision_loss, reason = "counts of events stay far below 2^52")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

struct Line {
    stream: TcpStream,
    buffer: BytesMut,
}

async fn exchange(line: &mut Option<Line>, gateway: SocketAddr, request: &[u8]) -> std::io::Result<u16> {
    let line = if let Some(line) = line {
        line
    } else {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        line.insert(Line { stream, buffer: BytesMut::with_capacity(4_096) })
    };
    line.stream.write_all(request).await?;
    loop {
        match http1::find_message(&line.buffer) {
            Ok(Progress::Whole(frame)) => {
                let status = http1::status(&line.buffer[frame.head]);
                line.buffer.advance(frame.body.end);
                return status.map_err(std::io::Error::other);
            }
            Ok(_) => {}
            Err(error) => return Err(std::io::Error::other(error)),
        }
        if line.stream.read_buf(&mut line.buffer).await? == 0 {
            return Err(std::io::Error::other(WireError::Malformed));
        }
    }
}

/// A prepared request whose mark and id are stamped in place.
struct Request {
    bytes: Vec<u8>,
    /// Where the mark's digits are: in the event's id and in its data.
    marks: Vec<usize>,
}

impl Request {
    fn new(load: &Load) -> Self {
        let body = body_of(load.payload_bytes);
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            load.gateway,
            load.token,
            body.len()
        );
        let text = head + &body;
        let blank = blank_mark();
        let marks = text.match_indices(&blank).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), marks }
    }

    fn stamp(&mut self, mark: Mark) {
        let text = mark.text();
        for at in &self.marks {
            self.bytes[*at..*at + text.len()].copy_from_slice(text.as_bytes());
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

    #[test]
    fn a_request_is_stamped_in_place() {
        let load = Load {
            gateway: SocketAddr::from(([127, 0, 0, 1], 1)),
            token: "secret".to_owned(),
            phase: 1,
            events: 1,
            rate: None,
            concurrency: 1,
            payload_bytes: 600,
        };
        let mut request = Request::new(&load);
        let mark = Mark { phase: 3, number: 7, sent_us: 99 };
        request.stamp(mark);
        let Ok(Progress::Whole(frame)) = http1::find_message(&request.bytes) else { panic!("no message") };
        let body = &request.bytes[frame.body];
        assert_eq!(body.len(), 600);
        assert_eq!(Mark::find(body), Some(mark));
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(event["id"], format!("bench-{}", mark.text()));
    }
}
