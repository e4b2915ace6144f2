//! The cases of `tests/connectors/google_sheets.toml`, and what a connection says of its sheet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::connector::check_sheet;
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::spec::Catalogue;

const EMAIL: &str = "robot@acme.iam.gserviceaccount.com";

#[derive(Deserialize)]
struct Cases {
    answer: Vec<AnswerCase>,
    token: Vec<TokenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerCase {
    when: String,
    status: u16,
    #[serde(default)]
    reads: bool,
    body: String,
    outcome: Outcome,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenCase {
    when: String,
    error: String,
    description: String,
    reason: String,
}

fn cases() -> Cases {
    toml::from_str(include_str!("../../../tests/connectors/google_sheets.toml")).unwrap()
}

#[test]
fn every_refusal_says_what_a_person_must_do() {
    for case in cases().answer {
        let place = Place { email: EMAIL, tab: "Leads", writes: !case.reads };
        let refused = classify(case.status, case.body.as_bytes(), &place);
        assert_eq!(refused.verdict.reason, case.reason, "{}", case.when);
        assert_eq!(refused.verdict.outcome, case.outcome, "{}", case.when);
    }
    for case in cases().token {
        let refused = classify_token(&case.error, &case.description, EMAIL);
        assert_eq!(refused.verdict.reason, case.reason, "{}", case.when);
        assert_eq!((refused.verdict.outcome, refused.remedy), (Outcome::AuthFailed, Remedy::Person));
    }
}

#[test]
fn the_document_shows_every_refusal() {
    let mut table =
        String::from("| what happens | answer | what follows | what the person reads |\n|---|---|---|---|\n");
    let follows = |outcome: Outcome| match outcome {
        Outcome::AuthFailed => "the connection is paused, its rows wait",
        Outcome::Rejected => "the row is refused, kept and replayable",
        Outcome::Throttled => "the lane waits, no attempt is spent",
        Outcome::Ambiguous => "tried again, after a look for the ids",
        _ => "tried again",
    };
    let cases = cases();
    for case in &cases.answer {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            case.when,
            case.status,
            follows(case.outcome),
            case.reason
        );
    }
    for case in &cases.token {
        let follows = follows(Outcome::AuthFailed);
        let _ = writeln!(table, "| {} | token: `{}` | {follows} | {} |", case.when, case.error, case.reason);
    }
    let document = include_str!("../../../docs/google-sheets.md");
    assert!(document.contains(&table), "docs/google-sheets.md must hold this table:\n{table}");
}

fn key() -> Value {
    json!({
        "type": "service_account", "project_id": "acme", "private_key_id": "1",
        "private_key": include_str!("../../cli/fake_google/key.pem"),
        "client_email": EMAIL, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
    })
}

fn sheet(key: &str, options: &[(&str, &str)]) -> Result<Sheet, String> {
    let catalogue = Catalogue::load(None).unwrap();
    let spec = Arc::clone(catalogue.connector("google_sheets").unwrap());
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let credentials = BTreeMap::from([(KEY.to_owned(), Secret::new(key))]);
    let given = Given { url: "", options: &options, credentials: &credentials };
    let timeout = spec.policy.timeout;
    check_sheet(&spec, &given, &GoogleSettings::default(), timeout).map_err(|faults| faults.to_string())
}

#[test]
fn a_pasted_key_and_address_are_enough() {
    let address =
        "https://docs.google.com/spreadsheets/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit#gid=0";
    let pretty = serde_json::to_string_pretty(&key()).unwrap();
    let sheet = sheet(&format!("{pretty}\n"), &[("spreadsheet", address)]).unwrap();
    assert_eq!(sheet.spreadsheet, "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms");
    assert_eq!((sheet.account.email(), sheet.tab.as_str()), (EMAIL, "Sheet1"));
    assert_eq!((sheet.spec().policy.batch, sheet.spec().policy.concurrency), (500, 1));
    assert!(!format!("{sheet:?}").contains("BEGIN"), "the key is shown");
}

#[test]
fn a_key_that_cannot_work_is_refused_when_it_is_saved() {
    let id = [("spreadsheet", "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms")];
    let with = |name: &str, value: &str| {
        let mut key = key();
        key[name] = value.into();
        key.to_string()
    };
    for (key, told) in [
        ("not json".to_owned(), "no JSON object"),
        (with("type", "authorized_user"), "service_account"),
        (with("client_email", "robot"), "client_email"),
        (
            with("private_key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "private_key",
        ),
        (with("token_uri", "https://evil.example/token"), "not allowed"),
        (with("token_uri", "https://oauth2.googleapis.com.evil.example/token"), "not allowed"),
    ] {
        let refused = sheet(&key, &id).unwrap_err();
        assert!(refused.contains(told), "{told}: {refused}");
        assert!(!refused.contains("BEGIN") && !refused.contains("MII"), "{refused}");
    }
}

#[test]
fn options_are_checked_all_at_once() {
    let options =
        [("spreadsheet", "my sheet"), ("tab", "a/b"), ("mode", "upsert"), ("dates", "us"), ("colour", "red")];
    let refused = sheet(&key().to_string(), &options).unwrap_err();
    for told in
        ["options.spreadsheet", "options.tab", "options.key_column", "options.dates", "options.colour"]
    {
        assert!(refused.contains(told), "{told}: {refused}");
    }
}

#[test]
fn columns_are_the_mappings_then_what_rows_have_then_the_ids() {
    let sheet = sheet(&key().to_string(), &[("spreadsheet", "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms")])
        .unwrap();
    let mapping = Mapping::from_json(&json!({"version": 1, "fields": [
        {"to": "First name", "value": "x"}, {"to": "address.city", "value": "y"}, {"to": "address.zip", "value": "z"},
    ]}))
    .unwrap();
    let row = Row::new("T".to_owned(), json!({"first  NAME": 1, "Other": 2}).as_object().unwrap().clone());
    assert_eq!(sheet.wanted(&mapping, [&row]), ["First name", "address", "Other", "Patchbay ID"]);
}
