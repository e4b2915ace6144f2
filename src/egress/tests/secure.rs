//! The client over TLS, against a server with a certificate of its own making.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;

const REQUEST: &str = "[req]\ndistinguished_name = name\nx509_extensions = use\nprompt = no\n[name]\nCN = test\n\
    [use]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";

struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    certificate: CertificateDer<'static>,
}

fn certificate(folder: &Path) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    std::fs::write(folder.join("request"), REQUEST).unwrap();
    let words = "req -x509 -config request -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key -out cert";
    let status = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("these tests need openssl");
    assert!(status.success());
    let key = PrivateKeyDer::from_pem_file(folder.join("key")).unwrap();
    (CertificateDer::from_pem_file(folder.join("cert")).unwrap(), key)
}

impl Server {
    /// One that offers these protocols, and answers a request with its version and body.
    async fn start(protocols: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate(folder.path());
        let chain = vec![certificate.clone()];
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::default());
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let version = format!("{:?} ", request.version());
                        let body = axum::body::to_bytes(axum::body::Body::new(request), 100).await.unwrap();
                        let answer = axum::body::Body::from([version.as_bytes(), &body].concat());
                        Ok::<_, Infallible>(http::Response::new(answer))
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, connections, certificate }
    }
}

/// A client that trusts these, where it is said to have roots.
fn trusting(certificates: &[&CertificateDer<'static>], has_roots: bool) -> Egress {
    let mut roots = RootCertStore::empty();
    for known in certificates {
        roots.add((*known).clone()).unwrap();
    }
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let policy = AddressPolicy { allow_http: false, allowed: vec!["127.0.0.0/8".parse().unwrap()] };
    let agent = HeaderValue::from_static("test");
    Egress::over(&tls, has_roots, Arc::new(policy), &EgressSettings::default(), agent)
}

#[tokio::test]
async fn http_2_is_spoken_with_whom_it_is_agreed_on() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["h2"], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let server = Server::start(protocols).await;
        let egress = trusting(&[&server.certificate], true);
        for _ in 0..2 {
            let answer = egress.send(post(&server.url, 5_000)).await.unwrap();
            assert_eq!((answer.status, answer.body_complete), (200, true));
            assert_eq!(answer.body, format!("{version} {{\"a\":1}}"), "{protocols:?}");
            // The connection goes back to the pool in a task of its own.
            tokio::task::yield_now().await;
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 1, "{protocols:?}");
    }
}

#[tokio::test]
async fn requests_share_a_connection_of_http_2() {
    let server = Server::start(&["h2"]).await;
    let egress = trusting(&[&server.certificate], true);
    egress.send(post(&server.url, 5_000)).await.unwrap();
    let answers = futures::future::join_all((0..20).map(|_| egress.send(post(&server.url, 5_000)))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_and_told() {
    let (server, other) = (Server::start(&["h2"]).await, Server::start(&["h2"]).await);
    for (egress, words) in [
        (trusting(&[&other.certificate], true), "certificate"),
        (trusting(&[], true), "does not trust"),
        (trusting(&[], false), "no root certificates"),
    ] {
        let error = egress.send(post(&server.url, 5_000)).await.unwrap_err();
        assert!(matches!(error, SendError::Tls { .. }), "{error:?}");
        assert!(error.reason().contains(words), "{error}");
        assert!(!error.may_have_arrived());
    }
}

#[tokio::test]
async fn a_collector_is_told_its_credentials_and_not_its_url() {
    let receiver = Receiver::start(Manner::Answer(OK.to_owned())).await;
    let url = format!("http://me%40home:pass@127.0.0.1:{}/v1/traces", receiver.port);
    let collector = Collector::new(url.parse().unwrap(), HeaderMap::new()).unwrap();
    collector.post(Bytes::from_static(b"{}")).await.unwrap();
    let sent = receiver.last.lock().to_lowercase();
    assert!(sent.starts_with("post /v1/traces http/1.1\r\n") && sent.ends_with("\r\n\r\n{}"), "{sent}");
    // "me@home:pass"
    assert!(sent.contains("\r\nauthorization: basic bwvaag9tztpwyxnz\r\n"), "{sent}");
    assert!(sent.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", receiver.port)), "{sent}");
    let refusing = Receiver::start(Manner::Answer(OK.replace("200 OK", "400 Bad Request"))).await;
    let url = format!("http://127.0.0.1:{}/?key=secret", refusing.port);
    let collector = Collector::new(url.parse().unwrap(), HeaderMap::new()).unwrap();
    let refused = PostError::Refused("it answered 400".to_owned());
    assert_eq!(collector.post(Bytes::from_static(b"{}")).await, Err(refused));
}
