use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::catalogue::Catalogue;
use super::files::{self, FileKind, Files, SourceFile};
use super::*;
use http::Method;

use crate::domain::event::is_reserved;
use crate::domain::job::Outcome;
use crate::mapping::Context;

pub(super) const MAPPING: &str = "version = 1\n[[fields]]\nto = 'eventType'\nfrom = '$.type'\n";

fn files(list: &[(FileKind, &str, &str)]) -> Files {
    list.iter()
        .map(|(kind, stem, text)| {
            let path = Arc::from(format!("{stem}.file"));
            ((*kind, (*stem).to_owned()), SourceFile { path, text: (*text).to_owned() })
        })
        .collect()
}

pub(super) fn told(list: &[(FileKind, &str, &str)]) -> Vec<String> {
    let mut faults = Faults::default();
    Catalogue::assemble(&files(list), &mut faults);
    faults.list().iter().map(ToString::to_string).collect()
}

pub(super) fn connector(rest: &str) -> String {
    format!("version = 1\nid = 'crm'\nname = 'CRM'\ndescription = 'A CRM'\nmapping = 'flat'\n{rest}")
}

fn read_one(rest: &str) -> Result<Arc<ConnectorSpec>, Faults> {
    let mut faults = Faults::default();
    let text = connector(rest);
    let list = [(FileKind::Mapping, "flat", MAPPING), (FileKind::Connector, "crm", text.as_str())];
    let catalogue = Catalogue::assemble(&files(&list), &mut faults);
    faults.into_result(()).map(|()| Arc::clone(catalogue.connector("crm").unwrap()))
}

#[test]
fn what_is_compiled_in_is_sound() {
    let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
    let webhook = catalogue.connector("webhook").unwrap();
    assert_eq!(webhook.mapping, "standard_webhook");
    assert_eq!(webhook.secret, SecretUse::Required);
    assert_eq!(webhook.policy, DeliveryPolicy::default(), "the file states the documented defaults");
    assert_eq!(webhook.request.reserved_headers, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
    for status in 100..=599 {
        for retry_after in [false, true] {
            let outcome = webhook.answer.outcome(status, retry_after);
            assert_eq!(outcome, AnswerRules::default().outcome(status, retry_after), "{status}");
        }
    }
    // Discovered by folder: whatever lies there is in the catalogue.
    for (folder, count) in
        [("connectors", catalogue.connectors().len()), ("mappings", catalogue.mappings().len())]
    {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let found = fs::read_dir(root).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "toml")
        });
        assert_eq!(found.count(), count, "{folder}");
    }
}

#[test]
fn every_mapping_makes_something_of_every_sample() {
    let catalogue = Catalogue::load(None).unwrap();
    let kinds: Vec<&str> = catalogue.samples().keys().map(String::as_str).collect();
    let (alerts, kinds): (Vec<&str>, Vec<&str>) = kinds.into_iter().partition(|kind| is_reserved(kind));
    assert_eq!(kinds, ["conversation.ended", "escalation.requested", "lead.captured", "rating.given"]);
    assert!(!alerts.is_empty());
    // Those who push leads have no use for alerts.
    let tells_alerts =
        |name: &str| ["standard_webhook", "webhook_trigger", "zapier", "google_sheets"].contains(&name);
    for (kind, sample) in catalogue.samples() {
        let text = |key: &str| sample[key].as_str().unwrap();
        let context = Context {
            event_id: text("id"),
            event_type: text("type"),
            event_time: text("time"),
            source: sample["source"].as_str(),
            tenant_id: text("tenant"),
            connection_id: "con_1",
            job_id: "job_1",
            attempt: 1,
            now: text("time").parse().unwrap(),
        };
        // Mappings of requests that are received have cases of their own.
        let of_events = catalogue
            .mappings()
            .iter()
            .filter(|(name, _)| !name.ends_with("_in") && (!is_reserved(kind) || tells_alerts(name)));
        for (name, mapping) in of_events {
            let fields =
                mapping.apply(sample, &context).unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
            assert!(!fields.is_empty(), "{name} {kind}");
        }
        let standard = catalogue.mapping("standard_webhook").unwrap().apply(sample, &context).unwrap();
        let wanted = json!({"type": kind, "timestamp": sample["time"], "data": sample["data"]});
        assert_eq!(serde_json::Value::Object(standard), wanted);
    }
    let lead = catalogue.samples()["lead.captured"].clone();
    let context = Context {
        event_id: "e",
        event_type: "lead.captured",
        event_time: "2026-05-03T14:22:08Z",
        source: Some("bot_1"),
        tenant_id: "acme",
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now: "2026-05-03T14:22:08Z".parse().unwrap(),
    };
    assert_eq!(
        serde_json::Value::Object(catalogue.mapping("lead_flat").unwrap().apply(&lead, &context).unwrap())
            .to_string(),
        r#"{"name":"Jane Smith","first_name":"Jane","last_name":"Smith","email":"jane@example.com","phone":"+15555550123","intent":"request_quote","source":"bot_1","event":"lead.captured","captured_at":"2026-05-03T14:22:08Z"}"#
    );
}

