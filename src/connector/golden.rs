//! A connector against its cases, `tests/connectors/<id>.toml` beside `connectors/`: of those built in by the tests, of the
//! operator's own by `patchbay check`.
//!
//! A `[[request]]` states an event or a body and the exact request that must come of it (of a chain, each request with
//! the answer that leads to the next), or the field for want of which nothing is sent; an `[[answer]]` states an answer and
//! what it must come to. A connector that sends without cases of both sorts fails the suite, and so does one that receives without an
//! `[[in]]`: those cases are `service::receive`'s.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, Given, Key, Progress, Token, check_custom_headers, check_settings, classify};
use crate::domain::fault::{Fault, Faults, Place};
use crate::domain::job::Outcome;
use crate::domain::json::Object;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, Request};
use crate::mapping::Context;
use crate::spec::{Catalogue, ConnectorKind, ConnectorSpec, Names};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(default)]
    request: Vec<RequestCase>,
    #[serde(default)]
    answer: Vec<AnswerCase>,
    /// Requests that are received, held to by the service that receives.
    #[serde(default, rename = "in")]
    received: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestCase {
    name: String,
    /// A sample event, rendered by the connector's default mapping…
    sample: Option<String>,
    /// …or an event of the case's own, as JSON…
    event: Option<String>,
    /// …or the body itself.
    body: Option<String>,
    /// Newest first.
    #[serde(default)]
    secrets: Vec<String>,
    /// The connection's own.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    credentials: BTreeMap<String, Secret>,
    /// The access token, where one is fetched.
    token: Option<Secret>,
    #[serde(default)]
    url: String,
    #[serde(default = "some_job")]
    job_id: String,
    #[serde(default = "some_time")]
    now_secs: i64,
    expect: Option<Expected>,
    /// The requests of a chain, in order.
    #[serde(default)]
    chain: Vec<Link>,
    /// Nothing is sent, for want of this field…
    fails: Option<String>,
    /// …or because the connection's settings are refused; what is told, in part.
    refused: Option<String>,
}

fn some_job() -> String {
    "job_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q".to_owned()
}

fn some_time() -> i64 {
    1_777_818_740
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    expect: Expected,
    /// What the request is answered with; the last one needs none.
    #[serde(default)]
    answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    method: String,
    /// The case's own URL where it is left out.
    url: Option<String>,
    /// All of them, by lower-case name.
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerCase {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// Whether the body broke off.
    #[serde(default)]
    broken: bool,
    outcome: Outcome,
    /// The whole reason, where a case is about it.
    reason: Option<String>,
    retry_after_secs: Option<u64>,
    remote_id: Option<String>,
}

const NOW: Timestamp = Timestamp::from_millis(1_777_818_128_000);
/// What is shown of a long text that is not as it should be, around where it differs.
const SHOWN_CHARS: usize = 200;

/// What a connector's cases came to.
#[derive(Debug, Default)]
pub struct CheckedCases {
    /// Cases of requests.
    pub requests: usize,
    /// Cases of answers.
    pub answers: usize,
    /// What does not hold, each with the line of its case.
    pub faults: Faults,
}

/// Holds a connector to its cases: `text` is their file, `path` its name for messages.
pub fn check_cases(catalogue: &Catalogue, id: &str, path: &str, text: &str) -> CheckedCases {
    let mut checked = CheckedCases::default();
    let at = |line: usize, field: String| Place {
        file: Some(path.into()),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: 1,
        field,
    };
    let mut told = |place: Place, message: String, hint: Option<&str>| {
        checked.faults.push(Fault { place, message, hint: hint.map(str::to_owned) });
    };
    let Some(spec) = catalogue.connector(id) else {
        let hint = "name the file after the connector that it is about";
        told(at(1, String::new()), format!("there is no connector \"{id}\""), Some(hint));
        return checked;
    };
    if spec.kind != ConnectorKind::Http {
        let hint = "cases are of requests and answers, which only the kind \"http\" states";
        told(at(1, String::new()), format!("\"{id}\" is of the kind \"{}\"", spec.kind.name()), Some(hint));
        return checked;
    }
    let cases: Cases = match toml::from_str(text) {
        Ok(cases) => cases,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.get(..start).unwrap_or_default().matches('\n').count();
            told(at(line, String::new()), error.message().to_owned(), None);
            return checked;
        }
    };
    for (index, case) in cases.request.iter().enumerate() {
        if let Err(message) = check_request(catalogue, spec, case) {
            let place = at(line_of(text, "[[request]]", index), format!("request[{index}]"));
            told(place, format!("\"{}\": {message}", case.name), None);
        }
    }
    for (index, case) in cases.answer.iter().enumerate() {
        if let Err(message) = check_answer(spec, case) {
            let place = at(line_of(text, "[[answer]]", index), format!("answer[{index}]"));
            told(place, message, None);
        }
    }
    let (sends, receives) = (spec.sends(), spec.inbound.is_some());
    for (name, missing) in [
        ("request", sends && cases.request.is_empty()),
        ("answer", sends && cases.answer.is_empty()),
        ("in", receives && cases.received.is_empty()),
    ] {
        if missing {
            let hint =
                "a connector is held to what it sends, to how it reads answers and to what it receives";
            told(at(1, name.to_owned()), "there is no such case".to_owned(), Some(hint));
        }
    }
    checked.requests = cases.request.len();
    checked.answers = cases.answer.len();
    checked
}

