//! Names of things in a spreadsheet: its id, tabs, cells, ranges.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

const MOST_ID_CHARS: usize = 128;
/// A tab's name has at most so many characters.
pub const MOST_TAB_CHARS: usize = 100;

/// The id of a spreadsheet, out of its address in a browser or as it is.
pub fn spreadsheet_id(text: &str) -> Option<String> {
    let is_id = |text: &str| {
        (10..=MOST_ID_CHARS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let text = text.trim();
    if is_id(text) {
        return Some(text.to_owned());
    }
    let url = Url::parse(text).ok()?;
    let mut parts = url.path_segments()?;
    parts.find(|part| *part == "spreadsheets")?;
    parts.find(|part| *part == "d")?;
    parts.next().filter(|id| is_id(id)).map(str::to_owned)
}

/// The letters of a column, from 0: `A`, `Z`, `AA`.
pub fn column_letters(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        let letter = u8::try_from((rest - 1) % 26).unwrap_or(0);
        letters.push(char::from(b'A' + letter));
        rest = (rest - 1) / 26;
    }
    letters.iter().rev().collect()
}

/// A range in A1 notation, the tab in quotes: `'Bob''s'!A1:C9`.
pub fn range(tab: &str, cells: &str) -> String {
    format!("'{}'!{cells}", tab.replace('\'', "''"))
}

/// A range as a path's segment. The client library writes a path as it is given, so all that could end it is encoded.
pub fn in_path(range: &str) -> String {
    utf8_percent_encode(range, NON_ALPHANUMERIC).to_string()
}

/// A rectangle of cells that an answer names; rows from 1, columns from 0, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells {
    /// The first column.
    pub left: usize,
    /// The last column.
    pub right: usize,
    /// The first row.
    pub top: usize,
    /// The last row.
    pub bottom: usize,
}

impl Cells {
    /// Reads `'Leads'!A2:F9`, or of one cell `Leads!A2`.
    pub fn read(range: &str) -> Option<Self> {
        let cells = range.rsplit_once('!').map_or(range, |(_, cells)| cells);
        let (first, last) = cells.split_once(':').unwrap_or((cells, cells));
        let ((left, top), (right, bottom)) = (cell(first)?, cell(last)?);
        Some(Self { left, right, top, bottom })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        (self.bottom + 1).saturating_sub(self.top)
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        (self.right + 1).saturating_sub(self.left)
    }
}

fn cell(text: &str) -> Option<(usize, usize)> {
    let at = text.find(|letter: char| letter.is_ascii_digit())?;
    let (letters, digits) = text.split_at(at);
    if letters.is_empty() || letters.len() > 4 {
        return None;
    }
    let mut column = 0_usize;
    for byte in letters.bytes() {
        let byte = byte.to_ascii_uppercase();
        if !byte.is_ascii_uppercase() {
            return None;
        }
        column = column * 26 + usize::from(byte - b'A') + 1;
    }
    Some((column - 1, digits.parse().ok().filter(|row| *row > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_is_named_by_its_address_or_its_id() {
        let id = "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms";
        for text in [
            id.to_owned(),
            format!(" https://docs.google.com/spreadsheets/d/{id}/edit#gid=0 "),
            format!("https://docs.google.com/spreadsheets/u/1/d/{id}"),
        ] {
            assert_eq!(spreadsheet_id(&text).as_deref(), Some(id), "{text}");
        }
        for text in [
            "",
            "a sheet",
            "https://docs.google.com/document/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74",
            "../x/../../etc",
        ] {
            assert_eq!(spreadsheet_id(text), None, "{text}");
        }
    }

    #[test]
    fn columns_have_letters() {
        for (index, letters) in [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA")] {
            assert_eq!(column_letters(index), letters);
            assert_eq!(cell(&format!("{letters}1")), Some((index, 1)));
        }
    }

    #[test]
    fn ranges_are_written_and_read() {
        assert_eq!(range("Bob's", "A1"), "'Bob''s'!A1");
        assert_eq!(in_path("'a/b?'!A1"), "%27a%2Fb%3F%27%21A1");
        let cells = Cells::read("'It''s a ! tab'!B2:AA9").unwrap();
        assert_eq!(cells, Cells { left: 1, right: 26, top: 2, bottom: 9 });
        assert_eq!((cells.rows(), cells.columns()), (8, 26));
        assert_eq!(Cells::read("Leads!C7"), Some(Cells { left: 2, right: 2, top: 7, bottom: 7 }));
        for text in ["", "Leads", "Leads!7", "Leads!A0", "Leads!A1:"] {
            assert_eq!(Cells::read(text), None, "{text}");
        }
    }
}
