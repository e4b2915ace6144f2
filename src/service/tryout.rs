//! Tries a connection now: one marked event, rendered, signed and sent as a delivery would be, but kept nowhere; and shows
//! a request ahead of its sending.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::exchange::{Outgoing, Sends, Wire, exchange};
use super::ingest::{Incoming, written};
use super::live::{Working, event_context};
use super::sheets::{self, SheetReport};
use super::turn::Turns;
use super::{Gateway, ServiceError};
use crate::connector::google_sheets::Sheet;
use crate::connector::{Endpoint, HIDDEN, Names, Outlet, Progress, Token, Verdict, attempt};
use crate::domain::event::{Event, EventPattern};
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::domain::job::Attempt;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::egress::{Answer, HeaderMap, HeaderName, HeaderValue, Request, SendError};
use crate::mapping::{Context, Mapping, MappingError};

/// The header that marks a test's request, whatever the mapping makes of the event.
pub const TEST_HEADER: &str = "x-patchbay-test";
/// The type of a test event where the connection's types have no sample.
pub const TEST_TYPE: &str = "patchbay.test";
/// How many tests may be under way at once in a process.
pub const MAX_TRYOUTS: usize = 32;

/// What a test came to.
#[derive(Debug)]
pub struct Tryout {
    /// The event that was sent.
    pub event: Value,
    /// What was sent, the last request of a chain; `None` when nothing was.
    pub request: Option<Shown>,
    /// The try, with the answer.
    pub attempt: Attempt,
    /// What was found of a sheet; `None` for other kinds.
    pub sheet: Option<SheetReport>,
}

/// A request as a person may see it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Headers; those that carry a secret or a signature are hidden.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Shown {
    fn of(endpoint: &Endpoint, request: &Request) -> Self {
        Self {
            method: request.method.to_string(),
            url: endpoint.shown_url(&request.url),
            headers: shown_headers(&request.headers),
            body: String::from_utf8_lossy(&request.body).into_owned(),
        }
    }

    /// The request that would be sent for an event by this mapping, the first one of a chain. No access token is fetched
    /// for it.
    pub fn ahead(
        endpoint: &Endpoint,
        mapping: &Mapping,
        outgoing: &Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Self, MappingError> {
        let (event, context) = (outgoing.event, &outgoing.context);
        let rendered = endpoint.render(mapping, event, context)?;
        let body = match endpoint.calls() {
            1 => rendered,
            _ => endpoint.body(0, &Progress::from_bytes(&rendered).unwrap_or_default(), event, context)?,
        };
        let token = endpoint.client().map(|_| Token { text: Secret::new(HIDDEN), renew_at: now });
        Ok(Self::of(endpoint, &endpoint.call(0, &outgoing.names, body, token.as_ref(), now)))
    }
}

impl Gateway {
    /// Sends a test event over a connection, paused or not, and tells what came of it.
    pub async fn try_connection(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Tryout, ServiceError> {
        let live = self.owned_connection(tenant, id)?;
        let working = live.works.as_ref().map_err(|reason| ServiceError::State(reason.clone()))?;
        let Ok(_turn) = self.trying.try_acquire() else {
            return Err(ServiceError::Busy("too many tests are under way; try again soon".to_owned()));
        };
        Turns::take_now(working.turns.as_ref(), self.store.as_ref()).await?;
        let event = self.test_event(&live.record.tenant, &live.record.events);
        let job = JobId::from_bits(self.ids.next()).to_string();
        let connection = id.to_string();
        let at = self.clock.now();
        let context = event_context(&event, &connection, &job, 1);
        let endpoint = match &working.outlet {
            Outlet::Http(endpoint) => endpoint,
            Outlet::GoogleSheets(sheet) => return Ok(self.try_sheet(sheet, working, &event, &context).await),
        };
        let body = match endpoint.render(&working.mapping, &event.document, &context) {
            Ok(body) => body,
            Err(error) => {
                let verdict = Verdict::mapping_failed(&error);
                let attempt = attempt(1, at, Duration::ZERO, None, &verdict);
                return Ok(Tryout { event: event.document.into_tree(), request: None, attempt, sheet: None });
            }
        };
        let names = Names { event_type: &event.kind, event_id: &event.id, job_id: &job };
        let outgoing = Outgoing { event: &event.document, context, names };
        let marked = Marked {
            wire: Wire { gateway: self, connection: id, traceparent: None },
            endpoint,
            shown: Mutex::default(),
        };
        let tried = exchange(&marked, &self.clock, endpoint, &working.tokens, &outgoing, body).await;
        let elapsed = self.clock.now().since(at);
        let attempt = attempt(1, at, elapsed, tried.answer.as_ref(), &tried.verdict);
        Ok(Tryout {
            event: event.document.into_tree(),
            request: marked.shown.into_inner(),
            attempt,
            sheet: None,
        })
    }

    /// Looks at a sheet, writes nothing, and shows the row that the event would become.
    async fn try_sheet(
        &self,
        sheet: &Sheet,
        working: &Working,
        event: &Event,
        context: &Context<'_>,
    ) -> Tryout {
        let at = self.clock.now();
        let (report, verdict) = match sheet.render(&working.mapping, event.document.tree(), context) {
            Ok(row) => {
                let (report, verdict) = sheets::check(self, sheet, &working.mapping, &row).await;
                (Some(report), verdict)
            }
            Err(error) => (None, Verdict::mapping_failed(&error)),
        };
        let attempt = attempt(1, at, self.clock.now().since(at), None, &verdict);
        Tryout { event: event.document.tree().clone(), request: None, attempt, sheet: report }
    }

    /// A sample of the first type that the connection wants and that has one, else a plain one.
    fn test_event(&self, tenant: &TenantId, wanted: &[EventPattern]) -> Event {
        let catalogue = self.catalogue();
        let samples = catalogue.samples();
        let sample = wanted
            .iter()
            .find_map(|pattern| samples.iter().find(|(kind, _)| pattern.matches(kind)))
            .and_then(|(kind, sample)| Some((kind.clone(), sample.get("source"), sample.get("data")?)));
        let exact = wanted.iter().find_map(|pattern| match pattern {
            EventPattern::Exact(kind) => Some(kind.clone()),
            _ => None,
        });
        let (kind, source, data) = match sample {
            Some((kind, source, data)) => {
                (kind, source.and_then(Value::as_str).map(str::to_owned), data.clone())
            }
            None => (
                exact.unwrap_or_else(|| TEST_TYPE.to_owned()),
                None,
                json!({ "message": "A test event, sent by hand from the gateway" }),
            ),
        };
        let incoming = Incoming {
            id: None,
            kind,
            time: None,
            tenant: None,
            source,
            others: vec![("test".to_owned(), written(&true))],
            data: written(&data),
        };
        self.unstored_event(incoming, tenant.clone())
    }
}

/// Marks each request as a test's, and keeps what a person may see of the last one.
struct Marked<'a> {
    wire: Wire<'a>,
    endpoint: &'a Endpoint,
    shown: Mutex<Option<Shown>>,
}

