//! Google Sheets: a job is a row, and a batch of jobs is one append.
//!
//! Everything here is pure; requests, tokens and locks are [`crate::service::sheets`]'s. A connection's options and key are
//! read once into a [`Sheet`] ([`Account`] checks the key); an event becomes a [`Row`], a row gets its place by the headers
//! ([`Columns`]) and its cells by [`Writer`]; [`classify`] says what a refusal means and what a person has to do.
//!
//! | option | what it says | when left out |
//! |---|---|---|
//! | `spreadsheet` | its address in a browser, or its id | a fault |
//! | `tab` | the tab's name, or where `tab_per` says more, how it begins | `Sheet1` |
//! | `tab_per` | `none`, `event_type` or `month`: a tab for each, made when it is needed | `none` |
//! | `value_input` | `raw`, or `user_entered` for values as if a person typed them | `raw` |
//! | `id_column` | the header over the job ids | `Patchbay ID` |
//! | `hide_id_column` | `true` hides that column when it is made | `false` |
//! | `mode` | `append`, or `upsert`: the row of the same key is updated | `append` |
//! | `key_column` | the header of the key, with `upsert` | a fault with `upsert` |
//! | `dates` | `iso`, or `sheet` for the sheet's own dates in its zone | `iso` |

pub mod address;
mod columns;
mod credentials;
mod errors;
mod parts;
pub mod quota;
mod row;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;
use std::time::Duration;

pub use columns::{Columns, ColumnsError, normal};
pub use credentials::{Account, KEY};
pub use errors::{Place, Refused, Remedy, classify, classify_token};
pub use parts::parts;
pub use row::{Row, TabPer, tab_of};
pub use values::{Dates, Input, MOST_CHARS, Writer};

use super::Given;
use crate::domain::fault::Faults;
use crate::mapping::{Context, Mapping, MappingError};
use crate::spec::ConnectorSpec;

/// The scope that a token is asked for.
pub const SCOPE: &str = "https://www.googleapis.com/auth/spreadsheets";
/// The most cells of a spreadsheet; a warning is given from nine tenths on.
pub const MOST_CELLS: u64 = 10_000_000;

/// What the operator sets.
#[derive(Debug, Clone)]
pub struct GoogleSettings {
    /// Where the Sheets API is; ends with a slash.
    pub api_root: url::Url,
    /// The hosts that a token may be asked of.
    pub token_hosts: Vec<String>,
}

impl Default for GoogleSettings {
    fn default() -> Self {
        let api_root = url::Url::parse("https://sheets.googleapis.com/");
        Self {
            api_root: api_root.unwrap_or_else(|_| unreachable!("a constant address")),
            token_hosts: vec!["oauth2.googleapis.com".to_owned()],
        }
    }
}

/// Whether rows are only added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Each job is a new row.
    Append,
    /// The row with the same value in this column is updated; without one, a new row.
    Upsert(String),
}

/// A connection's sheet, compiled.
#[derive(Debug)]
pub struct Sheet {
    spec: Arc<ConnectorSpec>,
    /// The service account.
    pub account: Account,
    /// The spreadsheet's id.
    pub spreadsheet: String,
    /// The tab, or how its name begins.
    pub tab: String,
    /// Whether there are more of them.
    pub tab_per: TabPer,
    /// How Google reads values.
    pub input: Input,
    /// The header over the job ids.
    pub id_column: String,
    /// Whether that column is hidden when it is made.
    pub hide_id_column: bool,
    /// Whether rows are only added.
    pub mode: Mode,
    /// How times are written.
    pub dates: Dates,
    /// The time for a whole try.
    pub timeout: Duration,
}