#[test]
fn a_connector_may_leave_out_all_but_its_name_and_mapping() {
    let spec = read_one("").unwrap();
    assert_eq!(spec.request, RequestSpec::default());
    assert_eq!(spec.policy, DeliveryPolicy::default());
    assert_eq!(spec.answer, AnswerRules::default());
    assert_eq!(spec.secret, SecretUse::None);
    assert!(!spec.signature.needs_secret() && spec.events.is_empty() && spec.docs.is_none());
}

#[test]
fn what_a_connector_states_is_taken() {
    let spec = read_one(
        "docs = 'https://crm.example/docs'\nsecret = 'optional'\n\
         [[events]]\ntype = 'lead.*'\ndescription = 'Leads'\n\
         [request]\nmethod = 'PUT'\nreserved_headers = ['X-Own']\nreserved_fields = ['customerId']\n\
         [request.headers]\n'X-Event' = '{event_type}'\n\
         [signature]\nalgorithm = 'hmac_sha256'\n[signature.headers]\n'X-Sig' = 'sha256={signature}'\n\
         [[answer]]\nstatus = [401, 403]\noutcome = 'auth_failed'\n",
    )
    .unwrap();
    assert_eq!(spec.request.call.method, Method::PUT);
    assert_eq!(spec.request.reserved_headers, ["x-own", "x-event", "x-sig"]);
    assert_eq!(spec.request.reserved_fields, ["customerId"]);
    assert_eq!(spec.secret, SecretUse::Optional);
    assert_eq!(spec.events[0].pattern.to_string(), "lead.*");
    assert_eq!(spec.answer.outcome(403, false), Outcome::AuthFailed);
}

