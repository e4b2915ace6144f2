//! Every connector against the cases in `tests/connectors/<id>.toml`, found by folder.
//!
//! A `[[request]]` states an event or a body and the exact request that must come of it (of a chain, each request with
//! the answer that leads to the next), or the field for want of which nothing is sent; an `[[answer]]` states an answer and
//! what it must come to. A connector that sends without cases of both sorts fails the suite, and so does one that receives without an
//! `[[in]]`; those are held to where deliveries are received.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderName;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, Given, Key, Progress, Token, check_custom_headers, check_settings, classify};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, Request};
use crate::mapping::Context;
use crate::spec::{Catalogue, Names};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/connectors")
}

#[test]
fn every_connector_has_cases_and_all_cases_a_connector() {
    let catalogue = Catalogue::load(None).unwrap();
    let connectors: BTreeSet<&str> = catalogue.connectors().keys().map(String::as_str).collect();
    let files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), connectors);
}

#[test]
fn every_case_of_every_connector_holds() {
    let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
    let failing: Vec<&String> = catalogue
        .connectors()
        .keys()
        .filter(|id| {
            let file = folder().join(format!("{id}.toml"));
            catch_unwind(AssertUnwindSafe(|| check_cases(&catalogue, id, &file))).is_err()
        })
        .collect();
    assert!(failing.is_empty(), "{failing:?}");
}

/// Holds a connector to its cases; answers how many there are, of requests and of answers.
pub(super) fn check_cases(catalogue: &Catalogue, id: &str, file: &Path) -> (usize, usize) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{id}: {error}"));
    let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{id}: {error}"));
    let spec = catalogue.connector(id).unwrap();
    assert_eq!(
        !cases.request.is_empty() && !cases.answer.is_empty(),
        spec.sends(),
        "{id}: cases of what is sent"
    );
    assert_eq!(!cases.received.is_empty(), spec.inbound.is_some(), "{id}: cases of what is received");
    // All that fail are told at once.
    let holds = |check: &dyn Fn()| catch_unwind(AssertUnwindSafe(check)).is_ok();
    let requests = cases.request.iter().filter(|case| !holds(&|| check_request(catalogue, id, case))).count();
    let answers = cases.answer.iter().filter(|case| !holds(&|| check_answer(catalogue, id, case))).count();
    assert_eq!((requests, answers), (0, 0), "{id}: cases of requests and answers that fail");
    (cases.request.len(), cases.answer.len())
}

