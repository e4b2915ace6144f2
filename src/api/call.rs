//! One request on its way to its endpoint: who sent it, its path, its query, its body. All of it is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use crate::domain::account::ApiKey;
use crate::domain::document::Node;
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::id::TenantId;
use crate::service::Gateway;
use crate::service::door::Share;
use crate::service::ingest::{MAX_NESTING, ParseError, json};

/// How long a body may take to come in.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// An endpoint's answer.
pub type Answer = Result<Response<Body>, Problem>;

/// One request.
pub struct Call {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The key that it came with; `None` only where none is needed.
    pub key: Option<Arc<ApiKey>>,
    /// Its method.
    pub method: Method,
    /// Its path as it was sent.
    pub path: String,
    /// The address that it comes from; `None` where nobody knows.
    pub peer: Option<IpAddr>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its id.
    pub request_id: String,
    pub(super) query: Option<String>,
    pub(super) params: Vec<(String, String)>,
    pub(super) body: Option<Body>,
    /// The room that its body takes.
    pub(super) held: Option<Share>,
}

impl Call {
    /// The key's tenant; `None` for an operator's.
    pub fn key_tenant(&self) -> Option<&TenantId> {
        self.key.as_ref().and_then(|key| key.tenant.as_ref())
    }

    /// Who asks: the key's id.
    pub fn who(&self) -> String {
        self.key.as_ref().map(|key| key.id.to_string()).unwrap_or_default()
    }

    /// A part of the path as an id. What is no id names nothing.
    pub fn param<T: FromStr>(&self, name: &str, what: &str) -> Result<T, Problem> {
        let text = self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        text.and_then(|text| text.parse().ok()).ok_or_else(|| Problem::missing(what))
    }

    /// The query, which may have the `known` parameters and no others.
    pub fn query(&self, known: &[&'static str]) -> Query {
        let mut query = Query { values: BTreeMap::new(), faults: Faults::default() };
        let pairs = form_pairs(self.query.as_deref().unwrap_or_default());
        for (name, value) in pairs {
            let Some(known) = known.iter().copied().find(|known| *known == name) else {
                let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
                let hint = did_you_mean(&name, known.iter().copied())
                    .or_else(|| (!known.is_empty()).then(|| format!("known here: {}", known.join(", "))));
                query.faults.at_field(shown, "unknown parameter", hint);
                continue;
            };
            if query.values.insert(known, value).is_some() {
                query.faults.at_field(known, "is there twice", None);
            }
        }
        query
    }

    /// Whose things are meant: the key's tenant; with an operator's key the one that the query's `tenant` names, or all.
    pub fn tenant(&self, query: &mut Query) -> Result<Option<TenantId>, Problem> {
        let named: Option<TenantId> = query.read("tenant", "a tenant id");
        match (self.key_tenant(), named) {
            (Some(own), Some(named)) if *own != named => {
                Err(Problem::new(Code::WrongTenant, "the key belongs to another tenant than ?tenant= names"))
            }
            (Some(own), _) => Ok(Some(own.clone())),
            (None, named) => Ok(named),
        }
    }

    /// The same where one tenant must be meant.
    pub fn one_tenant(&self, query: &mut Query) -> Result<TenantId, Problem> {
        self.tenant(query)?.ok_or_else(|| {
            Problem::new(Code::MissingTenant, "an operator's key opens all tenants").hint("add ?tenant=<id>")
        })
    }

    /// The body, read within its bounds.
    pub async fn body(&mut self) -> Result<Bytes, Problem> {
        if let Some(coding) = self.headers.get(CONTENT_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Problem::new(Code::UnsupportedMediaType, "a coded body is not read here")
                .hint("send it as it is, without content-encoding"));
        }
        let limit = self.gateway.settings.body_bytes;
        let too_large = || {
            Problem::new(Code::TooLarge, format!("the body is longer than {limit} bytes"))
                .hint("send less at once; several events may go in several batches")
        };
        let stated = self.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let stated = stated.and_then(|text| text.parse::<u64>().ok());
        if stated.is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        let no_room = || {
            let detail =
                "as many bytes of bodies as may be are in memory; nothing was done with this request";
            Problem::new(Code::BusyBytes, detail).retry_after(1)
        };
        let gateway = Arc::clone(&self.gateway);
        let held = self.held.insert(gateway.door.hold());
        let mut parts = body.into_data_stream();
        let reading = async {
            // Most bodies come in one part, which then needs no copy.
            let mut first = Bytes::new();
            let mut all = BytesMut::new();
            while let Some(part) = parts.next().await {
                let part = part.map_err(|error| {
                    Problem::new(Code::MalformedJson, format!("the body broke off: {error}"))
                })?;
                if first.len().max(all.len()) + part.len() > limit {
                    return Err(too_large());
                }
                // Who sends slowly takes no more room than what he has sent.
                if !gateway.door.grow(held, part.len()) {
                    return Err(no_room());
                }
                if first.is_empty() {
                    first = part;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&part);
                }
            }
            Ok(if all.is_empty() { first } else { all.freeze() })
        };
        tokio::select! {
            // First, for most bodies are there with their head, and then no timer is set.
            biased;
            body = reading => body,
            () = self.gateway.clock.sleep(BODY_TIMEOUT) => {
                let secs = BODY_TIMEOUT.as_secs();
                Err(Problem::new(Code::BodyTimeout, format!("it took longer than {secs} s")))
            }
        }
    }

    /// The body as JSON.
    pub async fn json(&mut self) -> Result<Value, Problem> {
        check_json_type(&self.headers)?;
        let body = self.body().await?;
        json(&body).map_err(Problem::from)
    }

    /// The body as JSON where it may be left out: then an empty object.
    pub async fn json_or_nothing(&mut self) -> Result<Value, Problem> {
        let body = self.body().await?;
        if body.trim_ascii().is_empty() {
            return Ok(json!({}));
        }
        check_json_type(&self.headers)?;
        json(&body).map_err(Problem::from)
    }
}

