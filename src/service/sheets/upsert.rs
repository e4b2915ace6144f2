//! Rows that are told apart by a key: what is there is updated, the rest is appended.
//!
//! Done twice it comes to the same, so a try after a lost answer needs no look for ids: it looks for keys, as every try does.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::api::Failed;
use super::budget;
use super::deliver::{Batch, Fate, Stop};
use super::layout::{Layout, text_of};
use crate::connector::Verdict;
use crate::connector::google_sheets::address::{column_letters, range};
use crate::connector::google_sheets::quota::Kind;
use crate::connector::google_sheets::{Mode, Refused, Remedy, normal};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;

/// Items of one key, and the cells that they come to.
type Merged = (Vec<usize>, Vec<(String, Value)>);

impl Batch<'_> {
    /// Updates and appends the open rows of a run.
    pub(super) async fn upsert(
        &mut self,
        token: &Secret,
        tab: &str,
        names: &[&str],
        layout: &Layout,
        run: std::ops::Range<usize>,
    ) -> Result<(), Stop> {
        let Mode::Upsert(key_column) = &self.sheet.mode else { return Ok(()) };
        let Some(column) = layout.columns.of(key_column) else {
            let reason = format!(
                "no column \"{key_column}\" to tell rows apart by: map one, or change \"key_column\""
            );
            return Err(Stop::Failed(Failed::person(reason), 0..0));
        };
        let writer = self.writer(layout);
        // What is updated by several rows of the batch becomes what the last says, cell by cell.
        let mut by_key: BTreeMap<String, Merged> = BTreeMap::new();
        for at in run.filter(|at| self.items[*at].fate.is_none()).collect::<Vec<_>>() {
            let cells = self.items[at].row.cells.clone();
            let key = cells.iter().find(|(name, _)| normal(name) == normal(key_column));
            let key = key.map(|(_, value)| text_of(&writer.cell(value))).unwrap_or_default();
            if key.is_empty() {
                self.items[at].fate = Some(Fate::Failed(no_key(key_column)));
                continue;
            }
            let (items, merged) = by_key.entry(key).or_default();
            items.push(at);
            for (name, value) in cells {
                match merged.iter_mut().find(|(known, _)| normal(known) == normal(&name)) {
                    Some((_, known)) => *known = value,
                    None => merged.push((name, value)),
                }
            }
        }
        let keys: HashSet<String> = by_key.keys().cloned().collect();
        let place = (tab, column, layout.rows);
        let asking = self.asking(token, tab);
        let found = self.gateway.sheets.find(self.gateway, &asking, self.sheet, place, &keys).await?;
        self.update(token, tab, layout, &by_key, &found).await?;
        // Rows that are new, each at the place of its first event; later ones of the batch were merged into it.
        let mut fresh: Vec<&Merged> =
            by_key.iter().filter(|(key, _)| !found.contains_key(*key)).map(|(_, row)| row).collect();
        fresh.sort_by_key(|(items, _)| items[0]);
        let mut firsts = Vec::with_capacity(fresh.len());
        for (items, cells) in &fresh {
            self.items[items[0]].row.cells.clone_from(cells);
            firsts.push(items[0]);
        }
        let result = self.append(token, tab, names, layout, &firsts).await;
        for (items, _) in &fresh {
            let fate = match (&self.items[items[0]].fate, &result) {
                (Some(fate), _) => Some(fate.clone()),
                (None, Err(Stop::Failed(failed, range))) if range.contains(&items[0]) => {
                    Some(Fate::Failed(failed.clone()))
                }
                _ => None,
            };
            for at in &items[1..] {
                self.items[*at].fate.clone_from(&fate);
            }
        }
        result
    }

    /// Writes the cells of rows that are there, and no others of those rows.
    async fn update(
        &mut self,
        token: &Secret,
        tab: &str,
        layout: &Layout,
        by_key: &BTreeMap<String, Merged>,
        found: &HashMap<String, u64>,
    ) -> Result<(), Stop> {
        let writer = self.writer(layout);
        let mut ranges = Vec::new();
        let mut touched: Vec<(usize, u64)> = Vec::new();
        for (key, (items, cells)) in by_key {
            let Some(row) = found.get(key) else { continue };
            touched.extend(items.iter().map(|at| (*at, *row)));
            let mut cells: Vec<(String, Value)> =
                cells.iter().map(|(name, value)| (name.clone(), writer.cell(value))).collect();
            let last = items.last().map(|at| self.items[*at].lease.job.name.to_string());
            cells.push((self.sheet.id_column.clone(), last.unwrap_or_default().into()));
            for (first, values) in layout.columns.runs(&cells) {
                ranges.push((range(tab, &format!("{}{row}", column_letters(first))), vec![values]));
            }
        }
        if ranges.is_empty() {
            return Ok(());
        }
        budget::take(self.gateway, &self.sheet.account, Kind::Write, self.deadline).await?;
        let asking = self.asking(token, tab);
        match self.gateway.sheets.api.write(&asking, self.sheet.input.name(), ranges).await {
            Ok(()) => {
                for (at, row) in touched {
                    let reason = format!("updated row {row} of the tab \"{tab}\"");
                    self.items[at].fate = Some(Fate::Written(reason));
                }
                Ok(())
            }
            // Nobody passes: what would be appended waits too.
            Err(failed) => Err(Stop::Failed(failed, 0..0)),
        }
    }
}

fn no_key(key_column: &str) -> Failed {
    let reason =
        format!("the event has no value for the key column \"{key_column}\", so no row can be told for it");
    Failed::of(Refused { verdict: Verdict::plain(Outcome::Rejected, reason), remedy: Remedy::Row })
}
