//! What an answer comes to, in an outcome and in words.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode, header};
use url::Url;

use crate::domain::job::{Attempt, Outcome};
use crate::domain::policy::RETRY_AFTER_CAP;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, SendError};
use crate::mapping::MappingError;
use crate::spec::{ConnectorSpec, Seen};

/// Most bytes of an answer's headers, names and values together, that an attempt keeps.
const HEADERS_LIMIT_BYTES: usize = 16 * 1024;
/// Most bytes of an answer's body that an attempt keeps.
const BODY_LIMIT_BYTES: usize = 16 * 1024;
/// A name in the DNS has at most so many bytes; what is longer was not meant to be one.
const LONGEST_HOST_BYTES: usize = 253;
/// Most characters of the other side's words that a reason shows.
const MESSAGE_CHARS: usize = 300;
/// Most characters of an id that the other side gave.
const REMOTE_ID_CHARS: usize = 128;
/// The shortest that a `Retry-After` is obeyed: zero, or a date that is over, must not make a loop without a pause.
const RETRY_AFTER_LEAST: Duration = Duration::from_secs(1);

/// What a try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What follows from it, by [`crate::domain::settle`].
    pub outcome: Outcome,
    /// Why, in plain words for a person who is woken by it.
    pub reason: String,
    /// How long the other side asked to be left alone: 1 s to 24 h.
    pub retry_after: Option<Duration>,
    /// The id that the other side gave it.
    pub remote_id: Option<String>,
}

impl Verdict {
    /// The event could not be mapped; nothing was sent.
    pub fn mapping_failed(error: &MappingError) -> Self {
        Self {
            outcome: Outcome::MappingFailed,
            reason: format!("the mapping failed: {error}"),
            retry_after: None,
            remote_id: None,
        }
    }

    /// A try that came to nothing more than an outcome and a reason.
    pub fn plain(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into(), retry_after: None, remote_id: None }
    }
}

/// Reads an answer by the connector's rules. Without one the job is tried again: as ambiguous where the request may
/// have arrived. That goes for a refused address too, because a name may point elsewhere tomorrow.
pub fn classify(spec: &ConnectorSpec, result: Result<&Answer, &SendError>, now: Timestamp) -> Verdict {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) if error.may_have_arrived() => {
            return Verdict::plain(Outcome::Ambiguous, format!("{}; it may have arrived", error.reason()));
        }
        Err(error) => return Verdict::plain(Outcome::Retry, error.reason()),
    };
    let asked = retry_after(&answer.headers, now);
    let seen = Seen::new(answer.status, &answer.headers, &answer.body, asked.is_some());
    let judgement = spec.answer.judge(&seen);
    if broke_off(spec, answer, judgement.outcome) {
        let reason = format!(
            "the endpoint answered {}, and the rest of its answer did not come; it may have arrived",
            status_text(answer.status)
        );
        return Verdict { retry_after: asked, ..Verdict::plain(Outcome::Ambiguous, reason) };
    }
    let outcome = judgement.outcome;
    let throttled = outcome == Outcome::Throttled;
    let within = |span: Duration| span.clamp(RETRY_AFTER_LEAST, RETRY_AFTER_CAP);
    let extracted =
        || spec.extract.retry_after_secs(&seen).map(Duration::from_secs).or(judgement.wait).map(within);
    let retry_after = asked.or_else(|| throttled.then(extracted).flatten());
    let remote_id = spec.extract.id(&seen).and_then(|id| plain_words(&id, REMOTE_ID_CHARS));

    let done = matches!(outcome, Outcome::Delivered | Outcome::Duplicate);
    let mut reason = if (300..400).contains(&answer.status) && !done {
        redirected(answer)
    } else {
        let meaning = judgement.say.map_or_else(|| meaning(outcome).to_owned(), |say| format!(": {say}"));
        format!("the endpoint answered {}{meaning}", status_text(answer.status))
    };
    if let Some(words) = spec.extract.message(&seen).as_deref().and_then(quoted) {
        reason.push_str("; it said ");
        reason.push_str(&words);
    }
    if let Some(id) = remote_id.as_ref().filter(|_| done) {
        reason.push_str(" (id ");
        reason.push_str(id);
        reason.push(')');
    }
    match retry_after {
        Some(span_asked) if asked.is_some() => {
            reason.push_str(" and asked to come back in ");
            reason.push_str(&span(span_asked));
        }
        Some(span_waited) => {
            reason.push_str("; the next try is in ");
            reason.push_str(&span(span_waited));
        }
        None => {}
    }
    Verdict { outcome, reason, retry_after, remote_id }
}

/// Whether what did not come of the body would have decided: a success in the status is then none yet, and no failure.
fn broke_off(spec: &ConnectorSpec, answer: &Answer, outcome: Outcome) -> bool {
    (200..300).contains(&answer.status)
        && !answer.body_complete
        && !answer.truncated
        && matches!(outcome, Outcome::Retry | Outcome::Rejected)
        && spec.answer.read_body(answer.status)
}

