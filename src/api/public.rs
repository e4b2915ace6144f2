//! `/api/public/…`: what a chat's visitors may do from a page of any origin, without a key.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderValue,
};
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use super::call::{Answer, Call, nothing, reply};
use super::events::rate_headers;
use super::problem::{Code, Problem, whole_secs};
use crate::service::ingest::MAX_ID_CHARS;
use crate::service::public::{PublicError, visitor};
use crate::service::rate::Standing;

/// When a chat that has no upstream may be asked again.
const NO_UPSTREAM_SECS: u64 = 60;

/// Lets pages of any origin read the answer. Nothing here goes by cookies.
fn open(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("ratelimit, ratelimit-policy, retry-after, x-request-id"),
    );
}

/// Counts the visitor's request.
fn visit(call: &Call) -> Result<Option<Standing>, PublicError> {
    let lines = call.headers.get_all("x-forwarded-for").iter();
    let forwarded: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let peer = call.peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    call.gateway.visit(visitor(peer, &forwarded, &call.gateway.settings.trusted_proxies))
}

/// The answer with what a page needs to read it.
fn shown(standing: Option<Standing>, answer: Answer) -> Answer {
    match answer {
        Ok(mut response) => {
            open(response.headers_mut());
            rate_headers("visits", standing, response.headers_mut());
            Ok(response)
        }
        Err(mut problem) => {
            open(&mut problem.headers);
            rate_headers("visits", standing, &mut problem.headers);
            Err(problem)
        }
    }
}

/// `OPTIONS` of a public path: what a page asks before it sends JSON.
pub async fn preflight(_: Call) -> Answer {
    let mut response: Response<Body> = nothing();
    let headers = response.headers_mut();
    open(headers);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    Ok(response)
}

/// `POST /api/public/conversations/{id}/rate`
pub async fn rate(mut call: Call) -> Answer {
    let standing = match visit(&call) {
        Ok(standing) => standing,
        Err(error) => return shown(None, Err(error.into())),
    };
    shown(standing, rate_inner(&mut call).await)
}

async fn rate_inner(call: &mut Call) -> Answer {
    let conversation: String = call.param("id", "conversation")?;
    if conversation.chars().count() > MAX_ID_CHARS || conversation.chars().any(char::is_control) {
        return Err(Problem::missing("conversation"));
    }
    let body = call.json().await?;
    let id = call.gateway.rate_message(&conversation, &body).await?;
    Ok(reply(StatusCode::ACCEPTED, &json!({ "id": id })))
}

/// `POST /api/public/system-chat`
pub async fn chat(mut call: Call) -> Answer {
    let standing = match visit(&call) {
        Ok(standing) => standing,
        Err(error) => return shown(None, Err(error.into())),
    };
    shown(standing, chat_inner(&mut call).await)
}

async fn chat_inner(call: &mut Call) -> Answer {
    let body = call.json().await?;
    let reply_of = call.gateway.chat(&body).await?;
    let shown = json!({
        "conversationId": reply_of.conversation_id,
        "messageId": reply_of.message_id,
        "reply": reply_of.reply,
    });
    Ok(reply(StatusCode::OK, &shown))
}

impl From<PublicError> for Problem {
    fn from(error: PublicError) -> Self {
        let detail = error.to_string();
        match error {
            PublicError::Invalid(faults) => Self::faults(Code::Invalid, faults),
            PublicError::NoChat => Self::missing("public chat"),
            PublicError::Limited(standing) => {
                let mut problem = Self::new(Code::RateLimited, detail).retry_after(whole_secs(standing.wait));
                rate_headers("visits", Some(standing), &mut problem.headers);
                problem
            }
            PublicError::NoUpstream => Self::new(Code::ChatUnavailable, detail).retry_after(NO_UPSTREAM_SECS),
            PublicError::Upstream(reason) => Self::new(Code::ChatFailed, detail).cause(reason),
            PublicError::Store(error) => error.into(),
        }
    }
}
