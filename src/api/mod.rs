//! The HTTP API. [`table::ROUTES`] is all of it: method, path, who may, and what runs.
//!
//! One function, `serve`, stands around every endpoint: it gives the request its id, checks the key before anything of the
//! body is read, turns every error and every panic into a [`problem`], and leaves one line in the log. The `OpenAPI` document
//! is compared with the table by a test, both ways.

mod accounts;
mod call;
mod catalogue;
mod connections;
mod deliveries;
pub mod docs;
mod erasures;
mod events;
pub mod export;
mod filters;
mod hooks;
mod mappings;
mod operations;
pub mod problem;
mod public;
mod replays;
mod sources;
mod stats;
pub mod table;
#[cfg(test)]
mod tests;
mod trigger;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response};
use axum::routing::{MethodFilter, on};
use futures::FutureExt;
use tokio::time::Instant;

use crate::domain::account::ApiKey;
use crate::domain::id::{RequestId, TenantId};
use crate::service::Gateway;
use crate::service::door::Share;
use crate::service::metrics::Shed;
use call::{Answer, Call};
pub use catalogue::show_connector;
use problem::{Code, Problem};
use table::{Auth, Endpoint, ROUTES};

/// The header that carries a request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_CHARS: usize = 128;
/// The longest path and query together.
const MAX_URI_BYTES: usize = 8 * 1024;
/// The most headers, names and values together.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// What the log and the metrics call a path that is no route.
const NO_ROUTE: &str = "(none)";

/// The address that a connection comes from: what the server puts beside each of its requests.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The router over a gateway.
pub fn router(gateway: Arc<Gateway>) -> Router {
    router_of(ROUTES.iter(), &table::NO_SUCH_ROUTE, gateway)
}

/// The router of a process that only delivers: what its operator probes, and nothing else.
pub fn probe_router(gateway: Arc<Gateway>) -> Router {
    let probes = ROUTES.iter().filter(|endpoint| table::PROBES.contains(&endpoint.path));
    router_of(probes, &table::NO_API_HERE, gateway)
}

fn router_of(
    endpoints: impl Iterator<Item = &'static Endpoint>,
    otherwise: &'static Endpoint,
    gateway: Arc<Gateway>,
) -> Router {
    let mut router = Router::new();
    for endpoint in endpoints {
        let run =
            move |State(gateway): State<Arc<Gateway>>, request: Request| serve(endpoint, gateway, request);
        router = router.route(endpoint.path, on(filter(endpoint.method), run));
    }
    router
        .method_not_allowed_fallback(|State(gateway): State<Arc<Gateway>>, request: Request| {
            serve(&table::METHOD_NOT_ALLOWED, gateway, request)
        })
        .fallback(move |State(gateway): State<Arc<Gateway>>, request: Request| {
            serve(otherwise, gateway, request)
        })
        .with_state(gateway)
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "POST" => MethodFilter::POST,
        "PATCH" => MethodFilter::PATCH,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        "OPTIONS" => MethodFilter::OPTIONS,
        _ => MethodFilter::GET,
    }
}

/// The method's name out of a closed set, for metrics.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [Method; 7] = [
        Method::GET,
        Method::POST,
        Method::PATCH,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    const NAMES: [&str; 7] = ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.iter().position(|known| known == method).map_or("OTHER", |index| NAMES[index])
}

/// Answers one request.
async fn serve(endpoint: &'static Endpoint, gateway: Arc<Gateway>, request: Request) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers, &gateway);
    let began = Instant::now();
    let method = method_name(&parts.method);
    let params = params(&mut parts).await;
    let mut tenant = None;
    let in_flight = gateway.metrics.flow.request();
    let allowed = within_bounds(&parts).and_then(|()| {
        let place = enter(&gateway, endpoint)?;
        Ok((authorise(&gateway, &parts.headers, endpoint.auth)?, place))
    });
    let answer: Answer = match allowed {
        Err(problem) => Err(problem),
        Ok((key, _place)) => {
            tenant = key.as_ref().and_then(|key| key.tenant.clone());
            match params {
                None => Err(Problem::new(Code::NoSuchRoute, "the path is not valid UTF-8")),
                Some(params) => {
                    let peer = parts.extensions.get::<ConnectInfo<Peer>>();
                    let call = Call {
                        gateway: Arc::clone(&gateway),
                        key,
                        method: parts.method,
                        path: parts.uri.path().to_owned(),
                        peer: peer.map(|ConnectInfo(Peer(address))| address.ip()),
                        headers: parts.headers,
                        request_id: request_id.clone(),
                        query: parts.uri.query().map(str::to_owned),
                        params,
                        body: Some(body),
                        held: None,
                    };
                    AssertUnwindSafe((endpoint.run)(call))
                        .catch_unwind()
                        .await
                        .unwrap_or_else(|_| Err(Problem::internal("a panic")))
                }
            }
        }
    };
    drop(in_flight);
    let mut response = answer.unwrap_or_else(|problem| {
        if let Some(why) = shed(problem.code) {
            gateway.metrics.flow.shed(why);
        }
        if let Some(cause) = &problem.cause {
            tracing::error!(
                route = endpoint.path,
                request_id,
                code = problem.code.name(),
                cause,
                "request failed"
            );
        }
        problem.into_response(&request_id)
    });
    let took = began.elapsed();
    finish(&mut response, &request_id);
    let status = response.status().as_u16();
    gateway.metrics.request(method, endpoint.path, status, took);
    log(endpoint, method, status, took, tenant.as_ref().map(TenantId::as_str), &request_id);
    response
}

