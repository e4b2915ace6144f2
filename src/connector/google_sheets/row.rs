//! A job's row: what the mapping made, kept between its tries.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::address::MOST_TAB_CHARS;

/// Which tab a row goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TabPer {
    /// One for all.
    #[default]
    None,
    /// One for each event type.
    EventType,
    /// One for each month, by the event's time in UTC.
    Month,
}

/// A row before it has a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The tab.
    pub tab: String,
    /// Names of columns and their values, in the mapping's order.
    pub cells: Vec<(String, Value)>,
    /// Whether every try so far surely wrote nothing; else it is looked for before it is written.
    pub unwritten: bool,
}

impl Row {
    /// The row of mapped fields.
    pub fn new(tab: String, fields: Map<String, Value>) -> Self {
        Self { tab, cells: fields.into_iter().collect(), unwritten: true }
    }

    /// What is kept of it.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads it back; `None` when it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The tab of an event: the tab named, followed by the type or the month where that is wanted.
pub fn tab_of(tab: &str, per: TabPer, kind: &str, time: &str) -> String {
    let part = match per {
        TabPer::None => return tab.to_owned(),
        TabPer::EventType => kind.to_owned(),
        TabPer::Month => {
            let time = time.parse::<Timestamp>().unwrap_or_default();
            time.to_zoned(TimeZone::UTC).strftime("%Y-%m").to_string()
        }
    };
    // Letters that Google allows in no tab's name.
    let part: String =
        part.chars().map(|letter| if "[]*?:/\\".contains(letter) { '_' } else { letter }).collect();
    let name = if tab.is_empty() { part } else { format!("{tab} {part}") };
    name.chars().take(MOST_TAB_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_follow_the_type_or_the_month() {
        let tab = |per| tab_of("Leads", per, "lead.captured", "2026-05-31T23:30:00-04:00");
        assert_eq!(tab(TabPer::None), "Leads");
        assert_eq!(tab(TabPer::EventType), "Leads lead.captured");
        assert_eq!(tab(TabPer::Month), "Leads 2026-06");
        assert_eq!(tab_of("", TabPer::EventType, "a/b:c", ""), "a_b_c");
    }
}
