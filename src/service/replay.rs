//! Sends deliveries again that ended otherwise than they should have: one, or as a chore all that a filter names.
//!
//! A replay walks from the newest delivery to older ones. It takes what had ended when it was asked for, and each job once:
//! the store notes which replay put a job back, so neither a process that dies between a page and its cursor nor a second
//! replay sends one twice. What a connection missed is walked by event, oldest first: cancelled deliveries are put back, and
//! an event that the connection wants now and has no delivery of gets one.

use std::time::Duration;

use futures::future::join_all;

use super::chores::Ended;
use super::live::LiveConnection;
use super::{Gateway, ServiceError};
use crate::domain::chore::{Chore, ChoreState, Replay, Which, Work};
use crate::domain::id::TenantId;
use crate::domain::job::JobState;
use crate::store::{
    Added, Cursor, Delivery, DeliveryPage, DeliveryQuery, ERASED, EventPage, EventWalk, NewJob, PlacedEvent,
    Retried, StoreError,
};

/// Deliveries a second where nobody says how many.
pub const PER_SECOND: u32 = 100;
/// Deliveries a second at the most.
pub const MAX_PER_SECOND: u32 = 10_000;
/// Deliveries that a dry run shows at the most.
pub const MAX_SAMPLES: usize = 50;
/// Deliveries, or events, of one page.
const PAGE: usize = 100;
/// Pages of one turn at the most.
const PAGES: usize = 100;

impl Gateway {
    /// Sends one delivery again. One that failed by its mapping is rendered by the connection's mapping of now.
    pub async fn retry_delivery(&self, delivery: &Delivery) -> Result<Retried, StoreError> {
        self.store.retry(delivery.job.id, self.mended(delivery)).await
    }

    /// The mapping that replaces the one by which a delivery failed.
    fn mended(&self, delivery: &Delivery) -> Option<crate::domain::id::MappingVersion> {
        let failed = delivery.state == JobState::MappingFailed;
        failed
            .then(|| self.directory.connection(delivery.job.connection))
            .flatten()
            .map(|live| live.mapping_version)
    }

    /// Begins a replay of a tenant's deliveries.
    pub async fn make_replay(
        &self,
        tenant: TenantId,
        replay: Replay,
        by: &str,
    ) -> Result<Chore, ServiceError> {
        if let Some(id) = replay.connection
            && let Some(live) = self.directory.connection(id)
            && !live.record.state.takes_jobs()
        {
            return Err(ServiceError::State(CLOSED.to_owned()));
        }
        let mut chore = self.new_chore(Some(tenant), Work::Replay(replay.clone()), by);
        let counted = self.count_replay(&chore, &replay, 0).await?;
        chore.progress.expected = counted.complete.then_some(counted.count);
        self.make_chore(chore).await
    }

    pub(super) async fn replay_turn(
        &self,
        chore: &mut Chore,
        replay: &Replay,
    ) -> Result<Ended, ServiceError> {
        if let Some(id) = replay.connection {
            match self.directory.connection(id) {
                None => return Ok(Some((ChoreState::Failed, "its connection was deleted".to_owned()))),
                Some(live) if !live.record.state.takes_jobs() => {
                    return Ok(Some((ChoreState::Failed, CLOSED.to_owned())));
                }
                Some(_) => {}
            }
        }
        let mut room = replay.per_second as usize;
        for _ in 0..PAGES {
            if room == 0 || !self.goes_on(chore.id) {
                return Ok(None);
            }
            let cursor = chore.progress.cursor.clone();
            let next = if replay.which == Which::Missed {
                let mut page = self.events_of(chore, replay, cursor.as_deref()).await?;
                if page.items.len() > room {
                    page.items.truncate(room);
                    page.next = page.items.last().map(|last| last.place.clone());
                }
                for placed in &page.items {
                    chore.progress.looked_at += 1;
                    if let Some(missed) = self.missed(replay, placed) {
                        room -= 1;
                        let sent = self.send_missed(chore, replay, &missed, placed).await?;
                        count_sent(chore, sent);
                    }
                }
                page.next.map(|next| next.to_string())
            } else {
                let page = self.deliveries_of(chore, replay, cursor.as_deref(), PAGE.min(room)).await?;
                room -= page.items.len();
                // The oldest first: asked for together, they are written together, in this order.
                let sending = page.items.iter().rev().map(|delivery| {
                    self.store.replay(delivery.job.id, self.mended(delivery), chore.id, replay.again)
                });
                for sent in join_all(sending).await {
                    chore.progress.looked_at += 1;
                    let queued = matches!(sent?, Retried::Queued);
                    count_sent(chore, queued);
                }
                page.next.map(|next| next.to_string())
            };
            chore.progress.cursor = next;
            if chore.progress.cursor.is_none() {
                let reason = match chore.progress.skipped {
                    0 => String::new(),
                    count => format!(
                        "{count} were left as they are: sent again before, under way, erased, or of a closed connection"
                    ),
                };
                return Ok(Some((ChoreState::Done, reason)));
            }
        }
        Ok(None)
    }

