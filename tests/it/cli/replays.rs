//! `patchbay replay`, `replays`, `erase` and `erasures`, as a person meets them.

use serde_json::json;

use super::running::Served;
use super::{patchbay, told};

#[test]
fn replays_and_erasures_are_begun_watched_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let settings = "[egress]\nallow_http = true\nallow_ranges = ['127.0.0.0/8']\n";
    std::fs::write(root.join("patchbay.toml"), settings).unwrap();
    let served = Served::start(root);
    let key = served.told["operator_key"].as_str().unwrap().to_owned();
    let ask_for = |arguments: &[&str]| {
        let output = patchbay(root)
            .args(arguments)
            .env("PATCHBAY_URL", served.url())
            .env("PATCHBAY_KEY", &key)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout.clone()).unwrap();
        let (code, error) = told(&output);
        (code, out, error)
    };
    assert_eq!(ask_for(&["tenants", "create", "acme"]).0, 0);
    let data = json!({ "email": "jane@example.com" }).to_string();
    for id in ["one", "two"] {
        let send = ["send", "--type", "x", "--tenant", "acme", "--id", id, "--data", &data];
        assert_eq!(ask_for(&send).0, 0);
    }
    // It wants what came before it was made.
    let make = [
        "connections",
        "create",
        "--tenant",
        "acme",
        "--name",
        "late",
        "--connector",
        "webhook",
        "--event",
        "*",
        "http://127.0.0.1:9/hook",
    ];
    let (code, out, error) = ask_for(&make);
    assert_eq!(code, 0, "{error}");
    let connection = out.split_whitespace().next().unwrap().to_owned();
    let missed = ["replay", "--missed", "--connection", &connection, "--since", "2020-01-01T00:00:00Z"];
    let (code, out, error) = ask_for(&[&missed[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("jane@example.com") && out.contains("2 deliveries would be sent again"), "{out}");
    let (code, out, error) = ask_for(&missed);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("2 deliveries are sent again, 0 left as they are; done"), "{out}");
    assert!(error.contains("runs in the gateway, whether you look on or not"), "{error}");
    let (_, out, _) = ask_for(&["replays", "list"]);
    let id = out.split_whitespace().find(|word| word.starts_with("cho_")).unwrap().to_owned();
    assert!(out.contains("done") && out.contains(&connection), "{out}");
    let (code, out, _) = ask_for(&["replays", "show", &id]);
    assert!(code == 0 && out.contains("missed      true"), "{out}");
    let (code, out, _) = ask_for(&["replays", "cancel", &id]);
    assert!(code == 0 && out.contains("is done"), "one that has ended stays as it is: {out}");

    std::fs::write(root.join("mail.txt"), "jane@example.com\n").unwrap();
    let erase = ["erase", "--tenant", "acme", "--path", "$.data.email", "--equals", "@mail.txt"];
    let (code, out, error) = ask_for(&[&erase[..], &["--dry-run"]].concat());
    assert_eq!(
        (code, out.trim()),
        (0, "2 events and their 2 deliveries would be erased; nothing was"),
        "{error}"
    );
    let (code, out, error) = ask_for(&erase);
    assert_eq!((code, out.trim()), (0, "2 events and their 2 deliveries are erased"), "{error}");
    let (_, out, _) = ask_for(&["erasures", "list", "--tenant", "acme"]);
    assert!(out.matches("cho_").count() == 2 && !out.contains("jane@"), "{out}");
    assert_eq!(ask_for(&["erase", "--tenant", "acme", "--path", "$.data[", "--equals", "x"]).0, 2);
    assert_eq!(ask_for(&["replays", "show", "cho_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q"]).0, 1);
    served.stop();
}
