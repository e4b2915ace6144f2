//! Every connector that receives against the `[[in]]` cases in `tests/connectors/<id>.toml`: a request in, and the exact events, the
//! refusal or the answer out.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Request, Understood, answer, understand};
use crate::connector::{Given, Key, Receiver};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::mapping::Context;
use crate::service::ingest::read_plain;
use crate::spec::Catalogue;

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

#[test]
fn every_received_case_of_every_connector_holds() {
    let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut failing = Vec::new();
    let mut count = 0;
    for (id, connector) in catalogue.connectors() {
        if connector.inbound.is_none() {
            continue;
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/connectors/{id}.toml"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{id}: {error}"));
        let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{id}: {error}"));
        let tells = |wanted: fn(&Case) -> bool| cases.received.iter().any(wanted);
        assert!(tells(|case| case.events.is_some()), "{id}: no case of an event");
        assert!(tells(|case| case.refused.is_some()), "{id}: no case of a refusal");
        for case in &cases.received {
            count += 1;
            let check = AssertUnwindSafe(|| runtime.block_on(check(&catalogue, id, case)));
            if catch_unwind(check).is_err() {
                failing.push(format!("{id}: {}", case.name));
            }
        }
    }
    assert!(failing.is_empty(), "{failing:#?} of {count}");
}

async fn check(catalogue: &Catalogue, id: &str, case: &Case) {
    let spec = Arc::clone(catalogue.connector(id).unwrap().inbound.as_ref().unwrap());
    let mapping = Arc::clone(catalogue.mapping(&spec.mapping).unwrap());
    let key = |secret: &String| Key { key: spec.signature().key(secret).unwrap(), expires: None };
    let keys = case.secrets.iter().map(key).collect();
    let given = Given { url: "", options: &case.options, credentials: &case.credentials };
    let receiver = Receiver::compile(Arc::clone(&spec), mapping, keys, &given).unwrap();
    let headers = case
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let request = Request {
        method: case.method.parse::<Method>().unwrap(),
        url: format!("https://hooks.example.com/v1/sources/src_1?{}", case.query),
        query: case.query.clone(),
        headers,
        body: Bytes::from(case.body.clone()),
    };
    let now = Timestamp::from_millis(case.now_secs * 1_000);
    let context = Context { tenant_id: "acme", now, ..Context::empty() };
    let understood = understand(&receiver, &request, &context, now).await;
    let what = &case.name;
    if let Some(wanted) = &case.refused {
        let error = understood.expect_err("it is taken");
        assert!(error.to_string().contains(wanted.as_str()), "{what}: {error}");
        return;
    }
    let (status, content_type, body) = match understood.unwrap_or_else(|error| panic!("{what}: {error}")) {
        Understood::Greeting(content_type, body) => (StatusCode::OK, Some(content_type), body),
        Understood::Events { events, .. } => {
            let wanted: Value = case.events.as_ref().map_or(Value::Null, |text| {
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}"))
            });
            assert_eq!(Value::Array(events.clone()), wanted, "{what}");
            let reply = if events.is_empty() { &spec.ignored } else { &spec.accepted };
            let response = answer(reply, events.len(), 0);
            for event in events {
                read_plain(event, "").unwrap_or_else(|faults| panic!("{what}: {faults}"));
            }
            (response.status, response.content_type, response.body)
        }
    };
    if let Some(wanted) = &case.answer {
        let content_type = content_type.as_ref().map(|value| value.to_str().unwrap());
        assert_eq!(
            (status.as_u16(), content_type, body.as_str()),
            (wanted.status, wanted.content_type.as_deref(), wanted.body.as_str()),
            "{what}"
        );
    }
}