#[test]
fn every_fault_of_every_file_is_told_with_its_place() {
    let crm = connector(
        "colour = 'red'\nsecret = 'none'\n\
         [[events]]\ntype = 'a b'\ndescription = ' '\n\
         [[events]]\ntype = 'lead.captured'\ndescription = 'x'\nsample = 'lead.captred'\n\
         [request]\nmethod = 'GET'\nreserved_fields = ['eventType', 'a.b']\nreserved_headers = ['a b']\n\
         [request.headers]\nHost = 'x'\nX-A = '{event}'\nx-a = 'twice'\nX-Sig = 'y'\nX-B = 1\n\
         [signature]\nalgorithm = 'hmac_sha256'\n[signature.headers]\nX-Sig = '{signature}'\n\
         [policy]\ntimeout_secs = 0\nretry_delays_secs = [5, '5s']\n\
         [[answer]]\nstatus = 200\n",
    );
    let list = [
        (FileKind::Mapping, "flat", MAPPING),
        (FileKind::Mapping, "broken", "version = 1\n[[fields]]\nto = 'x'\n"),
        (FileKind::Sample, "lead.captured", "{\"type\": \"lead\",\n \"id\": }"),
        (FileKind::Sample, "rating.given", "{\"type\": \"lead\", \"time\": \"now\"}"),
        (FileKind::Connector, "crm", crm.as_str()),
        (
            FileKind::Connector,
            "other",
            "version = 2\nid = 'another'\nname = 'A'\ndescription = 'B'\nmapping = 'flt'\n",
        ),
        (FileKind::Connector, "torn", "version = 1\nid = \n"),
        (
            FileKind::Connector,
            "uses_broken",
            "version = 1\nid = 'uses_broken'\nname = 'A'\ndescription = 'B'\nmapping = 'broken'\ndocs = 'x'\n",
        ),
        (
            FileKind::Connector,
            "Bad-Name",
            "version = 1\nid = 'Bad-Name'\nname = 'A'\ndescription = 'B'\nmapping = 'flat'\nsecret = 'required'\n",
        ),
    ];
    let told = told(&list);
    let all = told.join("\n");
    for wanted in [
        "lead.captured.file:2:8: not valid JSON: expected value",
        "rating.given.file:1:1: type: is not the file's name",
        "rating.given.file:1:1: id: missing",
        "rating.given.file:1:1: time: no RFC 3339 time",
        "rating.given.file:1:1: data: missing",
        "crm.file:6:1: colour: unknown key",
        "crm.file:7:10: secret: the signature needs a secret",
        "crm.file:9:8: events[0].type: no event type",
        "crm.file:10:15: events[0].description: says nothing",
        "crm.file:14:10: events[1].sample: there is no sample \"lead.captred\"\n  hint: did you mean \"lead.captured\"?",
        "crm.file:16:10: request.method: a GET carries no body",
        "crm.file:17:19: request.reserved_fields: \"a.b\" is no top-level field",
        "crm.file:18:20: request.reserved_headers: no header name",
        "crm.file:20:1: request.headers.Host: can't be set here: it belongs to HTTP itself",
        "crm.file:21:7: request.headers.X-A: unknown placeholder \"{event}\"",
        "crm.file:23:1: request.headers.X-Sig: is written by [signature] already",
        "crm.file:24:7: request.headers.X-B: expected a text, found a whole number",
        "crm.file:30:16: policy.timeout_secs: 0 is outside 1 to 60",
        "crm.file:31:25: policy.retry_delays_secs[1]: expected a whole number of seconds, found a text",
        "crm.file:32:1: answer[0].outcome: missing",
        "flat.file:3:6: fields[0].to: \"eventType\" is written by",
        "other.file:1:11: version: version 2 is not known",
        "other.file:2:6: id: \"another\" is not the file's name",
        "other.file:5:11: mapping: there is no mapping \"flt\"\n  hint: did you mean \"flat\"?",
        "torn.file:2:",
        "uses_broken.file:6:8: docs: no web address",
        "Bad-Name.file:1:1: \"Bad-Name\" is no name for a file here",
        "Bad-Name.file:6:10: secret: nothing is signed",
        "broken.file:3:6: fields[0].to",
    ] {
        assert!(all.contains(wanted), "missing: {wanted}\nin:\n{all}");
    }
    assert!(!all.contains("there is no mapping \"broken\""), "a faulty mapping is there all the same");
}

#[test]
fn a_mapping_may_not_write_what_its_connector_writes() {
    let text = connector("[request]\nreserved_fields = ['eventType']\n");
    let mapping =
        "version = 1\n[[fields]]\nto = 'ok'\nvalue = 1\n[[fields]]\nto = 'eventType.name'\nvalue = 2\n";
    let told = told(&[(FileKind::Mapping, "flat", mapping), (FileKind::Connector, "crm", &text)]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("flat.file:"), "{told:?}");
    assert!(told[0].contains("\"eventType\" is written by the connector \"crm\" itself"), "{told:?}");
}

