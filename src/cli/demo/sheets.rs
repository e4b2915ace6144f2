//! `patchbay demo --sheets`: leads become rows of a sheet, in a stand-in for Google that loses an answer on purpose.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use url::Url;

use super::{PATIENCE, TENANT, start_gateway};
use crate::cli::client::Client;
use crate::cli::failure::{FAILED, Failure};
use crate::cli::fake_google::{EMAIL, FakeGoogle, Fault};
use crate::cli::output::{Output, cell};
use crate::cli::scratch::Scratch;
use crate::cli::serve::Signals;
use crate::clock::{Clock, Entropy};

const BOOK: &str = "demo-sheet-of-acme-plumbing";
const TAB: &str = "Leads";
const LEADS: [(&str, &str); 6] = [
    ("Jane Smith", "+15550100"),
    ("Omar Haddad", "007"),
    ("Li Wei", "=IMPORTXML(\"https://evil.example\")"),
    ("Ana García", "+34600000000"),
    ("Tom O'Neil", "555-0123"),
    ("Ada Müller", "-1"),
];

/// Shows rows arrive; ends when all are there if it is `once`, else with Ctrl-C.
pub(super) async fn run(once: bool, output: Output) -> Result<(), Failure> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let mut signals = Signals::new()?;
    let scratch = Scratch::new("demo", &entropy)?;
    let google = FakeGoogle::start().await?;
    google.make_book(BOOK, &[TAB]);
    // The second append is done, and its answer is lost.
    google.plan(|number| if number == 1 { Fault::DropAfter } else { Fault::None });
    let more = format!("[google]\napi_root = \"{}\"\ntoken_hosts = [\"127.0.0.1\"]\n", google.api_root());
    let running = start_gateway(&scratch, clock, entropy, &more).await?;
    let base = Url::parse(&running.url()).map_err(Failure::failed)?;
    let client = Client::new(base, running.operator_token.clone())?;
    let result = tokio::select! {
        result = play(&client, &google, once, output) => result,
        code = signals.next() => if once { Err(Failure::Told(code)) } else { Ok(()) },
    };
    running.stop().await;
    result
}

async fn play(client: &Client, google: &FakeGoogle, once: bool, output: Output) -> Result<(), Failure> {
    let tell = |value: serde_json::Value, text: String| {
        output.lines(&if output.is_json() { value.to_string() } else { text });
    };
    client.post("/v1/tenants", &json!({ "id": TENANT, "name": "Acme Plumbing" })).await?;
    let connection = json!({
        "tenant": TENANT, "name": "Leads", "connector": "google_sheets", "events": ["lead.captured"],
        "options": { "spreadsheet": BOOK, "tab": TAB },
        "credentials": { "service_account_key": google.key() },
        "policy": { "retry_delays_secs": [1, 1, 1] },
    });
    let connection = client.post("/v1/connections", &connection).await?;
    let id = cell(&connection, "id");
    let share_with = cell(&connection, "share_with");
    tell(
        json!({ "connection": id, "share_with": share_with }),
        format!(
            "\nPatchbay demo: Google Sheets\nA stand-in for Google runs in this process. Share the sheet with {EMAIL} (done).\n"
        ),
    );
    let tried = client.post(&format!("/v1/connections/{id}/test"), &json!({})).await?;
    let reason = tried["attempt"]["reason"].as_str().unwrap_or_default().to_owned();
    let columns = tried["sheet"]["columns"].clone();
    tell(
        json!({ "test": reason, "columns": columns }),
        format!("  test     {reason}\n  columns  {columns}\n"),
    );
    let mut appended = google.appended();
    let mut shown = 0;
    let deadline = Instant::now() + PATIENCE;
    for (name, phone) in LEADS {
        let email = format!("{}@example.com", name.split(' ').next().unwrap_or_default().to_lowercase());
        let lead = json!({ "name": name, "email": email, "phone": phone, "intent": "request_quote" });
        let event =
            json!({ "tenant": TENANT, "type": "lead.captured", "source": "bot", "data": { "lead": lead } });
        client.post("/v1/events", &event).await?;
        // A moment between them, so that there are several appends.
        let _ = tokio::time::timeout(Duration::from_millis(400), appended.changed()).await;
        show(google, &mut shown, &tell);
    }
    while shown <= LEADS.len() && Instant::now() < deadline {
        let _ = tokio::time::timeout(Duration::from_millis(200), appended.changed()).await;
        show(google, &mut shown, &tell);
    }
    let whole = google.rows(BOOK, TAB).len() == LEADS.len() + 1;
    let appends = google.counts().appends;
    tell(
        json!({ "all_arrived": whole, "appends": appends }),
        format!(
            "\n{} The answer of the second append was lost on purpose: its rows were found by their ids and not written again.",
            if whole {
                format!("{} leads, {} rows, {appends} appends.", LEADS.len(), LEADS.len())
            } else {
                "Not every row arrived.".to_owned()
            },
        ),
    );
    if !once {
        tell(json!({}), "\nCtrl-C ends it.".to_owned());
        std::future::pending::<()>().await;
    }
    if whole { Ok(()) } else { Err(Failure::Told(FAILED)) }
}

fn show(google: &FakeGoogle, shown: &mut usize, tell: &impl Fn(serde_json::Value, String)) {
    let rows = google.rows(BOOK, TAB);
    for row in &rows[(*shown).min(rows.len())..] {
        tell(json!({ "row": row }), format!("  {}", row.join(" | ")));
    }
    *shown = rows.len().max(*shown);
}
