//! The program as a person meets it: what it says when something is wrong, and the exit code it ends with.

mod desk;
mod language;
mod replays;
mod running;
mod sources;
mod vendor;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::redis::Port;

fn patchbay(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    patchbay(folder).args(arguments).output().unwrap()
}

/// Exit code and standard error.
fn told(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn check_tells_every_fault_of_configuration_and_catalogue_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("patchbay.toml"), "lisen = '127.0.0.1:80'\n[delivery]\nconcurrency = 'many'\n")
        .unwrap();
    std::fs::create_dir_all(root.join("own/mappings")).unwrap();
    let mapping = "version = 1\n[[fields]]\nto = 'a'\nfrom = '$.data.x'\nrequird = true\n";
    std::fs::write(root.join("own/mappings/bad.toml"), mapping).unwrap();

    let (code, text) = told(&run(root, &["check", "own"]));
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("patchbay.toml:1:1: lisen: unknown key\n  hint: did you mean \"listen\"?"),
        "{text}"
    );
    assert!(text.contains("patchbay.toml:3:15: delivery.concurrency: expected a whole number"), "{text}");
    assert!(
        text.contains("bad.toml:5:1: fields[0].requird: unknown key\n  hint: did you mean \"required\"?"),
        "{text}"
    );
    assert!(text.ends_with("error: 3 faults\n"), "{text}");

    let output = run(root, &["check", "own", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["faults"].as_array().unwrap().len(), 3);
    assert_eq!(report["faults"][0]["line"], 3);

    // The same at a start, with the folder that the faulty file names; nothing is made.
    let settings = std::fs::read_to_string(root.join("patchbay.toml")).unwrap();
    std::fs::write(root.join("patchbay.toml"), format!("catalogue_dir = 'own'\n{settings}")).unwrap();
    for arguments in [&["serve"][..], &["check"]] {
        let (code, text) = told(&run(root, arguments));
        assert_eq!(code, 2, "{text}");
        for part in
            ["lisen: unknown key", "delivery.concurrency: ", "requird: unknown key", "error: 3 faults"]
        {
            assert!(text.contains(part), "{arguments:?}: {part}: {text}");
        }
    }
    assert!(!root.join("patchbay-data").exists());

    std::fs::remove_file(root.join("patchbay.toml")).unwrap();
    std::fs::remove_dir_all(root.join("own")).unwrap();
    assert!(stdout(&run(root, &["check"])).contains("no faults"));
}

#[test]
fn a_folder_of_ones_own_adds_to_the_catalogue_and_overrides_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("own/mappings")).unwrap();
    for name in ["lead_flat", "mine"] {
        let mapping = format!("version = 1\n[[fields]]\nto = 'by'\nvalue = 'my {name}'\n");
        std::fs::write(root.join(format!("own/mappings/{name}.toml")), mapping).unwrap();
        let output = stdout(&run(root, &["map", name, "--catalogue-dir", "own", "--json"]));
        let preview: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(preview["output"], serde_json::json!({ "by": format!("my {name}") }));
    }
    let built_in = stdout(&run(root, &["map", "lead_flat", "--json"]));
    assert!(built_in.contains("jane@example.com"), "{built_in}");
}

#[test]
fn variables_are_checked_like_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = patchbay(folder.path())
        .args(["serve"])
        .env("PATCHBAY_DELIVRY_CONCURRENCY", "8")
        .env("PATCHBAY_SECRET_KEY", "c2VjcmV0")
        .output()
        .unwrap();
    let (code, text) = told(&output);
    assert_eq!(code, 2);
    assert!(text.contains("PATCHBAY_DELIVRY_CONCURRENCY: unknown environment variable"), "{text}");
    assert!(text.contains("did you mean \"PATCHBAY_DELIVERY_CONCURRENCY\"?"), "{text}");
    assert!(text.contains("PATCHBAY_SECRET_KEY: expected 32 bytes in base64"), "{text}");
    assert!(!text.contains("c2VjcmV0"), "{text}");
    assert!(!folder.path().join("patchbay-data").exists(), "nothing is made when the settings are wrong");
}

