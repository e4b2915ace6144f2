//! A test of a sheet: everything that a delivery needs, tried without leaving a mark.
//!
//! That the sheet may be written to is shown by a write that changes nothing: the tab gets the title that it has. Google asks the
//! same permission for it as for rows, which reading or an empty list of values does not show: the API may answer those
//! before it asks. Whether single cells are protected shows only when a row is written.

use google_sheets4::FieldMask;
use google_sheets4::api::{Request, SheetProperties, UpdateSheetPropertiesRequest};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Asking, Failed};
use super::budget::{self, Short};
use super::layout::{NoLayout, Wanted, tab_of};
use crate::connector::Verdict;
use crate::connector::google_sheets::quota::Kind;
use crate::connector::google_sheets::{Place, Remedy, Row, Sheet, TabPer, Writer};
use crate::domain::job::Outcome;
use crate::domain::secret::Secret;
use crate::mapping::Mapping;
use crate::service::Gateway;

/// What a person sees of a sheet.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SheetReport {
    /// Whom the sheet is to be shared with, as Editor.
    pub share_with: String,
    /// The spreadsheet's title, where it could be read.
    pub title: Option<String>,
    /// The tab that the test event's row would go to.
    pub tab: String,
    /// The headers in their order, with those that would be made.
    pub columns: Vec<String>,
    /// Headers that the first row would write.
    pub new_columns: Vec<String>,
    /// The test event's row, in that order.
    pub row: Vec<Value>,
}

enum Stop {
    Failed(Failed),
    Short(Short),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<NoLayout> for Stop {
    fn from(reason: NoLayout) -> Self {
        match reason {
            NoLayout::Failed(failed) => Self::Failed(failed),
            NoLayout::Short(short) => Self::Short(short),
        }
    }
}

impl From<Short> for Stop {
    fn from(short: Short) -> Self {
        Self::Short(short)
    }
}

/// Checks a connection's sheet. The report has whatever was found out.
pub async fn check(gateway: &Gateway, sheet: &Sheet, mapping: &Mapping, row: &Row) -> (SheetReport, Verdict) {
    let mut report = SheetReport {
        share_with: sheet.account.email().to_owned(),
        tab: row.tab.clone(),
        ..SheetReport::default()
    };
    let mut refused = None;
    loop {
        let found = look(gateway, sheet, mapping, row, refused.as_ref(), &mut report).await;
        let verdict = match found {
            Ok(()) => Verdict::plain(
                Outcome::Delivered,
                format!("the sheet can be read and written by {}; nothing was written", report.share_with),
            ),
            Err((Stop::Failed(failed), Some(token)))
                if failed.refused.remedy == Remedy::Token && refused.is_none() =>
            {
                refused = Some(token);
                continue;
            }
            Err((Stop::Failed(failed), _)) => failed.refused.verdict,
            Err((Stop::Short(Short::Wait(wait)), _)) => Verdict::plain(
                Outcome::Throttled,
                format!(
                    "Google's quota for this account is in use now; try again in {} s",
                    wait.as_secs() + 1
                ),
            ),
            Err((Stop::Short(Short::Store(error)), _)) => Verdict::plain(Outcome::Retry, error.to_string()),
        };
        return (report, verdict);
    }
}

async fn look(
    gateway: &Gateway,
    sheet: &Sheet,
    mapping: &Mapping,
    row: &Row,
    refused: Option<&Secret>,
    report: &mut SheetReport,
) -> Result<(), (Stop, Option<Secret>)> {
    let deadline = Instant::now() + sheet.timeout;
    let sheets = &gateway.sheets;
    let token =
        sheets.tokens.get(&sheet.account, refused, deadline).await.map_err(|failed| (failed.into(), None))?;
    let place = Place { email: sheet.account.email(), tab: &row.tab, writes: false };
    let asking = Asking { token: token.reveal(), spreadsheet: &sheet.spreadsheet, place, deadline };
    let result = async {
        budget::take(gateway, &sheet.account, Kind::Read, deadline).await?;
        let book = sheets.api.spreadsheet(&asking).await?;
        report.title = book.properties.as_ref().and_then(|properties| properties.title.clone());
        let names = sheet.wanted(mapping, [row]);
        let tab = tab_of(&book, &row.tab);
        // One that is made when it is needed need not be there.
        let any = book.sheets.iter().flatten().find_map(|tab| tab.properties.clone());
        if tab.is_none() && sheet.tab_per != TabPer::None {
            report.columns = names.iter().map(|name| (*name).to_owned()).collect();
            report.new_columns.clone_from(&report.columns);
        } else {
            let wanted =
                Wanted { sheet, connection: None, tab: &row.tab, names: &names, make: false, anew: true };
            let layout = sheets.layout(gateway, &asking, &wanted).await?;
            let writer = Writer { input: sheet.input, dates: sheet.dates, zone: layout.zone.clone() };
            let cells: Vec<(String, Value)> =
                row.cells.iter().map(|(name, value)| (name.clone(), writer.cell(value))).collect();
            report.row = layout.columns.row(&cells);
            report.new_columns = layout.columns.new_headers().to_vec();
            report.columns = layout.columns.headers;
        }
        if let Some(tab) = tab.or(any) {
            budget::take(gateway, &sheet.account, Kind::Write, deadline).await?;
            sheets.api.change(&asking, vec![same_title(tab)]).await?;
        }
        Ok(())
    }
    .await;
    result.map_err(|stop: Stop| (stop, Some(token.clone())))
}

/// A write that changes nothing.
fn same_title(tab: SheetProperties) -> Request {
    Request {
        update_sheet_properties: Some(UpdateSheetPropertiesRequest {
            fields: Some(FieldMask::new(&["title"])),
            properties: Some(SheetProperties {
                sheet_id: tab.sheet_id,
                title: tab.title,
                ..SheetProperties::default()
            }),
        }),
        ..Request::default()
    }
}
