//! The delivery log as a stream of lines: one page in memory at a time, however long it is.
//!
//! A store that fails midway breaks the connection off: a transfer that ended well has everything.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream::try_unfold;
use serde_json::Value;

use super::deliveries::show;
use crate::store::{DeliveryQuery, Store, StoreError};

/// Deliveries of one read.
const PAGE: usize = 200;

/// The columns of a table, as the API names them.
const HEAD: &str = "id,tenant,connection,event,type,mapping,state,reason,tries,outcome,status,duration_ms,created,due,finished";

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// A table with a head (RFC 4180).
    Csv,
}

impl Format {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Ndjson, Self::Csv];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What an answer in it is called.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// The line before the first, without its end.
    pub fn head(self) -> Option<&'static str> {
        (self == Self::Csv).then_some(HEAD)
    }

    /// A delivery, as the API shows it, as a line without its end.
    pub fn line(self, shown: &Value) -> String {
        match self {
            Self::Ndjson => shown.to_string(),
            Self::Csv => HEAD.split(',').map(|column| cell(&shown[column])).collect::<Vec<_>>().join(","),
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Ndjson => "\n",
            Self::Csv => "\r\n",
        }
    }
}

struct Walk {
    store: Arc<dyn Store>,
    /// What is still wanted; `None` once all was read.
    query: Option<DeliveryQuery>,
    ready: VecDeque<Bytes>,
}

/// The lines of all that is wanted, newest first, a page of them at a time.
pub(super) fn export_lines(
    store: Arc<dyn Store>,
    query: DeliveryQuery,
    format: Format,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let ended = move |line: &str| [line, format.end()].concat();
    let head = format.head().map(|head| Bytes::from(ended(head)));
    let walk = Walk {
        store,
        query: Some(DeliveryQuery { limit: PAGE, ..query }),
        ready: head.into_iter().collect(),
    };
    try_unfold(walk, move |mut walk| async move {
        loop {
            if let Some(lines) = walk.ready.pop_front() {
                return Ok(Some((lines, walk)));
            }
            let Some(query) = walk.query.take() else { return Ok(None) };
            let page = walk.store.deliveries(query.clone()).await?;
            walk.query = page.next.map(|next| DeliveryQuery { before: Some(next), ..query });
            let lines: String =
                page.items.iter().map(|delivery| ended(&format.line(&show(delivery)))).collect();
            if !lines.is_empty() {
                walk.ready.push_back(Bytes::from(lines));
            }
        }
    })
}

/// One cell. Text that a spreadsheet would take for a formula begins with an apostrophe, which makes it text there.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text,
        other => return other.to_string(),
    };
    let formula = text.trim_start().starts_with(['=', '+', '-', '@']) || text.starts_with(['\t', '\r', '\n']);
    let guard = if formula { "'" } else { "" };
    if formula || text.contains(['"', ',', '\r', '\n', ';', '\t']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_ends_its_row() {
        for (value, wanted) in [
            (json!("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\""),
            (json!("  +1"), "\"'  +1\""),
            (json!("-2+3"), "\"'-2+3\""),
            (json!("@SUM(A1)"), "\"'@SUM(A1)\""),
            (json!("\t=1"), "\"'\t=1\""),
            (json!("a,b"), "\"a,b\""),
            (json!("a\r\nb"), "\"a\r\nb\""),
            (json!("200 OK"), "200 OK"),
            (json!(-5), "-5"),
            (json!(null), ""),
        ] {
            assert_eq!(cell(&value), wanted);
        }
    }
}
