//! The `OpenAPI` document, put together from one file a family, and the page that shows it. Both are compiled in.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
};
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::problem::{Code, Problem};

const PARTS: [&str; 10] = [
    include_str!("openapi/base.json"),
    include_str!("openapi/events.json"),
    include_str!("openapi/accounts.json"),
    include_str!("openapi/connections.json"),
    include_str!("openapi/hooks.json"),
    include_str!("openapi/sources.json"),
    include_str!("openapi/triggers.json"),
    include_str!("openapi/deliveries.json"),
    include_str!("openapi/chores.json"),
    include_str!("openapi/operations.json"),
];

/// The whole document; an error says which part is no JSON.
pub static DOCUMENT: LazyLock<Result<Value, String>> = LazyLock::new(|| {
    let mut document = Value::Object(Map::new());
    for part in PARTS {
        merge(&mut document, serde_json::from_str(part).map_err(|error| error.to_string())?);
    }
    let codes: Vec<Value> = Code::ALL.iter().map(|code| json!(code.name())).collect();
    document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] = Value::Array(codes);
    document["x-problems"] = Code::ALL
        .iter()
        .map(|code| json!({ "code": code.name(), "status": code.status().as_u16(), "title": code.title() }))
        .collect();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    Ok(document)
});

/// Puts the members of `part` into `whole`, tables into tables.
fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                merge(whole.entry(key).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}

/// `GET /openapi.json`
pub async fn openapi(_: Call) -> Answer {
    static TEXT: LazyLock<Result<String, String>> =
        LazyLock::new(|| DOCUMENT.as_ref().map(ToString::to_string).map_err(Clone::clone));
    let text = TEXT.as_ref().map_err(Problem::internal)?;
    Ok(answer("application/json", text))
}

/// `GET /docs`
pub async fn page(_: Call) -> Answer {
    static PAGE: LazyLock<Result<String, String>> = LazyLock::new(|| {
        let document = DOCUMENT.as_ref().map_err(Clone::clone)?;
        // "</script>" or "<!--" in a text would end the script.
        let document = document.to_string().replace('<', "\\u003c");
        Ok(include_str!("docs.html").replace("\"OPENAPI\"", &document))
    });
    let page = PAGE.as_ref().map_err(Problem::internal)?;
    let mut response = answer("text/html; charset=utf-8", page);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
    Ok(response)
}

fn answer(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
