//! Opens connections, where the policy lets them go and within the connect timeout.
//!
//! The guard sits where every request must pass, those of libraries too: it judges the URL of every connection that is
//! opened, and the resolver judges the addresses.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;
use url::Url;

use super::guard::AddressPolicy;
use super::resolve::{GuardedResolver, LookupFault};

/// How often a silent peer is asked by TCP whether it is still there, and how many times before it counts as gone.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;
/// How long what was written may wait to be acknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What judges certificates, and whether there are root certificates to judge them by.
pub(super) fn tls() -> (ClientConfig, Result<(), io::Error>) {
    // An error says that a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match ClientConfig::builder().with_native_roots() {
        Ok(config) => (config.with_no_client_auth(), Ok(())),
        // Https fails with that reason, and plain http works.
        Err(error) => {
            let trusting_none = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            (trusting_none.with_no_client_auth(), Err(error))
        }
    }
}

/// Opens TCP connections to what a resolver finds.
pub(super) fn tcp<R>(resolver: R, connect_timeout: Duration) -> HttpConnector<R> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Of several addresses none may take all of the time.
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.set_keepalive(Some(PROBE_EVERY));
    tcp.set_keepalive_interval(Some(PROBE_EVERY));
    tcp.set_keepalive_retries(Some(PROBES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp
}

/// What a connection may be used for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// HTTP/2 where the peer speaks it, else HTTP/1.1. Who reads an answer bounds it.
    Any,
    /// HTTP/1.1, and so many bytes of an answer at the most.
    Http1(usize),
}

/// Opens connections where the policy lets them go. Clones are the same.
#[derive(Clone)]
pub struct GuardedConnector(Arc<Guarded>);

struct Guarded {
    https: HttpsConnector<HttpConnector<GuardedResolver>>,
    policy: Arc<AddressPolicy>,
    connect_timeout: Duration,
    limit_bytes: usize,
}

impl std::fmt::Debug for GuardedConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuardedConnector")
    }
}

impl GuardedConnector {
    /// `connect_timeout` is for lookup, TCP and TLS together.
    pub(super) fn new(
        policy: Arc<AddressPolicy>,
        resolver: GuardedResolver,
        tls: ClientConfig,
        connect_timeout: Duration,
        used: Use,
    ) -> Self {
        let tcp = tcp(resolver, connect_timeout);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let (https, limit_bytes) = match used {
            Use::Any => (builder.enable_all_versions().wrap_connector(tcp), usize::MAX),
            Use::Http1(limit_bytes) => (builder.enable_http1().wrap_connector(tcp), limit_bytes),
        };
        Self(Arc::new(Guarded { https, policy, connect_timeout, limit_bytes }))
    }
}

impl Service<http::Uri> for GuardedConnector {
    type Response = TokioIo<Bounded>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // What it consists of is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            let url = Url::parse(&uri.to_string())?;
            this.policy.check_target(&url).map_err(LookupFault::Refused)?;
            let connecting = this.https.clone().call(uri);
            let stream = timeout(this.connect_timeout, connecting)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let stream = TokioIo::new(stream);
            Ok(TokioIo::new(Bounded { stream, limit_bytes: this.limit_bytes, read_bytes: 0 }))
        })
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
    limit_bytes: usize,
    /// What was read since the last write.
    read_bytes: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read_bytes += buffer.filled().len() - before;
        if self.read_bytes > self.limit_bytes {
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
        self.read_bytes = 0;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.read_bytes = 0;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