/// The other side's words as they may stand in a reason: one line, bounded, in quotes. `None` when there are none.
pub(super) fn quoted(words: &str) -> Option<String> {
    plain_words(words, MESSAGE_CHARS).map(|words| format!("\"{words}\""))
}

/// One line of at most so many characters, without control characters and what turns a text's direction around.
fn plain_words(text: &str, most: usize) -> Option<String> {
    let turns = |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut words = String::new();
    let mut chars = 0;
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control() || turns(letter)) {
        if word.is_empty() {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
            chars += 1;
        }
        for letter in word.chars() {
            if chars >= most {
                words.push('…');
                return Some(words);
            }
            words.push(letter);
            chars += 1;
        }
    }
    (!words.is_empty()).then_some(words)
}

/// The record of one try, the answer's headers and the start of its body included. `number` counts from 1; `elapsed`
/// is what the caller measured, used where there is no answer.
pub fn attempt(
    number: u32,
    at: Timestamp,
    elapsed: Duration,
    answer: Option<&Answer>,
    verdict: &Verdict,
) -> Attempt {
    let elapsed = answer.map_or(elapsed, |answer| answer.elapsed);
    Attempt {
        number,
        at,
        duration_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        status: answer.map(|answer| answer.status),
        outcome: verdict.outcome,
        reason: verdict.reason.clone(),
        remote_id: verdict.remote_id.clone(),
        headers: answer.map(|answer| kept_headers(&answer.headers)).unwrap_or_default(),
        body: answer.map(|answer| kept_body(&answer.body)).unwrap_or_default(),
    }
}

/// The reason of an outcome, and nothing of what the other side said.
pub fn without_words(verdict: &Verdict, status: Option<u16>) -> String {
    match status {
        Some(status) => format!("the endpoint answered {}{}", status_text(status), meaning(verdict.outcome)),
        None => verdict.reason.clone(),
    }
}

fn status_text(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()) {
        Some(words) => format!("{status} {words}"),
        None => status.to_string(),
    }
}

/// What a status is taken to mean, where it is more than the status says.
fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Duplicate => ": it has this already",
        Outcome::Ambiguous => ": it may have arrived",
        Outcome::AuthFailed => ": it refused the credentials; check them, then resume the connection",
        Outcome::Gone => ": it wants no more events",
        Outcome::Rejected => ": it refused this event for good",
        _ => "",
    }
}

/// Names the host alone: a path or query may hold a secret.
fn redirected(answer: &Answer) -> String {
    let status = status_text(answer.status);
    let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let absolute = location.map(|location| match location.strip_prefix("//") {
        Some(rest) => Url::parse(&format!("https://{rest}")),
        None => Url::parse(location),
    });
    let host = absolute.as_ref().and_then(|url| url.as_ref().ok()?.host_str());
    match (host.map(|host| cut(host, LONGEST_HOST_BYTES)), location) {
        (Some(host), _) => {
            format!(
                "the endpoint answered {status}, a redirect to {host}, not followed: register the final URL"
            )
        }
        (None, Some(_)) => {
            format!(
                "the endpoint answered {status}, a redirect to another path, not followed: register the final URL"
            )
        }
        (None, None) => format!("the endpoint answered {status}, which is no success"),
    }
}

/// `Retry-After`, RFC 9110 §10.2.3: seconds, or an HTTP date. What can't be read counts as not sent.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let span = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only digits, so the one way to fail is to be larger than any sensible span.
        text.parse().map_or(RETRY_AFTER_CAP, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let since = date.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(0).plus(since).since(now)
    };
    Some(span.clamp(RETRY_AFTER_LEAST, RETRY_AFTER_CAP))
}

/// `45 s`, `3 min`, `2 h 30 min`: whole, rounded up.
fn span(span: Duration) -> String {
    let secs = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs.div_ceil(60)),
        _ => {
            let minutes = secs.div_ceil(60);
            match minutes % 60 {
                0 => format!("{} h", minutes / 60),
                rest => format!("{} h {rest} min", minutes / 60),
            }
        }
    }
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    let mut room = HEADERS_LIMIT_BYTES;
    for (name, value) in headers {
        // A cookie is a credential of the other side.
        let text = if name == header::SET_COOKIE {
            "[hidden]".to_owned()
        } else {
            cut(&String::from_utf8_lossy(value.as_bytes()), room.saturating_sub(name.as_str().len()))
                .to_owned()
        };
        let size = name.as_str().len() + text.len();
        if size > room {
            break;
        }
        room -= size;
        kept.push((name.as_str().to_owned(), text));
    }
    kept
}

fn kept_body(body: &[u8]) -> String {
    let mut end = body.len().min(BODY_LIMIT_BYTES);
    // Back to where a character begins; in UTF-8 that is at most three bytes.
    let is_inside = |at: usize| body.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    for _ in 0..3 {
        end -= usize::from(end > 0 && is_inside(end));
    }
    let text = String::from_utf8_lossy(&body[..end]);
    // A replacement takes three bytes where there may have been one, so the text is cut once more.
    cut(&text, BODY_LIMIT_BYTES).to_owned()
}

/// The longest start of `text` of at most `bytes` that ends between two characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests;
