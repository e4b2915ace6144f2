//! What a sender is answered.

use http::{HeaderValue, StatusCode};

use crate::domain::document::TableReader;

const STATUSES: (i64, i64) = (200, 299);
const MAX_BODY_CHARS: usize = 2_000;

/// An answer to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 2xx.
    pub status: StatusCode,
    /// Its body; `None` is a short JSON summary of what was taken.
    pub body: Option<String>,
    /// What the body is.
    pub content_type: HeaderValue,
}

impl Default for Reply {
    fn default() -> Self {
        Self { status: StatusCode::OK, body: None, content_type: plain() }
    }
}

fn plain() -> HeaderValue {
    HeaderValue::from_static("text/plain; charset=utf-8")
}

/// Reads a `content_type`, which is plain text where nothing is said.
pub(super) fn content_type(table: &mut TableReader<'_>) -> HeaderValue {
    let Some(text) = table.text("content_type") else { return plain() };
    let value = HeaderValue::from_str(text).ok().filter(|_| text.contains('/'));
    if value.is_none() {
        let hint = Some("such as \"application/json\"".to_owned());
        table.fault("content_type", format!("\"{text}\" is no content type"), hint);
    }
    value.unwrap_or_else(plain)
}

impl Reply {
    /// Reads `[in.accepted]` or `[in.ignored]`.
    pub(super) fn parse(mut table: TableReader<'_>) -> Self {
        let status = table.integer_within("status", STATUSES.0, STATUSES.1);
        let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        let status = status.unwrap_or(StatusCode::OK);
        let body = table.text("body").map(str::to_owned);
        if body.as_ref().is_some_and(|body| body.chars().count() > MAX_BODY_CHARS) {
            table.fault("body", format!("longer than {MAX_BODY_CHARS} characters"), None);
        }
        if status == StatusCode::NO_CONTENT && body.as_deref() != Some("") {
            table.fault("body", "a 204 has no body", Some("write body = \"\"".to_owned()));
        }
        if table.has("content_type") && body.is_none() {
            table.fault("content_type", "says nothing without \"body\"", None);
        }
        let content_type = content_type(&mut table);
        table.finish();
        Self { status, body, content_type }
    }
}