/// The line of the case number `index` of a sort.
pub(crate) fn line_of(text: &str, header: &str, index: usize) -> usize {
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with(header));
    lines.nth(index).map_or(1, |(line, _)| line + 1)
}

fn same<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: expected {wanted:?}, found {found:?}")) }
}

/// Two texts, of which a long one is shown where they differ.
pub(crate) fn same_text(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    let differs = found.chars().zip(wanted.chars()).take_while(|(left, right)| left == right).count();
    let from = differs.saturating_sub(SHOWN_CHARS / 4);
    let part = |text: &str| -> String {
        let shown: String = text.chars().skip(from).take(SHOWN_CHARS).collect();
        let (before, after) = (from > 0, text.chars().count() > from + SHOWN_CHARS);
        format!("{}{shown}{}", if before { "…" } else { "" }, if after { "…" } else { "" })
    };
    let mut told = format!("{what} differs from character {} on", differs + 1);
    let _ = write!(told, "\n  expected {}\n  found    {}", part(wanted), part(found));
    Err(told)
}

fn check_request(catalogue: &Catalogue, spec: &Arc<ConnectorSpec>, case: &RequestCase) -> Result<(), String> {
    let now = Timestamp::from_millis(case.now_secs.saturating_mul(1_000));
    let event: Option<Object> = match (&case.sample, &case.event) {
        (Some(sample), None) => {
            let found = catalogue.samples().get(sample);
            Some(found.ok_or_else(|| format!("there is no sample \"{sample}\""))?.clone().into())
        }
        (None, Some(event)) => {
            let event: Value =
                serde_json::from_str(event).map_err(|error| format!("its event is no JSON: {error}"))?;
            Some(event.into())
        }
        (None, None) => None,
        (Some(_), Some(_)) => return Err("either \"sample\" or \"event\"".to_owned()),
    };
    let text = |key: &str| event.as_ref().map_or("", |event| event.tree()[key].as_str().unwrap_or_default());
    let context = Context {
        event_id: text("id"),
        event_type: text("type"),
        event_time: text("time"),
        source: event.as_ref().and_then(|event| event.tree()["source"].as_str()),
        tenant_id: text("tenant"),
        connection_id: "con_1",
        job_id: &case.job_id,
        attempt: 1,
        now,
    };
    let given = Given { url: &case.url, options: &case.options, credentials: &case.credentials };
    let settings = match (check_settings(spec, &given), &case.refused) {
        (Ok(settings), None) => settings,
        (Err(faults), Some(wanted)) if faults.to_string().contains(wanted.as_str()) => return Ok(()),
        (Err(faults), Some(wanted)) => {
            return Err(format!("expected the settings to be refused for \"{wanted}\", found {faults}"));
        }
        (Ok(_), Some(wanted)) => {
            return Err(format!("expected the settings to be refused for \"{wanted}\"; they are taken"));
        }
        (Err(faults), None) => return Err(format!("its settings are refused: {faults}")),
    };
    let mut keys = Vec::new();
    for secret in &case.secrets {
        let key = spec.signature.key(secret).map_err(|error| format!("its secret: {error}"))?;
        keys.push(Key { key, expires: None });
    }
    let custom = check_custom_headers(spec, &case.headers).map_err(|faults| faults.to_string())?;
    let timeout = spec.policy.timeout;
    let endpoint = Endpoint::compile(Arc::clone(spec), &case.url, settings, &custom, keys, timeout)
        .map_err(|error| error.to_string())?;
    let mapping = catalogue.mapping(&spec.mapping).ok_or("the connector's mapping is missing")?;
    let body = match (&case.body, &event) {
        (Some(body), None) => Ok(Bytes::from(body.clone())),
        (None, Some(event)) => endpoint.render(mapping, event, &context),
        _ => return Err("needs a sample, an event or a body, and one of them only".to_owned()),
    };
    let body = match (body, &case.fails) {
        (Ok(body), None) => body,
        (Err(error), Some(field)) if &error.field == field => return Ok(()),
        (Err(error), Some(field)) => {
            return Err(format!("expected it to fail at \"{field}\", found \"{}\": {error}", error.field));
        }
        (Ok(body), Some(field)) => {
            let sent = String::from_utf8_lossy(&body).into_owned();
            return Err(format!("expected it to fail at \"{field}\"; it is sent: {sent}"));
        }
        (Err(error), None) => return Err(format!("nothing is sent: {error}")),
    };
    let token = case.token.clone().map(|text| Token { text, renew_at: now });
    if endpoint.client().is_some() != token.is_some() {
        return Err("\"token\" belongs to a connector that fetches access tokens, and to no other".to_owned());
    }
    let names = Names { event_type: text("type"), event_id: text("id"), job_id: &case.job_id };
    let send = |index, body| endpoint.call(index, &names, body, token.as_ref(), now);
    if let Some(expect) = &case.expect {
        if !case.chain.is_empty() || endpoint.calls() != 1 {
            return Err("a connector with steps has a \"chain\" in place of \"expect\"".to_owned());
        }
        let request = send(0, body);
        same("timeout", &request.timeout, &timeout)?;
        return compare(&request, expect, &case.url);
    }
    if endpoint.calls() != case.chain.len() {
        return Err(if endpoint.calls() == 1 {
            "says nothing of what is expected; add [request.expect]".to_owned()
        } else {
            format!("needs a \"chain\" of {} requests", endpoint.calls())
        });
    }
    let mut progress = Progress::from_bytes(&body).ok_or("its first body is no start of a chain")?;
    let event = event.as_ref().ok_or("a chain begins with an event")?;
    for (index, link) in case.chain.iter().enumerate() {
        let at = |message: String| format!("request {} of the chain: {message}", index + 1);
        same("the next request", &endpoint.next_call(&progress), &index).map_err(at)?;
        let body = endpoint.body(index, &progress, event, &context).map_err(|error| at(error.to_string()))?;
        compare(&send(index, body), &link.expect, &case.url).map_err(at)?;
        endpoint.take(index, &mut progress, &answered(200, Vec::new(), &link.answer, false)).map_err(at)?;
    }
    Ok(())
}