impl Sheet {
    /// Reads and checks what a connection says, all faults at once.
    pub fn compile(
        spec: Arc<ConnectorSpec>,
        given: &Given<'_>,
        google: &GoogleSettings,
        timeout: Duration,
    ) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let option = |name: &str| given.options.get(name).map_or("", String::as_str).trim();
        let or = |name: &str, default: &str| {
            let value = option(name);
            if value.is_empty() { default.to_owned() } else { value.to_owned() }
        };
        let spreadsheet = address::spreadsheet_id(option("spreadsheet"));
        if spreadsheet.is_none() {
            let hint = "copy it from the browser: https://docs.google.com/spreadsheets/d/…/edit".to_owned();
            faults.at_field("options.spreadsheet", "is no address of a Google sheet", Some(hint));
        }
        let tab = or("tab", "Sheet1");
        if tab.chars().count() > address::MOST_TAB_CHARS || tab.contains(['[', ']', '*', '?', ':', '/', '\\'])
        {
            let hint = "at most 100 characters, and none of [ ] * ? : / \\".to_owned();
            faults.at_field("options.tab", "is no name of a tab", Some(hint));
        }
        let ways = [("none", TabPer::None), ("event_type", TabPer::EventType), ("month", TabPer::Month)];
        let tab_per = choice("tab_per", option("tab_per"), &ways, &mut faults);
        let ways = [("raw", Input::Raw), ("user_entered", Input::UserEntered)];
        let input = choice("value_input", option("value_input"), &ways, &mut faults);
        let dates =
            choice("dates", option("dates"), &[("iso", Dates::Iso), ("sheet", Dates::Sheet)], &mut faults);
        let ways = [("false", false), ("true", true)];
        let hide_id_column = choice("hide_id_column", option("hide_id_column"), &ways, &mut faults);
        let id_column = or("id_column", "Patchbay ID");
        let upsert = choice("mode", option("mode"), &[("append", false), ("upsert", true)], &mut faults);
        let key_column = option("key_column");
        if upsert && key_column.is_empty() {
            let hint = "the header of the column that tells rows apart, such as \"Email\"".to_owned();
            faults.at_field("options.key_column", "missing", Some(hint));
        }
        let account = given.credentials.get(KEY).map(|key| Account::read(key, &google.token_hosts));
        let account = account.unwrap_or_else(|| {
            let mut missing = Faults::default();
            let hint = "the JSON file with the key of a service account, as Google gives it out".to_owned();
            missing.at_field(format!("credentials.{KEY}"), "missing", Some(hint));
            Err(missing)
        });
        match (account, spreadsheet) {
            (Ok(account), Some(spreadsheet)) if faults.is_empty() => Ok(Self {
                spec,
                account,
                spreadsheet,
                tab,
                tab_per,
                input,
                id_column,
                hide_id_column,
                mode: if upsert { Mode::Upsert(key_column.to_owned()) } else { Mode::Append },
                dates,
                timeout,
            }),
            (account, _) => {
                if let Err(found) = account {
                    faults.extend(found);
                }
                Err(faults)
            }
        }
    }

    /// The connector that it was compiled for.
    pub fn spec(&self) -> &Arc<ConnectorSpec> {
        &self.spec
    }

    /// The row of an event.
    pub fn render(
        &self,
        mapping: &Mapping,
        event: &serde_json::Value,
        context: &Context<'_>,
    ) -> Result<Row, MappingError> {
        let fields = mapping.apply(event, context)?;
        self.spec.target.accept(&fields)?;
        let tab = tab_of(&self.tab, self.tab_per, context.event_type, context.event_time);
        Ok(Row::new(tab, fields))
    }

    /// The columns that are wanted: the mapping's in its order, then what rows have besides, then the ids.
    pub fn wanted<'a>(
        &'a self,
        mapping: &'a Mapping,
        rows: impl IntoIterator<Item = &'a Row>,
    ) -> Vec<&'a str> {
        let mut wanted: Vec<&str> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let of_mapping = mapping.targets().map(|(target, _)| target.split('.').next().unwrap_or(target));
        let of_rows = rows.into_iter().flat_map(|row| row.cells.iter().map(|(name, _)| name.as_str()));
        for name in of_mapping.chain(of_rows).chain([self.id_column.as_str()]) {
            if seen.insert(normal(name)) {
                wanted.push(name);
            }
        }
        wanted
    }
}

fn choice<T: Copy>(name: &str, given: &str, ways: &[(&str, T)], faults: &mut Faults) -> T {
    let given = given.to_ascii_lowercase();
    if given.is_empty() {
        return ways[0].1;
    }
    if let Some((_, way)) = ways.iter().find(|(way, _)| *way == given) {
        return *way;
    }
    let known: Vec<&str> = ways.iter().map(|(way, _)| *way).collect();
    let hint = format!("one of {}", known.join(", "));
    faults.at_field(format!("options.{name}"), "is not known", Some(hint));
    ways[0].1
}
