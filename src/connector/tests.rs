//! What holds of whole connectors: URLs, queries, secrets, and a vendor that is made of files alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::{Endpoint, Given, Key, check_cases, check_settings};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::signature::{Message, Received, SigningKey};
use crate::spec::{Catalogue, ConnectorSpec, Names, SecretUse};

const NAMES: Names<'_> = Names { event_type: "lead.captured", event_id: "e1", job_id: "job_1" };

/// A connector of `rest`, in a folder of its own.
fn connector(rest: &str) -> Arc<ConnectorSpec> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("connectors")).unwrap();
    let text = format!(
        "version = 1\nid = 'acme'\nname = 'Acme'\ndescription = 'A CRM'\nmapping = 'lead_flat'\n{rest}"
    );
    fs::write(folder.path().join("connectors/acme.toml"), text).unwrap();
    let catalogue = Catalogue::load(Some(folder.path())).unwrap_or_else(|faults| panic!("{faults}"));
    Arc::clone(catalogue.connector("acme").unwrap())
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
}

fn endpoint(
    spec: &Arc<ConnectorSpec>,
    url: &str,
    options: &[(&str, &str)],
    credentials: &[(&str, &str)],
) -> Endpoint {
    let (options, credentials) = (texts(options), secrets(credentials));
    let given = Given { url, options: &options, credentials: &credentials };
    let settings = check_settings(spec, &given).unwrap_or_else(|faults| panic!("{faults}"));
    let timeout = Duration::from_secs(15);
    Endpoint::compile(Arc::clone(spec), url, settings, &HeaderMap::new(), Vec::new(), timeout).unwrap()
}

const QUERY: &str = "[[options]]\nname = 'region'\ndescription = 'Region'\nrequired = true\n\
    [[options]]\nname = 'hidden'\ndescription = 'A secret'\nsecret = true\n\
    [[auth]]\nkind = 'api_key'\nquery = 'key'\n\
    [request]\nurl = 'https://{region}.acme.example/a/{region}'\nmethod = 'GET'\ncontent_type = 'query'\n\
    [request.query]\nsid = '{hidden}'\nfixed = 'x y'\n\
    [request.headers]\nX-Region = '{region}'\nX-Hidden = '{hidden}'\n";

#[test]
fn options_stand_in_urls_queries_and_headers() {
    let spec = connector(QUERY);
    let endpoint = endpoint(&spec, "", &[("region", "eu")], &[("api_key", "k&y"), ("hidden", "s3cret")]);
    let request = endpoint.request(&NAMES, Bytes::from_static(b"email=a%40b"), Timestamp::from_millis(0));
    assert_eq!(
        request.url.as_str(),
        "https://eu.acme.example/a/eu?sid=s3cret&fixed=x+y&email=a%40b&key=k%26y"
    );
    assert!(request.body.is_empty() && !request.headers.contains_key("content-type"));
    assert_eq!(request.headers["x-region"], "eu");
    assert!(request.headers["x-hidden"].is_sensitive());
    assert_eq!(
        endpoint.shown_url(&request.url),
        "https://eu.acme.example/a/eu?sid=%5Bhidden%5D&fixed=x+y&email=a%40b&key=%5Bhidden%5D"
    );
    let shown = format!("{endpoint:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("k&y"), "{shown}");
}

#[test]
fn an_option_cannot_leave_its_place_in_a_url() {
    let spec = connector(QUERY);
    let credentials = secrets(&[("api_key", "k")]);
    for region in ["evil.example/", "a@evil.example", "evil.example?", "evil.example#", "a:8080"] {
        let options = texts(&[("region", region)]);
        let given = Given { url: "", options: &options, credentials: &credentials };
        let faults = check_settings(&spec, &given).unwrap_err();
        assert!(faults.to_string().contains("the URL can't be read"), "{region}: {faults}");
    }
}

#[test]
fn every_fault_of_a_connections_settings_is_told_without_showing_secrets() {
    let spec = connector(QUERY);
    let options = texts(&[("hidden", "s3cret"), ("regoin", "x"), ("other", "y")]);
    let credentials = secrets(&[("api_key", "s3cret\n"), ("region", "s3cret"), ("token", "s3cret")]);
    let given = Given { url: "https://x.example", options: &options, credentials: &credentials };
    let told = check_settings(&spec, &given).unwrap_err().to_string();
    for wanted in [
        "options.hidden: is a secret",
        "options.regoin: is no option of this connector\n  hint: did you mean \"region\"?",
        "options.other: is no option",
        "options.region: missing",
        "credentials.api_key: holds a control character",
        "credentials.region: is no secret",
        "credentials.token: is no credential",
        "target.url: the connector \"acme\" says itself where requests go",
    ] {
        assert!(told.contains(wanted), "missing: {wanted}\nin:\n{told}");
    }
    assert!(!told.contains("s3cret"), "{told}");
}

#[test]
fn the_guide_makes_a_working_connector() {
    // The files of docs/connectors.md as it prints them: each begins with a comment that names it.
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/connectors.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for block in guide.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let Some(name) = text.lines().next().and_then(|line| line.strip_prefix("# file: ")) else { continue };
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        written.push(name.to_owned());
    }
    assert_eq!(
        written,
        ["connectors/tidycrm.toml", "mappings/tidycrm.toml", "tests/connectors/tidycrm.toml"]
    );
    let catalogue = Catalogue::load(Some(folder.path())).unwrap_or_else(|faults| panic!("{faults}"));
    let text = fs::read_to_string(folder.path().join(&written[2])).unwrap();
    let checked = check_cases(&catalogue, "tidycrm", &written[2], &text);
    assert!(checked.faults.is_empty(), "{}", checked.faults);
    assert!(checked.requests >= 2 && checked.answers >= 5, "{checked:?}");
}

