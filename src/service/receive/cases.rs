//! A connector that receives against the `[[in]]` cases of `tests/connectors/<id>.toml`: a request in, and the exact events, the
//! refusal or the answer out. Those built in are held to theirs by the tests, the operator's own by `patchbay check`; the
//! other sorts of cases are `connector::check_cases`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Request, Response, Understood, answer, understand};
use crate::connector::{Given, Key, Receiver, line_of, same_text};
use crate::domain::fault::{Fault, Faults, Place};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::mapping::Context;
use crate::service::ingest::read_plain;
use crate::spec::{Catalogue, InboundSpec};

#[derive(Deserialize)]
struct Cases {
    #[serde(default, rename = "in")]
    received: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Newest first.
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    credentials: BTreeMap<String, Secret>,
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    now_secs: i64,
    /// The events as JSON, in order; an empty list for a request that is acknowledged only.
    events: Option<String>,
    /// What is told, in part, when it is refused.
    refused: Option<String>,
    /// What the sender is answered.
    answer: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    body: String,
}

fn post() -> String {
    "POST".to_owned()
}

/// What a connector's cases of receiving came to.
#[derive(Debug, Default)]
pub struct CheckedReceived {
    /// How many there are.
    pub count: usize,
    /// What does not hold, each with the line of its case.
    pub faults: Faults,
}

/// Holds a connector to its `[[in]]` cases: `text` is their file, `path` its name for messages. A file that is no TOML, and one
/// of a connector that is not there, is told by `connector::check_cases`.
pub fn check_received(catalogue: &Catalogue, id: &str, path: &str, text: &str) -> CheckedReceived {
    let mut checked = CheckedReceived::default();
    let connector = catalogue.connector(id).filter(|_| text.parse::<toml::Table>().is_ok());
    let Some(spec) = connector.and_then(|connector| connector.inbound.as_ref()) else { return checked };
    let mut told = |line: usize, field: String, message: String| {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        let place = Place { file: Some(path.into()), line, column: 1, field };
        checked.faults.push(Fault { place, message, hint: None });
    };
    let cases: Cases = match toml::from_str(text) {
        Ok(cases) => cases,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.get(..start).unwrap_or_default().matches('\n').count();
            told(line, "in".to_owned(), error.message().to_owned());
            return checked;
        }
    };
    for (what, missing) in [
        ("events", cases.received.iter().all(|case| case.events.is_none())),
        ("refused", cases.received.iter().all(|case| case.refused.is_none())),
    ] {
        if missing && !cases.received.is_empty() {
            told(1, "in".to_owned(), format!("no case states \"{what}\""));
        }
    }
    for (index, case) in cases.received.iter().enumerate() {
        // Nothing here waits: all of the request is in memory.
        let held = check(catalogue, spec, case).now_or_never().unwrap_or_else(|| Err("it waits".to_owned()));
        if let Err(message) = held {
            let field = format!("in[{index}]");
            told(line_of(text, "[[in]]", index), field, format!("\"{}\": {message}", case.name));
        }
    }
    checked.count = cases.received.len();
    checked
}

fn request_of(case: &Case) -> Result<Request, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let parts = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = parts else { return Err(format!("\"{name}\" is no header")) };
        headers.insert(name, value);
    }
    Ok(Request {
        method: case.method.parse::<Method>().map_err(|_| format!("\"{}\" is no method", case.method))?,
        url: format!("https://hooks.example.com/v1/sources/src_1?{}", case.query),
        query: case.query.clone(),
        headers,
        body: Bytes::from(case.body.clone()),
    })
}

fn receiver_of(catalogue: &Catalogue, spec: &Arc<InboundSpec>, case: &Case) -> Result<Receiver, String> {
    let mapping = catalogue.mapping(&spec.mapping).ok_or("its mapping is not there")?;
    let key = |secret: &String| {
        let key = spec.signature().key(secret).map_err(|error| format!("its secret: {error}"))?;
        Ok(Key { key, expires: None })
    };
    let keys = case.secrets.iter().map(key).collect::<Result<_, String>>()?;
    let given = Given { url: "", options: &case.options, credentials: &case.credentials };
    Receiver::compile(Arc::clone(spec), Arc::clone(mapping), keys, &given)
        .map_err(|faults| format!("its settings are refused: {faults}"))
}

