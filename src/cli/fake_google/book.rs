//! Spreadsheets in memory, and what the API does to them.

use serde_json::{Value, json};

use super::Asked;
use crate::connector::google_sheets::MOST_CHARS;
use crate::connector::google_sheets::address::{Cells, column_letters};

const MOST_CELLS: usize = 10_000_000;

type Acted = Result<Value, (u16, String)>;

/// A tab.
#[derive(Debug, Clone, Default)]
pub struct Tab {
    /// Its name.
    pub title: String,
    /// Filled cells, row by row, the headers first.
    pub rows: Vec<Vec<Value>>,
    /// Columns that are hidden.
    pub hidden: Vec<usize>,
    /// Whether only its owner may change it.
    pub protected: bool,
    id: i64,
    grid: (usize, usize),
}

/// A spreadsheet.
#[derive(Debug, Clone)]
pub struct Book {
    /// Its tabs.
    pub tabs: Vec<Tab>,
    /// Its zone.
    pub zone: String,
    /// Whether the account may write to it.
    pub shared: bool,
    /// Whether anyone may read it.
    pub public: bool,
    /// Cells beside those of its tabs, to bring it near its limit.
    pub ballast: usize,
    /// A text that no cell may hold: a row that has it is refused for good.
    pub refused: Option<String>,
    next: i64,
}

fn invalid(message: impl Into<String>) -> (u16, String) {
    (400, message.into())
}

fn is_blank(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value == "")
}

impl Book {
    pub(super) fn new(tabs: &[&str]) -> Self {
        let mut book = Self {
            tabs: Vec::new(),
            zone: "America/New_York".to_owned(),
            shared: true,
            public: false,
            ballast: 0,
            refused: None,
            next: 0,
        };
        for title in tabs {
            book.add(title);
        }
        book
    }

    fn add(&mut self, title: &str) {
        let tab = Tab { title: title.to_owned(), id: self.next, grid: (1_000, 26), ..Tab::default() };
        self.next += 1;
        self.tabs.push(tab);
    }

    /// The tab of a name.
    pub fn tab(&self, title: &str) -> Option<&Tab> {
        self.tabs.iter().find(|tab| tab.title == title)
    }

    /// The tab of a name, to change it.
    pub fn tab_mut(&mut self, title: &str) -> Option<&mut Tab> {
        self.tabs.iter_mut().find(|tab| tab.title == title)
    }

    fn cells(&self) -> usize {
        self.ballast + self.tabs.iter().map(|tab| tab.grid.0 * tab.grid.1).sum::<usize>()
    }

    /// A request on this spreadsheet; `action` is what follows its id in the path.
    pub(super) fn act(&mut self, action: &str, asked: &Asked) -> Acted {
        match action {
            "" => Ok(self.shown()),
            ":batchUpdate" => self.change(&asked.body),
            "/values:batchUpdate" => self.write(&asked.body),
            _ => {
                let range = action
                    .strip_prefix("/values/")
                    .ok_or((404, "Requested entity was not found.".to_owned()))?;
                match range.strip_suffix(":append") {
                    Some(range) => self.append(range, &asked.body),
                    None => self.read(range, &asked.query),
                }
            }
        }
    }

    fn shown(&self) -> Value {
        let tabs = self.tabs.iter().map(|tab| {
            let grid = json!({"rowCount": tab.grid.0.max(tab.rows.len()), "columnCount": tab.grid.1});
            json!({"properties": {"sheetId": tab.id, "title": tab.title, "sheetType": "GRID", "gridProperties": grid}})
        });
        let ballast = (self.ballast > 0).then(|| {
            let grid = json!({"rowCount": self.ballast, "columnCount": 1});
            json!({"properties": {"sheetId": 999_999, "title": "Archive", "gridProperties": grid}})
        });
        json!({"properties": {"title": "A sheet", "timeZone": self.zone}, "sheets": tabs.chain(ballast).collect::<Vec<_>>()})
    }

