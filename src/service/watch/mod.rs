//! Alerts: what a person should know, as events of the gateway's own.
//!
//! # Theory of operation
//!
//! Whoever finds something worth telling (an attempt that failed, a sheet that is nearly full) leaves a *note* in memory;
//! one task makes alerts of notes. Notes of one connection and kind are one note, so a storm of failures is one entry in a
//! map. An attempt that succeeds on a connection that works leaves none, and pays a comparison.
//!
//! An alert is an event under the reserved family `gateway.*`, for the connections that name it: the tenant's own, and
//! those of the operator's tenant (`alerts.tenant`), which is told of every tenant. It goes the way of every event, and is
//! kept as one only where somebody wants it. Of each connection and kind there is at most one an hour over all processes:
//! whoever takes the [`hold`](crate::store::Store::hold) sends it. The embedded store forgets holds when its process ends.
//!
//! # Why nothing goes round in circles
//!
//! An alert never goes to the connection that it is about. A delivery of an alert that ends badly makes no
//! `gateway.dead_letter`; that its connection fails, is paused or recovers is told as of any other, which is at most
//! a handful of times for each of its runs of failures.
//!
//! # What a crash or an outage does
//!
//! A note that is not sent yet is lost with its process: the connection's record says what happened all the same. While the
//! store is away no alert can be kept; what was noted is sent when it is back, and `gateway.store.unhealthy` with it.

pub mod alert;
mod notice;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Gateway;
use super::ingest::{Incoming, written};
use crate::domain::id::{ConnectionId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Ingest, NewEvent, StoreError};
use alert::{Kind, Matter, Named, Occasion, SOURCE};
pub(in crate::service) use notice::Tried;

/// Of one connection and kind there is at most one alert in this time.
pub const EVERY: Duration = Duration::from_hours(1);
/// After an alert was found to be unwanted or sent already, its like is not looked at again for so long.
const QUIET: Duration = Duration::from_mins(1);
/// How long a level of a run of failures is remembered, at the least.
const RUN: Duration = Duration::from_hours(48);
/// Before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// An outage of the store that is shorter wakes nobody.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Notes and silences that are remembered; what is beyond is counted by the log alone.
const MOST: usize = 10_000;

/// Whom a note is about; `None` is the gateway itself.
type Subject = Option<ConnectionId>;

/// Something worth telling.
#[derive(Debug, Clone)]
struct Note {
    matter: Matter,
    occasion: Option<Occasion>,
    at: Timestamp,
    /// Takes the hold: the same again when the store failed in between.
    owner: u128,
}

/// An outage of the store that this process knows of.
#[derive(Debug, Clone)]
struct Outage {
    since: Timestamp,
    error: StoreError,
}

/// What this process has noted.
#[derive(Debug, Default)]
pub(super) struct Watch {
    notes: Mutex<BTreeMap<(Subject, Kind), Note>>,
    /// Until when nothing more is noted.
    quiet: Mutex<HashMap<(Subject, Kind), Timestamp>>,
    outage: Mutex<Option<Outage>>,
    rung: Notify,
}

impl Watch {
    fn is_quiet(&self, key: (Subject, Kind), now: Timestamp) -> bool {
        self.quiet.lock().get(&key).is_some_and(|until| *until > now)
    }

    fn be_quiet(&self, key: (Subject, Kind), now: Timestamp, span: Duration) {
        let mut quiet = self.quiet.lock();
        if quiet.len() >= MOST {
            quiet.retain(|_, until| *until > now);
        }
        if quiet.len() < MOST {
            quiet.insert(key, now.plus(span));
        }
    }

    /// Leaves a note; what is known of the same already gives way, but for its owner.
    fn put(&self, key: (Subject, Kind), mut note: Note) {
        let mut notes = self.notes.lock();
        match notes.get(&key) {
            Some(before) => note.owner = before.owner,
            None if notes.len() >= MOST => {
                tracing::warn!(kind = key.1.event_type(), "too much to tell at once; an alert is left out");
                return;
            }
            None => {}
        }
        notes.insert(key, note);
        self.rung.notify_one();
    }

    /// Puts a note back that could not be sent.
    fn put_back(&self, key: (Subject, Kind), note: Note) {
        let mut notes = self.notes.lock();
        let owner = note.owner;
        notes.entry(key).or_insert(note).owner = owner;
    }
}

impl Gateway {
    /// Notes what is worth telling of a connection, or of the gateway itself.
    pub(crate) fn note(&self, subject: Subject, matter: Matter, occasion: Option<Occasion>) {
        let (key, at) = ((subject, matter.kind()), self.clock.now());
        if !self.watch.is_quiet(key, at) {
            self.watch.put(key, Note { matter, occasion, at, owner: self.ids.next() });
        }
    }