async fn check(catalogue: &Catalogue, spec: &Arc<InboundSpec>, case: &Case) -> Result<(), String> {
    let receiver = receiver_of(catalogue, spec, case)?;
    let now = Timestamp::from_millis(case.now_secs.saturating_mul(1_000));
    let context = Context { tenant_id: "acme", now, ..Context::empty() };
    let understood = understand(&receiver, &request_of(case)?, &context, now).await;
    let response = match (understood, &case.refused) {
        (Err(error), Some(wanted)) if error.to_string().contains(wanted.as_str()) => return Ok(()),
        (Err(error), Some(wanted)) => {
            return Err(format!("expected it to be refused for \"{wanted}\", found {error}"));
        }
        (Ok(_), Some(wanted)) => {
            return Err(format!("expected it to be refused for \"{wanted}\"; it is taken"));
        }
        (Err(error), None) => return Err(format!("it is refused: {error}")),
        (Ok(Understood::Greeting(content_type, body)), None) => {
            if case.events.is_some() {
                return Err("expected events, found the answer to a handshake".to_owned());
            }
            Response { status: StatusCode::OK, content_type: Some(content_type), body }
        }
        (Ok(Understood::Events { events, .. }), None) => {
            let wanted = case.events.as_ref().ok_or("says nothing of the events that are expected")?;
            let wanted: Value =
                serde_json::from_str(wanted).map_err(|error| format!("its events are no JSON: {error}"))?;
            let found = Value::Array(events.clone());
            if found != wanted {
                same_text("the list of events", &found.to_string(), &wanted.to_string())?;
                return Err("the events differ in the order of their keys".to_owned());
            }
            let reply = if events.is_empty() { &spec.ignored } else { &spec.accepted };
            let response = answer(reply, events.len(), 0);
            for event in events {
                read_plain(&event, "").map_err(|faults| format!("what it makes is no event: {faults}"))?;
            }
            response
        }
    };
    let Some(wanted) = &case.answer else { return Ok(()) };
    let content_type = response.content_type.as_ref().and_then(|value| value.to_str().ok());
    let found = format!("{} {} {}", response.status.as_u16(), content_type.unwrap_or("-"), response.body);
    let content_type = wanted.content_type.as_deref().unwrap_or("-");
    same_text("the answer", &found, &format!("{} {content_type} {}", wanted.status, wanted.body))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_received_case_of_every_connector_holds() {
        let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
        let mut faults = Faults::default();
        for (id, connector) in catalogue.connectors() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/connectors/{id}.toml"));
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{id}: {error}"));
            let checked = check_received(&catalogue, id, &path.display().to_string(), &text);
            println!("{id}: {} received", checked.count);
            assert_eq!(checked.count > 0, connector.inbound.is_some(), "{id}");
            faults.extend(checked.faults);
        }
        assert!(faults.is_empty(), "{faults}");
    }

    #[test]
    fn what_does_not_hold_is_told_with_its_line() {
        let catalogue = Catalogue::load(None).unwrap();
        let cases = "# one\n[[in]]\nname = 'other events'\nsecrets = ['s']\nheaders = { X-FC-Signature = 's' }\n\
            body = '{}'\nnow_secs = 1\nevents = '[{}]'\n\
            [[in]]\nname = 'taken'\nsecrets = ['s']\nheaders = { X-FC-Signature = 's' }\nbody = '{}'\nnow_secs = 1\n\
            refused = 'fits no'\n\
            [[in]]\nname = 'refused'\nsecrets = ['s']\nbody = '{}'\nnow_secs = 1\n";
        let told = check_received(&catalogue, "fusionchatalyst", "cases.toml", cases).faults.to_string();
        for part in [
            "cases.toml:2:1: in[0]: \"other events\": the list of events differs from character 2 on",
            "cases.toml:9:1: in[1]: \"taken\": expected it to be refused for \"fits no\"; it is taken",
            "cases.toml:16:1: in[2]: \"refused\": it is refused: ",
        ] {
            assert!(told.contains(part), "{part}\nin\n{told}");
        }
        let unknown = "[[in]]\nname = 'x'\nnow_secs = 1\nbdy = ''\n";
        let told = check_received(&catalogue, "github", "cases.toml", unknown).faults.to_string();
        assert!(told.starts_with("cases.toml:4:1: in: unknown field `bdy`"), "{told}");
        assert_eq!(check_received(&catalogue, "zoho", "cases.toml", "").count, 0, "it only sends");
    }
}
