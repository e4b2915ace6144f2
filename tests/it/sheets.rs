//! Google Sheets against the stand-in: right columns, exactly once, one writer, within the quota.

mod alerts;
mod faults;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use patchbay::cli::fake_google::{EMAIL, FakeGoogle, Fault};
use patchbay::clock::Clock;
use patchbay::connector::google_sheets::GoogleSettings;
use patchbay::domain::id::{ConnectionId, TenantId};
use patchbay::domain::job::{JobState, Outcome};
use patchbay::service::Settings;
use patchbay::service::connections::Backlog;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::gateway::TestGateway;
use crate::support::within;

pub const BOOK: &str = "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms";

/// A gateway on the machine's clock whose Google is the stand-in.
pub struct Scene {
    pub google: FakeGoogle,
    pub gateway: TestGateway,
    pub tenant: TenantId,
}

impl Scene {
    pub async fn new(tabs: &[&str]) -> Self {
        let google = FakeGoogle::start().await.unwrap();
        google.make_book(BOOK, tabs);
        let settings = GoogleSettings {
            api_root: google.api_root().parse().unwrap(),
            token_hosts: vec!["127.0.0.1".to_owned()],
        };
        let settings = Settings { google: settings, ..Settings::default() };
        let folder = Arc::new(TempDir::new().unwrap());
        let gateway = TestGateway::start_with(folder, Clock::system(), &["127.0.0.0/8"], settings).await;
        let tenant = gateway.tenant("acme").await;
        Self { google, gateway, tenant }
    }

