//! Posts what the gateway tells of itself to an address that its operator chose.
//!
//! No tenant has a part in this address, so the guard against inner addresses is not asked: a collector usually stands
//! beside the gateway. Everything else is bounded as for any request.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{redirect, retry};
use url::Url;

use super::client::{EgressError, POOL_IDLE};

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
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
}

impl Collector {
    /// A client that posts JSON to `url` with these headers.
    pub fn new(url: Url, mut headers: HeaderMap) -> Result<Self, EgressError> {
        // An error says that a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("patchbay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(1)
            .redirect(redirect::Policy::none())
            .retry(retry::never().max_retries_per_request(0))
            .no_proxy();
        if url.scheme() == "http" {
            // A machine without root certificates can still reach it.
            builder = builder.tls_certs_only([]);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { client: builder.build().map_err(EgressError::Client)?, url, headers })
    }

    /// Posts once. The answer's body is not read; errors name no URL, which may hold a key.
    pub async fn post(&self, body: Bytes) -> Result<(), PostError> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let answer =
            request.send().await.map_err(|error| PostError::Passing(error.without_url().to_string()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (429 | 502 | 503 | 504) => Err(PostError::Passing(format!("it answered {status}"))),
            status => Err(PostError::Refused(format!("it answered {status}"))),
        }
    }
}