#[test]
fn map_shows_what_a_mapping_makes_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let output = stdout(&run(root, &["map", "lead_flat", "--json"]));
    let preview: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(preview["output"]["email"], "jane@example.com");
    assert_eq!(preview["error"], Value::Null);

    let mapping = "version = 1\n[[fields]]\nto = 'mail'\nfrom = '$.data.mail'\nrequired = true\n";
    std::fs::write(root.join("mine.toml"), mapping).unwrap();
    let mut child = patchbay(root)
        .args(["map", "mine.toml", "--event", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(br#"{"data":{}}"#).unwrap();
    let (code, text) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("error: field \"mail\" from $.data.mail: the field is required"), "{text}");

    let trace = stdout(&run(root, &["map", "lead_flat", "--trace"]));
    assert!(
        trace.lines().any(|line| line.starts_with("first_name\t$.data.lead.name\t\"Jane Smith\"\t")),
        "{trace}"
    );

    let (code, text) = told(&run(root, &["map", "lead_flt"]));
    assert_eq!(
        (code, text.as_str()),
        (2, "error: there is no file and no mapping \"lead_flt\"\n  hint: did you mean \"lead_flat\"?\n",)
    );
    let (code, text) = told(&run(root, &["map", "lead_flat", "--event", "lead.captred"]));
    assert_eq!(code, 2);
    assert!(text.contains("did you mean \"lead.captured\"?"), "{text}");
}

#[test]
fn what_cannot_be_reached_or_makes_no_sense_is_said_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let free = Port::reserve();
    let url = format!("http://127.0.0.1:{}", free.number);
    let cases: [(&[&str], i32, &str); 9] = [
        (&["deliveries", "list", "--url", "here"], 2, "expected an address such as http://127.0.0.1:8080"),
        (&["keys", "list", "--url", "ftp://here"], 2, "expected an address such as http://127.0.0.1:8080"),
        (
            &["serve", "--config", "no.toml"],
            2,
            "error: no.toml: cannot be read: there is no such file\n  hint: ",
        ),
        (&["deliveries", "list", "--url", &url], 1, "hint: is a gateway running at "),
        (&["send", "--type", "a b"], 2, "error: \"a b\" is no event type\n  hint: "),
        (&["send", "--type", "x", "--data", "{"], 2, "error: --data:1:1: not valid JSON"),
        (&["send", "--type", "x", "--data", "@no.json"], 2, "error: no.json: cannot be read"),
        (&["tenants", "list"], 2, "hint: `patchbay serve` makes it"),
        (&["listen", "--secret", "nonsense"], 2, "whsec_"),
    ];
    for (arguments, wanted, part) in cases {
        let (code, text) = told(&run(folder.path(), arguments));
        assert_eq!(code, wanted, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
        assert!(!text.contains("nonsense"), "a secret was shown: {text}");
    }
    let (code, text) = told(&run(folder.path(), &["deliveries", "list", "--url", &url, "--json"]));
    assert_eq!(code, 1);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert!(error["hint"].as_str().unwrap().contains("patchbay serve"), "{error}");
}

/// Runs `listen --json` with flags, posts `times` requests, and gives what it showed and answered for each.
fn listen_to(flags: &[&str], times: usize) -> Vec<(Value, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut child = patchbay(folder.path())
        .args(["listen", "--listen", "127.0.0.1:0", "--json", "--count", &times.to_string()])
        .args(flags)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let announced: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let address = announced["listening"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let mut seen = Vec::new();
    for _ in 0..times {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = "POST /hook HTTP/1.1\r\nconnection: close\r\nwebhook-id: msg_1\r\nwebhook-timestamp: 1\r\n\
                       webhook-signature: v1,AAAA\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        seen.push((serde_json::from_str(&lines.next().unwrap()).unwrap(), answer));
    }
    assert!(child.wait().unwrap().success());
    seen
}

#[test]
fn listen_refuses_what_is_not_signed_rightly() {
    let flags = ["--secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
    let [(shown, answer)] = &listen_to(&flags, 1)[..] else { panic!("one request") };
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!((&shown["signature"], &shown["status"]), (&Value::from("refused"), &Value::from(401)));
    assert!(shown["reason"].as_str().unwrap().contains("at most 300 s are allowed"), "{shown}");
}

#[test]
fn listen_fails_on_demand() {
    let statuses = |flags: &[&str], times| -> Vec<String> {
        listen_to(flags, times).iter().map(|(_, answer)| answer[9..12].to_owned()).collect()
    };
    assert_eq!(statuses(&["--fail", "2"], 3), ["500", "500", "200"]);
    assert_eq!(statuses(&["--gone"], 1), ["410"]);
    let limited = listen_to(&["--rate-limit", "600"], 2);
    assert!(limited[0].1.starts_with("HTTP/1.1 200 "));
    assert!(limited[1].1.starts_with("HTTP/1.1 429 ") && limited[1].1.contains("\r\nretry-after: "));
}

#[test]
fn the_settings_of_the_help_are_those_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let help = stdout(&run(folder.path(), &["serve", "--help"]));
    let table = stdout(&run(folder.path(), &["settings"]));
    for row in table.lines().skip(2) {
        let key = row.split('`').nth(1).unwrap();
        assert!(help.contains(&format!("{key} = ")), "{key}");
    }
    let readme = std::fs::read_to_string("README.md").unwrap_or_default();
    assert!(readme.is_empty() || readme.contains(table.trim_end()), "README.md lacks:\n{table}");
}

#[test]
fn config_shows_what_is_in_force_and_where_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("patchbay.toml"), "[delivery]\nconcurrency = 7\n").unwrap();
    let config = |more: &[&str]| {
        let mut command = patchbay(root);
        command.env("PATCHBAY_STORE", "redis://ann:hunter2@redis.internal:6379").arg("config").args(more);
        command.output().unwrap()
    };
    let told_json = stdout(&config(&["--json", "--role", "api"]));
    let all: Vec<Value> = serde_json::from_str(&told_json).unwrap();
    let of = |key: &str| all.iter().find(|one| one["key"] == key).unwrap().clone();
    assert_eq!(of("delivery.concurrency")["value"], "7");
    assert_eq!(of("delivery.concurrency")["source"], "patchbay.toml:2");
    assert_eq!(of("role")["source"], "--role");
    assert_eq!(of("listen")["source"], "default");
    assert_eq!(of("store")["source"], "PATCHBAY_STORE");
    let text = stdout(&config(&[]));
    assert!(text.contains("delivery.concurrency\t7\tpatchbay.toml:2"), "{text}");
    assert!(text.contains("redis://[hidden]@redis.internal:6379"), "{text}");
    assert!(!text.contains("hunter2") && !told_json.contains("hunter2"), "{text}");
    // What would not start is not shown as if it would.
    std::fs::write(root.join("patchbay.toml"), "lisen = 1\n").unwrap();
    assert_eq!(told(&config(&[])).0, 2);
}
