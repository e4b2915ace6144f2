//! Every error that the API answers with: one closed list, as RFC 9457 problem details.
//!
//! A code is a promise: it does not change and a program may look at it. Titles and details are for people.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::domain::fault::Faults;
use crate::service::ServiceError;
use crate::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// What is wrong, of a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that it comes with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it means, in one sentence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is no JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not valid JSON";
    /// The body is no form.
    MalformedForm = "malformed_form", BAD_REQUEST, "The body is not a valid form";
    /// The body nests too deep.
    TooDeep = "too_deep", BAD_REQUEST, "The body nests too deep";
    /// An event is not what it should be.
    InvalidEvent = "invalid_event", BAD_REQUEST, "The event is not what an event should be";
    /// A batch is empty or too long.
    BatchSize = "batch_size", BAD_REQUEST, "A batch holds 1 to 1,000 events";
    /// The query is not what it should be.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A query parameter is not what it should be";
    /// The `Idempotency-Key` is not one.
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST, "The Idempotency-Key is not 1 to 255 visible characters";
    /// An operator's request names no tenant.
    MissingTenant = "missing_tenant", BAD_REQUEST, "The request names no tenant";
    /// There is no key.
    MissingKey = "missing_key", UNAUTHORIZED, "An API key is needed";
    /// The key is not one of ours.
    InvalidKey = "invalid_key", UNAUTHORIZED, "The API key is not known";
    /// A delivery is not verified.
    Unverified = "unverified", UNAUTHORIZED, "The delivery is not verified";
    /// The key may not do this.
    MissingScope = "missing_scope", FORBIDDEN, "The API key may not do this";
    /// Only an operator's key may do this.
    OperatorOnly = "operator_only", FORBIDDEN, "Only an operator's key may do this";
    /// The request names another tenant than the key's.
    WrongTenant = "wrong_tenant", FORBIDDEN, "The request names another tenant than the key's";
    /// There is nothing at this path.
    NoSuchRoute = "no_such_route", NOT_FOUND, "There is nothing at this path";
    /// There is no such thing.
    NotFound = "not_found", NOT_FOUND, "There is no such thing";
    /// There is no such tenant.
    UnknownTenant = "unknown_tenant", NOT_FOUND, "There is no such tenant";
    /// The path does not know this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not know this method";
    /// The body did not come in time.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "The request's body did not come in time";
    /// Someone else changed it.
    Conflict = "conflict", CONFLICT, "It was changed meanwhile";
    /// There is one already.
    Exists = "exists", CONFLICT, "There is one of that id already";
    /// The same request is under way.
    StillRunning = "still_running", CONFLICT, "A request with this Idempotency-Key is still running";
    /// Its state does not allow it.
    WrongState = "wrong_state", CONFLICT, "Its state does not allow this";
    /// As many as allowed are there.
    LimitReached = "limit_reached", CONFLICT, "A limit is reached";
    /// The body is too large.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The path and the query are too long.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The path and the query are too long";
    /// The headers are too large.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large";
    /// The content type is not read here.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not read here";
    /// The body's content is wrong.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "What was sent can't be used as it is";
    /// The event can't be mapped for this connection.
    MappingFailed = "mapping_failed", UNPROCESSABLE_ENTITY, "The connection's mapping can't be applied to this event";
    /// Nothing of a batch was taken.
    BatchRejected = "batch_rejected", UNPROCESSABLE_ENTITY, "No event of the batch was taken";
    /// The idempotency key stood for another request.
    KeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request";
    /// The event's source and id stood for another event.
    IdReused = "event_id_reused", UNPROCESSABLE_ENTITY, "The event's source and id were used for another event";
    /// As many requests as may be are under way.
    Busy = "busy", SERVICE_UNAVAILABLE, "As many requests as may be are under way";
    /// As many bytes of bodies as may be are in memory.
    BusyBytes = "busy_bytes", SERVICE_UNAVAILABLE, "As many bytes as may be are in memory";
    /// A tenant has as many open jobs as it may.
    QueueFull = "queue_full", TOO_MANY_REQUESTS, "As many jobs wait as may";
    /// Over the rate.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "More is sent than may be";
    /// Our own fault.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong in the gateway";
    /// The other side did not take it.
    DeliveryFailed = "delivery_failed", BAD_GATEWAY, "The endpoint did not take the delivery";
    /// The endpoint asked to be left alone.
    EndpointHeld = "endpoint_held", SERVICE_UNAVAILABLE, "The endpoint asked to be left alone for a while";
    /// The other side's answer was lost.
    DeliveryUnanswered = "delivery_unanswered", GATEWAY_TIMEOUT, "What came of the delivery is not known: it may have arrived";
    /// The store does not answer, or can't be written to.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The store is not available now";
    /// The store is full.
    StoreFull = "store_full", SERVICE_UNAVAILABLE, "The store is full";
    /// Too much is under way.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much is under way now";
    /// A source takes nothing now.
    SourceUnavailable = "source_unavailable", SERVICE_UNAVAILABLE, "The source takes nothing now";
    /// Nobody answers a chat.
    ChatUnavailable = "chat_unavailable", SERVICE_UNAVAILABLE, "No chat answers here";
    /// A chat did not answer as it should.
    ChatFailed = "chat_failed", BAD_GATEWAY, "The chat did not answer";
    /// Not ready for traffic.
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "The gateway is not ready";
}

