//! Sends deliveries again that ended otherwise than they should have, a bounded page at a time.
//!
//! A page names the deliveries of one connection in one state, newest first, below a cursor. Those sent again leave the
//! state; one that fails anew comes back to it above the cursor, so a walk ends however often they fail.

use serde::Serialize;
use serde_json::Value;

use super::exchange::Outgoing;
use super::live::{LiveConnection, event_context};
use super::tryout::Shown;
use super::{Gateway, ServiceError};
use crate::connector::Names;
use crate::domain::id::JobId;
use crate::domain::job::JobState;
use crate::mapping::MappingError;
use crate::store::{Delivery, DeliveryQuery, Retried, StoreError};

/// Deliveries of one page.
pub const MAX_REPLAYED: usize = 200;

/// Which deliveries of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// The state that they are in.
    pub state: JobState,
    /// Older than this one.
    pub before: Option<JobId>,
    /// How many at the most.
    pub limit: usize,
}

/// A page that was sent again, or is only looked at.
#[derive(Debug)]
pub struct Replayed<T> {
    /// What became of each, newest first.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when there is no more.
    pub next: Option<JobId>,
}

/// One delivery that was to be sent again.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// The delivery.
    pub id: JobId,
    /// Its event.
    pub event: String,
    /// Whether it stands in its lane again; not when someone else was faster.
    pub queued: bool,
}

/// What sending a delivery again would come to.
#[derive(Debug, Serialize)]
pub struct Rehearsed {
    /// The delivery.
    pub id: JobId,
    /// Its event.
    pub event: String,
    /// Its event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why it stands where it stands.
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

impl Gateway {
    /// Sends one delivery again. One that failed by its mapping is rendered by the connection's mapping of now.
    pub async fn retry_delivery(&self, delivery: &Delivery) -> Result<Retried, StoreError> {
        let mapping = match delivery.state {
            JobState::MappingFailed => {
                self.directory.connection(delivery.job.connection).map(|live| live.mapping_version)
            }
            _ => None,
        };
        self.store.retry(delivery.job.id, mapping).await
    }

    /// Sends a page of a connection's deliveries again, the oldest of the page first.
    pub async fn replay_deliveries(
        &self,
        live: &LiveConnection,
        replay: Replay,
    ) -> Result<Replayed<Sent>, ServiceError> {
        let (page, next) = self.page(live, replay).await?;
        let mut items = Vec::with_capacity(page.len());
        for delivery in page.iter().rev() {
            let queued = match self.retry_delivery(delivery).await? {
                Retried::Queued => true,
                Retried::Open | Retried::Missing => false,
                Retried::Closed => {
                    let reason = "its connection is closed: resume it first, then replay".to_owned();
                    return Err(ServiceError::State(reason));
                }
            };
            items.push(Sent { id: delivery.job.id, event: delivery.event_id.clone(), queued });
        }
        items.reverse();
        Ok(Replayed { items, next })
    }

    /// What a replay of a page would come to; nothing is sent, and nothing changes.
    pub async fn rehearse_deliveries(
        &self,
        live: &LiveConnection,
        replay: Replay,
    ) -> Result<Replayed<Rehearsed>, ServiceError> {
        let (page, next) = self.page(live, replay).await?;
        let mut items = Vec::with_capacity(page.len());
        for delivery in page {
            items.push(self.rehearse_one(live, delivery).await?);
        }
        Ok(Replayed { items, next })
    }

    async fn rehearse_one(&self, live: &LiveConnection, delivery: Delivery) -> Result<Rehearsed, StoreError> {
        let mut shown = Rehearsed {
            id: delivery.job.id,
            event: delivery.event_id.clone(),
            kind: delivery.kind,
            before: delivery.reason,
            request: None,
            output: None,
            error: None,
        };
        let other = |reason: String| Some(Failing::Other { reason });
        let found = self.store.event(&delivery.job.tenant, &delivery.event_id).await?;
        let Some(event) = found.filter(|event| event.key == delivery.job.event) else {
            shown.error = other("its event can't be read any more".to_owned());
            return Ok(shown);
        };
        let working = match &live.works {
            Ok(working) => working,
            Err(reason) => {
                shown.error = other(reason.clone());
                return Ok(shown);
            }
        };
        let (connection, job) = (live.record.id.to_string(), delivery.job.name.to_string());
        let context = event_context(&event, &connection, &job, delivery.job.tries + 1);
        let names = Names { event_type: &event.kind, event_id: &event.id, job_id: &job };
        let outgoing = Outgoing { event: &event.document, context, names };
        let mapped = working.mapping.apply(&event.document, &context).and_then(|output| {
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
        Ok(shown)
    }

    async fn page(
        &self,
        live: &LiveConnection,
        replay: Replay,
    ) -> Result<(Vec<Delivery>, Option<JobId>), StoreError> {
        let limit = replay.limit.clamp(1, MAX_REPLAYED);
        let query = DeliveryQuery {
            tenant: Some(live.record.tenant.clone()),
            connection: Some(live.record.id),
            state: Some(replay.state),
            before: replay.before,
            limit: limit + 1,
            ..DeliveryQuery::default()
        };
        let mut page = self.store.deliveries(query).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|last| last.job.id);
        Ok((page, next))
    }
}
