//! What a subscriber would receive: the newest events as their deliveries would be, by the same renderer; a made-up one where
//! there is none yet.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Gateway, ServiceError, below, find_event};
use crate::connector::render;
use crate::domain::event::{Event, EventPattern};
use crate::domain::fault::{Faults, did_you_mean};
use crate::domain::id::{ConnectionId, EventKey, TenantId};
use crate::mapping::Mapping;
use crate::service::live::event_context;
use crate::spec::{ConnectorSpec, EventSpec};

/// The most samples of one request.
pub const MAX_SAMPLES: usize = 100;

/// Of what samples are asked.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    /// The connector.
    pub connector: &'a str,
    /// The event as a subscriber names it.
    pub event: &'a str,
    /// A mapping by name, else the connector's own.
    pub mapping: Option<&'a str>,
    /// A subscription whose mapping is meant.
    pub hook: Option<ConnectionId>,
    /// How many at the most.
    pub limit: usize,
}

impl Gateway {
    /// A tenant's newest events of a type as their deliveries would be, newest first, each id once. Where there is none, the
    /// sample of the connector's files; nothing where these have none. What the mapping can't render is left out.
    pub async fn samples(&self, tenant: &TenantId, asked: &Sampled<'_>) -> Result<Vec<Bytes>, ServiceError> {
        let (spec, catalogue) = (self.subscribable(asked.connector)?, self.catalogue());
        let mut faults = Faults::default();
        let event = find_event(&spec, asked.event, &mut faults);
        let of_hook = asked.hook.map(|id| self.owned_hook(Some(tenant), id)).transpose()?;
        let working = of_hook.as_ref().map(|live| live.works.as_ref()).transpose();
        let working = working.map_err(|reason| ServiceError::State(reason.clone()))?;
        let named = asked.mapping.unwrap_or(&spec.mapping);
        let mapping = match working {
            Some(working) => Some(&working.mapping),
            None => catalogue.mapping(named),
        };
        match mapping {
            None => {
                let hint = did_you_mean(named, catalogue.mappings().keys().map(String::as_str));
                faults.at_field("mapping", format!("there is no mapping \"{named}\""), hint);
            }
            Some(mapping) => {
                if let Err(found) = spec.check_mapping(mapping) {
                    below("mapping", &found, &mut faults);
                }
            }
        }
        let (Some(event), Some(mapping), true) = (event, mapping, faults.is_empty()) else {
            return Err(faults.into());
        };
        let patterns: Vec<EventPattern> = event.types.iter().filter_map(|text| text.parse().ok()).collect();
        let newest = self.store.newest_events(tenant, &patterns, asked.limit.clamp(1, MAX_SAMPLES)).await?;
        let mut ids = HashSet::new();
        let rendered = newest.iter().filter_map(|event| rendered_body(&spec, mapping, event));
        let mut samples: Vec<Bytes> = rendered.filter(|body| ids.insert(id_of(body))).collect();
        if samples.is_empty() {
            let made_up = spec
                .events
                .iter()
                .find(|known| {
                    event
                        .types
                        .iter()
                        .any(|text| *text == known.pattern.to_string() || known.pattern.matches(text))
                })
                .and_then(|known| self.made_up(tenant, known));
            samples.extend(made_up.and_then(|event| rendered_body(&spec, mapping, &event)));
        }
        Ok(samples)
    }

    /// The event types of a connector with what a subscriber would receive of the sample event; `None` where there is none.
    pub fn event_types(
        &self,
        tenant: &TenantId,
        connector: &str,
    ) -> Result<Vec<(EventSpec, Option<Value>)>, ServiceError> {
        let (spec, catalogue) = (self.subscribable(connector)?, self.catalogue());
        let mapping = catalogue.mapping(&spec.mapping);
        let shown = |known: &EventSpec| {
            let event = self.made_up(tenant, known)?;
            let body = rendered_body(&spec, mapping?, &event)?;
            serde_json::from_slice(&body).ok()
        };
        Ok(spec.events.iter().map(|known| (known.clone(), shown(known))).collect())
    }

    /// The sample of the files as an event of this tenant.
    fn made_up(&self, tenant: &TenantId, known: &EventSpec) -> Option<Event> {
        let mut document = self.catalogue().samples().get(known.sample.as_ref()?)?.clone();
        document["tenant"] = Value::String(tenant.to_string());
        let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Event {
            key: EventKey::from_bits(0),
            id: text("id")?,
            kind: text("type")?,
            tenant: tenant.clone(),
            source: text("source"),
            received: self.clock.now(),
            document: document.into(),
        })
    }
}

/// What a delivery of the event would carry; `None` where the mapping fails or it would be no JSON.
fn rendered_body(spec: &ConnectorSpec, mapping: &Mapping, event: &Event) -> Option<Bytes> {
    let options: Map<String, Value> = spec
        .options
        .iter()
        .filter_map(|option| Some((option.name.clone(), Value::String(option.default.clone()?))))
        .collect();
    let context = event_context(event, "", "", 1);
    let body = render(spec, &Value::Object(options), mapping, &event.document, &context).ok()?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&body).ok()?;
    Some(body)
}

/// What tells a body from others: its id, else all of it.
fn id_of(body: &Bytes) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("id").map_or_else(|| String::from_utf8_lossy(body).into_owned(), Value::to_string)
}