    /// Notes that the store failed, for those who use it in the background and for those who take events in.
    pub fn store_failed(&self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Emptied) {
            let since = self.clock.now();
            self.watch.outage.lock().get_or_insert_with(|| Outage { since, error: error.clone() });
            self.watch.rung.notify_one();
        }
    }

    /// Makes alerts of what is noted, until it is dropped.
    pub async fn watch_forever(&self) {
        loop {
            match self.raise_alerts().await {
                Ok(()) => self.watch.rung.notified().await,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::debug!(%error, "alerts wait for the store");
                    self.clock.sleep(AGAIN).await;
                }
            }
        }
    }

    /// Makes alerts of what is noted now. After an error what could not be sent is noted still.
    pub async fn raise_alerts(&self) -> Result<(), StoreError> {
        self.look_at_store().await?;
        loop {
            let Some((key, note)) = self.watch.notes.lock().pop_first() else { return Ok(()) };
            match self.raise(key.0, &note).await {
                Ok(quiet) => self.watch.be_quiet(key, self.clock.now(), quiet),
                Err(error) => {
                    self.watch.put_back(key, note);
                    return Err(error);
                }
            }
        }
    }

    /// Whether an outage is over; then it is noted, if it was long or took something with it.
    async fn look_at_store(&self) -> Result<(), StoreError> {
        if self.watch.outage.lock().is_none() {
            return Ok(());
        }
        self.store.health().await?;
        let Some(Outage { since, error }) = self.watch.outage.lock().take() else { return Ok(()) };
        let lasted = self.clock.now().since(since);
        if lasted >= UNHEALTHY_AFTER || error == StoreError::Emptied {
            let error = error.to_string();
            tracing::error!(lasted_secs = lasted.as_secs(), error, "the store was away, and is back");
            self.note(None, Matter::StoreUnhealthy { since, lasted, error }, None);
        }
        Ok(())
    }

    /// Sends one alert, unless nobody wants it or its like was sent within the hour; answers for how long no other is.
    async fn raise(&self, subject: Subject, note: &Note) -> Result<Duration, StoreError> {
        let kind = note.matter.kind();
        let live = subject.and_then(|id| self.directory.connection(id));
        if subject.is_some() && live.is_none() {
            return Ok(QUIET);
        }
        let proven = live.as_ref().filter(|live| kind == Kind::Recovered && live.record.unproven);
        let named = live.as_ref().map(|live| Named {
            id: live.record.id,
            tenant: live.record.tenant.clone(),
            name: live.record.name.clone(),
            connector: live.record.connector.clone(),
        });
        let events = self.alert_events(note, named.as_ref());
        let mut quiet = QUIET;
        if !events.is_empty() && self.has_turn(subject, note).await? {
            self.store.ingest(Ingest { idempotency: None, events }).await?;
            self.metrics.alert(kind.event_type());
            quiet = EVERY;
            let (connection, tenant) =
                (subject.map(|id| id.to_string()), named.as_ref().map(|named| named.tenant.to_string()));
            tracing::warn!(kind = kind.event_type(), connection, tenant, "an alert was sent");
        }
        if let Some(live) = proven {
            // Whoever reads the record sees that it was proven; if it can't be written now, the next success tries again.
            if let Err(error) = self.prove(live.record.id).await {
                tracing::warn!(%error, connection = %live.record.id, "cannot note that a connection works again");
            }
        }
        Ok(quiet)
    }

    /// Notes in its record that a resumed connection has delivered.
    async fn prove(&self, id: ConnectionId) -> Result<(), super::ServiceError> {
        self.change(None, id, |record| Ok(std::mem::take(&mut record.unproven))).await.map(|_| ())
    }

    /// Takes the hour's turn over all processes; of a run of failures, each level's turn too.
    async fn has_turn(&self, subject: Subject, note: &Note) -> Result<bool, StoreError> {
        let who = subject.map_or_else(|| "gateway".to_owned(), |id| id.to_string());
        let hour = format!("alert/{who}/{}", note.matter.kind().event_type());
        if !self.store.hold(&hour, note.owner, EVERY).await? {
            return Ok(false);
        }
        let Matter::Failing { percent, since, policy, .. } = &note.matter else { return Ok(true) };
        let level = format!("alert/{who}/{}/{percent}", since.millis());
        let span = RUN.max(policy.pauses_after_span.saturating_mul(2));
        let is_first = self.store.hold(&level, note.owner, span).await?;
        if !is_first {
            self.store.let_go(&hour, note.owner).await?;
        }
        Ok(is_first)
    }

    /// The alert as an event of its tenant and of the operator's, as far as somebody there wants it.
    fn alert_events(&self, note: &Note, about: Option<&Named>) -> Vec<NewEvent> {
        let base = self.settings.public_url.as_deref().unwrap_or_default();
        let data = written(&alert::data(&note.matter, about, note.occasion.as_ref(), base));
        let operator = self.settings.alerts_tenant.as_ref();
        let own = about.map(|named| &named.tenant);
        let mut tenants: Vec<&TenantId> =
            own.into_iter().chain(operator.filter(|id| Some(*id) != own)).collect();
        tenants.retain(|id| self.directory.tenant(id).is_some());
        let event = |tenant: &TenantId| {
            let incoming = Incoming {
                // The same again when nobody knows whether it was written.
                id: Some(format!("alert_{:032x}", note.owner)),
                kind: note.matter.kind().event_type().to_owned(),
                time: Some(note.at.to_string()),
                tenant: None,
                source: Some(SOURCE.to_owned()),
                others: Vec::new(),
                data: data.clone(),
            };
            let mut event = self.complete(incoming, tenant.clone(), None);
            event.jobs.retain(|job| about.is_none_or(|named| named.id != job.connection));
            event
        };
        tenants.into_iter().map(event).filter(|event| !event.jobs.is_empty()).collect()
    }
}