impl Sends for Marked<'_> {
    async fn send(&self, mut request: Request) -> Result<Answer, SendError> {
        request.headers.insert(HeaderName::from_static(TEST_HEADER), HeaderValue::from_static("true"));
        // A request for an access token is all secrets.
        if self.endpoint.client().is_none_or(|client| *client.token_url() != *request.url) {
            *self.shown.lock() = Some(Shown::of(self.endpoint, &request));
        }
        self.wire.send(request).await
    }

    async fn keep_refresh_token(&self, used: &Secret, new: &Secret) -> bool {
        self.wire.keep_refresh_token(used, new).await
    }

    async fn newer_refresh_token(&self, used: &Secret) -> Option<Secret> {
        self.wire.newer_refresh_token(used).await
    }
}

fn shown_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let text = if value.is_sensitive() { HIDDEN } else { value.to_str().unwrap_or(HIDDEN) };
            (name.to_string(), text.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::connector::{Given, check_settings};
    use crate::spec::Catalogue;

    #[test]
    fn of_a_chain_the_first_request_is_shown_without_a_token() {
        let catalogue = Catalogue::load(None).unwrap();
        let connector = catalogue.connector("pipedrive").unwrap();
        let credentials: BTreeMap<String, Secret> = ["client_id", "client_secret", "refresh_token"]
            .into_iter()
            .map(|name| (name.to_owned(), Secret::new("very-secret")))
            .collect();
        let given = Given { url: "", options: &BTreeMap::new(), credentials: &credentials };
        let settings = check_settings(connector, &given).unwrap();
        let (headers, timeout) = (HeaderMap::new(), Duration::from_secs(1));
        let endpoint =
            Endpoint::compile(Arc::clone(connector), "", settings, &headers, Vec::new(), timeout).unwrap();
        let sample = &catalogue.samples()["lead.captured"].clone().into();
        let context = Context {
            event_id: "e1",
            event_type: "lead.captured",
            event_time: "2026-05-03T14:22:08Z",
            source: None,
            tenant_id: "acme",
            connection_id: "con_1",
            job_id: "job_1",
            attempt: 1,
            now: Timestamp::default(),
        };
        let names = Names { event_type: "lead.captured", event_id: "e1", job_id: "job_1" };
        let outgoing = Outgoing { event: sample, context, names };
        let mapping = catalogue.mapping("pipedrive").unwrap();
        let shown = Shown::ahead(&endpoint, mapping, &outgoing, Timestamp::default()).unwrap();
        assert_eq!(shown.url, "https://api.pipedrive.com/api/v2/persons");
        assert!(shown.headers.contains(&("authorization".to_owned(), HIDDEN.to_owned())), "{shown:?}");
        let body: Value = serde_json::from_str(&shown.body).unwrap();
        assert_eq!((&body["name"], &body["answers"]), (&json!("Jane Smith"), &Value::Null), "{body}");
        assert!(!format!("{shown:?}").contains("very-secret"));
    }
}
