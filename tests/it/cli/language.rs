//! The mapping language on the command line: its reference, its paths, its schemas.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{patchbay as program, run, stdout, told};

#[test]
fn map_list_prints_the_reference_and_its_transforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let page = stdout(&run(root, &["map", "--list"]));
    assert_eq!(page.trim_end(), patchbay::mapping::reference().trim_end());

    let shown: Value = serde_json::from_str(&stdout(&run(root, &["map", "--list", "--json"]))).unwrap();
    let names: Vec<&str> =
        shown.as_array().unwrap().iter().map(|transform| transform["name"].as_str().unwrap()).collect();
    assert_eq!(names, patchbay::mapping::transforms().map(|transform| transform.name).collect::<Vec<_>>());
    assert!(shown.as_array().unwrap().iter().all(|transform| transform["examples"][0]["apply"].is_string()));

    assert_eq!(told(&run(root, &["map"])).0, 2);
    assert_eq!(told(&run(root, &["map", "lead_flat", "--list"])).0, 2);
}

#[test]
fn path_prints_the_matches_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("document.json"), r#"{"items": [{"n": 1}, {"n": 2, "é": null}]}"#).unwrap();
    std::fs::write(root.join("broken.json"), "{").unwrap();

    let cases = [
        ("$.items[*].n", json!([1, 2])),
        ("$.items[?@.n > 1]", json!([{"n": 2, "é": null}])),
        ("$.items[1].é", json!([null])),
        ("$.gone", json!([])),
    ];
    for (query, wanted) in cases {
        let found = stdout(&run(root, &["path", query, "document.json"]));
        assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), wanted, "{query}");
    }

    let refused: [(&[&str], &str); 4] = [
        (&["items", "document.json"], "\n  hint: a path starts at the event: \"$.items\"\n"),
        (&["$.items[", "document.json"], "error: "),
        (&["$", "broken.json"], "error: broken.json:1:1: not valid JSON"),
        (&["$", "missing.json"], "error: missing.json: cannot be read"),
    ];
    for (arguments, part) in refused {
        let output = run(root, &[&["path"], arguments].concat());
        let (code, text) = told(&output);
        assert_eq!((code, output.stdout.len()), (2, 0), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }

    for arguments in [&["path", "$[1]"] as &[&str], &["path", "$[1]", "-"]] {
        let mut child = program(root)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"[1, \"two\"]").unwrap();
        assert_eq!(stdout(&child.wait_with_output().unwrap()), "[\"two\"]\n");
    }
}

#[test]
fn schema_prints_what_lies_in_the_docs() {
    let folder = tempfile::tempdir().unwrap();
    let read = |arguments: &[&str]| -> Value {
        serde_json::from_str(&stdout(&run(folder.path(), arguments))).unwrap()
    };
    let both = read(&["schema"]);
    for kind in ["connector", "mapping"] {
        let file = std::fs::read_to_string(format!("docs/schema/{kind}.schema.json")).unwrap();
        let wanted: Value = serde_json::from_str(&file).unwrap();
        assert_eq!(read(&["schema", kind]), wanted, "{kind}");
        assert_eq!(both[kind], wanted, "{kind}");
    }
    assert_eq!(told(&run(folder.path(), &["schema", "conector"])).0, 2);
}

#[test]
fn check_warns_of_paths_that_no_sample_has() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("own/mappings")).unwrap();
    let mapping = "version = 1\n[[fields]]\nto = 'a'\nfrom = '$.data.lead.emial'\n[[fields]]\nto = 'b'\n\
                   from = '$.data.lead.name'\n";
    std::fs::write(root.join("own/mappings/mine.toml"), mapping).unwrap();

    let output = run(root, &["check", "own"]);
    let (code, text) = told(&output);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("warning: "), "{text}");
    assert!(
        text.ends_with(
            "mine.toml:4:8: fields[0].from: no sample of the event has $.data.lead.emial\n  hint: did you mean \
             \"email\"?\n"
        ),
        "{text}"
    );
    assert!(stdout(&output).ends_with("no faults, 1 warning\n"));

    let report: Value = serde_json::from_str(&stdout(&run(root, &["check", "own", "--json"]))).unwrap();
    assert_eq!((&report["ok"], &report["warnings"][0]["line"]), (&json!(true), &json!(4)), "{report}");

    // A connector's types say which samples count.
    let webhook = std::fs::read_to_string("connectors/webhook.toml").unwrap();
    let mine = webhook.replace("id = \"webhook\"", "id = \"mine\"");
    let mine = mine.replace("mapping = \"standard_webhook\"", "mapping = \"mine\"");
    let events = "\n[[events]]\ntype = \"rating.given\"\ndescription = \"rated\"\n";
    std::fs::create_dir_all(root.join("own/connectors")).unwrap();
    std::fs::write(root.join("own/connectors/mine.toml"), mine + events).unwrap();
    let report: Value = serde_json::from_str(&stdout(&run(root, &["check", "own", "--json"]))).unwrap();
    let fields: Vec<&str> = report["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["fields[0].from", "fields[1].from", ""], "the last for want of cases: {report}");

    // What is shipped is not the reader's to mend.
    let (code, text) = told(&run(root, &["check"]));
    assert_eq!((code, text.as_str()), (0, ""));
}

#[test]
fn the_same_bytes_whatever_the_machines_zone_and_language() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mapping = json!({"version": 1, "fields": [
        {"to": "day", "from": "$event.time", "apply": [{"time": {"format": "%A %d %B %Y %H:%M", "zone": "Africa/Nairobi"}}]},
        {"to": "plain", "from": "$event.time", "apply": [{"time": {"format": "%Y-%m-%d %H:%M:%S"}}]},
        {"to": "upper", "from": "$.data.name", "apply": ["upper"]},
        {"to": "lower", "from": "$.data.name", "apply": ["lower"]},
        {"to": "title", "from": "$.data.name", "apply": ["title"]},
        {"to": "sorted", "from": "$.data.list", "apply": ["sort", {"join": ", "}]},
        {"to": "number", "from": "$.data.number", "apply": [{"round": 2}]},
        {"to": "phone", "from": "$.data.phone", "apply": [{"phone": "KE"}]},
    ]});
    let event = json!({"id": "e1", "type": "lead.captured", "time": "2026-10-25T00:30:00Z", "data": {
        "name": "\u{131}stanbul \u{130}zmir \u{df}", "list": ["\u{e4}", "z", "a", "\u{c5}", "\u{f6}"], "number": 1234.5678, "phone": "0712 345 678"}});
    std::fs::write(root.join("m.json"), mapping.to_string()).unwrap();
    std::fs::write(root.join("e.json"), event.to_string()).unwrap();
    let run_in = |zone: &str, language: &str| {
        let output = program(root)
            .args(["map", "m.json", "--event", "e.json", "--json", "--trace"])
            .env("TZ", zone)
            .env("LANG", language)
            .env("LC_ALL", language)
            .output()
            .unwrap();
        stdout(&output)
    };
    let first = run_in("UTC", "C");
    assert!(first.contains("Sunday 25 October 2026 03:30"), "{first}");
    for (zone, language) in
        [("Asia/Tokyo", "tr_TR.UTF-8"), ("America/St_Johns", "de_DE.UTF-8"), (":nowhere", "xx"), ("", "")]
    {
        assert_eq!(run_in(zone, language), first, "{zone} {language}");
    }
}