    /// A page of the deliveries that a replay names, and that had ended when it was asked for.
    pub(super) async fn deliveries_of(
        &self,
        chore: &Chore,
        replay: &Replay,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DeliveryPage, ServiceError> {
        let Which::State(state) = replay.which else { return Ok(DeliveryPage::default()) };
        let query = DeliveryQuery {
            tenant: chore.tenant.clone(),
            connection: replay.connection,
            state: Some(state),
            kind: replay.kind.clone(),
            since: replay.since,
            until: replay.until,
            before: cursor.and_then(|cursor| cursor.parse().ok()),
            limit,
            ..DeliveryQuery::default()
        };
        let mut page = self.store.deliveries(query).await?;
        page.items.retain(|delivery| {
            delivery.finished.is_none_or(|finished| finished <= chore.created) && delivery.reason != ERASED
        });
        Ok(page)
    }

    pub(super) async fn events_of(
        &self,
        chore: &Chore,
        replay: &Replay,
        cursor: Option<&str>,
    ) -> Result<EventPage, ServiceError> {
        let Some(tenant) = chore.tenant.clone() else { return Ok(EventPage::default()) };
        let asked = chore.created.plus(Duration::from_millis(1));
        let walk = EventWalk {
            tenant,
            after: cursor.and_then(|cursor| cursor.parse::<Cursor>().ok()),
            since: replay.since,
            until: replay.until.map_or(asked, |until| until.min(asked)),
            limit: PAGE,
        };
        Ok(self.store.events(walk).await?)
    }

    /// What a connection missed of an event; `None` where that is nothing.
    pub(super) fn missed(&self, replay: &Replay, placed: &PlacedEvent) -> Option<Missed> {
        let live = self.directory.connection(replay.connection?)?;
        let event = &placed.event;
        if event.is_erased() || replay.kind.as_ref().is_some_and(|kind| *kind != event.kind) {
            return None;
        }
        let own = placed.jobs.iter().filter(|delivery| delivery.job.connection == live.record.id);
        match own.max_by_key(|delivery| delivery.job.id) {
            Some(delivery) if delivery.state == JobState::Cancelled => {
                Some(Missed::Cancelled(Box::new(delivery.clone())))
            }
            Some(_) => None,
            None => (live.wants_type(&event.kind) && live.passes(event)).then_some(Missed::Never(live)),
        }
    }

    async fn send_missed(
        &self,
        chore: &Chore,
        replay: &Replay,
        missed: &Missed,
        placed: &PlacedEvent,
    ) -> Result<bool, ServiceError> {
        Ok(match missed {
            Missed::Cancelled(delivery) => {
                let sent = self.store.replay(delivery.job.id, None, chore.id, replay.again).await?;
                sent == Retried::Queued
            }
            Missed::Never(live) => {
                let (connection, mapping) = (live.record.id, live.mapping_version);
                let job = NewJob { connection, mapping, triggered: false };
                self.store.add_job(placed, job).await? == Added::Made
            }
        })
    }
}

/// Why nothing of a closed connection is sent.
const CLOSED: &str = "its connection is closed: resume it first, then replay";

/// What a connection missed.
pub(super) enum Missed {
    /// Its delivery was cancelled.
    Cancelled(Box<Delivery>),
    /// It has none.
    Never(std::sync::Arc<LiveConnection>),
}

fn count_sent(chore: &mut Chore, sent: bool) {
    let count = if sent { &mut chore.progress.done } else { &mut chore.progress.skipped };
    *count += 1;
}
