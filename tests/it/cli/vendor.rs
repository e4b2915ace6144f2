//! A vendor that is added with files alone, as `docs/connectors.md` says it, by the program: checked with its cases, served, connected,
//! delivered to, and edited while the gateway runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::running::{Served, ask};
use super::{patchbay, run, stdout, told};

/// Writes the guide's files, with its vendor at `api`; their names.
fn write_guide(root: &Path, api: &str) -> Vec<String> {
    let guide = std::fs::read_to_string("docs/connectors.md").unwrap();
    let mut written = Vec::new();
    for block in guide.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let Some(name) = text.lines().next().and_then(|line| line.strip_prefix("# file: ")) else { continue };
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.replace("https://api.tidycrm.example", api)).unwrap();
        written.push(name.to_owned());
    }
    written
}

/// A CRM that takes every lead: each request as it came, head and body.
fn tidy_crm() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, came) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).unwrap() > 2 {
                let last = head.lines().last().unwrap().to_ascii_lowercase();
                if let Some(text) = last.strip_prefix("content-length: ") {
                    length = text.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = r#"{"ok":true,"lead_id":17}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                answer.len()
            );
            reader.into_inner().write_all(answer.as_bytes()).unwrap();
            if sender.send(head + &String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, came)
}

const SETTINGS: &str = "catalogue_dir = 'own'\n[egress]\nallow_http = true\nallow_ranges = ['127.0.0.0/8']\n";

