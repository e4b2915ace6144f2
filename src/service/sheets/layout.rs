//! Where a tab's columns are: read, made where they are missing, and remembered for a moment.
//!
//! People move and insert columns while rows arrive. So the first row is read again whenever what is known of it is older than
//! [`FRESH`] and the quota allows; and each append's answer is compared with what was expected (`drifted`).

use std::collections::HashMap;
use std::time::Duration;

use google_sheets4::FieldMask;
use google_sheets4::api::{
    AddSheetRequest, DimensionProperties, DimensionRange, Request, SheetProperties, Spreadsheet,
    UpdateDimensionPropertiesRequest,
};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Sheets;
use super::api::{Asking, Failed, more_columns};
use super::budget::{self, Short};
use super::deliver::Batch;
use crate::connector::google_sheets::address::{Cells, column_letters, range};
use crate::connector::google_sheets::quota::Kind;
use crate::connector::google_sheets::{Columns, MOST_CELLS, Place, Sheet, TabPer, normal};
use crate::domain::id::ConnectionId;
use crate::service::Gateway;
use crate::service::watch::alert::Matter;

/// For how long the first row is believed to be what it was.
const FRESH: Duration = Duration::from_secs(10);
/// For how long it is used where the quota allows no look.
const STALE: Duration = Duration::from_mins(5);
/// Tabs known before old ones are forgotten.
const MANY: usize = 4_096;

/// A tab as it was found.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Where names go.
    pub columns: Columns,
    /// The spreadsheet's zone.
    pub zone: TimeZone,
    /// Rows of the tab's grid, filled or not.
    pub rows: u64,
    read: Instant,
}

/// What is remembered of tabs, by spreadsheet and tab.
#[derive(Default)]
pub(super) struct Layouts(Mutex<HashMap<(String, String), Layout>>);

/// Why a layout is not there.
pub(super) enum NoLayout {
    Failed(Failed),
    Short(Short),
}

impl From<Failed> for NoLayout {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<Short> for NoLayout {
    fn from(short: Short) -> Self {
        Self::Short(short)
    }
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub sheet: &'a Sheet,
    /// Whose jobs need it; `None` where a person only looks.
    pub connection: Option<ConnectionId>,
    pub tab: &'a str,
    pub names: &'a [&'a str],
    /// Whether what is missing may be made.
    pub make: bool,
    /// Whether what is remembered is of no use.
    pub anew: bool,
}

impl<'a> Wanted<'a> {
    /// What a batch needs to write, read anew.
    pub fn by(batch: &Batch<'a>, tab: &'a str, names: &'a [&'a str]) -> Self {
        Self {
            sheet: batch.sheet,
            connection: Some(batch.live.record.id),
            tab,
            names,
            make: true,
            anew: true,
        }
    }
}

impl Layouts {
    fn known(&self, wanted: &Wanted<'_>, within: Duration) -> Option<Layout> {
        let key = (wanted.sheet.spreadsheet.clone(), wanted.tab.to_owned());
        let layouts = self.0.lock();
        let layout = layouts.get(&key).filter(|layout| layout.read.elapsed() < within)?;
        wanted.names.iter().all(|name| layout.columns.of(name).is_some()).then(|| layout.clone())
    }

    fn remember(&self, wanted: &Wanted<'_>, layout: Layout) {
        let mut layouts = self.0.lock();
        if layouts.len() >= MANY {
            layouts.retain(|_, layout| layout.read.elapsed() < STALE);
        }
        layouts.insert((wanted.sheet.spreadsheet.clone(), wanted.tab.to_owned()), layout);
    }

    /// Nothing is believed of this tab any more.
    pub fn forget(&self, spreadsheet: &str, tab: &str) {
        self.0.lock().remove(&(spreadsheet.to_owned(), tab.to_owned()));
    }
}

