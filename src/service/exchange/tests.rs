use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::connector::{Given, check_settings};
use crate::domain::secret::Secret;
use crate::spec::Catalogue;

/// Gives scripted answers and keeps what it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Answer, SendError>>>,
    asked: Mutex<Vec<String>>,
    /// How long each request takes.
    takes: Duration,
    clock: Option<Clock>,
    /// Refresh tokens that were to be kept.
    kept: Mutex<Vec<String>>,
    store_fails: bool,
    /// What the record has.
    newest: Option<Secret>,
}

impl Script {
    fn of(answers: &[(u16, &str)]) -> Self {
        let answers = answers.iter().map(|(status, body)| Ok(answer(*status, body))).collect();
        Self { answers: Mutex::new(answers), ..Self::default() }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl Sends for Script {
    async fn send(&self, request: Request) -> Result<Answer, SendError> {
        let auth =
            request.headers.get("authorization").map_or("-", |value| value.to_str().unwrap()).to_owned();
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        self.asked.lock().push(format!(
            "{} {auth} {body} {}s",
            request.url.path(),
            request.timeout.as_secs()
        ));
        if let Some(clock) = &self.clock {
            clock.advance(self.takes);
        }
        self.answers.lock().pop_front().expect("an answer for each request")
    }

    async fn keep_refresh_token(&self, used: &Secret, new: &Secret) -> bool {
        self.kept.lock().push(format!("{} -> {}", used.reveal(), new.reveal()));
        !self.store_fails
    }

    async fn newer_refresh_token(&self, used: &Secret) -> Option<Secret> {
        self.newest.clone().filter(|newest| newest != used)
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
        truncated: false,
        body_complete: true,
        elapsed: Duration::ZERO,
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_777_818_128_000);

fn endpoint(catalogue: &Catalogue, id: &str, credentials: &[&str]) -> Endpoint {
    let spec = catalogue.connector(id).unwrap();
    let credentials: BTreeMap<String, Secret> =
        credentials.iter().map(|name| ((*name).to_owned(), Secret::new(format!("my-{name}")))).collect();
    let options = BTreeMap::new();
    let given = Given { url: "", options: &options, credentials: &credentials };
    let settings = check_settings(spec, &given).unwrap();
    let timeout = Duration::from_secs(15);
    Endpoint::compile(Arc::clone(spec), "", settings, &HeaderMap::new(), Vec::new(), timeout).unwrap()
}

const OAUTH: [&str; 3] = ["client_id", "client_secret", "refresh_token"];

struct Delivery {
    endpoint: Endpoint,
    tokens: TokenSlot,
    clock: Clock,
    event: Object,
    kept: Bytes,
}

impl Delivery {
    fn new(id: &str, credentials: &[&str]) -> Self {
        let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
        let endpoint = endpoint(&catalogue, id, credentials);
        let event = json!({"id": "e1", "type": "lead.captured", "time": "2026-05-03T14:22:08Z", "tenant": "acme",
            "data": {"lead": {"name": "Jane Smith", "email": "jane@example.com"}, "intent": "quote"}});
        let event = Object::from(event);
        let mapping = catalogue.mapping(id).unwrap();
        let kept = endpoint.render(mapping, &event, &context()).unwrap();
        Self { endpoint, tokens: TokenSlot::default(), clock: Clock::manual(NOW), event, kept }
    }

    async fn try_once(&mut self, script: &Script) -> Verdict {
        let names = Names { event_type: "lead.captured", event_id: "e1", job_id: "job_1" };
        let outgoing = Outgoing { event: &self.event, context: context(), names };
        let tried =
            exchange(script, &self.clock, &self.endpoint, &self.tokens, &outgoing, self.kept.clone()).await;
        self.kept = tried.kept;
        assert!(script.answers.lock().is_empty(), "every answer was asked for");
        tried.verdict
    }
}

fn context() -> Context<'static> {
    Context {
        event_id: "e1",
        event_type: "lead.captured",
        event_time: "2026-05-03T14:22:08Z",
        source: None,
        tenant_id: "acme",
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now: NOW,
    }
}

const TOKEN: &str = r#"{"access_token": "at-1", "expires_in": 3600}"#;
const TOKEN_2: &str = r#"{"access_token": "at-2", "expires_in": 3600}"#;
const DONE: &str = r#"{"data": [{"status": "success", "details": {"id": "7"}}]}"#;

#[tokio::test]
async fn a_token_is_fetched_once_kept_and_renewed_ahead_of_its_end() {
    let mut delivery = Delivery::new("zoho", &OAUTH);
    let script = Script::of(&[(200, TOKEN), (201, DONE)]);
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::Delivered);
    let asked = script.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].starts_with("/oauth/v2/token - grant_type=refresh_token&refresh_token=my-refresh_token"),
        "{asked:?}"
    );
    assert!(asked[1].starts_with("/crm/v7/Leads/upsert Zoho-oauthtoken at-1 {\"data\":"), "{asked:?}");

    delivery.clock.advance(Duration::from_secs(3_539));
    let script = Script::of(&[(201, DONE)]);
    delivery.try_once(&script).await;
    assert!(script.asked()[0].contains("at-1"), "it is still good");

    delivery.clock.advance(Duration::from_secs(1));
    let script = Script::of(&[(200, TOKEN_2), (201, DONE)]);
    delivery.try_once(&script).await;
    assert!(script.asked()[1].contains("at-2"), "a minute before its end another is fetched");
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_in_the_same_try() {
    let mut delivery = Delivery::new("zoho", &OAUTH);
    delivery.try_once(&Script::of(&[(200, TOKEN), (201, DONE)])).await;

    let script = Script::of(&[(401, ""), (200, TOKEN_2), (201, DONE)]);
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::Delivered);
    assert!(script.asked()[2].contains("at-2"));

    // A new one that is refused too is refused.
    let script = Script::of(&[(401, ""), (200, TOKEN), (401, "")]);
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::AuthFailed);

    // One that was only just fetched is not fetched again.
    let mut delivery = Delivery::new("zoho", &OAUTH);
    let script = Script::of(&[(200, TOKEN), (401, "")]);
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::AuthFailed);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    for (status, body, outcome) in [
        (400, r#"{"error": "invalid_grant"}"#, Outcome::AuthFailed),
        (200, r#"{"error": "invalid_code"}"#, Outcome::AuthFailed),
        (500, "", Outcome::Retry),
    ] {
        let mut delivery = Delivery::new("zoho", &OAUTH);
        let verdict = delivery.try_once(&Script::of(&[(status, body)])).await;
        assert_eq!(verdict.outcome, outcome, "{}", verdict.reason);
    }
}

const PERSON: &str = r#"{"success": true, "data": {"id": 1092}}"#;
const LEAD: &str = r#"{"success": true, "data": {"id": "lead-1"}}"#;

#[tokio::test]
async fn a_chain_goes_on_where_it_stopped() {
    let mut delivery = Delivery::new("pipedrive", &["api_key"]);
    let script = Script::of(&[(201, PERSON), (500, "")]);
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::Retry);
    assert_eq!(script.asked().len(), 2);

    let script = Script::of(&[(201, LEAD)]);
    let verdict = delivery.try_once(&script).await;
    assert_eq!((verdict.outcome, verdict.remote_id.as_deref()), (Outcome::Delivered, Some("lead-1")));
    let asked = script.asked();
    assert!(asked[0].contains(r#"{"title":"Jane Smith: quote","person_id":1092}"#), "{asked:?}");
}

#[tokio::test]
async fn a_step_that_fails_ends_the_try_and_is_named() {
    let mut delivery = Delivery::new("pipedrive", &["api_key"]);
    let verdict =
        delivery.try_once(&Script::of(&[(400, r#"{"success": false, "error": "bad name"}"#)])).await;
    assert_eq!(verdict.outcome, Outcome::Rejected);
    assert_eq!(
        verdict.reason,
        "step \"person\": the endpoint answered 400 Bad Request: it refused this event for good; it said \"bad name\""
    );
    // What later requests need must be there: to ask again would make a second person.
    let verdict = delivery.try_once(&Script::of(&[(201, r#"{"success": true}"#)])).await;
    assert_eq!(verdict.outcome, Outcome::Rejected);
    assert!(verdict.reason.ends_with("but its answer has no $.data.id"), "{}", verdict.reason);
}

#[tokio::test]
async fn all_requests_of_a_try_share_its_time() {
    let mut delivery = Delivery::new("pipedrive", &["api_key"]);
    let clock = delivery.clock.clone();
    let slow = |takes, answers| Script { takes, clock: Some(clock.clone()), ..Script::of(answers) };
    let script = slow(Duration::from_secs(9), &[(201, PERSON), (500, "")]);
    delivery.try_once(&script).await;
    let asked = script.asked();
    assert!(asked[0].ends_with(" 15s") && asked[1].ends_with(" 6s"), "{asked:?}");

    let mut delivery = Delivery::new("pipedrive", &["api_key"]);
    let clock = delivery.clock.clone();
    let script =
        Script { takes: Duration::from_secs(15), clock: Some(clock), ..Script::of(&[(201, PERSON)]) };
    let verdict = delivery.try_once(&script).await;
    assert_eq!(verdict.outcome, Outcome::Retry, "{}", verdict.reason);
    // The person is there all the same.
    assert_eq!(delivery.try_once(&Script::of(&[(201, LEAD)])).await.outcome, Outcome::Delivered);
}

fn grant(access: &str, refresh: &str) -> String {
    json!({ "access_token": access, "expires_in": 3600, "refresh_token": refresh }).to_string()
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_and_used_from_then_on() {
    let mut delivery = Delivery::new("zoho", &OAUTH);
    let first = grant("at-1", "rt-2");
    let script = Script { store_fails: true, ..Script::of(&[(200, &first), (201, DONE)]) };
    assert_eq!(
        delivery.try_once(&script).await.outcome,
        Outcome::Delivered,
        "a store that fails stops nothing"
    );
    assert_eq!(*script.kept.lock(), ["my-refresh_token -> rt-2"]);

    // What could not be written is written at the next chance.
    let script = Script::of(&[(201, DONE)]);
    delivery.try_once(&script).await;
    assert_eq!(*script.kept.lock(), ["my-refresh_token -> rt-2"]);

    delivery.clock.advance(Duration::from_hours(1));
    let same = grant("at-2", "rt-2");
    let script = Script::of(&[(200, &same), (201, DONE)]);
    delivery.try_once(&script).await;
    assert!(script.asked()[0].contains("refresh_token=rt-2&"), "the new one is used");
    assert!(script.kept.lock().is_empty(), "the same one again is nothing new");
}

#[tokio::test]
async fn a_refresh_token_that_another_process_replaced_is_no_refusal() {
    let mut delivery = Delivery::new("zoho", &OAUTH);
    let (refused, granted) = (r#"{"error": "invalid_grant"}"#, grant("at-9", "rt-10"));
    let script = Script {
        newest: Some(Secret::new("rt-9")),
        ..Script::of(&[(400, refused), (200, &granted), (201, DONE)])
    };
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::Delivered);
    assert!(script.asked()[1].contains("refresh_token=rt-9&"));
    assert_eq!(*script.kept.lock(), ["rt-9 -> rt-10"]);

    // The newest one being refused too, it is one.
    let mut delivery = Delivery::new("zoho", &OAUTH);
    let script =
        Script { newest: Some(Secret::new("rt-9")), ..Script::of(&[(400, refused), (400, refused)]) };
    assert_eq!(delivery.try_once(&script).await.outcome, Outcome::AuthFailed);
}

#[tokio::test]
async fn what_repeats_a_secret_is_covered_and_read_as_it_came() {
    let mut delivery = Delivery::new("zoho", &OAUTH);
    // The rules see the answer, people see it without the token.
    let echo = r#"{"data": [{"status": "error", "message": "at-1234 is not Zoho-oauthtoken at-1234"}]}"#;
    let token = grant("at-1234", "rt-5678");
    let script = Script::of(&[(200, &token), (201, echo)]);
    let names = Names { event_type: "lead.captured", event_id: "e1", job_id: "job_1" };
    let outgoing = Outgoing { event: &delivery.event, context: context(), names };
    let kept = delivery.kept.clone();
    let tried =
        exchange(&script, &delivery.clock, &delivery.endpoint, &delivery.tokens, &outgoing, kept).await;
    assert_eq!(tried.verdict.outcome, Outcome::Rejected);
    assert!(
        tried.verdict.reason.ends_with("\"[hidden] is not Zoho-oauthtoken [hidden]\""),
        "{}",
        tried.verdict.reason
    );
    let body = String::from_utf8(tried.answer.unwrap().body.to_vec()).unwrap();
    assert!(!body.contains("at-1234") && body.contains("[hidden] is not"), "{body}");

    // The token endpoint's words too.
    let refused =
        r#"{"error": "invalid_grant", "error_description": "rt my-refresh_token, cs my-client_secret"}"#;
    delivery.tokens = TokenSlot::default();
    let verdict = delivery.try_once(&Script::of(&[(400, refused)])).await;
    assert!(verdict.reason.contains("rt [hidden], cs [hidden]"), "{}", verdict.reason);
}

#[tokio::test]
async fn a_body_that_the_system_does_not_take_is_not_sent() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("connectors")).unwrap();
    let file = include_str!("../../../connectors/zapier.toml");
    let file = file.replace("max_bytes = 10000000", "max_bytes = 300");
    std::fs::write(folder.path().join("connectors/zapier.toml"), file).unwrap();
    let catalogue = Catalogue::load(Some(folder.path())).unwrap_or_else(|faults| panic!("{faults}"));
    let spec = catalogue.connector("zapier").unwrap();
    let (options, credentials) = (BTreeMap::new(), BTreeMap::new());
    let url = "https://hooks.zapier.com/hooks/standard/42/abc/";
    let settings =
        check_settings(spec, &Given { url, options: &options, credentials: &credentials }).unwrap();
    let timeout = Duration::from_secs(15);
    let endpoint =
        Endpoint::compile(Arc::clone(spec), url, settings, &HeaderMap::new(), Vec::new(), timeout).unwrap();
    let mut delivery = Delivery { endpoint, ..Delivery::new("pipedrive", &OAUTH) };
    for (bytes, fits) in [(300, true), (301, false)] {
        delivery.kept = Bytes::from(vec![b'x'; bytes]);
        let script = if fits { Script::of(&[(200, "{}")]) } else { Script::default() };
        let verdict = delivery.try_once(&script).await;
        assert_eq!(verdict.outcome == Outcome::Delivered, fits, "{verdict:?}");
        assert_eq!(script.asked().len(), usize::from(fits));
        if !fits {
            assert_eq!(verdict.outcome, Outcome::Rejected);
            assert_eq!(verdict.reason, "its body has 301 bytes, and the endpoint takes 300 at the most");
        }
    }
}
