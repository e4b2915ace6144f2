//! What a replay would do: counted, and some of it shown as it would be sent now. Nothing is sent, and nothing changes.

use serde::Serialize;
use serde_json::Value;

use super::exchange::Outgoing;
use super::live::{LiveConnection, event_context};
use super::replay::{MAX_SAMPLES, Missed};
use super::tryout::Shown;
use super::{Gateway, ServiceError};
use crate::connector::Names;
use crate::domain::chore::{Chore, Replay, Which, Work};
use crate::domain::event::Event;
use crate::domain::id::{JobId, TenantId};
use crate::mapping::MappingError;
use crate::store::{Delivery, PlacedEvent, StoreError};

/// Deliveries of one page of a count, and its pages.
const COUNTED: usize = 500;
const COUNT_PAGES: usize = 20;

/// What sending a delivery again would come to.
#[derive(Debug, Serialize)]
pub struct Rehearsed {
    /// The delivery; `None` where there is none yet.
    pub id: Option<JobId>,
    /// Its event.
    pub event: String,
    /// Its event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why it stands where it stands; empty where there is no delivery yet.
    pub before: String,
    /// The request that would be sent now; `None` when it fails again.
    pub request: Option<Shown>,
    /// What the connection's mapping makes of it now.
    pub output: Option<Value>,
    /// Why it fails again.
    pub error: Option<Failing>,
}

/// Why a delivery would fail again.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Failing {
    /// The mapping can't be applied.
    Mapping(MappingError),
    /// Something else is in the way.
    Other {
        /// What.
        reason: String,
    },
}

/// What a replay would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// How many deliveries it would send.
    pub count: u64,
    /// Whether all were counted; else there are at least so many.
    pub complete: bool,
    /// What becomes of the first of them.
    pub sample: Vec<Rehearsed>,
}

impl Gateway {
    /// What a replay would do; nothing is sent, and nothing changes. At most `samples` are shown.
    pub async fn rehearse(
        &self,
        tenant: TenantId,
        replay: Replay,
        samples: usize,
    ) -> Result<Rehearsal, ServiceError> {
        let chore = self.new_chore(Some(tenant), Work::Replay(replay.clone()), "");
        self.count_replay(&chore, &replay, samples.min(MAX_SAMPLES)).await
    }

    /// Counts what a replay would send, as far as a bounded walk goes.
    pub(super) async fn count_replay(
        &self,
        chore: &Chore,
        replay: &Replay,
        samples: usize,
    ) -> Result<Rehearsal, ServiceError> {
        let mut found = Rehearsal { count: 0, complete: false, sample: Vec::new() };
        let mut cursor: Option<String> = None;
        for _ in 0..COUNT_PAGES {
            if replay.which == Which::Missed {
                let page = self.events_of(chore, replay, cursor.as_deref()).await?;
                for placed in &page.items {
                    let Some(missed) = self.missed(replay, placed) else { continue };
                    found.count += 1;
                    if found.sample.len() < samples {
                        found.sample.push(self.rehearse_missed(&missed, placed));
                    }
                }
                cursor = page.next.map(|next| next.to_string());
            } else {
                let page = self.deliveries_of(chore, replay, cursor.as_deref(), COUNTED).await?;
                for delivery in page.items {
                    found.count += 1;
                    if found.sample.len() < samples {
                        found.sample.push(self.rehearse_one(delivery).await?);
                    }
                }
                cursor = page.next.map(|next| next.to_string());
            }
            if cursor.is_none() {
                found.complete = true;
                break;
            }
        }
        Ok(found)
    }

    fn rehearse_missed(&self, missed: &Missed, placed: &PlacedEvent) -> Rehearsed {
        match missed {
            Missed::Cancelled(delivery) => {
                let live = self.directory.connection(delivery.job.connection);
                self.shown(live.as_deref(), &placed.event, Some(delivery))
            }
            Missed::Never(live) => self.shown(Some(live), &placed.event, None),
        }
    }

    async fn rehearse_one(&self, delivery: Delivery) -> Result<Rehearsed, StoreError> {
        let found = self.store.event(&delivery.job.tenant, &delivery.event_id).await?;
        let live = self.directory.connection(delivery.job.connection);
        let found = found.filter(|event| event.key == delivery.job.event && !event.is_erased());
        let shown = found.map(|event| self.shown(live.as_deref(), &event, Some(&delivery)));
        Ok(shown.unwrap_or_else(|| {
            let error = Some(Failing::other("its event can't be read any more"));
            Rehearsed { error, ..Rehearsed::of(&delivery.event_id, &delivery.kind, Some(&delivery)) }
        }))
    }

    /// What would be sent of an event now.
    fn shown(&self, live: Option<&LiveConnection>, event: &Event, delivery: Option<&Delivery>) -> Rehearsed {
        let mut shown = Rehearsed::of(&event.id, &event.kind, delivery);
        let Some(live) = live else {
            shown.error = Some(Failing::other("its connection was deleted"));
            return shown;
        };
        let working = match &live.works {
            Ok(working) => working,
            Err(reason) => {
                shown.error = Some(Failing::other(reason.as_str()));
                return shown;
            }
        };
        let connection = live.record.id.to_string();
        let job = delivery.map_or_else(String::new, |delivery| delivery.job.name.to_string());
        let tries = delivery.map_or(0, |delivery| delivery.job.tries);
        let context = event_context(event, &connection, &job, tries + 1);
        let names = Names { event_type: &event.kind, event_id: &event.id, job_id: &job };
        let outgoing = Outgoing { event: &event.document, context, names };
        let mapped = working.mapping.apply(event.document.tree(), &context).and_then(|output| {
            let endpoint = working.outlet.endpoint();
            let request = endpoint
                .map(|endpoint| Shown::ahead(endpoint, &working.mapping, &outgoing, self.clock.now()))
                .transpose()?;
            Ok((output, request))
        });
        match mapped {
            Ok((output, request)) => {
                shown.output = Some(Value::Object(output));
                shown.request = request;
            }
            Err(error) => shown.error = Some(Failing::Mapping(error)),
        }
        shown
    }
}

impl Rehearsed {
    fn of(event: &str, kind: &str, delivery: Option<&Delivery>) -> Self {
        Self {
            id: delivery.map(|delivery| delivery.job.id),
            event: event.to_owned(),
            kind: kind.to_owned(),
            before: delivery.map(|delivery| delivery.reason.clone()).unwrap_or_default(),
            request: None,
            output: None,
            error: None,
        }
    }
}

impl Failing {
    fn other(reason: &str) -> Self {
        Self::Other { reason: reason.to_owned() }
    }
}
