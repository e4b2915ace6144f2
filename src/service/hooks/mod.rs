//! Subscriptions: programs that ask for events by themselves, and leave again.
//!
//! # Theory of operation
//!
//! A subscription is a connection with a lane of its own, made by a key with the scope `subscribe`. It ends in one of these
//! ways, and whatever waits for it is cancelled in the same step:
//!
//! - the subscriber unsubscribes: the connection is deleted;
//! - its endpoint says that it is gone (410, or what else its connector says): the connection is closed when that answer
//!   is settled;
//! - its time is up, or the key that made it is revoked: from that moment no event makes a job for it and no job of it is
//!   tried, by the same rule in every process ([`Directory::over`](super::directory::Directory::over)). [`upkeep`] then
//!   closes it, tells its URL where the connector says how, and deletes it a week later.
//!
//! Not here: delivering, which knows no difference between a subscription and any other connection.

mod handshake;
mod read;
mod samples;
pub mod upkeep;

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::connections::{Saved, below};
use super::live::LiveConnection;
use super::{Gateway, ServiceError};
use crate::domain::account::ApiKey;
use crate::domain::event::{EventPattern, is_event_type};
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::history::{StateChange, Status};
use crate::domain::id::{ConnectionId, KeyId, TenantId};
use crate::domain::subscription::{SUBSCRIPTION, Subscription};
use crate::spec::{Again, ConnectorSpec, EventSpec};
pub use read::URL_KEYS;
use read::Wanted;
pub use samples::{MAX_SAMPLES, Sampled};

/// The connector of those who name none.
pub const ZAPIER: &str = "zapier";
/// The connector behind Fetchply's own subscription API.
pub const FETCHPLY: &str = "fetchply";

/// What a subscription came to.
#[derive(Debug)]
pub struct Subscribed {
    /// The connection, and its secret where one was made.
    pub saved: Saved,
    /// Whether it was there before.
    pub again: bool,
}

impl Gateway {
    /// A connector that can be subscribed to.
    pub fn subscribable(&self, id: &str) -> Result<Arc<ConnectorSpec>, Faults> {
        let catalogue = self.catalogue();
        let offered: Vec<&str> = catalogue
            .connectors()
            .values()
            .filter(|spec| spec.subscription.is_some())
            .map(|spec| spec.id.as_str())
            .collect();
        catalogue.connector(id).filter(|spec| spec.subscription.is_some()).cloned().ok_or_else(|| {
            let hint = did_you_mean(id, offered.iter().copied())
                .unwrap_or_else(|| format!("one of {}", offered.join(", ")));
            let mut faults = Faults::default();
            faults.at_field("connector", "can't be subscribed to", Some(hint));
            faults
        })
    }

    /// Subscribes out of JSON. `tenant` is the key's, or what the query names; `connector` is meant where the JSON names none.
    pub async fn subscribe(
        &self,
        tenant: Option<&TenantId>,
        key: KeyId,
        connector: &str,
        wanted: &Value,
    ) -> Result<Subscribed, ServiceError> {
        let mut faults = Faults::default();
        let wanted = Wanted::read(wanted, self.clock.now(), &mut faults);
        let spec = self.subscribable(wanted.connector.as_deref().unwrap_or(connector));
        let spec = spec.map_err(|found| faults.extend(found)).ok();
        let named = spec.as_ref().zip(wanted.event.as_deref());
        let event = named.and_then(|(spec, event)| find_event(spec, event, &mut faults));
        // Told with all other faults: what can't be read is no reason to keep quiet about the URL.
        let connection = wanted.connection(spec.as_deref(), event.as_ref());
        let tenant = self.tenant_of_new(tenant, wanted.tenant.as_deref(), &mut faults);
        let mut found = Faults::default();
        let new = self.read_new(&connection, &mut found);
        wanted.rename(&found, &mut faults);
        let (Some(tenant), Some(spec), Some(event), Some(checked), true) =
            (tenant, spec, event, new.checked, faults.is_empty())
        else {
            return Err(faults.into());
        };
        let url = checked.url.clone();
        let subscription = Subscription { key, event: event.named, expires: wanted.expires, farewell: None };
        let same = spec.subscription.as_ref().is_some_and(|how| how.again == Again::Same);
        // One at a time, so that two of the same subscriber's requests don't both find nothing.
        let _turn = if same { Some(self.subscribing.lock().await) } else { None };
        if same && let Some(there) = self.same_hook(&tenant, &url, &subscription.event, &spec.id) {
            let live = self.activate(there.record.id, &subscription).await?;
            return Ok(Subscribed { saved: Saved { live, secret: None }, again: true });
        }
        if wanted.handshake {
            self.shake_hands(&url, wanted.url_key).await?;
        }
        let saved = match self.make(tenant, new.secret, checked, Some(subscription)).await {
            Err(ServiceError::Invalid(found)) => {
                let mut faults = Faults::default();
                wanted.rename(&found, &mut faults);
                return Err(faults.into());
            }
            other => other?,
        };
        let record = &saved.live.record;
        tracing::info!(hook = %record.id, tenant = %record.tenant, connector = record.connector, %key, "subscribed");
        Ok(Subscribed { saved, again: false })
    }

