//! What is to be done about subscriptions in time: closing those that are over, telling their URLs, and forgetting them.
//!
//! Every step is a change of the connection's record against its revision, so of several processes one takes it; a try to
//! tell a URL is noted before it is made. What a crash interrupts comes up again when it is due.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{Gateway, LiveConnection, ServiceError, was_told};
use crate::domain::connection::ConnectionState;
use crate::domain::history::{StateChange, Status};
use crate::domain::id::ConnectionId;
use crate::domain::subscription::{Farewell, Over, SUBSCRIPTION, next_upkeep};
use crate::egress::{HeaderMap, Method, Request, Url};
use crate::store::RecordId;

/// How many are looked after in one step.
const STEP: usize = 256;
/// How many are looked after at once.
const AT_ONCE: usize = 16;
/// How long a URL has to take note of the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often subscriptions are looked after where nothing asks for it before.
const EVERY: Duration = Duration::from_secs(10);

impl Gateway {
    /// Looks after subscriptions until it is dropped.
    pub async fn tend_hooks_forever(&self) {
        loop {
            while self.tend_hooks().await == STEP {}
            tokio::select! {
                () = self.hooks_changed.notified() => {}
                () = self.clock.sleep(EVERY) => {}
            }
        }
    }

    /// Does what is due about subscriptions now, for a bounded number of them; answers for how many it was done.
    pub async fn tend_hooks(&self) -> usize {
        let due = self.directory.due_hooks(self.clock.now(), STEP);
        futures::stream::iter(due)
            .map(|id| async move {
                let tended = self.tend_hook(id).await;
                if let Err(error) = &tended {
                    tracing::warn!(hook = %id, %error, "a subscription could not be looked after; trying again");
                }
                usize::from(tended.is_ok())
            })
            .buffer_unordered(AT_ONCE)
            .fold(0, |sum, done| async move { sum + done })
            .await
    }

    async fn tend_hook(&self, id: ConnectionId) -> Result<(), ServiceError> {
        let Some(live) = self.directory.connection(id) else { return Ok(()) };
        let Some(subscription) = &live.record.subscription else { return Ok(()) };
        let now = self.clock.now();
        if !matches!(live.record.state, ConnectionState::Closed { .. }) {
            return match self.directory.over(&live, now) {
                Some(over) => self.close_hook(&live, over).await,
                None => Ok(()),
            };
        }
        if next_upkeep(&live.record, true).is_none_or(|due| due > now) {
            return Ok(());
        }
        if let Some(farewell) = subscription.farewell {
            return self.bid_farewell(&live, farewell).await;
        }
        self.store.delete(RecordId::Connection(id)).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        Ok(())
    }

    /// Closes one that is over; its jobs are cancelled in the same step.
    async fn close_hook(&self, live: &LiveConnection, over: Over) -> Result<(), ServiceError> {
        let (now, reason) = (self.clock.now(), over.reason());
        let told = self.farewell_method(live).map(|_| Farewell::new(now));
        self.change(None, live.record.id, |record| {
            if matches!(record.state, ConnectionState::Closed { .. }) {
                return Ok(false);
            }
            record.enter(StateChange::by_gateway(Status::Closed, &reason, SUBSCRIPTION, now));
            if let Some(subscription) = &mut record.subscription {
                subscription.farewell = told;
            }
            Ok(true)
        })
        .await?;
        let (hook, tenant) = (live.record.id, &live.record.tenant);
        tracing::warn!(%hook, %tenant, reason, "a subscription was closed");
        self.hooks_changed.notify_one();
        Ok(())
    }

    fn farewell_method(&self, live: &LiveConnection) -> Option<Method> {
        let catalogue = self.catalogue();
        let spec = catalogue.connector(&live.record.connector)?;
        spec.subscription.as_ref()?.farewell.clone()
    }

    /// Tells the URL that the subscription ended: the reverse unsubscribe.
    async fn bid_farewell(&self, live: &LiveConnection, farewell: Farewell) -> Result<(), ServiceError> {
        let (id, now) = (live.record.id, self.clock.now());
        let next = farewell.after_try(now);
        let set = |left: Option<Farewell>, of: Option<Farewell>| {
            self.change(None, id, move |record| match &mut record.subscription {
                Some(subscription) if subscription.farewell == of => {
                    subscription.farewell = left;
                    Ok(true)
                }
                _ => Ok(false),
            })
        };
        // Whoever writes this makes the try. The last one is noted as if there were another, for the answer to end it.
        let claimed =
            next.unwrap_or(Farewell { tries: farewell.tries + 1, due: now.plus(FAREWELL_TIMEOUT * 2) });
        let mine = set(Some(claimed), Some(farewell)).await?;
        if mine.record.subscription.as_ref().and_then(|made| made.farewell) != Some(claimed) {
            return Ok(());
        }
        let Some((method, url)) = self.farewell_method(live).zip(live.record.target.url.parse::<Url>().ok())
        else {
            return set(None, Some(claimed)).await.map(drop);
        };
        let (url, headers, body) = (url.into(), HeaderMap::new(), Bytes::new());
        let request = Request { method, url, headers, body, timeout: FAREWELL_TIMEOUT };
        let said = match self.egress.send(request).await {
            Ok(answer) if was_told(answer.status) => Ok(answer.status),
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(error.reason()),
        };
        match said {
            Ok(status) => {
                tracing::info!(hook = %id, tenant = %live.record.tenant, status, "told the URL of a subscription that it ended");
                set(None, Some(claimed)).await.map(drop)
            }
            Err(reason) => {
                let last = next.is_none();
                tracing::warn!(hook = %id, tenant = %live.record.tenant, reason, last, "could not tell the URL of a subscription that it ended");
                if last { set(None, Some(claimed)).await.map(drop) } else { Ok(()) }
            }
        }
    }
}
