//! Every connector against the cases in `tests/connectors/<id>.toml`, found by folder.
//!
//! A `[[request]]` states an event or a body and the exact request that must come of it; an `[[answer]]` states an
//! answer and what it must come to. A connector without cases of both sorts fails the suite.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::HeaderName;
use bytes::Bytes;
use serde::Deserialize;

use super::{Endpoint, Key, check_custom_headers, classify, render};
use crate::domain::job::Outcome;
use crate::domain::time::Timestamp;
use crate::egress::Answer;
use crate::mapping::Context;
use crate::spec::{Catalogue, Names};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    request: Vec<RequestCase>,
    answer: Vec<AnswerCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestCase {
    name: String,
    /// A sample event, rendered by the connector's default mapping…
    sample: Option<String>,
    /// …or the body itself.
    body: Option<String>,
    /// Newest first.
    #[serde(default)]
    secrets: Vec<String>,
    /// The connection's own.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    url: String,
    job_id: String,
    now_secs: i64,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    method: String,
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
    outcome: Outcome,
    /// The whole reason, where a case is about it.
    reason: Option<String>,
    retry_after_secs: Option<u64>,
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
    let catalogue = Catalogue::load(None).unwrap();
    for id in catalogue.connectors().keys() {
        let text = fs::read_to_string(folder().join(format!("{id}.toml"))).unwrap();
        let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(!cases.request.is_empty() && !cases.answer.is_empty(), "{id} has no cases");
        for case in &cases.request {
            check_request(&catalogue, id, case);
        }
        for case in &cases.answer {
            check_answer(&catalogue, id, case);
        }
    }
}

fn check_request(catalogue: &Catalogue, id: &str, case: &RequestCase) {
    let spec = catalogue.connector(id).unwrap();
    let now = Timestamp::from_millis(case.now_secs * 1_000);
    let event = case.sample.as_ref().map(|sample| &catalogue.samples()[sample]);
    let text = |key: &str| event.map_or("", |event| event[key].as_str().unwrap());
    let body = match (&case.body, event) {
        (Some(body), None) => Bytes::from(body.clone()),
        (None, Some(event)) => {
            let context = Context {
                event_id: text("id"),
                event_type: text("type"),
                event_time: text("time"),
                source: event["source"].as_str(),
                tenant_id: text("tenant"),
                connection_id: "con_1",
                job_id: &case.job_id,
                attempt: 1,
                now,
            };
            render(spec, catalogue.mapping(&spec.mapping).unwrap(), event, &context).unwrap()
        }
        _ => panic!("{id}: {}: either \"sample\" or \"body\"", case.name),
    };
    let keys =
        case.secrets.iter().map(|secret| Key { key: spec.signature.key(secret).unwrap(), expires: None });
    let custom = check_custom_headers(spec, &case.headers).unwrap();
    let timeout = spec.policy.timeout;
    let endpoint = Endpoint::compile(spec.clone(), &case.url, custom, keys.collect(), timeout).unwrap();
    let names = Names { event_type: text("type"), event_id: text("id"), job_id: &case.job_id };
    let request = endpoint.request(&names, body, now);

    let headers: BTreeMap<String, String> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    assert_eq!(headers, case.expect.headers, "{id}: {}", case.name);
    assert_eq!(request.headers.len(), headers.len(), "{id}: {}: no header twice", case.name);
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), case.expect.body, "{id}: {}", case.name);
    assert_eq!(request.method.as_str(), case.expect.method, "{id}: {}", case.name);
    assert_eq!(request.url.as_str(), case.url, "{id}: {}", case.name);
    assert_eq!(request.timeout, timeout, "{id}: {}", case.name);
}

fn check_answer(catalogue: &Catalogue, id: &str, case: &AnswerCase) {
    let headers = case
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
    let answer = Answer {
        status: case.status,
        headers: headers.collect(),
        body: Bytes::from(case.body.clone()),
        truncated: false,
        body_complete: true,
        elapsed: Duration::from_millis(5),
    };
    let verdict = classify(catalogue.connector(id).unwrap(), Ok(&answer), NOW);
    let what = format!("{id}: {} {:?}", case.status, case.headers);
    assert_eq!(verdict.outcome, case.outcome, "{what}");
    assert_eq!(verdict.retry_after, case.retry_after_secs.map(Duration::from_secs), "{what}");
    if let Some(reason) = &case.reason {
        assert_eq!(&verdict.reason, reason, "{what}");
    }
}