    fn same_hook(
        &self,
        tenant: &TenantId,
        url: &str,
        event: &str,
        connector: &str,
    ) -> Option<Arc<LiveConnection>> {
        self.directory.hooks_at(tenant, url).into_iter().find(|live| {
            let made = live.record.subscription.as_ref();
            live.record.connector == connector && made.is_some_and(|made| made.event == event)
        })
    }

    /// Lets a subscription deliver again, with what the new request says of its key and its end.
    async fn activate(
        &self,
        id: ConnectionId,
        wanted: &Subscription,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let at = self.clock.now();
        self.change(None, id, |record| {
            let same = record.state.is_active() && record.subscription.as_ref() == Some(wanted);
            if !record.state.is_active() {
                let reason = "subscribed to once more";
                record.enter(StateChange::by_gateway(Status::Active, reason, SUBSCRIPTION, at));
            }
            record.subscription = Some(wanted.clone());
            Ok(!same)
        })
        .await
    }

    /// Ends a subscription; whether there was one makes no difference. A connection that people made is none.
    pub async fn unsubscribe(&self, tenant: Option<&TenantId>, id: ConnectionId) -> Result<(), ServiceError> {
        let Ok(live) = self.owned_connection(tenant, id) else { return Ok(()) };
        if live.record.subscription.is_none() {
            return Err(ServiceError::Missing("hook"));
        }
        self.end_hook(&live).await
    }

    /// Ends a tenant's subscriptions of one event for one URL, however many there are.
    pub async fn unsubscribe_from(
        &self,
        tenant: &TenantId,
        connector: &str,
        wanted: &Value,
    ) -> Result<(), ServiceError> {
        let mut faults = Faults::default();
        let wanted = Wanted::read(wanted, self.clock.now(), &mut faults);
        faults.into_result(())?;
        let url = wanted.url.as_deref().unwrap_or_default();
        // As it was normalised when it was saved; what is no URL was never saved.
        let Ok(url) = self.addresses.check_url(url) else { return Ok(()) };
        while let Some(live) =
            self.same_hook(tenant, url.as_str(), wanted.event.as_deref().unwrap_or_default(), connector)
        {
            self.end_hook(&live).await?;
        }
        Ok(())
    }

    async fn end_hook(&self, live: &LiveConnection) -> Result<(), ServiceError> {
        match self.delete_connection(None, live.record.id).await {
            Ok(()) => {
                tracing::info!(hook = %live.record.id, tenant = %live.record.tenant, "unsubscribed");
                Ok(())
            }
            Err(ServiceError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A subscription of a tenant, or of anyone for the operator (`None`).
    pub fn owned_hook(
        &self,
        tenant: Option<&TenantId>,
        id: ConnectionId,
    ) -> Result<Arc<LiveConnection>, ServiceError> {
        let live = self.owned_connection(tenant, id).ok();
        live.filter(|live| live.record.subscription.is_some()).ok_or(ServiceError::Missing("hook"))
    }

    /// Whom a key belongs to, as a person would say it; never the key.
    pub fn label(&self, key: &ApiKey) -> String {
        let tenant = key
            .tenant
            .as_ref()
            .map(|id| self.directory.tenant(id).map_or_else(|| id.to_string(), |tenant| tenant.name.clone()));
        format!("{} ({})", tenant.as_deref().unwrap_or("Operator"), key.name)
    }
}

/// An event that can be subscribed to, as a subscriber named it.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    named: String,
    /// The types that stand for it.
    types: Vec<String>,
}

/// The event of a connector by its type or by what the system calls it.
fn find_event(spec: &ConnectorSpec, named: &str, faults: &mut Faults) -> Option<Event> {
    let event = |types: Vec<String>| Some(Event { named: named.to_owned(), types });
    let known = |event: &&EventSpec| {
        event.alias.as_deref() == Some(named)
            || event.pattern.to_string() == named
            || (is_event_type(named) && event.pattern.matches(named))
    };
    if let Some(found) = spec.events.iter().find(known) {
        let pattern = found.pattern.to_string();
        return event(match &found.alias {
            // A platform may call its events as the system does.
            Some(alias) if *alias != pattern => vec![pattern, alias.clone()],
            _ if pattern == named => vec![pattern],
            _ => vec![named.to_owned()],
        });
    }
    if spec.events.is_empty() && named.parse::<EventPattern>().is_ok() {
        return event(vec![named.to_owned()]);
    }
    let all: Vec<String> = spec
        .events
        .iter()
        .map(|event| event.alias.clone().unwrap_or_else(|| event.pattern.to_string()))
        .collect();
    let near = did_you_mean(named, all.iter().map(String::as_str));
    let list = format!("known here: {}", all.join(", "));
    let hint = near.map_or_else(|| list.clone(), |near| format!("{near} {list}"));
    let shown: String = named.chars().take(64).flat_map(char::escape_debug).collect();
    faults.at_field("event", format!("there is no event \"{shown}\""), Some(hint));
    None
}

/// Whether an answer means that the other side was told, or that nobody is there to be told.
fn was_told(status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| {
        status.is_success() || [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status)
    })
}

#[cfg(test)]
mod tests;
