//! How the demo looks: its words, its colours, and the same as JSON lines.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};

use super::{EVENTS, FAILURES, RETRY_DELAYS_SECS, TENANT, UNLUCKY};
use crate::cli::listen::{shortened, verdict_text};
use crate::cli::output::Output;
use crate::cli::receiver::Verdict;
use crate::config::wants_color;

const BODY_CHARS: usize = 240;

/// Writes the demo's screen.
pub(super) struct Scene {
    output: Output,
    color: bool,
}

/// One delivery as it arrived.
pub(super) struct Line<'a> {
    /// The event's type.
    pub kind: &'a str,
    /// The delivery's id.
    pub id: &'a str,
    /// Which try it is.
    pub tries: u32,
    /// How long after the try before.
    pub waited: Option<Duration>,
    /// Whether the body is that of the first try.
    pub same_bytes: bool,
    /// Over the signature.
    pub verdict: &'a Verdict,
    /// The receiver's answer.
    pub status: u16,
    /// What was sent.
    pub body: &'a str,
}

impl Scene {
    pub(super) fn new(output: Output) -> Self {
        Self { output, color: std::io::stdout().is_terminal() && wants_color() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn tell(&self, value: &Value, text: impl FnOnce() -> String) {
        if self.output.is_json() {
            self.output.lines(&value.to_string());
        } else {
            self.output.lines(&text());
        }
    }

    pub(super) fn introduce(&self, gateway: &str, receiver: &str, connection: &str) {
        let value =
            json!({ "gateway": gateway, "receiver": receiver, "tenant": TENANT, "connection": connection });
        self.tell(&value, || {
            let delays = RETRY_DELAYS_SECS.map(|secs| format!("{secs} s")).join(", ");
            format!(
                "\n{}\nA platform's events go in; each comes out mapped, signed and delivered. All of it runs in this \
                 process,\nin a temporary folder that goes when you press Ctrl-C.\n\n  gateway     {gateway}   \
                 (reference: {gateway}/docs)\n  receiver    {receiver}   (checks every signature)\n  tenant      \
                 {TENANT}\n  connection  {connection}   (webhook, one mapping for all events)\n  retries     after \
                 {delays}: speeded up for the demo; the default is 5 s, 30 s, 2 min, ... 24 h\n\n{}\n",
                self.bold("Patchbay demo"),
                self.bold(&format!("Sending {} events", EVENTS.len())),
            )
        });
    }

    pub(super) fn accepted(&self, kind: &str, id: &str) {
        self.tell(&json!({ "accepted": id, "type": kind }), || format!("  {kind:<22}202: {id} is kept"));
    }

    pub(super) fn between(&self) {
        if !self.output.is_json() {
            let note = format!("the receiver fails {UNLUCKY} {FAILURES} times, on purpose");
            self.output.lines(&format!("\n{}  {}\n", self.bold("What the receiver gets"), self.dim(&note)));
        }
    }

    pub(super) fn arrival(&self, line: &Line<'_>) {
        let Line { kind, id, tries, waited, same_bytes, verdict, status, body } = line;
        let verified = **verdict == Verdict::Verified;
        let waited_ms = waited.map(|span| span.as_millis());
        let value = json!({
            "type": kind, "id": id, "try": tries, "after_ms": waited_ms.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            "same_bytes": same_bytes, "signature_verified": verified, "status": status, "body": body,
        });
        self.tell(&value, || {
            let good = *status == 200;
            let mark = if good { self.paint("32", "ok  ") } else { self.paint("31", "fail") };
            let signature = self.paint(if verified { "32" } else { "31" }, &verdict_text(verdict));
            let again = waited.map_or(String::new(), |span| {
                let same = if *same_bytes { "same id, same bytes" } else { "OTHER BYTES" };
                format!(", {:.1} s later, {same}", span.as_secs_f64())
            });
            let head = format!("{mark}  {kind:<22}try {tries}{again}; {signature}; answered {status}");
            if good {
                format!("  {head}\n        {}\n        {}", self.dim(id), shortened(body, BODY_CHARS))
            } else {
                format!("  {head}")
            }
        });
    }

    pub(super) fn verdict(&self, whole: bool, count: usize) {
        self.tell(&json!({ "all_arrived": whole }), || {
            if whole {
                format!("\n{}", self.paint("1;32", &format!("All {count} events were delivered.")))
            } else {
                format!("\n{}", self.paint("1;31", "Not every event arrived within 30 s."))
            }
        });
    }

    pub(super) fn invite(&self, gateway: &str, token: &str) {
        let send = format!(
            "curl -sS {gateway}/v1/events \\\n    -H 'Authorization: Bearer {token}' \\\n    -H 'Content-Type: \
             application/json' \\\n    -d '{{\"type\":\"lead.captured\",\"data\":{{\"lead\":{{\"name\":\"You\",\
             \"email\":\"you@example.com\"}}}}}}'"
        );
        let look =
            format!("curl -sS '{gateway}/v1/deliveries?limit=5' \\\n    -H 'Authorization: Bearer {token}'");
        self.tell(&json!({ "send": send, "look": look }), || {
            format!(
                "\n{}, from another terminal:\n\n  {send}\n\n{}:\n\n  {look}\n\nEvery route: {gateway}/docs.  What \
                 you send shows up below.  Ctrl-C ends the demo.\n",
                self.bold("Send an event of your own"),
                self.bold("Look at its delivery"),
            )
        });
    }
}
