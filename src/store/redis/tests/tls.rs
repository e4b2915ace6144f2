//! TLS, users and passwords, on a real server.

use std::process::{Command, Stdio};

use super::server::ANY_PORT;
use super::*;
use crate::store::StoreError;

/// What a user needs: everything but administration, on the gateway's own keys and channels. `INFO` is thought dangerous by
/// Redis and allowed by every provider.
const USER: &str = "user gate on >hunter2 ~pb:* &pb:* +@all -@admin -@dangerous +info\nuser default off\n";

async fn works(settings: RedisSettings) -> Result<Option<String>, StoreError> {
    let clock = Clock::manual(START);
    let ids = Ids::new(clock.clone(), Entropy::system());
    let store = RedisStore::open(settings, clock.clone(), ids.clone()).await?;
    let lanes: Vec<Connection> = (0..40).map(|_| connection(&ids, "acme", 16)).collect();
    let connections: Vec<ConnectionId> = lanes.iter().map(|lane| lane.id).collect();
    for lane in lanes {
        store.put(Record::Connection(Box::new(lane)), Expected::Absent).await?;
    }
    store.put_mapping(MappingVersion::from_bits(1), &json!([])).await?;
    // One small event and a large batch.
    for count in [1, 6] {
        let events = (0..count)
            .map(|_| {
                let key = EventKey::from_bits(ids.next());
                named_event(key, &key.to_string(), "acme", clock.now(), &connections)
            })
            .collect();
        store.ingest(Ingest { idempotency: None, events }).await?;
    }
    let mut done = 0;
    while done < 7 * 40 {
        let leases = store.lease(256, SPAN).await?;
        let outcomes = leases.iter().map(|lease| settlement(lease, delivered())).collect();
        done += store.settle(outcomes).await?;
    }
    let closed = connections[0];
    assert!(store.delete(crate::store::RecordId::Connection(closed)).await?);
    clock.advance(Duration::from_hours(8 * 24));
    while store.sweep().await?.more {}
    assert_eq!(
        store.deliveries(crate::store::DeliveryQuery { limit: 9, ..Default::default() }).await?.items,
        []
    );
    tokio::time::timeout(Duration::from_secs(5), store.wait_for_upkeep()).await.ok();
    assert_eq!(store.stats().await?.open, 0);
    store.health().await?;
    Ok(store.about().note.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_do_what_managed_services_allow_and_no_more() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), USER).unwrap();
    let server = Server::with(&["--aclfile", file.path().to_str().unwrap(), "--appendonly", "yes"]);
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}", server.port);
    let note = works(RedisSettings::new(url("gate:hunter2"))).await.unwrap().unwrap();
    assert!(note.contains("appendfsync") && note.contains("CONFIG GET"), "{note}");
    let refused = works(RedisSettings::new(url("gate:hunter3"))).await.unwrap_err().to_string();
    assert!(!refused.contains("hunter3"), "{refused}");
    let other = RedisSettings { prefix: "other".to_owned(), ..RedisSettings::new(url("gate:hunter2")) };
    let refused = works(other).await.unwrap_err().to_string();
    assert!(refused.contains("NOPERM") || refused.contains("permission"), "{refused}");
}

/// Makes a certificate authority and a server's certificate in a folder.
fn certificates(folder: &std::path::Path) {
    let run = |words: &[&str]| {
        let status = Command::new("openssl")
            .args(words)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("these tests need openssl");
        assert!(status.success(), "{words:?}");
    };
    std::fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    for name in ["ca", "other"] {
        let (key_file, file) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN=test {name}");
        let head = ["req", "-x509", "-keyout", &key_file, "-out", &file, "-subj", &subject];
        run(&[&head[..], &key[..]].concat());
    }
    let head = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"];
    run(&[&head[..], &key[..5]].concat());
    run(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "server.ext",
        "-out",
        "server.pem",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_named_authority() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = Server::with(&[
        "--tls-port",
        ANY_PORT,
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "hunter2",
    ]);
    let port = server.setting("--tls-port");
    let settings = |ca: Option<&str>| RedisSettings {
        ca_file: ca.map(|name| folder.path().join(name)),
        ..RedisSettings::new(format!("rediss://:hunter2@127.0.0.1:{port}"))
    };
    works(settings(Some("ca.pem"))).await.unwrap();
    for wrong in [None, Some("other.pem")] {
        let refused = works(settings(wrong)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    }
    let missing = works(settings(Some("missing.pem"))).await.unwrap_err().to_string();
    assert!(missing.contains("missing.pem"), "{missing}");
}
