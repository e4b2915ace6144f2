//! Erases what is kept: of a person, by a value in the events; of a tenant that was deleted, all.
//!
//! A person's events stay as skeletons: what was sent where and what became of it, and nothing of what it said. The value
//! that is looked for is personal data too: it is sealed in the record, never logged, and forgotten when the erasure ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::chores::Ended;
use super::live::event_context;
use super::{Gateway, ServiceError};
use crate::domain::chore::{Chore, ChoreState, Erasure, Work};
use crate::domain::fault::Faults;
use crate::domain::id::TenantId;
use crate::domain::secret::Secret;
use crate::mapping::Condition;
use crate::store::{Cursor, EventWalk};

/// Events of one page.
const PAGE: usize = 100;
/// Pages of one turn.
const PAGES: usize = 20;
/// The longest value that is looked for, in bytes of JSON.
const MAX_VALUE_BYTES: usize = 1_024;
/// How long after a tenant was deleted a process may still take in an event of it that was on its way.
const LATE: Duration = Duration::from_secs(3);
/// How long deleting a tenant's records may take at the most.
const DELETING: Duration = Duration::from_mins(1);

/// The condition that an event meets that has the value there.
fn condition(path: &str, value: &Value) -> Result<Condition, Faults> {
    Condition::from_json(&json!({ "path": path, "op": "eq", "value": value }))
}

impl Gateway {
    /// Begins to erase a tenant's events that have a value at a path; a dry run only counts them.
    pub async fn make_erasure(
        &self,
        tenant: TenantId,
        path: &str,
        value: &Value,
        dry_run: bool,
        by: &str,
    ) -> Result<Chore, ServiceError> {
        let text = value.to_string();
        let mut faults = Faults::default();
        if !matches!(value, Value::String(_) | Value::Number(_)) || text.len() > MAX_VALUE_BYTES {
            let hint = format!("a text or a number, at most {MAX_VALUE_BYTES} bytes");
            faults.at_field("equals", "is nothing to look for", Some(hint));
        } else if let Err(wrong) = condition(path, value) {
            for fault in wrong.list() {
                faults.at_field("path", fault.message.clone(), fault.hint.clone());
            }
        }
        faults.into_result(())?;
        let work = Work::Erasure(Erasure { path: path.to_owned(), value: None, dry_run });
        let mut chore = self.new_chore(Some(tenant), work, by);
        let sealed = self.vault.seal(&chore.id.to_string(), &Secret::new(text))?;
        if let Work::Erasure(erasure) = &mut chore.work {
            erasure.value = Some(sealed);
        }
        self.make_chore(chore).await
    }

    pub(super) async fn erasure_turn(
        &self,
        chore: &mut Chore,
        erasure: &Erasure,
    ) -> Result<Ended, ServiceError> {
        let Some((tenant, sealed)) = chore.tenant.clone().zip(erasure.value.as_ref()) else {
            return Ok(Some((ChoreState::Failed, "what to look for is not known any more".to_owned())));
        };
        let value = self.vault.open(&chore.id.to_string(), sealed)?;
        let value = serde_json::from_str(value.reveal()).unwrap_or(Value::Null);
        let Ok(condition) = condition(&erasure.path, &value) else {
            return Ok(Some((ChoreState::Failed, "its path is none any more".to_owned())));
        };
        for _ in 0..PAGES {
            if !self.goes_on(chore.id) {
                return Ok(None);
            }
            let walk = EventWalk {
                tenant: tenant.clone(),
                after: chore.progress.cursor.as_deref().and_then(|cursor| cursor.parse::<Cursor>().ok()),
                since: None,
                until: chore.created.plus(Duration::from_millis(1)),
                limit: PAGE,
            };
            let page = self.store.events(walk).await?;
            for placed in &page.items {
                chore.progress.looked_at += 1;
                if placed.event.is_erased() {
                    continue;
                }
                match condition.decide(placed.event.document.tree(), &event_context(&placed.event, "", "", 0))
                {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(_) => {
                        chore.progress.skipped += 1;
                        continue;
                    }
                }
                chore.progress.done += 1;
                chore.progress.deliveries += if erasure.dry_run {
                    placed.jobs.len() as u64
                } else {
                    self.store.erase(placed).await?.jobs
                };
            }
            chore.progress.cursor = page.next.map(|next| next.to_string());
            if chore.progress.cursor.is_none() {
                if !erasure.dry_run {
                    self.store.scrub().await?;
                }
                let reason = match chore.progress.skipped {
                    0 => String::new(),
                    count => format!("{count} events are too large to be looked through by this path"),
                };
                return Ok(Some((ChoreState::Done, reason)));
            }
        }
        Ok(None)
    }

    /// Begins to remove all that is kept of a tenant; its records go at once, by another way.
    pub(super) async fn make_purge(&self, of: &TenantId, by: &str) -> Result<Chore, ServiceError> {
        let chore = self.new_chore(None, Work::Purge { of: of.clone() }, by);
        self.make_chore(chore).await
    }

    pub(super) async fn purge_turn(&self, chore: &mut Chore, of: &TenantId) -> Result<Ended, ServiceError> {
        let tenant = self.directory.tenant(of).map(|tenant| tenant.created);
        if tenant.is_some_and(|made| made <= chore.created) {
            // Its records go now, or whoever was to delete them died.
            let failed = self.clock.now() >= chore.created.plus(DELETING);
            return Ok(failed.then(|| (ChoreState::Failed, "the tenant was not deleted".to_owned())));
        }
        let late = chore.created.plus(LATE);
        // Whoever is made under the same name later keeps what is its own.
        let before = tenant.unwrap_or(late);
        for _ in 0..PAGES {
            let after = chore.progress.cursor.as_deref().and_then(|cursor| cursor.parse::<Cursor>().ok());
            let begins = after.is_none();
            let purged = self.store.purge(of, before, after).await?;
            if begins {
                chore.progress.skipped = 0;
            }
            chore.progress.done += purged.removed;
            chore.progress.skipped += purged.waiting;
            chore.progress.cursor = purged.next.map(|next| next.to_string());
            if chore.progress.cursor.is_none() {
                if chore.progress.skipped > 0 || self.clock.now() < late {
                    // Jobs under way have yet to end, or an event on its way to come.
                    return Ok(None);
                }
                self.store.scrub().await?;
                return Ok(Some((ChoreState::Done, String::new())));
            }
        }
        Ok(None)
    }
}