/// The only text that a body may have.
pub async fn only_text(call: &mut Call, key: &'static str) -> Result<Option<String>, Problem> {
    let node = Node::from_json(&call.json_or_nothing().await?);
    let mut faults = Faults::default();
    let mut found = None;
    if let Some(mut table) = node.table("", &mut faults) {
        found = table.text(key).map(str::to_owned);
        table.finish();
    }
    faults.into_result(found).map_err(|faults| Problem::faults(Code::Invalid, faults))
}

fn check_json_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let media = text.split(';').next().unwrap_or_default().trim();
    if media == "application/json" || media.starts_with("application/") && media.ends_with("+json") {
        return Ok(());
    }
    Err(ParseError::MediaType(media.chars().take(100).collect()).into())
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        let detail = error.to_string();
        match error {
            ParseError::Syntax { .. } => Self::new(Code::MalformedJson, detail),
            ParseError::TooDeep => {
                Self::new(Code::TooDeep, detail).hint(format!("at most {MAX_NESTING} levels"))
            }
            ParseError::MediaType(_) => Self::new(Code::UnsupportedMediaType, detail)
                .hint("send JSON and say so: content-type: application/json"),
            ParseError::BatchSize(_) => Self::new(Code::BatchSize, detail),
        }
    }
}

fn form_pairs(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// A query's parameters. Every `read` notes its faults; [`Query::finish`] tells them all.
#[derive(Debug)]
pub struct Query {
    values: BTreeMap<&'static str, String>,
    faults: Faults,
}

impl Query {
    /// A parameter as written.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Notes a fault of a parameter.
    pub fn fault(&mut self, name: &'static str, what: String) {
        self.faults.at_field(name, what, None);
    }

    /// A parameter as a `T`; `what` says what it should be.
    pub fn read<T: FromStr>(&mut self, name: &'static str, what: &str) -> Option<T> {
        let parsed = self.values.get(name)?.parse();
        if parsed.is_err() {
            self.faults.at_field(name, format!("is not {what}"), None);
        }
        parsed.ok()
    }

    /// A parameter that is one of a closed set.
    pub fn choose<T>(
        &mut self,
        name: &'static str,
        choose: impl Fn(&str) -> Option<T>,
        all: &[&str],
    ) -> Option<T> {
        let text = self.values.get(name)?;
        let chosen = choose(text);
        if chosen.is_none() {
            let hint = did_you_mean(text, all.iter().copied())
                .unwrap_or_else(|| format!("one of {}", all.join(", ")));
            self.faults.at_field(name, "is none of the known values", Some(hint));
        }
        chosen
    }

    /// A parameter that must be there.
    pub fn need(&mut self, name: &'static str) -> String {
        let value = self.values.get(name).cloned();
        if value.is_none() {
            self.faults.at_field(name, "missing", Some(format!("add {name}= to the query")));
        }
        value.unwrap_or_default()
    }

    /// How many items a page has.
    pub fn limit(&mut self) -> usize {
        self.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    }

    /// How many items are wanted: `default` where the query does not say, at most `most`.
    pub fn limit_within(&mut self, default: usize, most: usize) -> usize {
        let limit: Option<usize> = self.read("limit", "a whole number");
        let limit = limit.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            self.faults.at_field("limit", format!("{limit} is outside 1 to {most}"), None);
        }
        limit.clamp(1, most)
    }

    /// Where the page before ended.
    pub fn cursor<T: FromStr>(&mut self) -> Option<T> {
        let text = self.values.get("cursor")?;
        let after = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = after.and_then(|text| text.parse().ok());
        if after.is_none() {
            let hint = "take next_cursor of the page before as it is".to_owned();
            self.faults.at_field("cursor", "is no cursor", Some(hint));
        }
        after
    }

    /// Ends the reading.
    pub fn finish(self) -> Result<(), Problem> {
        self.faults.into_result(()).map_err(|faults| Problem::faults(Code::InvalidParameter, faults))
    }
}

/// An answer of JSON.
pub fn reply(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Every key is a text.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// An id as the cursor of the page that begins after it.
pub fn cursor(id: &str) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

/// A page of a list. `items` has one more than `limit` when there are more; `id` is what the next page begins after.
pub fn page<T>(
    mut items: Vec<T>,
    limit: usize,
    id: impl Fn(&T) -> String,
    show: impl Fn(&T) -> Value,
) -> Response<Body> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| cursor(&id(last)));
    let items: Vec<Value> = items.iter().map(show).collect();
    reply(StatusCode::OK, &json!({ "items": items, "next_cursor": next }))
}
