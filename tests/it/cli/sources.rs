//! `patchbay sources`: made, listed, given a new secret, deleted; and what comes to one.

use super::desk::Desk;
use super::{stdout, told};

#[test]
fn a_source_is_made_listed_given_a_new_secret_and_deleted() {
    let desk = Desk::open("");
    let text = stdout(&desk.ask_for(&["sources", "create", "github", "--tenant", "acme"]));
    let id = text.split_whitespace().next().unwrap().to_owned();
    assert!(text.contains(&format!("  {}/v1/sources/{id}\n", desk.served.url())), "{text}");
    let secret = text.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(text.contains("shown this once") && secret.len() >= 32, "{text}");

    let listed = desk.shown(&["sources", "list", "--tenant", "acme"]);
    let items = listed.as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["id"], &items[0]["connector"]),
        (1, &id.as_str().into(), &"github".into())
    );
    assert!(!listed.to_string().contains(&secret), "a secret is shown once");

    let rotated = desk.shown(&["sources", "rotate", &id]);
    assert!(rotated["secret"].is_string() && rotated["secret"] != secret.as_str(), "{rotated}");
    assert!(rotated["previous_secret_until"].is_string(), "{rotated}");
    assert!(stdout(&desk.ask_for(&["sources", "delete", &id])).contains("is deleted"));
    assert_eq!(desk.shown(&["sources", "list"]), serde_json::json!([]));
    let (code, text) = told(&desk.ask_for(&["sources", "delete", &id]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no such source"), "{text}");
    desk.served.stop();
}

#[test]
fn what_a_source_needs_is_told_with_a_hint() {
    let desk = Desk::open("");
    let refused: [(&[&str], &str); 6] = [
        (&["githb"], "did you mean \"github\"?"),
        (&["zoho"], "receives nothing"),
        (&["stripe"], "secret: missing"),
        (&["whatsapp", "--secret", "s"], "verify_token"),
        (&["github", "--option", "colour=red"], "colour"),
        (&["github", "--agent", "agt_1", "--channel", "a b"], "channel"),
    ];
    for (arguments, part) in refused {
        let (code, text) =
            told(&desk.ask_for(&[&["sources", "create", "--tenant", "acme"], arguments].concat()));
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    let listed = stdout(&desk.ask_for(&["connectors"]));
    for part in ["github\tGitHub\treceives\t", "\tsends receives\t", "zoho\tZoho CRM\tsends\t"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let shown = stdout(&desk.ask_for(&["connectors", "whatsapp"]));
    let command = "patchbay sources create whatsapp --secret @secret.txt --credential verify_token=@file";
    assert!(shown.contains(command) && !shown.contains("connections create"), "{shown}");
    // What is wrong before anything is asked of the gateway.
    for arguments in [&["github", "--option", "colour"][..], &["github", "--channel", "x"], &[]] {
        let (code, text) =
            told(&desk.ask_for(&[&["sources", "create", "--tenant", "acme"], arguments].concat()));
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
    std::fs::write(desk.root().join("app.txt"), "app\n").unwrap();
    let made = desk.shown(&[
        "sources",
        "create",
        "whatsapp",
        "--tenant",
        "acme",
        "--secret",
        "@app.txt",
        "--credential",
        "verify_token=word",
        "--agent",
        "agt_1",
        "--public",
    ]);
    assert_eq!((&made["channel"], &made["public"]), (&"whatsapp".into(), &true.into()), "{made}");
    assert_eq!((&made["credential_names"], made.get("secret")), (&serde_json::json!(["verify_token"]), None));
    desk.served.stop();
}
