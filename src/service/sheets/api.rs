//! Requests to the Sheets API, each bounded in time and in what is read, and what a refusal came to.

use std::sync::Arc;
use std::time::Duration;

use google_sheets4::api::{
    AppendDimensionRequest, AppendValuesResponse, BatchUpdateSpreadsheetRequest, BatchUpdateValuesRequest,
    Request, Spreadsheet, ValueRange,
};
use google_sheets4::common::{Body, Delegate, Response, Result as GoogleResult, Retry};
use google_sheets4::{Error, Sheets as Hub};
use serde_json::Value;
use tokio::time::Instant;

use crate::connector::Verdict;
use crate::connector::google_sheets::address::in_path;
use crate::connector::google_sheets::{GoogleSettings, Place, Refused, Remedy, SCOPE, classify};
use crate::domain::job::Outcome;
use crate::egress::{Egress, GuardedConnector, HeaderMap, LibraryClient, SendError, Url, header};

/// The most that an attempt keeps of an answer: it is kept for each row of a batch.
const KEPT_BYTES: usize = 1024;

/// What all requests of one try have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub token: &'a str,
    pub spreadsheet: &'a str,
    pub place: Place<'a>,
    pub deadline: Instant,
}

/// A request that did not succeed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub refused: Refused,
    pub status: Option<u16>,
    pub retry_after: Option<u64>,
    /// The start of the answer.
    pub body: String,
    /// Whether the other side may still be at it.
    pub under_way: bool,
    /// The account's key was refused just now: all its connections are concerned.
    pub revoked: bool,
}

impl Failed {
    /// One that a person must mend, found out without a refusal.
    pub fn person(reason: impl Into<String>) -> Self {
        Self::of(Refused::person(reason))
    }

    pub fn of(refused: Refused) -> Self {
        Self {
            refused,
            status: None,
            retry_after: None,
            body: String::new(),
            under_way: false,
            revoked: false,
        }
    }
}

/// The Sheets API.
pub(super) struct Api {
    egress: Arc<Egress>,
    client: LibraryClient<Body>,
    root: Url,
}

/// Sees status and headers of a refusal, which the library's own error leaves out.
#[derive(Default)]
struct Witness {
    status: Option<u16>,
    headers: HeaderMap,
}

impl Delegate for Witness {
    fn http_failure(&mut self, response: &Response, _: Option<&Value>) -> Retry {
        self.status = Some(response.status().as_u16());
        self.headers = response.headers().clone();
        Retry::Abort
    }
}

impl Api {
    pub fn new(egress: &Arc<Egress>, settings: &GoogleSettings) -> Self {
        Self { egress: Arc::clone(egress), client: egress.library_client(), root: settings.api_root.clone() }
    }

    fn hub(&self, token: &str) -> Hub<GuardedConnector> {
        let mut hub = Hub::new(self.client.clone(), token.to_owned());
        hub.base_url(self.root.to_string());
        hub.root_url(self.root.to_string());
        hub.user_agent(concat!("patchbay/", env!("CARGO_PKG_VERSION")).to_owned());
        hub
    }

