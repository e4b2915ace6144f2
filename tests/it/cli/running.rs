//! The program at work: a gateway served, an event through it, the demo, the bench.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::desk::{Desk, TO_LOOPBACK};
use super::{patchbay, run, stdout, told};
use crate::support::redis::Port;

/// A gateway as a person starts it; it ends with its standard input.
pub(super) struct Served {
    child: Child,
    pub told: Value,
}

impl Served {
    pub fn start(folder: &Path) -> Self {
        Self::start_logging(folder, Stdio::null())
    }

    fn start_logging(folder: &Path, log: Stdio) -> Self {
        Self::start_with(folder, log, &[])
    }

    pub fn start_with(folder: &Path, log: Stdio, more: &[&str]) -> Self {
        let mut child = patchbay(folder)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, told: serde_json::from_str(&line).unwrap() }
    }

    pub fn url(&self) -> &str {
        self.told["url"].as_str().unwrap()
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_first_start_makes_what_is_missing_and_shows_the_operator_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let served = Served::start(root);
    let key = served.told["operator_key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("pb_"));
    #[cfg(unix)]
    for (name, wanted) in [("patchbay-data", 0o700), ("patchbay-data/secret.key", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777,
            wanted,
            "{name}"
        );
    }

    // A second gateway on the folder or the port is refused in plain words.
    let (code, text) = told(&run(root, &["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(code, 1);
    assert!(text.contains("another gateway runs"), "{text}");
    let address = served.told["address"].as_str().unwrap();
    let (code, text) = told(&run(root, &["serve", "--data-dir", "other", "--listen", address]));
    assert_eq!(code, 1);
    assert!(text.contains("hint: something listens on port"), "{text}");
    assert!(!root.join("other").exists());
    served.stop();

    let again = Served::start(root);
    assert_eq!(again.told["operator_key"], Value::Null);
    again.stop();
    for entry in std::fs::read_dir(root.join("patchbay-data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!found, "the key itself must not be stored");
    }
}

#[test]
fn tenants_and_keys_are_made_in_the_folder_of_a_running_gateway_and_count_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let served = Served::start(root);
    stdout(&run(root, &["tenants", "create", "acme", "--name", "Acme"]));
    let made = stdout(&run(root, &["keys", "create", "--tenant", "acme", "--scopes", "read", "--json"]));
    let made: Value = serde_json::from_str(&made).unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    let list = ["deliveries", "list", "--json", "--url", served.url(), "--key", &token];

    // The gateway follows what others write within a second.
    let patience = Instant::now() + Duration::from_secs(10);
    while !run(root, &list).status.success() {
        assert!(Instant::now() < patience, "{:?}", told(&run(root, &list)));
    }
    let keys = stdout(&run(root, &["keys", "list", "--tenant", "acme", "--json"]));
    assert!(keys.contains(made["id"].as_str().unwrap()) && !keys.contains(&token), "{keys}");

    let (code, text) = told(&run(root, &["keys", "create", "--tenant", "acm"]));
    assert_eq!(code, 2);
    assert!(text.contains("there is no tenant \"acm\""), "{text}");

    // The fastest of three counts: a machine that stood still says nothing of the gateway.
    let opens = |token: &str| ask(&served, "GET", "/v1/deliveries", token, "").0 != 401;
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let made = stdout(&run(root, &["keys", "create", "--tenant", "acme", "--scopes", "read", "--json"]));
        let made: Value = serde_json::from_str(&made).unwrap();
        let token = made["token"].as_str().unwrap();
        super::vendor::until("the new key opens", || opens(token));
        stdout(&run(root, &["keys", "revoke", made["id"].as_str().unwrap()]));
        let revoked = Instant::now();
        super::vendor::until("the revoked key does not", || !opens(token));
        fastest = fastest.min(revoked.elapsed());
    }
    assert!(fastest < Duration::from_secs(1), "a revoked key opens for {fastest:?}");
    served.stop();
}

/// One request, without a process of its own for it; answers status and body.
pub(super) fn ask(served: &Served, method: &str, path: &str, key: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(served.told["address"].as_str().unwrap()).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\
         content-type: application/json\r\nx-request-id: asked-by-a-test\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (answer[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn a_request_and_an_attempt_leave_one_line_each_in_the_log_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let settings = "[egress]\nallow_http = true\nallow_ranges = ['127.0.0.0/8']\n[log]\nformat = 'json'\nlevel = 'debug'\n";
    std::fs::write(root.join("patchbay.toml"), settings).unwrap();
    let log = root.join("log");
    let served = Served::start_logging(root, std::fs::File::create(&log).unwrap().into());
    let key = served.told["operator_key"].as_str().unwrap().to_owned();
    let post = |path, body: Value| {
        let (status, body) = ask(&served, "POST", path, &key, &body.to_string());
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(post("/v1/tenants", serde_json::json!({ "id": "acme" })).0, 201);
    let free = Port::reserve();
    let target = serde_json::json!({
        "url": format!("http://127.0.0.1:{}/hook?token=in-the-url", free.number),
        "headers": { "x-api-key": "in-a-header" },
    });
    let wanted = serde_json::json!({
        "tenant": "acme", "name": "x", "connector": "webhook", "events": ["*"], "target": target,
    });
    let (status, made) = post("/v1/connections", wanted);
    assert_eq!(status, 201, "{made}");
    let event = serde_json::json!({ "tenant": "acme", "type": "lead.captured", "data": { "email": "jane@example.com" } });
    assert_eq!(post("/v1/events", event).0, 202);

    let lines = |message: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["fields"]["message"] == message || line["message"] == message).collect()
    };
    let patience = Instant::now() + Duration::from_secs(10);
    while lines("attempt").is_empty() {
        assert!(Instant::now() < patience, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::yield_now();
    }
    served.stop();
    let attempts = lines("attempt");
    let of = |line: &Value, name: &str| match &line["fields"] {
        Value::Null => line[name].clone(),
        fields => fields[name].clone(),
    };
    assert_eq!((attempts.len(), of(&attempts[0], "outcome")), (1, Value::from("retry")), "{attempts:?}");
    let requests = lines("request");
    let told: Vec<(Value, Value)> =
        requests.iter().map(|line| (of(line, "route"), of(line, "status"))).collect();
    let wanted = [("/v1/tenants", 201), ("/v1/connections", 201), ("/v1/events", 202)];
    assert_eq!(told, wanted.map(|(route, status)| (Value::from(route), Value::from(status))));
    assert!(requests.iter().all(|line| of(line, "request_id") == "asked-by-a-test"));
    let text = std::fs::read_to_string(&log).unwrap();
    let secret = made["secret"].as_str().unwrap();
    for hidden in [key.as_str(), secret, "in-a-header", "in-the-url", "jane@example.com"] {
        assert!(!text.contains(hidden), "{hidden} is in the log: {text}");
    }
}

#[test]
fn an_event_goes_in_and_its_delivery_is_followed_by_the_command_line() {
    let desk = Desk::open(TO_LOOPBACK);
    let mut listening = patchbay(desk.root())
        .args(["listen", "--listen", "127.0.0.1:0", "--json", "--count", "1", "--full"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines().map(Result::unwrap);
    let announced: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let endpoint = format!("{}/hook", announced["listening"].as_str().unwrap());
    let made =
        desk.shown(&["connections", "create", &endpoint, "--tenant", "acme", "--mapping", "lead_flat"]);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");

    let lead = ["send", "--type", "lead.captured", "--tenant", "acme", "--id", "lead-1", "--source", "bot"];
    let sent = desk.shown(&lead);
    assert_eq!((&sent["id"], &sent["jobs"]), (&Value::from("lead-1"), &Value::from(1)));
    let arrived: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&arrived["path"], &arrived["signature"]), (&Value::from("/hook"), &Value::from("unchecked")));
    assert_eq!(arrived["body"]["email"], "jane@example.com");
    assert!(listening.wait().unwrap().success());

    let list = ["deliveries", "list", "--event", "lead-1", "--state", "delivered"];
    let patience = Instant::now() + Duration::from_secs(10);
    let delivery = loop {
        if let Some(delivery) = desk.shown(&list).get(0) {
            break delivery.clone();
        }
        assert!(Instant::now() < patience, "{}", desk.shown(&["deliveries", "list"]));
    };
    let shown = desk.shown(&["deliveries", "show", delivery["id"].as_str().unwrap()]);
    assert_eq!(shown["attempts"][0]["status"], 200, "{shown}");

    let wrong = patchbay(desk.root())
        .args([
            "connections",
            "create",
            "ftp://x",
            "--tenant",
            "acme",
            "--event",
            "a b",
            "--url",
            desk.served.url(),
        ])
        .args(["--key", &desk.key])
        .output()
        .unwrap();
    let (code, text) = told(&wrong);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("\n  /events/0: ") && text.contains("\n  /target/url: "), "{text}");
    desk.served.stop();
}

#[test]
fn the_demo_delivers_every_event_and_one_of_them_at_the_third_try() {
    let folder = tempfile::tempdir().unwrap();
    let shown = stdout(&run(folder.path(), &["demo", "--once", "--json"]));
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tries: Vec<&Value> = lines.iter().filter(|line| line["try"].is_u64()).collect();
    assert_eq!(tries.len(), 6, "four events, and two failures: {shown}");
    assert!(
        tries.iter().all(|one| one["signature_verified"] == true && one["same_bytes"] == true),
        "{shown}"
    );
    let failed: Vec<&&Value> = tries.iter().filter(|one| one["status"] == 500).collect();
    assert_eq!(failed.len(), 2);
    let unlucky = &failed[0]["id"];
    let last = tries.iter().rfind(|one| one["id"] == *unlucky).unwrap();
    assert_eq!((last["try"].as_u64(), last["status"].as_u64()), (Some(3), Some(200)));
    assert_eq!(lines.last().unwrap()["all_arrived"], true);

    let text = stdout(&run(folder.path(), &["demo", "--once"]));
    for part in ["speeded up for the demo", "signature verified", "All 4 events were delivered."] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_bench_counts_every_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "--events", "300", "--rate", "600", "--concurrency", "8", "--fan-out", "3", "--json"];
    let report: Value = serde_json::from_str(&stdout(&run(folder.path(), &arguments))).unwrap();
    for phase in ["steady", "full"] {
        let phase = &report[phase];
        assert_eq!(phase["accepted"], 300, "{report}");
        assert_eq!(
            (&phase["delivered"], &phase["missing"]),
            (&Value::from(900), &Value::from(0)),
            "{report}"
        );
        let latency = &phase["to_receipt"];
        let of = |name: &str| latency[name].as_f64().unwrap();
        assert!(
            0.0 < of("p50_ms") && of("p50_ms") <= of("p99_ms") && of("p99_ms") <= of("max_ms"),
            "{report}"
        );
    }
    assert!(report["steady"]["events_per_sec"].as_f64().unwrap() < 700.0, "the rate is held: {report}");
    let text = stdout(&run(folder.path(), &arguments[..9]));
    assert!(text.contains("900 deliveries\n") && text.contains("sent to received"), "{text}");
}

#[test]
#[cfg(unix)]
fn a_signal_stops_the_gateway_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path());
    let process = served.child.id().to_string();
    // `wait` would close it, and a closed input asks it to stop as well.
    let _open = served.child.stdin.take();
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_filter_is_tried_and_failed_mappings_are_replayed_from_the_command_line() {
    let desk = Desk::open(TO_LOOPBACK);
    let data = r#"{"score":2,"email":"jane@example.com"}"#;
    let send = ["send", "--type", "rating.given", "--tenant", "acme", "--data", data];
    assert_eq!(desk.ask(&send).0, 0);
    let filter = r#"{"path":"$.data.scor","op":"gte","value":4}"#;
    let (code, out, error) = desk.ask(&["filter", filter, "--tenant", "acme", "--event", "rating.*"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("$.data.scor gte 4: the event has nothing there"), "{out}");
    assert!(
        error.contains("0 of 1 recent events pass") && error.contains("did you mean \"score\"?"),
        "{error}"
    );
    assert_eq!(desk.ask(&["filter", r#"{"path":"x"}"#, "--tenant", "acme"]).0, 2);

    let mapping = r#"{"version":1,"fields":[{"to":"mail","from":"$.data.emial","required":true}]}"#;
    std::fs::write(desk.root().join("m.json"), mapping).unwrap();
    let filter = r#"{"path":"$.data.score","op":"exists"}"#;
    let create = [
        "connections",
        "create",
        "--tenant",
        "acme",
        "--name",
        "x",
        "--mapping",
        "@m.json",
        "--filter",
        filter,
        "http://127.0.0.1:9/hook",
    ];
    let (code, out, error) = desk.ask(&create);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("1 of 1 recent events pass its filter"), "{error}");
    assert!(error.contains("no recent event has $.data.emial") && error.contains("\"email\""), "{error}");
    let connection = out.split_whitespace().next().unwrap().to_owned();
    assert_eq!(desk.ask(&send).0, 0);
    let patience = Instant::now() + Duration::from_secs(20);
    let replay = ["replay", "--mapping-failed", "--connection", &connection];
    let dry = [&replay[..], &["--dry-run"]].concat();
    loop {
        let (code, out, error) = desk.ask(&dry);
        assert_eq!(code, 0, "{error}");
        if out.contains("fails again: field \"mail\"") {
            assert!(
                out.contains("from $.data.emial") && out.contains("1 deliveries would be sent again"),
                "{out}{error}"
            );
            break;
        }
        assert!(Instant::now() < patience, "{out}{error}");
    }
    let mended = serde_json::json!({ "mapping": { "mail": "$.data.email" } }).to_string();
    let (status, body) =
        ask(&desk.served, "PATCH", &format!("/v1/connections/{connection}"), &desk.key, &mended);
    assert_eq!(status, 200, "{body}");
    let event = r#"{"type":"rating.given","data":{"score":5,"email":"ann@example.com"}}"#;
    std::fs::write(desk.root().join("event.json"), event).unwrap();
    let (code, out, error) = desk.ask(&["connections", "preview", &connection, "--event", "event.json"]);
    assert_eq!(code, 0, "{error}");
    for expected in [
        "$.data.email",
        "POST http://127.0.0.1:9/hook",
        "webhook-signature: ",
        r#"{"mail":"ann@example.com"}"#,
    ] {
        assert!(out.contains(expected), "{expected} is not in {out}");
    }
    assert!(!out.contains("v1,"), "a signature is hidden: {out}");
    assert_eq!(desk.ask(&["connections", "preview", &connection, "--event", "no-such-event"]).0, 1);
    let (_, out, error) = desk.ask(&dry);
    assert!(out.contains(r#"{"mail":"jane@example.com"}"#) && !out.contains("fails again"), "{out}{error}");
    let (code, out, error) = desk.ask(&replay);
    let told = "1 deliveries are sent again, 0 left as they are; done";
    assert_eq!((code, out.trim()), (0, told), "{error}");
    assert_eq!(desk.ask(&["replay", "--connection", &connection]).0, 2, "it has to say which");
    desk.served.stop();
}
