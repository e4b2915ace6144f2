//! What a connector writes around the mapped fields, or beside them: `[envelope]`.
//!
//! ```toml
//! [envelope]
//! mapped = "rows"                # the rows take them out of "$.fields"…
//!
//! [[envelope.fields]]            # rows as in a mapping file
//! to = "event"
//! from = "$.type"
//!
//! [[envelope.fields]]
//! to = "data"
//! from = "$.fields"
//! ```
//!
//! With `mapped = "beside"`, the default, the mapped fields come first and the envelope's rows after them, and a mapping
//! may not write the envelope's names. The rows read the event (`$.type`, `$.data…`), what stands beside it
//! (`$tenant.id`), the mapped fields (`$.fields`), the connection's options but for the secret ones (`$.options.name`), and
//! after `[[steps]]` what was taken from their answers (`$.answers.step.name`).

use serde_json::{Map, Value};

use super::rows;
use crate::domain::document::TableReader;
use crate::mapping::{Context, Mapping, MappingError};

/// The key under which rows find the mapped fields.
pub const FIELDS: &str = "fields";

/// Where the mapped fields go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapped {
    /// Before the envelope's own, at the same level.
    Beside,
    /// Where the rows put them.
    Rows,
}

pub(super) const MAPPED: &[(&str, Mapped)] = &[("beside", Mapped::Beside), ("rows", Mapped::Rows)];

/// A checked envelope.
#[derive(Debug, PartialEq)]
pub struct Envelope {
    /// Where the mapped fields go.
    pub mapped: Mapped,
    rows: Mapping,
}

impl Envelope {
    pub(super) fn parse(mut table: TableReader<'_>) -> Option<Self> {
        let mapped = table.choice("mapped", MAPPED).unwrap_or(Mapped::Beside);
        table.need("fields");
        let rows = rows::parse(&mut table, "fields");
        if let Some(rows) = &rows {
            let takes = rows.to_json().to_string().contains("$.fields");
            if mapped == Mapped::Rows && !takes {
                let hint = "add a row with from = \"$.fields\"".to_owned();
                table.fault("mapped", "no row takes the mapped fields, so they would go nowhere", Some(hint));
            }
            if mapped == Mapped::Beside && takes {
                let hint = "write mapped = \"rows\"".to_owned();
                table.fault(
                    "mapped",
                    "a row takes the mapped fields, which stand beside it already",
                    Some(hint),
                );
            }
        }
        table.finish();
        Some(Self { mapped, rows: rows? })
    }

    /// The names that a mapping may not write.
    pub fn reserved(&self) -> impl Iterator<Item = String> {
        let beside = self.mapped == Mapped::Beside;
        let mut names: Vec<String> = Vec::new();
        for (target, _) in self.rows.targets().filter(|_| beside) {
            let top = target.split('.').next().unwrap_or(target);
            if !names.iter().any(|name| name == top) {
                names.push(top.to_owned());
            }
        }
        names.into_iter()
    }

    /// The fields as they are sent. `document` is what the rows read.
    pub fn wrap(
        &self,
        fields: &Map<String, Value>,
        document: &Value,
        context: &Context<'_>,
    ) -> Result<Map<String, Value>, MappingError> {
        let own = self.rows.apply(document, context)?;
        Ok(match self.mapped {
            Mapped::Rows => own,
            Mapped::Beside => {
                let mut all = fields.clone();
                all.extend(own);
                all
            }
        })
    }
}