/// Asks until it is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_new_vendor_is_checked_connected_and_delivered_to_by_its_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (api, came) = tidy_crm();
    std::fs::write(root.join("patchbay.toml"), SETTINGS).unwrap();
    let files = write_guide(&root.join("own"), &api);
    assert_eq!(files.len(), 3);

    let checked = stdout(&run(root, &["check"]));
    assert!(checked.contains("and 9 cases of your own: no faults"), "{checked}");
    let cases = root.join("own/tests/connectors/tidycrm.toml");
    let sound = std::fs::read_to_string(&cases).unwrap();
    std::fs::write(&cases, sound.replace("\"first_name\":\"Jane\"", "\"first_name\":\"June\"")).unwrap();
    let (code, text) = told(&run(root, &["check"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("tidycrm.toml:3:1: request[0]: \"a lead\": body differs"), "{text}");
    std::fs::write(&cases, &sound).unwrap();

    let listed = stdout(&run(root, &["connectors"]));
    assert!(
        listed.lines().any(|line| line.starts_with("tidycrm\t") && line.ends_with("\tpipeline\tapi_key")),
        "{listed}"
    );
    let shown = stdout(&run(root, &["connectors", "tidycrm"]));
    for part in [
        "pipeline",
        "The pipeline that new leads go to. [inbox]",
        "api_key",
        "email*, last_name*",
        "connections create --connector tidycrm",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let served = Served::start_with(root, Stdio::null(), &[]);
    let key = served.told["operator_key"].as_str().unwrap().to_owned();
    let with = |arguments: &[&str]| {
        let mut command = patchbay(root);
        command.args(arguments).arg("--json").env("PATCHBAY_URL", served.url()).env("PATCHBAY_KEY", &key);
        command.env("TIDY_KEY", "tk-from-env").output().unwrap()
    };
    let read = |arguments: &[&str]| serde_json::from_str::<Value>(&stdout(&with(arguments))).unwrap();
    read(&["tenants", "create", "acme"]);
    let create = ["connections", "create", "--tenant", "acme", "--connector", "tidycrm", "--event", "lead.*"];
    let (code, text) = told(&with(&create));
    assert_eq!(code, 2);
    assert!(text.contains("sends nothing without credentials"), "{text}");
    std::fs::write(root.join("key.txt"), "tk-17\n").unwrap();
    let made =
        read(&[&create[..], &["--option", "pipeline=sales", "--credential", "api_key=@key.txt"]].concat());
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        (&made["options"]["pipeline"], &made["credential_names"][0]),
        (&"sales".into(), &"api_key".into())
    );

    read(&["send", "--type", "lead.captured", "--tenant", "acme", "--id", "lead-1"]);
    let request = came.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(request.starts_with("POST /v2/leads?pipeline=sales HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("x-tidy-key: tk-17\r\n") && request.contains("\"email\":\"jane@example.com\""),
        "{request}"
    );
    until("it is delivered", || {
        read(&["deliveries", "list", "--event", "lead-1"])[0]["state"] == "delivered"
    });

    let changed =
        read(&["connections", "update", id, "--credential", "api_key=env:TIDY_KEY", "--option", "pipeline="]);
    assert_eq!(changed["options"], serde_json::json!({}));
    std::fs::write(root.join("event.json"), r#"{"type": "lead.captured", "id": "now-1", "data": {"lead": {"name": "Jane Smith", "email": "j@example.com"}}}"#).unwrap();
    let triggered = read(&["trigger", id, "--event", "event.json"]);
    assert_eq!((&triggered["success"], &triggered["delivery"]["state"]), (&true.into(), &"delivered".into()));
    let request = came.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        request.contains("pipeline=inbox") && request.contains("x-tidy-key: tk-from-env\r\n"),
        "{request}"
    );
    let shown = stdout(&with(&["connections", "show", id]));
    assert!(!shown.contains("tk-") && shown.contains("api_key"), "{shown}");
    let paused = read(&["connections", "pause", id, "--reason", "they move house"]);
    assert_eq!(
        (&paused["state"]["status"], &paused["state"]["reason"]),
        (&"paused".into(), &"they move house".into())
    );
    let (code, text) = told(&with(&["trigger", id, "--event-id", "lead-1"]));
    assert_eq!(code, 1);
    assert!(text.contains("the connection is paused"), "{text}");
    let resumed = read(&["connections", "resume", id, "--backlog", "none"]);
    assert_eq!(resumed["state"]["status"], "active");
    let reason = resumed["state"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("resumed, without what was made before "), "{resumed}");
    assert_eq!(read(&["connections", "show", id])["history"][1]["status"], "paused");
    read(&["connections", "delete", id]);
    served.stop();
}

#[test]
#[cfg(unix)]
fn edited_files_count_on_a_hangup_and_while_watched_and_faulty_ones_do_not() {
    for watched in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("patchbay.toml"), SETTINGS).unwrap();
        write_guide(&root.join("own"), "https://api.tidycrm.example");
        let log = root.join("log");
        let file = std::fs::File::create(&log).unwrap();
        let served = Served::start_with(root, file.into(), if watched { &["--watch"] } else { &[] });
        let key = served.told["operator_key"].as_str().unwrap().to_owned();
        let process = served.process().to_string();
        let reload = || {
            if !watched {
                assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
            }
        };
        let name = || -> Value {
            let (_, body) = ask(&served, "GET", "/v1/connectors/tidycrm", &key, "");
            serde_json::from_str::<Value>(&body).unwrap()["name"].clone()
        };
        let path = root.join("own/connectors/tidycrm.toml");
        let first = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, first.replace("TidyCRM leads", "Second")).unwrap();
        reload();
        until("the edit counts", || name() == "Second");

        std::fs::write(&path, first.replace("[request]", "[requst]").replace("TidyCRM leads", "Third"))
            .unwrap();
        reload();
        let ready = || serde_json::from_str::<Value>(&ask(&served, "GET", "/readyz", "", "").1).unwrap();
        until("the fault is told", || ready()["note"].is_string());
        assert_eq!(name(), "Second", "a bad edit changes nothing");
        let metrics = ask(&served, "GET", "/metrics", "", "").1;
        assert!(metrics.contains("patchbay_catalogue_reloads_total{result=\"refused\"} 1"), "{metrics}");
        until("the log says where", || {
            let log = std::fs::read_to_string(&log).unwrap();
            log.contains("own/connectors/tidycrm.toml:") && log.contains("did you mean \"request\"?")
        });

        std::fs::write(&path, first.replace("TidyCRM leads", "Fourth")).unwrap();
        reload();
        until("the mended file counts", || name() == "Fourth");
        assert_eq!(ready()["note"], Value::Null);
        served.stop();
    }
}