    /// The tab and the cells of a range such as `'Leads'!A1:C`.
    fn find<'r>(&mut self, range: &'r str) -> Result<(&mut Tab, &'r str), (u16, String)> {
        let unparsed = || invalid(format!("Unable to parse range: {range}"));
        let (tab, cells) = range.rsplit_once('!').ok_or_else(unparsed)?;
        let title = match tab.strip_prefix('\'').and_then(|tab| tab.strip_suffix('\'')) {
            Some(quoted) => quoted.replace("''", "'"),
            None => tab.to_owned(),
        };
        self.tab_mut(&title).map(|tab| (tab, cells)).ok_or_else(unparsed)
    }

    fn read(&mut self, range: &str, _query: &str) -> Acted {
        let (tab, cells) = self.find(range)?;
        let shown = |rows: Vec<Vec<Value>>| {
            if rows.is_empty() { json!({"range": range}) } else { json!({"range": range, "values": rows}) }
        };
        if cells == "1:1" {
            let first = tab.rows.first().cloned().unwrap_or_default();
            return Ok(shown(trimmed(vec![first])));
        }
        let at = Cells::read(cells).ok_or_else(|| invalid(format!("Unable to parse range: {range}")))?;
        if at.bottom > tab.grid.0.max(tab.rows.len()) {
            return Err(invalid(format!("Range ({range}) exceeds grid limits. Max rows: {}", tab.grid.0)));
        }
        let rows = tab.rows.iter().skip(at.top - 1).take(at.rows());
        let rows =
            rows.map(|row| (at.left..=at.right).map(|n| row.get(n).cloned().unwrap_or_default()).collect());
        Ok(shown(trimmed(rows.collect())))
    }

    fn append(&mut self, range: &str, body: &Value) -> Acted {
        let full = self.cells();
        let values = rows_of(body, self.refused.as_deref())?;
        let (tab, _) = self.find(range)?;
        tab.may_change()?;
        let width = values.iter().map(Vec::len).max().unwrap_or(0);
        let new_rows = (tab.rows.len() + values.len()).saturating_sub(tab.grid.0);
        if full + new_rows * tab.grid.1 > MOST_CELLS {
            return Err(invalid(
                "This action would increase the number of cells in the workbook above the limit of 10000000 cells.",
            ));
        }
        let table = tab.table();
        // Google puts rows below the last table that it finds: one that a blank header splits off at the right wins.
        let (left, top) = table.map_or((0, 0), |(left, _, bottom)| (left, bottom + 1));
        for (n, row) in values.iter().enumerate() {
            let mut placed = vec![Value::from(""); left];
            placed.extend(row.iter().cloned());
            tab.rows.insert((top + n).min(tab.rows.len()), placed);
        }
        tab.grid.0 = tab.grid.0.max(tab.rows.len());
        let name = format!("'{}'", tab.title.replace('\'', "''"));
        let last = column_letters((left + width).saturating_sub(1));
        let updated = format!("{name}!{}{}:{last}{}", column_letters(left), top + 1, top + values.len());
        let mut answer = json!({"updates": {"updatedRange": updated, "updatedRows": values.len()}});
        if let Some((left, right, bottom)) = table {
            let range = format!("{name}!{}1:{}{}", column_letters(left), column_letters(right), bottom + 1);
            answer["tableRange"] = range.into();
        }
        Ok(answer)
    }

    fn write(&mut self, body: &Value) -> Acted {
        for data in body["data"].as_array().into_iter().flatten() {
            let range = data["range"].as_str().unwrap_or_default();
            let rows = rows_of(data, self.refused.as_deref())?;
            let (tab, cells) = self.find(range)?;
            tab.may_change()?;
            let at = Cells::read(cells).ok_or_else(|| invalid(format!("Unable to parse range: {range}")))?;
            for (n, row) in rows.into_iter().enumerate() {
                if at.left + row.len() > tab.grid.1 {
                    return Err(invalid(format!(
                        "Range ({range}) exceeds grid limits. Max columns: {}",
                        tab.grid.1
                    )));
                }
                while tab.rows.len() < at.top + n {
                    tab.rows.push(Vec::new());
                }
                let target = &mut tab.rows[at.top - 1 + n];
                for (m, value) in row.into_iter().enumerate() {
                    if target.len() <= at.left + m {
                        target.resize(at.left + m + 1, Value::from(""));
                    }
                    target[at.left + m] = value;
                }
            }
        }
        Ok(json!({}))
    }

    fn change(&mut self, body: &Value) -> Acted {
        for request in body["requests"].as_array().into_iter().flatten() {
            if let Some(title) = request["addSheet"]["properties"]["title"].as_str() {
                if self.tab(title).is_some() {
                    return Err(invalid(format!("A sheet with the name \"{title}\" already exists.")));
                }
                self.add(title);
                continue;
            }
            let of = |part: &Value| part["sheetId"].as_i64().unwrap_or(0);
            let (grow, hide, name) = (
                &request["appendDimension"],
                &request["updateDimensionProperties"],
                &request["updateSheetProperties"],
            );
            let id = [grow, &hide["range"], &name["properties"]]
                .into_iter()
                .find(|part| part.is_object())
                .map_or(0, of);
            let tab = self.tabs.iter_mut().find(|tab| tab.id == id);
            let tab = tab.ok_or_else(|| invalid(format!("No grid with id: {id}")))?;
            tab.may_change()?;
            if let Some(length) = grow["length"].as_u64() {
                tab.grid.1 += usize::try_from(length).unwrap_or(0);
            } else if let Some(first) = hide["range"]["startIndex"].as_u64() {
                tab.hidden.push(usize::try_from(first).unwrap_or(0));
            } else if let Some(title) = name["properties"]["title"].as_str() {
                title.clone_into(&mut tab.title);
            }
        }
        Ok(json!({"replies": []}))
    }
}

