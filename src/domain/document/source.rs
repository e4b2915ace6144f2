//! Turns parsed TOML into nodes that know their line and column.

use std::sync::Arc;

use super::{Key, Kind, Mark, Node};

/// Turns byte offsets of one file into lines and columns.
pub(super) struct Source<'t> {
    file: Arc<str>,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub fn new(file: &str, text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: Arc::from(file), text, line_starts }
    }

    pub fn mark(&self, offset: usize) -> Mark {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        let as_u32 = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Mark { file: Some(Arc::clone(&self.file)), line: as_u32(line), column: as_u32(column) }
    }

    pub fn table(&self, table: &toml::de::DeTable<'_>, offset: usize) -> Node {
        let entries = table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().to_string();
                (
                    Key { name, mark: self.mark(key.span().start) },
                    self.value(value.get_ref(), value.span().start),
                )
            })
            .collect();
        Node { kind: Kind::Table(entries), mark: self.mark(offset) }
    }

    fn value(&self, value: &toml::de::DeValue<'_>, offset: usize) -> Node {
        use toml::de::DeValue;
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Kind::Text(integer.to_string()), Kind::Integer),
            DeValue::Float(float) => {
                float.as_str().parse().map_or_else(|_| Kind::Text(float.to_string()), Kind::Float)
            }
            DeValue::Boolean(flag) => Kind::Boolean(*flag),
            DeValue::Datetime(moment) => Kind::Text(moment.to_string()),
            DeValue::Array(items) => {
                Kind::List(items.iter().map(|item| self.value(item.get_ref(), item.span().start)).collect())
            }
            DeValue::Table(table) => return self.table(table, offset),
        };
        Node { kind, mark: self.mark(offset) }
    }
}
