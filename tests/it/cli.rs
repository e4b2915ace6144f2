//! The program as a person meets it: what it says when something is wrong, and the exit code it ends with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

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

    std::fs::remove_file(root.join("patchbay.toml")).unwrap();
    std::fs::remove_dir_all(root.join("own")).unwrap();
    assert!(stdout(&run(root, &["check"])).contains("no faults"));
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
    assert!(text.starts_with("error: field \"mail\": the field is required"), "{text}");

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
    // A port on which nobody listens: taken and let go.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let cases: [(&[&str], i32, &str); 6] = [
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

/// A gateway as a person starts it; it ends with its standard input.
struct Served {
    child: Child,
    told: Value,
}

impl Served {
    fn start(folder: &Path) -> Self {
        let mut child = patchbay(folder)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, told: serde_json::from_str(&line).unwrap() }
    }

    fn url(&self) -> &str {
        self.told["url"].as_str().unwrap()
    }

    fn stop(mut self) {
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
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !run(root, &list).status.success() {
        assert!(std::time::Instant::now() < patience, "{:?}", told(&run(root, &list)));
    }
    let keys = stdout(&run(root, &["keys", "list", "--tenant", "acme", "--json"]));
    assert!(keys.contains(made["id"].as_str().unwrap()) && !keys.contains(&token), "{keys}");

    let (code, text) = told(&run(root, &["keys", "create", "--tenant", "acm"]));
    assert_eq!(code, 2);
    assert!(text.contains("there is no tenant \"acm\""), "{text}");

    stdout(&run(root, &["keys", "revoke", made["id"].as_str().unwrap()]));
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while run(root, &list).status.success() {
        assert!(std::time::Instant::now() < patience, "a revoked key still opens");
    }
    served.stop();
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
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
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