impl Tab {
    fn may_change(&self) -> Result<(), (u16, String)> {
        if self.protected {
            return Err(invalid(
                "You are trying to edit a protected cell or object. Please contact the spreadsheet owner to remove \
                 protection if you need to edit.",
            ));
        }
        Ok(())
    }

    /// The first and last column of the table that rows are appended to, and its last row; from 0.
    fn table(&self) -> Option<(usize, usize, usize)> {
        let headers = self.rows.first()?;
        let last = headers.iter().rposition(|value| !is_blank(Some(value)))?;
        let left =
            headers[..last].iter().rposition(|value| is_blank(Some(value))).map_or(0, |blank| blank + 1);
        let filled = |row: &&Vec<Value>| row.iter().any(|value| !is_blank(Some(value)));
        let bottom = self.rows.iter().take_while(filled).count();
        Some((left, last, bottom.max(1) - 1))
    }
}

fn rows_of(data: &Value, refused: Option<&str>) -> Result<Vec<Vec<Value>>, (u16, String)> {
    let rows: Vec<Vec<Value>> = data["values"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| row.as_array().cloned().unwrap_or_default())
        .collect();
    for value in rows.iter().flatten() {
        if value.is_object() || value.is_array() {
            return Err(invalid("Invalid values: list_value"));
        }
        if refused.is_some_and(|refused| value == refused) {
            return Err(invalid("Invalid values: string_value"));
        }
        if value.as_str().is_some_and(|text| text.encode_utf16().count() > MOST_CHARS) {
            return Err(invalid(
                "Your input contains more than the maximum of 50000 characters in a single cell.",
            ));
        }
    }
    Ok(rows)
}

/// Without what is blank at the end of rows and of the whole.
fn trimmed(rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|mut row| {
            while !row.is_empty() && is_blank(row.last()) {
                row.pop();
            }
            row
        })
        .collect();
    while rows.last().is_some_and(Vec::is_empty) {
        rows.pop();
    }
    rows
}