impl Sheets {
    /// Where the columns of a tab are. What is missing (the tab itself where there is one for each type or month, headers,
    /// the width for them) is made.
    pub(super) async fn layout(
        &self,
        gateway: &Gateway,
        asking: &Asking<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Layout, NoLayout> {
        if !wanted.anew
            && let Some(layout) = self.layouts.known(wanted, FRESH)
        {
            return Ok(layout);
        }
        let account = &wanted.sheet.account;
        let place = Place { writes: false, ..asking.place };
        let reading = Asking { place, ..*asking };
        match budget::take(gateway, account, Kind::Read, asking.deadline).await {
            Ok(()) => {}
            Err(short) => {
                let known = (!wanted.anew).then(|| self.layouts.known(wanted, STALE)).flatten();
                return known.ok_or(NoLayout::Short(short));
            }
        }
        let book = self.api.spreadsheet(&reading).await?;
        warn_when_nearly_full(gateway, wanted, &book);
        let zone = zone_of(&book);
        let Some(found) = tab_of(&book, wanted.tab) else {
            if wanted.sheet.tab_per == TabPer::None || !wanted.make {
                let there: Vec<String> = titles(&book).take(20).map(|title| format!("\"{title}\"")).collect();
                return Err(Failed::person(format!(
                    "the sheet has no tab \"{}\"; it has {}: make one of that name, or name another one in the \
                     connection's options",
                    wanted.tab,
                    there.join(", ")
                ))
                .into());
            }
            budget::take(gateway, account, Kind::Write, asking.deadline).await?;
            self.api.change(asking, vec![new_tab(wanted.tab)]).await?;
            return Box::pin(self.layout(gateway, asking, &Wanted { anew: true, ..*wanted })).await;
        };
        budget::take(gateway, account, Kind::Read, asking.deadline).await?;
        let first_row = self.api.values(&reading, &range(wanted.tab, "1:1")).await?;
        let first_row: Vec<String> =
            first_row.into_iter().next().unwrap_or_default().iter().map(text_of).collect();
        let columns = Columns::place(&first_row, wanted.names.iter().copied(), wanted.tab)
            .map_err(|error| Failed::person(error.to_string()))?;
        let grid = found.grid_properties.unwrap_or_default();
        let rows = u64::try_from(grid.row_count.unwrap_or(0)).unwrap_or(0);
        let layout = Layout { columns, zone, rows, read: Instant::now() };
        if wanted.make && !layout.columns.new_headers().is_empty() {
            let width = usize::try_from(grid.column_count.unwrap_or(0)).unwrap_or(0);
            let tab = found.sheet_id.unwrap_or(0);
            self.write_headers(gateway, asking, wanted, &layout, (tab, width)).await?;
        }
        // A test looks and makes nothing: what it found is not yet as a delivery needs it.
        if wanted.make || layout.columns.new_headers().is_empty() {
            self.layouts.remember(wanted, layout.clone());
        }
        Ok(layout)
    }

    async fn write_headers(
        &self,
        gateway: &Gateway,
        asking: &Asking<'_>,
        wanted: &Wanted<'_>,
        layout: &Layout,
        (tab, width): (i32, usize),
    ) -> Result<(), NoLayout> {
        let account = &wanted.sheet.account;
        let columns = &layout.columns;
        let mut changes = Vec::new();
        if columns.headers.len() > width {
            changes.push(more_columns(tab, columns.headers.len() - width));
        }
        let id = columns.of(&wanted.sheet.id_column).filter(|at| *at >= columns.present);
        if let Some(id) = id.filter(|_| wanted.sheet.hide_id_column) {
            changes.push(hidden_column(tab, id));
        }
        if !changes.is_empty() {
            budget::take(gateway, account, Kind::Write, asking.deadline).await?;
            self.api.change(asking, changes).await?;
        }
        budget::take(gateway, account, Kind::Write, asking.deadline).await?;
        let cells = format!("{}1", column_letters(columns.present));
        let headers = columns.new_headers().iter().map(|name| name.as_str().into()).collect();
        let written = vec![(range(wanted.tab, &cells), vec![headers])];
        Ok(self.api.write(asking, "RAW", written).await?)
    }
}

/// Whether an append's answer shows another table than the one that was expected: rows beside it, or another width.
pub(super) fn drifted(columns: &Columns, table: Option<&str>, updated: Option<&str>) -> bool {
    let beside = updated.and_then(Cells::read).is_some_and(|cells| cells.left != 0);
    let other_width = table
        .and_then(Cells::read)
        .is_some_and(|cells| cells.left != 0 || cells.columns() != columns.headers.len());
    beside || other_width
}

pub(super) fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn titles(book: &Spreadsheet) -> impl Iterator<Item = &str> {
    let tabs = book.sheets.iter().flatten();
    tabs.filter_map(|tab| tab.properties.as_ref()?.title.as_deref())
}

/// The tab of a name; Google takes no two that differ in case alone.
pub(super) fn tab_of(book: &Spreadsheet, name: &str) -> Option<SheetProperties> {
    let tabs = book.sheets.iter().flatten().filter_map(|tab| tab.properties.as_ref());
    tabs.clone()
        .find(|tab| tab.title.as_deref() == Some(name))
        .or_else(|| {
            tabs.clone().find(|tab| tab.title.as_deref().is_some_and(|title| normal(title) == normal(name)))
        })
        .cloned()
}

fn zone_of(book: &Spreadsheet) -> TimeZone {
    let name = book.properties.as_ref().and_then(|properties| properties.time_zone.as_deref());
    name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

/// Cells of all tabs: what Google's limit counts.
pub(super) fn cells_of(book: &Spreadsheet) -> u64 {
    let grids =
        book.sheets.iter().flatten().filter_map(|tab| tab.properties.as_ref()?.grid_properties.as_ref());
    let size = |count: Option<i32>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
    grids.map(|grid| size(grid.row_count) * size(grid.column_count)).sum()
}

/// Tells when a spreadsheet is nine tenths full.
fn warn_when_nearly_full(gateway: &Gateway, wanted: &Wanted<'_>, book: &Spreadsheet) {
    let cells = cells_of(book);
    if cells >= MOST_CELLS / 10 * 9 {
        if wanted.connection.is_some() {
            gateway.note(wanted.connection, Matter::SheetNearlyFull { cells, limit: MOST_CELLS }, None);
        }
        gateway.metrics.sheet_nearly_full();
        tracing::warn!(
            spreadsheet = %wanted.sheet.spreadsheet,
            cells,
            limit = MOST_CELLS,
            "a spreadsheet is nearly full; connect a new one, or delete rows or tabs, before rows are refused"
        );
    }
}

fn new_tab(name: &str) -> Request {
    let properties = SheetProperties { title: Some(name.to_owned()), ..SheetProperties::default() };
    Request { add_sheet: Some(AddSheetRequest { properties: Some(properties) }), ..Request::default() }
}

fn hidden_column(tab: i32, column: usize) -> Request {
    let at = i32::try_from(column).unwrap_or(0);
    Request {
        update_dimension_properties: Some(UpdateDimensionPropertiesRequest {
            fields: Some(FieldMask::new(&["hiddenByUser"])),
            properties: Some(DimensionProperties {
                hidden_by_user: Some(true),
                ..DimensionProperties::default()
            }),
            range: Some(DimensionRange {
                dimension: Some("COLUMNS".to_owned()),
                sheet_id: Some(tab),
                start_index: Some(at),
                end_index: Some(at + 1),
            }),
            ..UpdateDimensionPropertiesRequest::default()
        }),
        ..Request::default()
    }
}
