//! From a mapped value to a cell, so that what arrives is what was sent: no formula, no lost zero, no cell over its limit.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The most that a cell holds, in the units that Google counts (UTF-16).
pub const MOST_CHARS: usize = 50_000;
/// What ends a text that was cut.
pub const TRUNCATED: &str = "[TRUNCATED]";
/// What a cell begins with that is a formula to a spreadsheet, wide forms included.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];
/// Whole numbers above this change in a spreadsheet, which counts in doubles.
const MOST_EXACT: u64 = 1 << 53;
/// Days from a spreadsheet's first day, 1899-12-30, to 1970-01-01.
const EPOCH_DAYS: f64 = 25_569.0;

/// How Google reads what it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Input {
    /// As it is.
    #[default]
    Raw,
    /// As if a person typed it.
    UserEntered,
}

impl Input {
    /// Google's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "RAW",
            Self::UserEntered => "USER_ENTERED",
        }
    }
}

/// How times are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dates {
    /// As the event has them (RFC 3339).
    #[default]
    Iso,
    /// As the sheet's own dates, in the sheet's zone.
    Sheet,
}

/// What turns a value into a cell.
#[derive(Debug, Clone)]
pub struct Writer {
    /// How Google reads it.
    pub input: Input,
    /// How times are written.
    pub dates: Dates,
    /// The sheet's zone.
    pub zone: TimeZone,
}

impl Writer {
    /// The cell of a value. It is never null.
    pub fn cell(&self, value: &Value) -> Value {
        match value {
            Value::Null => Value::from(""),
            Value::Bool(_) => value.clone(),
            Value::Number(number) => {
                let exact = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
                match exact {
                    Some(whole) if whole > MOST_EXACT => self.text(&number.to_string()),
                    _ => value.clone(),
                }
            }
            Value::String(text) => self.date(text).unwrap_or_else(|| self.text(text)),
            Value::Array(_) | Value::Object(_) => self.text(&value.to_string()),
        }
    }

    fn text(&self, text: &str) -> Value {
        let text = cut(text);
        let dangerous = self.input == Input::UserEntered
            && (text.starts_with(['\t', '\r', '\n', '\'']) || text.trim_start().starts_with(FORMULA));
        // A leading apostrophe makes a text of anything, and is not shown.
        Value::from(if dangerous { cut(&format!("'{text}")) } else { text })
    }

    fn date(&self, text: &str) -> Option<Value> {
        if self.dates == Dates::Iso || !(20..=40).contains(&text.len()) {
            return None;
        }
        let civil = text.parse::<Timestamp>().ok()?.to_zoned(self.zone.clone()).datetime();
        match self.input {
            Input::UserEntered => Some(Value::from(civil.strftime("%Y-%m-%d %H:%M:%S").to_string())),
            Input::Raw => {
                let as_if_utc = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
                let days = as_if_utc.as_duration().as_secs_f64() / 86_400.0 + EPOCH_DAYS;
                Some(Value::from((days * 1e8).round() / 1e8))
            }
        }
    }
}

/// At most [`MOST_CHARS`], cut between two characters; what was cut says so.
fn cut(text: &str) -> String {
    // No character has more UTF-16 units than bytes.
    if text.len() <= MOST_CHARS || text.encode_utf16().count() <= MOST_CHARS {
        return text.to_owned();
    }
    let mut room = MOST_CHARS - TRUNCATED.len();
    let kept = text.char_indices().find(|(_, letter)| {
        let fits = letter.len_utf16() <= room;
        room = room.saturating_sub(letter.len_utf16());
        !fits
    });
    let end = kept.map_or(text.len(), |(at, _)| at);
    format!("{}{TRUNCATED}", &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn writer(input: Input, dates: Dates) -> Writer {
        Writer { input, dates, zone: TimeZone::get("America/New_York").unwrap() }
    }

    #[test]
    fn raw_values_stay_what_they_were() {
        let raw = writer(Input::Raw, Dates::Iso);
        for text in ["=IMPORTXML(\"http://x\")", "+15550100", "007", "'quoted", "2026-05-03T14:22:08Z", ""] {
            assert_eq!(raw.cell(&json!(text)), json!(text));
        }
        assert_eq!(raw.cell(&json!(null)), json!(""));
        assert_eq!(raw.cell(&json!(true)), json!(true));
        assert_eq!(raw.cell(&json!(1.5)), json!(1.5));
        assert_eq!(raw.cell(&json!(9_007_199_254_740_993_u64)), json!("9007199254740993"));
        assert_eq!(raw.cell(&json!({"a": [1, {"b": null}]})), json!("{\"a\":[1,{\"b\":null}]}"));
    }

    #[test]
    fn what_a_person_would_type_is_no_formula() {
        let typed = writer(Input::UserEntered, Dates::Iso);
        for text in ["=1+1", "+1555", "-1", "@x", "\t=1", "  =1", "\r=1", "＝1", "'x", "\n=1"] {
            assert_eq!(typed.cell(&json!(text)), json!(format!("'{text}")), "{text:?}");
        }
        for text in ["Jane", "a=b", "2026-05-03", ""] {
            assert_eq!(typed.cell(&json!(text)), json!(text));
        }
        assert_eq!(typed.cell(&json!(["=1"])), json!("[\"=1\"]"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let raw = writer(Input::Raw, Dates::Iso);
        let whole = "ä".repeat(MOST_CHARS);
        assert_eq!(raw.cell(&json!(whole)), json!(whole));
        for text in ["ä".repeat(MOST_CHARS + 1), "😀".repeat(MOST_CHARS), "x😀".repeat(MOST_CHARS)] {
            let cell = raw.cell(&json!(text));
            let cell = cell.as_str().unwrap();
            let units = cell.encode_utf16().count();
            assert!((MOST_CHARS - 1..=MOST_CHARS).contains(&units), "{units}");
            assert!(cell.ends_with(TRUNCATED) && text.starts_with(cell.strip_suffix(TRUNCATED).unwrap()));
        }
        let formula =
            writer(Input::UserEntered, Dates::Iso).cell(&json!(format!("={}", "x".repeat(MOST_CHARS))));
        assert!(formula.as_str().unwrap().encode_utf16().count() <= MOST_CHARS);
    }

    #[test]
    fn dates_are_the_sheets_own_by_choice() {
        let at = json!("2026-05-03T14:22:08Z");
        // 10:22:08 in New York, in summer; 46,145 days after 1899-12-30.
        assert_eq!(writer(Input::UserEntered, Dates::Sheet).cell(&at), json!("2026-05-03 10:22:08"));
        let days = writer(Input::Raw, Dates::Sheet).cell(&at).as_f64().unwrap();
        assert!((days - 46_145.432_037_04).abs() < 1e-6, "{days}");
        assert_eq!(
            writer(Input::Raw, Dates::Sheet).cell(&json!("2026-05-03 and more text")),
            json!("2026-05-03 and more text")
        );
    }
}