/// Connectors whose requests are signed, each with secrets of its own.
fn signed() -> Vec<(Arc<ConnectorSpec>, Vec<String>)> {
    let catalogue = Catalogue::load(None).unwrap();
    let signed = catalogue.connectors().values().filter(|spec| spec.secret != SecretUse::None);
    let secrets =
        |spec: &ConnectorSpec| (1..=3).map(|seed| spec.signature.generate_secret([seed; 32])).collect();
    signed.map(|spec| (Arc::clone(spec), secrets(spec))).collect()
}

#[test]
fn the_signature_of_every_connector_verifies_with_each_active_secret() {
    let signed = signed();
    assert!(signed.len() >= 5, "{}", signed.len());
    let now = Timestamp::from_millis(1_777_818_128_000);
    for (spec, secrets) in signed {
        let url = "https://hooks.example/in?a=1";
        let none = (BTreeMap::new(), BTreeMap::new());
        let given = Given { url, options: &none.0, credentials: &none.1 };
        let key = |secret: &str| spec.signature.key(secret).unwrap();
        let keys = secrets[..2].iter().map(|secret| Key { key: key(secret), expires: None }).collect();
        let settings = check_settings(&spec, &given).unwrap();
        let timeout = Duration::from_secs(15);
        let endpoint =
            Endpoint::compile(Arc::clone(&spec), url, settings, &HeaderMap::new(), keys, timeout).unwrap();
        let body = Bytes::from_static("{\"name\":\"Zo\u{eb}\"}".as_bytes());
        let request = endpoint.request(&NAMES, body.clone(), now);
        let verify = |secret: &str, body: &[u8]| {
            let received = Received { method: "POST", url, headers: &request.headers, body, form: None };
            spec.signature.verify(&[&key(secret)], &received, now).is_ok()
        };
        let id = &spec.id;
        assert!(verify(&secrets[0], &body), "{id}");
        // A header that carries one value carries the newest secret's.
        let (first, second) = (key(&secrets[0]), key(&secrets[1]));
        let sign = |keys: &[&SigningKey], body| spec.signature.sign(keys, &signed_message(body));
        let several = sign(&[&first, &second], b"a") != sign(&[&first], b"a");
        assert_eq!(verify(&secrets[1], &body), several, "{id}");
        assert!(!verify(&secrets[2], &body), "{id}");
        let is_digest = sign(&[&first], b"a") != sign(&[&first], b"b");
        assert_eq!(verify(&secrets[0], b"{}"), !is_digest, "{id}: another body");
    }
}

fn signed_message(body: &[u8]) -> Message<'_> {
    let (url, event_type) = ("https://hooks.example/in?a=1", "lead.captured");
    Message { id: "job_1", timestamp: Timestamp::from_millis(5_000), event_type, method: "POST", url, body }
}

#[test]
fn no_header_of_a_request_breaks_its_line() {
    for (spec, secrets) in signed() {
        let names =
            Names { event_type: "a\r\nX-Evil: 1", event_id: "b\nX-Evil: 1", job_id: "c\r\nX-Evil: 1" };
        let url = "https://hooks.example/in";
        let none = (BTreeMap::new(), BTreeMap::new());
        let settings = check_settings(&spec, &Given { url, options: &none.0, credentials: &none.1 }).unwrap();
        let keys = vec![Key { key: spec.signature.key(&secrets[0]).unwrap(), expires: None }];
        let timeout = Duration::from_secs(15);
        let endpoint =
            Endpoint::compile(Arc::clone(&spec), url, settings, &HeaderMap::new(), keys, timeout).unwrap();
        let request = endpoint.request(&names, Bytes::new(), Timestamp::from_millis(5_000));
        assert!(!request.headers.contains_key("x-evil"), "{}", spec.id);
        for value in request.headers.values() {
            assert!(!value.as_bytes().iter().any(|byte| b"\r\n".contains(byte)), "{}", spec.id);
        }
    }
}