fn compare(request: &Request, expect: &Expected, url: &str) -> Result<(), String> {
    let mut headers = BTreeMap::new();
    for (name, value) in &request.headers {
        let text = value.to_str().map_err(|_| format!("the header {name} is no text"))?;
        if headers.insert(name.as_str().to_owned(), text.to_owned()).is_some() {
            return Err(format!("the header {name} is there twice"));
        }
    }
    same_text("method", request.method.as_str(), &expect.method)?;
    same_text("url", request.url.as_str(), expect.url.as_deref().unwrap_or(url))?;
    same_text("body", &String::from_utf8_lossy(&request.body), &expect.body)?;
    for name in headers.keys().chain(expect.headers.keys()) {
        let of = |headers: &BTreeMap<String, String>| headers.get(name).cloned();
        match (of(&headers), of(&expect.headers)) {
            (Some(found), Some(wanted)) => same_text(&format!("header {name}"), &found, &wanted)?,
            (Some(found), None) => return Err(format!("header {name}: expected none, found \"{found}\"")),
            (None, Some(wanted)) => return Err(format!("header {name}: expected \"{wanted}\", found none")),
            (None, None) => {}
        }
    }
    Ok(())
}

fn answered(status: u16, headers: Vec<(HeaderName, HeaderValue)>, body: &str, broken: bool) -> Answer {
    Answer {
        status,
        headers: headers.into_iter().collect(),
        body: Bytes::from(body.to_owned()),
        truncated: false,
        body_complete: !broken,
        elapsed: Duration::from_millis(5),
    }
}

fn check_answer(spec: &ConnectorSpec, case: &AnswerCase) -> Result<(), String> {
    let mut headers = Vec::new();
    for (name, value) in &case.headers {
        let read = name.parse::<HeaderName>().ok().zip(value.parse::<HeaderValue>().ok());
        headers.push(read.ok_or_else(|| format!("the header {name} is none"))?);
    }
    let answer = answered(case.status, headers, &case.body, case.broken);
    let verdict = classify(spec, Ok(&answer), NOW);
    let of = |message: String| format!("{} {}: {message}", case.status, case.body);
    if verdict.outcome != case.outcome {
        let (wanted, found) = (case.outcome.name(), verdict.outcome.name());
        return Err(of(format!("expected {wanted}, found {found} ({})", verdict.reason)));
    }
    let wait = case.retry_after_secs.map(Duration::from_secs);
    same("retry_after_secs", &verdict.retry_after, &wait).map_err(of)?;
    same("remote_id", &verdict.remote_id, &case.remote_id).map_err(of)?;
    match &case.reason {
        Some(reason) => same_text("reason", &verdict.reason, reason).map_err(of),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