fn check_request(catalogue: &Catalogue, id: &str, case: &RequestCase) {
    let what = format!("{id}: {}", case.name);
    let spec = catalogue.connector(id).unwrap();
    let now = Timestamp::from_millis(case.now_secs * 1_000);
    let event: Option<Value> = match (&case.sample, &case.event) {
        (Some(sample), None) => {
            Some(catalogue.samples().get(sample).unwrap_or_else(|| panic!("{what}: no such sample")).clone())
        }
        (None, Some(event)) => {
            Some(serde_json::from_str(event).unwrap_or_else(|error| panic!("{what}: {error}")))
        }
        (None, None) => None,
        (Some(_), Some(_)) => panic!("{what}: either \"sample\" or \"event\""),
    };
    let text = |key: &str| event.as_ref().map_or("", |event| event[key].as_str().unwrap_or_default());
    let context = Context {
        event_id: text("id"),
        event_type: text("type"),
        event_time: text("time"),
        source: event.as_ref().and_then(|event| event["source"].as_str()),
        tenant_id: text("tenant"),
        connection_id: "con_1",
        job_id: &case.job_id,
        attempt: 1,
        now,
    };
    let given = Given { url: &case.url, options: &case.options, credentials: &case.credentials };
    let settings = match (check_settings(spec, &given), &case.refused) {
        (Ok(settings), None) => settings,
        (Err(faults), Some(wanted)) => {
            assert!(faults.to_string().contains(wanted.as_str()), "{what}: {faults}");
            return;
        }
        (Ok(_), Some(_)) => panic!("{what}: the settings are taken"),
        (Err(faults), None) => panic!("{what}: {faults}"),
    };
    let keys =
        case.secrets.iter().map(|secret| Key { key: spec.signature.key(secret).unwrap(), expires: None });
    let custom = check_custom_headers(spec, &case.headers).unwrap();
    let timeout = spec.policy.timeout;
    let endpoint =
        Endpoint::compile(Arc::clone(spec), &case.url, settings, &custom, keys.collect(), timeout).unwrap();
    let mapping = catalogue.mapping(&spec.mapping).unwrap();
    let body = match (&case.body, &event) {
        (Some(body), None) => Ok(Bytes::from(body.clone())),
        (None, Some(event)) => endpoint.render(mapping, event, &context),
        _ => panic!("{what}: an event or a body"),
    };
    let body = match (body, &case.fails) {
        (Ok(body), None) => body,
        (Err(error), Some(field)) => {
            assert_eq!(&error.field, field, "{what}: {error}");
            return;
        }
        (Ok(body), Some(_)) => panic!("{what}: it is sent: {body:?}"),
        (Err(error), None) => panic!("{what}: {error}"),
    };
    let token = case.token.clone().map(|text| Token { text, renew_at: now });
    assert_eq!(endpoint.client().is_some(), token.is_some(), "{what}: a token where one is needed");
    let names = Names { event_type: text("type"), event_id: text("id"), job_id: &case.job_id };
    let send = |index, body| endpoint.call(index, &names, body, token.as_ref(), now);
    if let Some(expect) = &case.expect {
        assert!(case.chain.is_empty() && endpoint.calls() == 1, "{what}: one request");
        let request = send(0, body);
        assert_eq!(request.timeout, timeout, "{what}");
        return compare(&what, &request, expect, &case.url);
    }
    assert_eq!(endpoint.calls(), case.chain.len(), "{what}: one link a request");
    let mut progress = Progress::from_bytes(&body).unwrap();
    for (index, link) in case.chain.iter().enumerate() {
        assert_eq!(endpoint.next_call(&progress), index, "{what}");
        let body = endpoint.body(index, &progress, event.as_ref().unwrap(), &context).unwrap();
        compare(&format!("{what} ({index})"), &send(index, body), &link.expect, &case.url);
        endpoint.take(index, &mut progress, &answered(200, Vec::new(), &link.answer, false)).unwrap();
    }
}

fn compare(what: &str, request: &Request, expect: &Expected, url: &str) {
    let headers: BTreeMap<String, String> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), expect.body, "{what}");
    assert_eq!(headers, expect.headers, "{what}");
    assert_eq!(request.headers.len(), headers.len(), "{what}: no header twice");
    assert_eq!(request.method.as_str(), expect.method, "{what}");
    assert_eq!(request.url.as_str(), expect.url.as_deref().unwrap_or(url), "{what}");
}

fn answered(
    status: u16,
    headers: Vec<(HeaderName, ::http::HeaderValue)>,
    body: &str,
    broken: bool,
) -> Answer {
    Answer {
        status,
        headers: headers.into_iter().collect(),
        body: Bytes::from(body.to_owned()),
        truncated: false,
        body_complete: !broken,
        elapsed: Duration::from_millis(5),
    }
}

fn check_answer(catalogue: &Catalogue, id: &str, case: &AnswerCase) {
    let headers = case
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let answer = answered(case.status, headers, &case.body, case.broken);
    let verdict = classify(catalogue.connector(id).unwrap(), Ok(&answer), NOW);
    let what = format!("{id}: {} {:?} {}\n{}", case.status, case.headers, case.body, verdict.reason);
    assert_eq!(verdict.outcome, case.outcome, "{what}");
    assert_eq!(verdict.retry_after, case.retry_after_secs.map(Duration::from_secs), "{what}");
    assert_eq!(verdict.remote_id, case.remote_id, "{what}");
    if let Some(reason) = &case.reason {
        assert_eq!(&verdict.reason, reason, "{what}");
    }
}
