//! Posts what the gateway tells of itself to an address that its operator chose.
//!
//! No tenant has a part in this address, so the guard against inner addresses is not asked: a collector usually stands
//! beside the gateway. Everything else is bounded as for any request.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::Url;

use super::client::{EgressError, Outgoing, POOL_IDLE, USER_AGENT};
use super::connect::{tcp, tls};
use super::destination::Destination;
use super::error::detail_of;

/// Reaching it and the whole exchange may take so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a post was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It may be taken when it is sent again: no answer, or 429, 502, 503, 504 (OTLP 1.5, "Failures").
    #[error("{0}")]
    Passing(String),
    /// It will not be taken.
    #[error("{0}")]
    Refused(String),
}

/// A client for one address.
#[derive(Debug, Clone)]
pub struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Outgoing>,
    url: Destination,
    headers: HeaderMap,
}

impl Collector {
    /// A client that posts JSON to `url` with these headers.
    pub fn new(mut url: Url, mut headers: HeaderMap) -> Result<Self, EgressError> {
        let tls = match tls() {
            (_, Err(error)) if url.scheme() == "https" => return Err(EgressError::NoRoots(error)),
            (tls, _) => tls,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp(GaiResolver::new(), CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        if let Some(credentials) = take_credentials(&mut url) {
            headers.entry(header::AUTHORIZATION).or_insert(credentials);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        Ok(Self { client, url: url.into(), headers })
    }

    /// Posts once. The answer's body is not read; errors name no URL, which may hold a key.
    pub async fn post(&self, body: Bytes) -> Result<(), PostError> {
        let Some(uri) = self.url.uri() else {
            return Err(PostError::Refused("its URL can't be written in a request".to_owned()));
        };
        let mut request = http::Request::new(Outgoing::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        let answer = match timeout(TIMEOUT, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(PostError::Passing(detail_of(&error))),
            Err(_) => return Err(PostError::Passing("it did not answer in time".to_owned())),
        };
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (429 | 502 | 503 | 504) => Err(PostError::Passing(format!("it answered {status}"))),
            status => Err(PostError::Refused(format!("it answered {status}"))),
        }
    }
}

/// Takes user and password out of a URL, as a header's value.
fn take_credentials(url: &mut Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let both = [decoded(url.username()), decoded(url.password().unwrap_or_default())].join(&b':');
    // They fail where there is no host, and then there was no user either.
    let _ = (url.set_username(""), url.set_password(None));
    // Base64 always fits.
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}
