//! The bounds of the language, in one place: what a mapping may ask for and how large a result may be.

use std::cell::Cell;
use std::io::{self, Write};

use serde_json::Value;

/// Characters of a path.
pub const PATH_CHARS: usize = 512;
/// Brackets and parentheses of a path that are open at once.
pub const PATH_NESTING: usize = 8;
/// Nodes that a path may match.
pub const RESULT_NODES: usize = 1_000;
/// Bytes of one value, and of the whole output, as JSON.
pub const VALUE_BYTES: usize = 1024 * 1024;
/// Lists and objects inside one another in the output.
pub const OUTPUT_NESTING: usize = 32;
/// Bytes of a mapping as JSON.
pub const MAPPING_BYTES: usize = 256 * 1024;
/// Rows of a mapping, nested rows included.
pub const ROWS: usize = 500;
/// Transforms of one row.
pub const STEPS: usize = 20;
/// Paths of one `from` list, and of one template.
pub const PATHS: usize = 20;
/// Names in a dotted `to`, and `fields` inside one another.
pub const TARGET_NESTING: usize = 8;
/// Tests in one condition, and `all`, `any`, `not` inside one another.
pub const CONDITION_TESTS: usize = 100;
/// `all`, `any` and `not` inside one another.
pub const CONDITION_NESTING: usize = 8;

/// Units of work of one run. A unit is a node that a query looks at, or 16 bytes that a transform handles; all of it
/// takes some tenths of a second.
pub const WORK: usize = 4_000_000;
/// Bytes of a text that a pattern is run on.
pub const PATTERN_TEXT_BYTES: usize = 64 * 1024;

/// What a run may still do. One budget is shared by all rows, items and queries of a run, so that no event and no
/// mapping can hold up the others.
#[derive(Debug)]
pub struct Work(Cell<usize>);

impl Work {
    /// Why a run is ended.
    pub const SPENT: &'static str =
        "the event is too large for this; name the keys on the way instead of \"..\", or map less of it";

    /// The work of one run.
    pub fn new() -> Self {
        Self(Cell::new(WORK))
    }

    /// Spends units, or says that there are none left.
    pub fn spend(&self, units: usize) -> Result<(), &'static str> {
        self.0.set(self.0.get().checked_sub(units).ok_or(Self::SPENT)?);
        Ok(())
    }

    /// Spends what it takes to handle a value once.
    pub fn spend_on(&self, value: &Value) -> Result<(), &'static str> {
        match value {
            Value::String(text) => self.spend(1 + text.len() / 16),
            Value::Array(items) => {
                self.spend(1)?;
                items.iter().try_for_each(|item| self.spend_on(item))
            }
            Value::Object(entries) => {
                self.spend(1 + entries.len())?;
                entries.values().try_for_each(|item| self.spend_on(item))
            }
            _ => self.spend(1),
        }
    }
}

/// The value's length in bytes as JSON; `None` when it is above `limit`. Stops as soon as it is.
pub fn measure(value: &Value, limit: usize) -> Option<usize> {
    let mut meter = Meter { left: limit };
    serde_json::to_writer(&mut meter, value).ok()?;
    Some(limit - meter.left)
}

/// Whether no more than `levels` lists and objects are inside one another.
pub fn within_nesting(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| within_nesting(item, levels - 1)),
        Value::Object(entries) => levels > 0 && entries.values().all(|item| within_nesting(item, levels - 1)),
        _ => true,
    }
}

struct Meter {
    left: usize,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => {
                self.left = left;
                Ok(bytes.len())
            }
            None => Err(io::Error::other("too large")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_measure_is_the_serialised_length() {
        let every: String = (0..=0x120).filter_map(char::from_u32).collect();
        for value in [
            json!(null),
            json!("a\"\u{1}é"),
            json!([1, 2.5, {"k": [true]}]),
            json!([[], {}, false, -7, 1e300, "", every, {every.as_str(): [null], "a\nb": {"c": "\\"}}]),
        ] {
            let length = value.to_string().len();
            assert_eq!(measure(&value, 10_000), Some(length));
            assert_eq!(measure(&value, length), Some(length));
            assert_eq!(measure(&value, length - 1), None);
        }
    }

    #[test]
    fn nesting_counts_lists_and_objects() {
        assert!(within_nesting(&json!(1), 0));
        assert!(within_nesting(&json!([{"a": 1}]), 2));
        assert!(!within_nesting(&json!([{"a": []}]), 2));
    }
}