    /// Runs a call until the deadline and tells what went wrong.
    async fn run<T>(
        &self,
        asking: &Asking<'_>,
        witness: &mut Witness,
        call: impl AsyncFnOnce(&mut Witness) -> GoogleResult<(Response, T)>,
    ) -> Result<T, Failed> {
        let limit = asking.deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout_at(asking.deadline, call(witness)).await {
            Ok(Ok((_, answer))) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(asking, error, witness)),
            Err(_) => Err(unanswered(asking, &self.egress.out_of_time(&self.root, limit))),
        }
    }

    fn failed(&self, asking: &Asking<'_>, error: Error, witness: &Witness) -> Failed {
        let status = witness.status;
        let (status, body) = match error {
            Error::BadRequest(value) => (status.unwrap_or(400), value.to_string()),
            Error::Failure(response) => (response.status().as_u16(), String::from("(no JSON)")),
            // A success whose answer broke off or can't be read: it was done.
            Error::JsonDecodeError(text, _) => {
                let reason = "Google answered, and its answer did not come whole; the rows may be there";
                return lost(asking, reason.to_owned(), &text, true);
            }
            Error::HttpError(error) => {
                return unanswered(asking, &self.egress.explain(&self.root, &error));
            }
            other => {
                let reason = format!("the request could not be made: {}", other.to_string().trim());
                return Failed::of(Refused {
                    verdict: Verdict::plain(Outcome::Retry, reason),
                    remedy: Remedy::None,
                });
            }
        };
        let retry_after = witness.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let refused = classify(status, body.as_bytes(), &asking.place);
        Failed { status: Some(status), retry_after, body: kept(&body), ..Failed::of(refused) }
    }

    /// The values of a range, row by row; what is empty at the end is left out.
    pub async fn values(&self, asking: &Asking<'_>, range: &str) -> Result<Vec<Vec<Value>>, Failed> {
        let (hub, mut witness, path) = (self.hub(asking.token), Witness::default(), in_path(range));
        let answer: ValueRange = self
            .run(asking, &mut witness, async |witness| {
                let call = hub.spreadsheets().values_get(asking.spreadsheet, &path);
                call.value_render_option("UNFORMATTED_VALUE").add_scope(SCOPE).delegate(witness).doit().await
            })
            .await?;
        Ok(answer.values.unwrap_or_default())
    }

    /// The spreadsheet's own data: title, zone, tabs and their sizes.
    pub async fn spreadsheet(&self, asking: &Asking<'_>) -> Result<Spreadsheet, Failed> {
        let (hub, mut witness) = (self.hub(asking.token), Witness::default());
        self.run(asking, &mut witness, async |witness| {
            let call = hub.spreadsheets().get(asking.spreadsheet);
            let call = call.param("fields", "spreadsheetId,properties(title,timeZone),sheets(properties)");
            call.add_scope(SCOPE).delegate(witness).doit().await
        })
        .await
    }

    /// Appends rows to the table that begins at the tab's first cell.
    pub async fn append(
        &self,
        asking: &Asking<'_>,
        range: &str,
        input: &str,
        rows: Vec<Vec<Value>>,
    ) -> Result<AppendValuesResponse, Failed> {
        let (hub, mut witness, path) = (self.hub(asking.token), Witness::default(), in_path(range));
        let request = ValueRange { values: Some(rows), ..ValueRange::default() };
        self.run(asking, &mut witness, async |witness| {
            let call = hub.spreadsheets().values_append(request, asking.spreadsheet, &path);
            let call = call.value_input_option(input).insert_data_option("INSERT_ROWS");
            call.add_scope(SCOPE).delegate(witness).doit().await
        })
        .await
    }

    /// Writes values into ranges, all or none.
    pub async fn write(
        &self,
        asking: &Asking<'_>,
        input: &str,
        ranges: Vec<(String, Vec<Vec<Value>>)>,
    ) -> Result<(), Failed> {
        let (hub, mut witness) = (self.hub(asking.token), Witness::default());
        let data = ranges
            .into_iter()
            .map(|(range, values)| ValueRange {
                range: Some(range),
                values: Some(values),
                ..ValueRange::default()
            })
            .collect();
        let request = BatchUpdateValuesRequest {
            data: Some(data),
            value_input_option: Some(input.to_owned()),
            ..BatchUpdateValuesRequest::default()
        };
        self.run(asking, &mut witness, async |witness| {
            let call = hub.spreadsheets().values_batch_update(request, asking.spreadsheet);
            call.add_scope(SCOPE).delegate(witness).doit().await
        })
        .await
        .map(|_| ())
    }

    /// Changes the spreadsheet itself: tabs, sizes, what is hidden.
    pub async fn change(&self, asking: &Asking<'_>, requests: Vec<Request>) -> Result<(), Failed> {
        let (hub, mut witness) = (self.hub(asking.token), Witness::default());
        let request = BatchUpdateSpreadsheetRequest {
            requests: Some(requests),
            ..BatchUpdateSpreadsheetRequest::default()
        };
        self.run(asking, &mut witness, async |witness| {
            let call = hub.spreadsheets().batch_update(request, asking.spreadsheet);
            call.add_scope(SCOPE).delegate(witness).doit().await
        })
        .await
        .map(|_| ())
    }
}

/// A request that makes a tab wider.
pub(super) fn more_columns(tab: i32, count: usize) -> Request {
    Request {
        append_dimension: Some(AppendDimensionRequest {
            dimension: Some("COLUMNS".to_owned()),
            length: i32::try_from(count).ok(),
            sheet_id: Some(tab),
        }),
        ..Request::default()
    }
}

fn unanswered(asking: &Asking<'_>, error: &SendError) -> Failed {
    if asking.place.writes && error.may_have_arrived() {
        let reason =
            format!("{}; the rows may be there, and are looked for before the next try", error.reason());
        return lost(asking, reason, "", true);
    }
    let refused = Refused { verdict: Verdict::plain(Outcome::Retry, error.reason()), remedy: Remedy::None };
    Failed::of(refused)
}

fn lost(asking: &Asking<'_>, reason: String, body: &str, under_way: bool) -> Failed {
    let outcome = if asking.place.writes { Outcome::Ambiguous } else { Outcome::Retry };
    let refused = Refused { verdict: Verdict::plain(outcome, reason), remedy: Remedy::None };
    Failed { body: kept(body), under_way, ..Failed::of(refused) }
}

fn kept(body: &str) -> String {
    body[..body.floor_char_boundary(KEPT_BYTES)].to_owned()
}

/// How long is left until a deadline.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
