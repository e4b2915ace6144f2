//! Log lines to standard error, as text or JSON, without making the gateway wait for whoever reads them.
//!
//! A line goes into a bounded queue and a thread of its own writes it. When the queue is full (a reader that stands
//! still) lines are dropped and counted, and the count is told as soon as there is room: logging never holds back a delivery.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 8_192;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
const FLUSH_STEP: Duration = Duration::from_millis(10);

/// Writes what is still queued when dropped; keep it until the end of `main`.
#[derive(Debug)]
pub struct Flush {
    queue: Queue,
    written: Receiver<()>,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(config: &LogConfig) -> Flush {
    let (queue, written) = Queue::to(io::stderr());
    let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue.clone()).with_target(false);
    // An error means that the process logs already, as in tests.
    let _ = match config.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(lines.compact().with_ansi(is_terminal()).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish(),
        ),
    };
    Flush { queue, written }
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

impl Drop for Flush {
    fn drop(&mut self) {
        // The subscriber lives as long as the process, so the queue never closes by itself. Nobody waits long for a
        // reader of standard error that stands still.
        let mut left = FLUSH_LIMIT;
        while let Err(TrySendError::Full(_)) = self.queue.sender.try_send(Entry::End) {
            let Some(rest) = left.checked_sub(FLUSH_STEP) else { return };
            left = rest;
            std::thread::sleep(FLUSH_STEP);
        }
        let _ = self.written.recv_timeout(left);
    }
}

enum Entry {
    Line(Vec<u8>),
    End,
}

#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// A queue and what hears of the end of its writing.
    fn to(out: impl Write + Send + 'static) -> (Self, Receiver<()>) {
        let (sender, lines) = sync_channel(QUEUE_LINES);
        let (end, written) = sync_channel(1);
        let dropped = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&dropped);
        // Without a thread there are no log lines: the queue's other end is gone, and lines are let go.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write(&lines, &counter, out);
            let _ = end.send(());
        });
        (Self { sender, dropped }, written)
    }
}

fn write(lines: &Receiver<Entry>, dropped: &AtomicU64, out: impl Write) {
    let mut out = io::BufWriter::new(out);
    // Where standard error is gone there is nobody left to tell, so errors of writing are let pass.
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => drop(out.write_all(&line)),
                Entry::End => {
                    let _ = out.flush();
                    return;
                }
            }
            next = lines.try_recv().ok();
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ =
                writeln!(out, "{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"count\":{lost}}}");
        }
        let _ = out.flush();
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { queue: self.clone(), bytes: Vec::with_capacity(256) }
    }
}

/// One line in the making; queued when dropped.
#[derive(Debug)]
pub struct Line {
    queue: Queue,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if let Err(TrySendError::Full(_)) = self.queue.sender.try_send(Entry::Line(line)) {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes nothing until it is let go.
    struct Gate(Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (open, gate) = std::sync::mpsc::channel();
        let (written, output) = std::sync::mpsc::channel();
        let (queue, end) = Queue::to(Gate(gate, written));
        let total = 3 * QUEUE_LINES;
        for _ in 0..total {
            writeln!(queue.make_writer(), "{}", "x".repeat(99)).unwrap();
        }
        drop(open);
        drop(Flush { queue, written: end });
        let text = String::from_utf8(output.try_iter().flatten().collect()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('x')).count();
        let lost: usize = text
            .lines()
            .filter_map(|line| line.split_once("\"count\":"))
            .map(|(_, count)| count.trim_end_matches('}').parse::<usize>().unwrap())
            .sum();
        assert!(lines >= QUEUE_LINES && lines < total, "{lines} of {total}");
        // What was dropped after the writer looked last is told with the next line.
        assert!(lines + lost <= total);
    }
}
