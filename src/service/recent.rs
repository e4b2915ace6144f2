//! What a tenant's newest events tell of a connection before it delivers: which of them its filter lets pass, and which of
//! its paths none of them has.

use serde::Serialize;
use serde_json::Value;

use super::Gateway;
use super::live::{LiveConnection, event_context};
use crate::domain::event::{Event, EventPattern};
use crate::domain::fault::{Fault, Faults};
use crate::domain::id::TenantId;
use crate::mapping::{Condition, Mapping, check_filter, check_paths};
use crate::store::StoreError;

/// Events that are looked at.
pub const LOOKED_AT: usize = 100;
/// Ids of matching events that are named when a connection is saved.
const NAMED: usize = 10;
/// Who speaks of paths that no event has.
const WITNESS: &str = "no recent event";

/// What a filter makes of recent events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilterPreview {
    /// How many events of the wanted types there were to look at.
    pub looked_at: usize,
    /// How many of them pass.
    pub matched: usize,
    /// Each, newest first.
    pub events: Vec<Judged>,
}

/// One event before a filter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Its public id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub time: String,
    /// Whether it passes.
    pub matched: bool,
    /// Why not: the first test in the way, and what the event has there.
    pub why_not: Option<String>,
}

/// What recent events tell of a saved connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlook {
    /// How many recent events of the wanted types there were to look at.
    pub looked_at: usize,
    /// How many of them it would have got.
    pub matched: usize,
    /// The newest of those, by id.
    pub matched_ids: Vec<String>,
    /// Paths of its filter and its mapping that none of them has.
    pub warnings: Vec<Fault>,
}

impl Gateway {
    /// What a filter makes of a tenant's newest events of some types; and its paths that none of them has.
    pub async fn preview_filter(
        &self,
        tenant: &TenantId,
        filter: &Condition,
        patterns: &[EventPattern],
    ) -> Result<(FilterPreview, Vec<Fault>), StoreError> {
        let events = self.store.newest_events(tenant, patterns, LOOKED_AT).await?;
        let judged = |event: &Event| {
            let why_not = filter.why_not(event.document.tree(), &event_context(event, "", "", 0));
            Judged {
                id: event.id.clone(),
                kind: event.kind.clone(),
                time: event.time().to_owned(),
                matched: why_not.is_none(),
                why_not,
            }
        };
        let events: Vec<&Event> = events.iter().collect();
        let warnings = check_filter(filter, "filter", &documents(&events), WITNESS);
        let events: Vec<Judged> = events.into_iter().map(judged).collect();
        let matched = events.iter().filter(|event| event.matched).count();
        Ok((FilterPreview { looked_at: events.len(), matched, events }, warnings))
    }

    /// What recent events tell of a connection; `None` when they can't be read now, which is no reason to refuse it.
    pub async fn outlook(&self, live: &LiveConnection) -> Option<Outlook> {
        let record = &live.record;
        let events = match self.store.newest_events(&record.tenant, &record.events, LOOKED_AT).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "recent events could not be read for a connection that was saved");
                return None;
            }
        };
        let passing: Vec<&Event> = events.iter().filter(|event| live.passes(event)).collect();
        let all: Vec<&Event> = events.iter().collect();
        let mut warnings = live
            .filter
            .as_ref()
            .map_or_else(Vec::new, |filter| check_filter(filter, "filter", &documents(&all), WITNESS));
        if let Ok(working) = &live.works {
            warnings.extend(mapping_warnings(&working.mapping, &documents(&passing), WITNESS));
        }
        Some(Outlook {
            looked_at: events.len(),
            matched: passing.len(),
            matched_ids: passing.iter().take(NAMED).map(|event| event.id.clone()).collect(),
            warnings,
        })
    }

    /// The paths of a mapping that no recent event of a type has; where there is none, that no sample of it has.
    pub async fn unseen_paths(
        &self,
        tenant: Option<&TenantId>,
        mapping: &Mapping,
        kind: &str,
    ) -> Result<Vec<Fault>, StoreError> {
        if let Some(tenant) = tenant {
            let pattern = [EventPattern::Exact(kind.to_owned())];
            let events = self.store.newest_events(tenant, &pattern, LOOKED_AT).await?;
            if !events.is_empty() {
                let events: Vec<&Event> = events.iter().collect();
                return Ok(mapping_warnings(mapping, &documents(&events), WITNESS));
            }
        }
        let catalogue = self.catalogue();
        let samples: Vec<&Value> = catalogue.samples().get(kind).into_iter().collect();
        Ok(mapping_warnings(mapping, &samples, "no sample of the event"))
    }
}

fn documents<'e>(events: &[&'e Event]) -> Vec<&'e Value> {
    events.iter().map(|event| event.document.tree()).collect()
}

/// Warnings that stand under `mapping`, wherever its file is: whoever asked may not have it.
fn mapping_warnings(mapping: &Mapping, events: &[&Value], witness: &str) -> Vec<Fault> {
    let mut found = Faults::default();
    for fault in check_paths(mapping, events, witness) {
        found.at_field(format!("mapping.{}", fault.place.field), fault.message, fault.hint);
    }
    found.list().to_vec()
}