/// A place for a request, while there is one; probes need none, for an operator looks at them when it is full.
fn enter(gateway: &Gateway, endpoint: &Endpoint) -> Result<Option<Share>, Problem> {
    if table::PROBES.contains(&endpoint.path) {
        return Ok(None);
    }
    gateway.door.enter().map(Some).ok_or_else(|| {
        let detail = "as many requests as may be are under way; nothing was done with this one";
        Problem::new(Code::Busy, detail).retry_after(1)
    })
}

/// Why a request was turned away, where it was for want of room.
fn shed(code: Code) -> Option<Shed> {
    match code {
        Code::Busy => Some(Shed::Requests),
        Code::BusyBytes => Some(Shed::Bytes),
        Code::Overloaded => Some(Shed::Store),
        Code::QueueFull => Some(Shed::Queue),
        Code::RateLimited => Some(Shed::Rate),
        _ => None,
    }
}

/// What varies in the path; `None` when it is not UTF-8.
async fn params(parts: &mut Parts) -> Option<Vec<(String, String)>> {
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => Some(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        // A path that is no route has none.
        Err(RawPathParamsRejection::MissingPathParams(_)) => Some(Vec::new()),
        Err(_) => None,
    }
}

fn log(
    endpoint: &Endpoint,
    method: &str,
    status: u16,
    took: Duration,
    tenant: Option<&str>,
    request_id: &str,
) {
    let duration_ms = took.as_secs_f64() * 1_000.0;
    let route = endpoint.path;
    // Probes come every few seconds and say nothing while all is well.
    if endpoint.auth == Auth::Open && status < 400 {
        tracing::debug!(method, route, status, duration_ms, request_id, "request");
    } else {
        tracing::info!(method, route, status, duration_ms, tenant, request_id, "request");
    }
}

fn finish(response: &mut Response<Body>, request_id: &str) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The caller's own id for the request when it is sane, else a new one.
fn request_id(headers: &HeaderMap, gateway: &Gateway) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| (1..=MAX_REQUEST_ID_CHARS).contains(&text.len()))
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| RequestId::from_bits(gateway.ids.next()).to_string(), str::to_owned)
}

/// Refuses what is too long ahead of the body. The HTTP library has limits of its own, far above these (a URI of 64 KiB, 100
/// headers, about 400 KiB of both): it answers 414 or 431 without a body there, before anything of ours sees the request.
fn within_bounds(parts: &Parts) -> Result<(), Problem> {
    let uri = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if uri > MAX_URI_BYTES {
        let detail = format!("{uri} bytes, and at most {MAX_URI_BYTES} are read");
        return Err(Problem::new(Code::UriTooLong, detail));
    }
    let headers: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.as_bytes().len()).sum();
    if headers > MAX_HEADER_BYTES {
        let detail = format!("{headers} bytes, and at most {MAX_HEADER_BYTES} are read");
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

/// Checks the key against what the endpoint asks for.
fn authorise(gateway: &Gateway, headers: &HeaderMap, auth: Auth) -> Result<Option<Arc<ApiKey>>, Problem> {
    let greets = matches!(auth, Auth::Handshake(_)) && !headers.contains_key(AUTHORIZATION);
    if auth == Auth::Open || greets {
        return Ok(None);
    }
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(Problem::new(Code::MissingKey, "the request has no Authorization header")
            .hint("add -H \"authorization: Bearer pb_…\""));
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let Some(token) = token else {
        return Err(Problem::new(Code::InvalidKey, "the Authorization header is no bearer token")
            .hint("write it as: Bearer pb_…"));
    };
    let Some(key) = gateway.authenticate(token) else {
        return Err(Problem::new(Code::InvalidKey, "no such key; it may have been revoked"));
    };
    match auth {
        Auth::Scope(scope) | Auth::Handshake(scope) if !key.allows(scope) => Err(Problem::new(
            Code::MissingScope,
            format!("the key does not have the scope \"{}\"", scope.name()),
        )),
        Auth::Operator if key.tenant.is_some() => {
            Err(Problem::new(Code::OperatorOnly, "the key belongs to a tenant"))
        }
        _ => Ok(Some(key)),
    }
}
