//! A client for libraries that speak HTTP themselves, under the same guard as every other request.
//!
//! A library's requests can't pass through [`Egress::send`], so the guard sits where they must pass: in the connector. It
//! judges the URL of every connection that is opened, and the resolver judges the addresses, as for [`Egress::send`]. It
//! speaks HTTP/1.1 alone, one request at a time on a connection, so that what has been read since the last write is
//! one answer: more than [`LIBRARY_ANSWER_BYTES`] of it breaks the connection. The deadline is the caller's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

use super::client::{Egress, POOL_IDLE};
use super::error::{Circumstances, SendError};
use super::guard::AddressPolicy;
use super::resolve::{GuardedResolver, LookupFault};

/// The most that is read of one answer.
pub const LIBRARY_ANSWER_BYTES: usize = 8 << 20;

/// A client for a library; clones share its connections.
pub type LibraryClient<B> = Client<GuardedConnector, B>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens connections where the policy lets them go.
#[derive(Clone)]
pub struct GuardedConnector {
    https: HttpsConnector<HttpConnector<GuardedResolver>>,
    policy: Arc<AddressPolicy>,
}

impl std::fmt::Debug for GuardedConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuardedConnector")
    }
}

impl GuardedConnector {
    pub(super) fn new(
        policy: Arc<AddressPolicy>,
        resolver: GuardedResolver,
        connect_timeout: Duration,
    ) -> Self {
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let provider = rustls::crypto::ring::default_provider;
        let builder = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider()) {
            Ok(builder) => builder,
            // Without roots https fails with that reason, and plain http works.
            Err(_) => HttpsConnectorBuilder::new().with_tls_config(
                rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            ),
        };
        Self { https: builder.https_or_http().enable_http1().wrap_connector(http), policy }
    }
}

impl Service<http::Uri> for GuardedConnector {
    type Response = TokioIo<Bounded>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let judged = Url::parse(&uri.to_string())
            .map_err(BoxError::from)
            .and_then(|url| self.policy.check_target(&url).map_err(|why| LookupFault::Refused(why).into()));
        let connecting = judged.map(|()| self.https.call(uri));
        Box::pin(
            async move { Ok(TokioIo::new(Bounded { stream: TokioIo::new(connecting?.await?), read: 0 })) },
        )
    }
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<std::net::SocketAddr>;
    type Error = LookupFault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupFault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.lookup(name.as_str());
        Box::pin(async move { Ok(lookup.await?.to_vec().into_iter()) })
    }
}

/// A connection that breaks when an answer is too long.
#[derive(Debug)]
pub struct Bounded {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    /// What was read since the last write.
    read: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read += buffer.filled().len() - before;
        if self.read > LIBRARY_ANSWER_BYTES {
            return Poll::Ready(Err(io::Error::other("the answer is too long")));
        }
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for Bounded {
    fn connected(&self) -> Connected {
        self.stream.inner().connected()
    }
}

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
            .build(self.connector.clone())
    }

    /// What a library's error came to. `peer` is where the request went.
    pub fn explain(&self, peer: &Url, error: &Error) -> SendError {
        let circumstances = Circumstances {
            peer: super::client::Peer::of(peer).name(),
            after_sending: !error.is_connect(),
            connect_timeout: self.connect_timeout,
            has_roots: self.has_roots,
        };
        circumstances.explain(error, error.is_connect(), false)
    }

    /// A request of a library that had no answer in time: it may have arrived.
    pub fn out_of_time(&self, peer: &Url, limit: Duration) -> SendError {
        SendError::Timeout { peer: super::client::Peer::of(peer).name(), limit, after_sending: true }
    }
}