/// The most faults that one answer tells; what has more is told how many there are.
const MAX_ERRORS: usize = 50;
/// The most characters of one text in an answer: what was sent is quoted, but not sent back whole.
const MAX_TEXT_CHARS: usize = 500;

/// One error answer. In a box, for it is what every function here may return instead of its value.
#[derive(Debug, Clone)]
pub struct Problem(Box<Details>);

impl Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

/// What an error answer says.
#[derive(Debug, Clone)]
pub struct Details {
    /// What is wrong.
    pub code: Code,
    /// What exactly, for a person.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Every fault of what was sent.
    pub errors: Faults,
    /// When to come again, in whole seconds.
    pub retry_after_secs: Option<u64>,
    /// What the log says of it and the answer does not.
    pub cause: Option<String>,
    /// More headers of the answer.
    pub headers: HeaderMap,
    /// More members of the answer.
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            detail: detail.into(),
            hint: None,
            errors: Faults::default(),
            retry_after_secs: None,
            cause: None,
            headers: HeaderMap::new(),
            members: Map::new(),
        }))
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a time to come again.
    #[must_use]
    pub fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// The same with what the log says of it.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A problem with faults; the first one's message is the detail.
    pub fn faults(code: Code, faults: Faults) -> Self {
        let detail = match faults.list() {
            [fault] if fault.place.field.is_empty() => fault.message.clone(),
            [fault] => format!("{}: {}", fault.place.field, fault.message),
            list if list.len() > MAX_ERRORS => {
                format!("{} faults; errors has the first {MAX_ERRORS}", list.len())
            }
            list => format!("{} faults; see errors", list.len()),
        };
        let mut problem = Self::new(code, detail);
        problem.errors = faults;
        problem
    }

    /// An error that is ours: the log has the cause, the answer has not.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self::new(Code::Internal, "the log has more under this request id").cause(cause)
    }

    /// The answer's JSON.
    pub fn to_json(&self, request_id: &str) -> Value {
        let code = self.code;
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(format!("/docs#problem-{}", code.name())));
        body.insert("title".to_owned(), json!(code.title()));
        body.insert("status".to_owned(), json!(code.status().as_u16()));
        body.insert("code".to_owned(), json!(code.name()));
        body.insert("detail".to_owned(), json!(cut(&self.detail)));
        if let Some(hint) = &self.hint {
            body.insert("hint".to_owned(), json!(cut(hint)));
        }
        if !self.errors.is_empty() {
            let errors = self.errors.list().iter().take(MAX_ERRORS).map(|fault| {
                let mut error = Map::new();
                error.insert("pointer".to_owned(), json!(cut(&fault.place.pointer())));
                error.insert("message".to_owned(), json!(cut(&fault.message)));
                if let Some(hint) = &fault.hint {
                    error.insert("hint".to_owned(), json!(cut(hint)));
                }
                Value::Object(error)
            });
            body.insert("errors".to_owned(), errors.collect());
        }
        body.extend(self.members.clone());
        body.insert("request_id".to_owned(), json!(request_id));
        Value::Object(body)
    }

    /// The answer.
    pub fn into_response(self, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json(request_id).to_string()));
        *response.status_mut() = self.code.status();
        let code = self.code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        headers.extend(self.0.headers);
        if code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"patchbay\""));
        }
        response
    }
}

/// A text of at most [`MAX_TEXT_CHARS`].
fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        let problem = match error {
            StoreError::Full(_) => {
                Self::new(Code::StoreFull, "nothing was stored; the operator has to make room")
                    .retry_after(30)
            }
            StoreError::Overloaded => {
                Self::new(Code::Overloaded, "nothing was stored; send it again soon").retry_after(1)
            }
            StoreError::Unavailable(_) | StoreError::Emptied | StoreError::Closed => Self::new(
                Code::StoreUnavailable,
                "the request was not carried out for certain; send it again",
            )
            .retry_after(2),
            StoreError::Conflict => Self::new(Code::Conflict, "read it again and repeat the change"),
            StoreError::Corrupt(_) => Self::internal(""),
        };
        problem.cause(cause)
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(faults) => Self::faults(Code::Invalid, faults),
            ServiceError::Missing(what) => Self::missing(what),
            ServiceError::Exists(what) => {
                Self::new(Code::Exists, format!("there is a {what} of that id already"))
            }
            ServiceError::Conflict => {
                Self::new(Code::Conflict, "someone else changed it; read it again and repeat the change")
            }
            ServiceError::Limit(faults) => Self::faults(Code::LimitReached, faults),
            ServiceError::State(reason) => Self::new(Code::WrongState, reason),
            ServiceError::Throttled(wait, reason) => {
                Self::new(Code::RateLimited, reason).retry_after(whole_secs(wait))
            }
            ServiceError::Busy(reason) => Self::new(Code::Overloaded, reason).retry_after(1),
            ServiceError::Store(error) => error.into(),
            ServiceError::Vault(error) => Self::internal(error.to_string()),
        }
    }
}

/// Whole seconds to wait, at least one.
pub(super) fn whole_secs(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1_000).max(1).try_into().unwrap_or(u64::MAX)
}

impl Problem {
    /// There is no such thing, or it is not the caller's: the answer does not tell which.
    pub fn missing(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }
}
