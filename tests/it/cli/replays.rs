//! `patchbay replay`, `replays`, `erase` and `erasures`, as a person meets them.

use serde_json::json;

use super::desk::{Desk, TO_LOOPBACK};

#[test]
fn replays_and_erasures_are_begun_watched_and_listed() {
    let desk = Desk::open(TO_LOOPBACK);
    let data = json!({ "email": "jane@example.com" }).to_string();
    for id in ["one", "two"] {
        let send = ["send", "--type", "x", "--tenant", "acme", "--id", id, "--data", &data];
        assert_eq!(desk.ask(&send).0, 0);
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
    let (code, out, error) = desk.ask(&make);
    assert_eq!(code, 0, "{error}");
    let connection = out.split_whitespace().next().unwrap().to_owned();
    let missed = ["replay", "--missed", "--connection", &connection, "--since", "2020-01-01T00:00:00Z"];
    let (code, out, error) = desk.ask(&[&missed[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("jane@example.com") && out.contains("2 deliveries would be sent again"), "{out}");
    let (code, out, error) = desk.ask(&missed);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("2 deliveries are sent again, 0 left as they are; done"), "{out}");
    assert!(error.contains("runs in the gateway, whether you look on or not"), "{error}");
    let (_, out, _) = desk.ask(&["replays", "list"]);
    let id = out.split_whitespace().find(|word| word.starts_with("cho_")).unwrap().to_owned();
    assert!(out.contains("done") && out.contains(&connection), "{out}");
    let (code, out, _) = desk.ask(&["replays", "show", &id]);
    assert!(code == 0 && out.contains("missed      true"), "{out}");
    let (code, out, _) = desk.ask(&["replays", "cancel", &id]);
    assert!(code == 0 && out.contains("is done"), "one that has ended stays as it is: {out}");

    std::fs::write(desk.root().join("mail.txt"), "jane@example.com\n").unwrap();
    let erase = ["erase", "--tenant", "acme", "--path", "$.data.email", "--equals", "@mail.txt"];
    let (code, out, error) = desk.ask(&[&erase[..], &["--dry-run"]].concat());
    assert_eq!(
        (code, out.trim()),
        (0, "2 events and their 2 deliveries would be erased; nothing was"),
        "{error}"
    );
    let (code, out, error) = desk.ask(&erase);
    assert_eq!((code, out.trim()), (0, "2 events and their 2 deliveries are erased"), "{error}");
    let (_, out, _) = desk.ask(&["erasures", "list", "--tenant", "acme"]);
    assert!(out.matches("cho_").count() == 2 && !out.contains("jane@"), "{out}");
    assert_eq!(desk.ask(&["erase", "--tenant", "acme", "--path", "$.data[", "--equals", "x"]).0, 2);
    assert_eq!(desk.ask(&["replays", "show", "cho_01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q"]).0, 1);
    desk.served.stop();
}
