//! A client for libraries that speak HTTP themselves, under the same guard as every other request.
//!
//! A library's requests can't pass through [`Egress::send`], so it gets a client whose connector has the guard. It
//! speaks HTTP/1.1 alone, one request at a time on a connection, so that what has been read since the last write is
//! one answer: more than [`LIBRARY_ANSWER_BYTES`] of it breaks the connection. The deadline is the caller's.

use std::time::Duration;

use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::client::{Egress, POOL_IDLE};
use super::connect::GuardedConnector;
use super::error::SendError;

/// The most that is read of one answer.
pub const LIBRARY_ANSWER_BYTES: usize = 8 << 20;

/// A client for a library; clones share its connections.
pub type LibraryClient<B> = Client<GuardedConnector, B>;

impl Egress {
    /// A client for a library.
    pub fn library_client<B>(&self) -> LibraryClient<B>
    where
        B: http_body::Body + Send,
        B::Data: Send,
    {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(8)
            // A request that met a connection just closing must not go out a second time by itself.
            .retry_canceled_requests(false)
            .build(self.library_connector.clone())
    }

    /// What a library's error came to. `peer` is where the request went.
    pub fn explain(&self, peer: &Url, error: &Error) -> SendError {
        self.circumstances(peer, !error.is_connect()).explain(error)
    }

    /// A request of a library that had no answer in time: it may have arrived.
    pub fn out_of_time(&self, peer: &Url, limit: Duration) -> SendError {
        SendError::Timeout { peer: super::client::peer(peer), limit, after_sending: true }
    }
}