#[test]
fn equal_mappings_are_one_version() {
    let mapping = Mapping::from_toml("a.toml", MAPPING).unwrap();
    let same = Mapping::from_json(mapping.to_json()).unwrap();
    let other = Mapping::from_toml("a.toml", &MAPPING.replace("$.type", "$.id")).unwrap();
    assert_eq!(mapping_version(&mapping), mapping_version(&same));
    assert_ne!(mapping_version(&mapping), mapping_version(&other));
    let digest = Sha256::digest(mapping.to_json().to_string());
    assert_eq!(mapping_version(&mapping).bits().to_be_bytes(), digest[..16]);
}

#[test]
fn a_folder_adds_and_overrides_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("connectors/webhook.toml", &connector("").replace("'crm'", "'webhook'"));
    write("connectors/.webhook.toml.swp", "not read");
    write("connectors/README.md", "not read");
    write("mappings/flat.toml", MAPPING);
    let catalogue = Catalogue::load(Some(folder.path())).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(catalogue.connector("webhook").unwrap().name, "CRM");
    assert!(catalogue.mapping("flat").is_some() && catalogue.mapping("lead_flat").is_some());
    assert!(!catalogue.samples().is_empty());
}

#[test]
fn what_cannot_be_read_is_told_beside_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mappings = folder.path().join("mappings");
    fs::create_dir_all(mappings.join("folder.toml")).unwrap();
    fs::write(mappings.join("large.toml"), vec![b'#'; files::MAX_FILE_BYTES + 1]).unwrap();
    fs::write(mappings.join("latin.toml"), b"# \xe4\n").unwrap();
    fs::write(mappings.join("wrong.toml"), "colour = 1\nversion = 2\n").unwrap();
    let faults = Catalogue::load(Some(folder.path())).unwrap_err();
    let lines: Vec<u32> = faults.list().iter().map(|fault| fault.place.line).collect();
    assert!(lines.is_sorted(), "told from the top down: {lines:?}");
    let told = faults.to_string();
    for wanted in [
        "folder.toml:1:1: is no file",
        "large.toml:1:1: is larger than 1 MiB",
        "latin.toml:1:1: is not UTF-8",
        "wrong.toml:1:1: colour: unknown key",
        "wrong.toml:2:11: version",
    ] {
        assert!(told.contains(wanted), "missing: {wanted}\nin:\n{told}");
    }
    let told = Catalogue::load(Some(&folder.path().join("none"))).unwrap_err().to_string();
    assert!(told.contains("none:1:1: is no folder"), "{told}");
}

#[test]
fn more_files_than_allowed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mappings = folder.path().join("mappings");
    fs::create_dir_all(&mappings).unwrap();
    for number in 0..=files::MAX_FILES {
        fs::write(mappings.join(format!("m{number}.toml")), MAPPING).unwrap();
    }
    let faults = Catalogue::load(Some(folder.path())).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults}");
    assert!(faults.to_string().contains("holds more than 2000 files"), "{faults}");
}

proptest! {
    #[test]
    fn no_edit_of_a_connector_file_makes_reading_it_panic(at in 0_usize..4_000, cut in 0_usize..40, put in "[ -~\n]{0,20}") {
        let (_, file) = files::built_in()
            .into_iter()
            .find(|((kind, stem), _)| *kind == FileKind::Connector && stem == "webhook")
            .unwrap();
        // Comments would take most of the edits.
        let mut text: String =
            file.text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
        let start = text.floor_char_boundary(at % text.len());
        let end = text.floor_char_boundary((start + cut).min(text.len()));
        text.replace_range(start..end, &put);
        for fault in told(&[(FileKind::Connector, "webhook", &text)]) {
            prop_assert!(fault.starts_with("webhook.file:"), "{fault}");
        }
    }
}
