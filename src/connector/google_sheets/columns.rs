//! Which value goes under which header: headers are matched by name, so that people may move, insert and add columns.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::address::column_letters;

/// More columns than any sheet here is given.
pub const MOST_COLUMNS: usize = 1_000;

/// A header as names are compared: case and runs of spaces mean nothing.
pub fn normal(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Where the values go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The headers as they will stand in the first row.
    pub headers: Vec<String>,
    /// How many of them are there already; the others are to be written at the right.
    pub present: usize,
    by_name: HashMap<String, usize>,
}

/// The first row can't be used as it is; `reason` names the cell and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ColumnsError(pub String);

impl Columns {
    /// Matches the first row of a tab with the columns that are wanted, in their order.
    pub fn place<'a>(
        first_row: &[String],
        wanted: impl IntoIterator<Item = &'a str>,
        tab: &str,
    ) -> Result<Self, ColumnsError> {
        let mut headers = first_row.to_vec();
        while headers.last().is_some_and(|last| normal(last).is_empty()) {
            headers.pop();
        }
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (at, header) in headers.iter().enumerate() {
            let name = normal(header);
            let cell = format!("{}1", column_letters(at));
            if name.is_empty() {
                return Err(ColumnsError(format!(
                    "the header cell {cell} of the tab \"{tab}\" is blank, and Google would put rows beside the table: \
                     write a name into {cell}, or delete the column"
                )));
            }
            if let Some(first) = by_name.insert(name, at) {
                return Err(ColumnsError(format!(
                    "the header cells {}1 and {cell} of the tab \"{tab}\" are both \"{}\": rename one of them",
                    column_letters(first),
                    header.trim()
                )));
            }
        }
        let present = headers.len();
        for wanted in wanted {
            if let Entry::Vacant(place) = by_name.entry(normal(wanted)) {
                place.insert(headers.len());
                headers.push(wanted.to_owned());
            }
        }
        if headers.len() > MOST_COLUMNS {
            return Err(ColumnsError(format!(
                "the tab \"{tab}\" would have {} columns, and {MOST_COLUMNS} is the most",
                headers.len()
            )));
        }
        Ok(Self { headers, present, by_name })
    }

    /// The column of a name, from 0.
    pub fn of(&self, name: &str) -> Option<usize> {
        self.by_name.get(&normal(name)).copied()
    }

    /// The headers that are to be written at the right.
    pub fn new_headers(&self) -> &[String] {
        &self.headers[self.present..]
    }

    /// Puts named values where they belong; what has no value stays empty.
    pub fn row(&self, cells: &[(String, serde_json::Value)]) -> Vec<serde_json::Value> {
        // Never null: the client library drops nulls from lists, and every value behind one would move to the left.
        let mut row = vec![serde_json::Value::from(""); self.headers.len()];
        for (name, value) in cells {
            if let Some(slot) = self.of(name).and_then(|at| row.get_mut(at)) {
                *slot = value.clone();
            }
        }
        row
    }

    /// Named values as runs of neighbouring columns, each with its first column: for rows whose other cells are
    /// other people's.
    pub fn runs(&self, cells: &[(String, serde_json::Value)]) -> Vec<(usize, Vec<serde_json::Value>)> {
        let mut placed: Vec<(usize, &serde_json::Value)> =
            cells.iter().filter_map(|(name, value)| Some((self.of(name)?, value))).collect();
        placed.sort_by_key(|(at, _)| *at);
        let mut runs: Vec<(usize, Vec<serde_json::Value>)> = Vec::new();
        for (at, value) in placed {
            match runs.last_mut() {
                Some((first, run)) if *first + run.len() == at => run.push(value.clone()),
                _ => runs.push((at, vec![value.clone()])),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_empty_tab_gets_all_headers_in_the_mappings_order() {
        let columns = Columns::place(&[], ["Name", "Email", "Job"], "Leads").unwrap();
        assert_eq!(columns.new_headers(), texts(&["Name", "Email", "Job"]));
        assert_eq!(columns.present, 0);
    }

    #[test]
    fn headers_are_found_wherever_they_are_and_new_ones_go_to_the_right() {
        let first_row = texts(&[" job ", "Notes", "E  MAIL", ""]);
        let columns = Columns::place(&first_row, ["Name", "e mail", "Job"], "Leads").unwrap();
        assert_eq!(columns.new_headers(), texts(&["Name"]));
        let cells = [
            ("Name".to_owned(), json!("Jane")),
            ("E Mail".to_owned(), json!("j@x")),
            ("job".to_owned(), json!("1")),
        ];
        assert_eq!(columns.row(&cells), [json!("1"), json!(""), json!("j@x"), json!("Jane")]);
        assert_eq!(columns.runs(&cells), [(0, vec![json!("1")]), (2, vec![json!("j@x"), json!("Jane")])]);
    }

    #[test]
    fn a_blank_or_a_double_header_is_refused_by_its_cell() {
        let blank = Columns::place(&texts(&["Name", " ", "Email"]), ["Name"], "Leads").unwrap_err();
        assert!(blank.to_string().contains("B1"), "{blank}");
        let double = Columns::place(&texts(&["Name", "Email", " NAME "]), ["Name"], "Leads").unwrap_err();
        assert!(double.to_string().contains("A1 and C1"), "{double}");
    }
}
