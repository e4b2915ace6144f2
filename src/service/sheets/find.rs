//! Looks for rows by what stands in one column: job ids, or the keys of an upsert.

use std::collections::{HashMap, HashSet};

use super::Sheets;
use super::api::{Asking, Failed};
use super::budget;
use super::layout::{NoLayout, text_of};
use crate::connector::google_sheets::address::{column_letters, range};
use crate::connector::google_sheets::quota::Kind;
use crate::connector::google_sheets::{Place, Sheet};
use crate::service::Gateway;

/// Rows read at once: some megabytes of ids.
const STEP: u64 = 50_000;

impl Sheets {
    /// The rows (from 1) in which wanted texts stand, the lowest of each; from the end of the tab upwards, because that is
    /// where new rows are, and no further than needed. `rows` is how many the tab has.
    pub(super) async fn find(
        &self,
        gateway: &Gateway,
        asking: &Asking<'_>,
        sheet: &Sheet,
        (tab, column, rows): (&str, usize, u64),
        wanted: &HashSet<String>,
    ) -> Result<HashMap<String, u64>, NoLayout> {
        let reading = Asking { place: Place { writes: false, ..asking.place }, ..*asking };
        let letters = column_letters(column);
        let mut found = HashMap::new();
        let mut end = rows;
        while end > 0 && found.len() < wanted.len() {
            let first = end.saturating_sub(STEP) + 1;
            budget::take(gateway, &sheet.account, Kind::Read, asking.deadline).await?;
            let cells = format!("{letters}{first}:{letters}{end}");
            let values =
                self.api.values(&reading, &range(tab, &cells)).await.map_err(|failed: Failed| failed)?;
            for (row, value) in (first..).zip(&values) {
                let text = value.first().map(text_of).unwrap_or_default();
                if wanted.contains(&text) {
                    found.entry(text).or_insert(row);
                }
            }
            end = first - 1;
        }
        Ok(found)
    }
}