    pub async fn connect(&self, options: Value, mapping: Value) -> ConnectionId {
        let mut wanted = json!({
            "name": "sheet", "connector": "google_sheets", "events": ["*"], "mapping": mapping,
            "options": {"spreadsheet": BOOK, "tab": "Leads"},
            "credentials": {"service_account_key": self.google.key()},
            "policy": {"retry_delays_secs": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]},
        });
        for (name, value) in options.as_object().unwrap() {
            wanted["options"][name] = value.clone();
        }
        let saved = self.gateway.gateway.make_connection(Some(&self.tenant), &wanted).await.unwrap();
        saved.live.record.id
    }

    pub async fn lead(&self, data: Value) {
        self.gateway.publish(&self.tenant, &json!({"type": "lead.captured", "data": data})).await;
    }

    /// Publishes leads in one request.
    pub async fn leads(&self, all: impl Iterator<Item = Value>) {
        let events = all.map(|data| json!({"type": "lead.captured", "data": data}));
        self.gateway.publish_all(&self.tenant, events).await;
    }

    /// Waits until a tab has so many rows, the headers among them.
    pub async fn rows(&self, tab: &str, count: usize) -> Vec<Vec<String>> {
        within(&format!("{count} rows"), async {
            while self.google.rows(BOOK, tab).len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        self.google.rows(BOOK, tab)
    }
}

pub fn name_and_email() -> Value {
    json!({"version": 1, "fields": [
        {"to": "Name", "from": "$.data.name"}, {"to": "Email", "from": "$.data.email"},
    ]})
}

/// A row without its job's id.
fn bare(row: &[String]) -> Vec<&str> {
    row.iter().map(String::as_str).filter(|text| !text.starts_with("job_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stand_under_their_headers_wherever_people_put_them() {
    let scene = Scene::new(&["Leads"]).await;
    scene.connect(json!({"hide_id_column": "true"}), name_and_email()).await;
    scene.lead(json!({"name": "=IMPORTXML(\"x\")", "email": "+15550100"})).await;
    let rows = scene.rows("Leads", 2).await;
    assert_eq!(rows[0], ["Name", "Email", "Patchbay ID"]);
    assert_eq!(bare(&rows[1]), ["=IMPORTXML(\"x\")", "+15550100"]);
    assert!(rows[1][2].starts_with("job_"));
    // A person inserts a column in the middle, while the gateway still believes the old headers.
    scene.google.edit(BOOK, |book| {
        let tab = book.tab_mut("Leads").unwrap();
        assert_eq!(tab.hidden, [2], "the ids are hidden");
        for (row, note) in tab.rows.iter_mut().zip(["Notes", "called"]) {
            row.insert(1, json!(note));
        }
    });
    scene.lead(json!({"name": "Jane", "email": "jane@example.com"})).await;
    let rows = scene.rows("Leads", 3).await;
    within("the row to be moved", async {
        while scene.google.rows(BOOK, "Leads")[2].get(2).is_none_or(|email| email != "jane@example.com") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let rows = [rows[0].clone(), scene.google.rows(BOOK, "Leads")[2].clone()];
    assert_eq!(rows[0], ["Name", "Notes", "Email", "Patchbay ID"]);
    assert_eq!(bare(&rows[1]), ["Jane", "", "jane@example.com"]);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_what_is_missing_and_leaves_no_mark() {
    let scene = Scene::new(&["Leads"]).await;
    let connection = scene.connect(json!({}), name_and_email()).await;
    let live = scene.gateway.gateway.owned_connection(None, connection).unwrap();
    let working = live.works.as_ref().unwrap();
    assert_eq!(working.outlet.share_with(), Some(EMAIL));
    let try_it = async || {
        let tryout = scene.gateway.gateway.try_connection(None, connection).await.unwrap();
        (tryout.attempt.outcome, tryout.attempt.reason, tryout.sheet.unwrap())
    };
    let (outcome, reason, report) = try_it().await;
    assert_eq!(outcome, Outcome::Delivered, "{reason}");
    assert_eq!(report.columns, ["Name", "Email", "Patchbay ID"]);
    assert_eq!((report.new_columns.len(), report.title.as_deref()), (3, Some("A sheet")));
    assert!(scene.google.rows(BOOK, "Leads").is_empty(), "nothing is written");

    scene.google.edit(BOOK, |book| {
        book.shared = false;
        book.public = true;
    });
    let (outcome, reason, _) = try_it().await;
    assert_eq!(outcome, Outcome::AuthFailed);
    assert!(reason.contains(&format!("not shared with {EMAIL}")), "reading alone is not enough: {reason}");
    scene.google.edit(BOOK, |book| book.shared = true);

    scene.google.edit(BOOK, |book| book.tab_mut("Leads").unwrap().protected = true);
    assert!(try_it().await.1.contains("protected"));
    scene.google.edit(BOOK, |book| book.tab_mut("Leads").unwrap().protected = false);

    scene.google.edit(BOOK, |book| {
        book.tab_mut("Leads").unwrap().rows = vec![vec![json!("Name"), json!(""), json!("Email")]];
    });
    assert!(try_it().await.1.contains("B1"));
    scene.google.edit(BOOK, |book| book.tab_mut("Leads").unwrap().title = "Old".to_owned());
    let (_, reason, _) = try_it().await;
    assert!(reason.contains("no tab \"Leads\"") && reason.contains("\"Old\""), "{reason}");
    scene.google.edit(BOOK, |book| book.tab_mut("Old").unwrap().title = "Leads".to_owned());

    scene.google.enable_api(false);
    assert!(try_it().await.1.contains("not enabled"));
    scene.google.enable_api(true);
    // A token that was fetched before is of no use any more: another one is fetched, once.
    let before = scene.google.counts().tokens;
    scene.google.expire_tokens();
    scene.google.edit(BOOK, |book| book.tab_mut("Leads").unwrap().rows.clear());
    assert_eq!(try_it().await.0, Outcome::Delivered);
    assert_eq!(scene.google.counts().tokens, before + 1);
    // What a test found is not taken for what it would have made.
    scene.lead(json!({"name": "Jane"})).await;
    assert_eq!(scene.rows("Leads", 2).await[0], ["Name", "Email", "Patchbay ID"]);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheet_that_is_not_shared_pauses_and_loses_nothing() {
    let scene = Scene::new(&["Leads"]).await;
    let connection = scene.connect(json!({}), name_and_email()).await;
    scene.google.edit(BOOK, |book| book.shared = false);
    scene.lead(json!({"name": "Jane"})).await;
    scene.lead(json!({"name": "Joe"})).await;
    within("the pause", async {
        while scene.gateway.gateway.owned_connection(None, connection).unwrap().record.state.is_active() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let waiting = scene.gateway.wait_for_tries(connection, 1).await;
    assert_eq!((waiting.job.attempts, waiting.state), (0, JobState::Queued), "no attempt is spent");
    assert!(waiting.reason.contains("press Share"), "{}", waiting.reason);
    scene.google.edit(BOOK, |book| book.shared = true);
    scene.gateway.gateway.resume_connection(None, connection, Backlog::All, None).await.unwrap();
    let rows = scene.rows("Leads", 3).await;
    assert_eq!([bare(&rows[1]), bare(&rows[2])], [["Jane", ""], ["Joe", ""]], "in order");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_pauses_all_its_connections_and_is_told_once() {
    let scene = Scene::new(&["Leads", "Others"]).await;
    let first = scene.connect(json!({}), name_and_email()).await;
    let second = scene.connect(json!({"tab": "Others"}), name_and_email()).await;
    scene.google.revoke_key(true);
    for n in 0..20 {
        scene.lead(json!({"name": n.to_string()})).await;
    }
    within("both to be paused", async {
        let active = |id| scene.gateway.gateway.owned_connection(None, id).unwrap().record.state.is_active();
        while active(first) || active(second) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let refused = || {
        let metrics = scene.gateway.gateway.metrics.expose(None, true, scene.gateway.clock.now());
        let line =
            metrics.lines().find(|line| line.starts_with("patchbay_service_account_keys_refused_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    within("the refused key to be counted", async {
        while refused() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(refused(), 1);
    let tried = scene.gateway.wait_for_state(first, JobState::Queued).await;
    assert_eq!(tried.job.attempts, 0);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_updates_the_row_of_its_key_and_leaves_other_cells_alone() {
    let scene = Scene::new(&["Leads"]).await;
    scene.google.edit(BOOK, |book| {
        let texts = |row: &[&str]| row.iter().map(|text| json!(text)).collect::<Vec<_>>();
        let tab = book.tab_mut("Leads").unwrap();
        tab.rows = vec![texts(&["Email", "Notes", "Name"]), texts(&["jane@example.com", "called", "J."])];
    });
    scene.connect(json!({"mode": "upsert", "key_column": "email"}), name_and_email()).await;
    scene.google.plan(|n| if n == 0 { Fault::DropAfter } else { Fault::None });
    scene.lead(json!({"name": "Jane Smith", "email": "jane@example.com"})).await;
    scene.lead(json!({"name": "Joe", "email": "joe@example.com"})).await;
    scene.lead(json!({"name": "Joe Doe", "email": "joe@example.com"})).await;
    within("the last name", async {
        while !scene
            .google
            .rows(BOOK, "Leads")
            .iter()
            .any(|row| row.get(2).is_some_and(|name| name == "Joe Doe"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let rows = scene.google.rows(BOOK, "Leads");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(bare(&rows[1]), ["jane@example.com", "called", "Jane Smith"]);
    assert_eq!(bare(&rows[2]), ["joe@example.com", "", "Joe Doe"]);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_google_refuses_is_refused_alone() {
    let scene = Scene::new(&["Leads"]).await;
    let connection = scene.connect(json!({}), name_and_email()).await;
    scene.google.edit(BOOK, |book| book.refused = Some("poison".to_owned()));
    // While the first row is under way the others queue up behind it, and go as one batch.
    scene.google.plan(|n| Fault::Slow(Duration::from_millis(if n == 0 { 1_000 } else { 0 })));
    scene.lead(json!({"name": "first"})).await;
    within("the first append", async {
        while scene.google.counts().appends == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let names = ["a", "b", "poison", "c", "d", "e", "f"];
    scene.leads(names.iter().map(|name| json!({"name": name}))).await;
    let rows = scene.rows("Leads", 8).await;
    let names: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["first", "a", "b", "c", "d", "e", "f"], "in order, but for the one");
    let refused = scene.gateway.wait_for_state(connection, JobState::Rejected).await;
    assert!(refused.reason.contains("Google refused the row for good"), "{}", refused.reason);
    // Seven together, then halves: (3, 4), (1, 2) of the three, (1, 1) of the two.
    assert!(scene.google.counts().appends <= 1 + 7, "{:?}", scene.google.counts());
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_for_each_month_is_made_when_its_first_row_comes() {
    let scene = Scene::new(&["Sheet1"]).await;
    scene.connect(json!({"tab": "Leads", "tab_per": "month"}), name_and_email()).await;
    for (name, time) in [("Jane", "2026-05-31T23:59:59Z"), ("Joe", "2026-06-01T00:00:00Z")] {
        let event = json!({"type": "lead.captured", "time": time, "data": {"name": name}});
        scene.gateway.publish(&scene.tenant, &event).await;
    }
    for (tab, name) in [("Leads 2026-05", "Jane"), ("Leads 2026-06", "Joe")] {
        let rows = scene.rows(tab, 2).await;
        assert_eq!(rows[0], ["Name", "Email", "Patchbay ID"], "{tab}");
        assert_eq!(bare(&rows[1]), [name, ""], "{tab}");
    }
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_google_is_away_one_batch_probes_and_the_rest_waits() {
    let scene = Scene::new(&["Leads"]).await;
    scene.google.plan(|n| if n < 2 { Fault::FailBefore(503) } else { Fault::None });
    let wanted = json!({
        "name": "sheet", "connector": "google_sheets", "events": ["*"], "mapping": name_and_email(),
        "options": {"spreadsheet": BOOK, "tab": "Leads"},
        "credentials": {"service_account_key": scene.google.key()},
        "policy": {"retry_delays_secs": [1, 1, 1, 1, 1], "breaker_failures": 2},
    });
    scene.gateway.gateway.make_connection(Some(&scene.tenant), &wanted).await.unwrap();
    for n in 0..6 {
        scene.lead(json!({"name": n.to_string()})).await;
    }
    let rows = scene.rows("Leads", 7).await;
    let names: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(
        scene.google.counts().appends,
        3,
        "two that failed, and the probe, which takes along what it can"
    );
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_by_type_are_made_and_one_bad_row_holds_back_no_other() {
    let scene = Scene::new(&["Sheet1"]).await;
    let connection = scene.connect(json!({"tab": "In", "tab_per": "event_type"}), name_and_email()).await;
    scene.lead(json!({"name": "Jane"})).await;
    let event = json!({"type": "rating.given", "data": {"name": "Joe"}});
    scene.gateway.publish(&scene.tenant, &event).await;
    assert_eq!(bare(&scene.rows("In lead.captured", 2).await[1]), ["Jane", ""]);
    assert_eq!(bare(&scene.rows("In rating.given", 2).await[1]), ["Joe", ""]);
    // Full: refused with the advice, and kept.
    scene.google.edit(BOOK, |book| {
        book.ballast = 10_000_000;
        // As if the grid were full as well.
        let tab = book.tab_mut("In lead.captured").unwrap();
        tab.rows.resize(1_000, vec![json!("x")]);
    });
    scene.lead(json!({"name": "Too late"})).await;
    let refused = scene.gateway.wait_for_state(connection, JobState::Rejected).await;
    assert!(refused.reason.contains("full") && refused.reason.contains("replay"), "{}", refused.reason);
    scene.gateway.stop().await;
}
