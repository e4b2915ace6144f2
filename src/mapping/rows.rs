//! Reads a mapping's rows: every key, every path, every conflict, all faults at once.

use serde_json::Value;

use super::condition::Condition;
use super::limits::{MAPPING_BYTES, PATHS, ROWS, STEPS, TARGET_NESTING, measure};
use super::path::Path;
use super::target::{overlap, read_target};
use super::template::Template;
use super::transcript::Transcript;
use super::transform::Applied;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::{Fault, Faults, Place};

/// One row, compiled.
pub struct Row {
    /// The full `to`, with the rows that hold it.
    pub to: String,
    /// The names of its own `to`, at least one.
    pub names: Vec<String>,
    /// Where the `to` stands.
    pub place: Place,
    /// What gives the value.
    pub source: Source,
    /// The transforms, in order.
    pub apply: Vec<Applied>,
    /// What stands in for what is absent or null.
    pub default: Option<Value>,
    /// Whether absent or null is an error.
    pub required: bool,
    /// When the row takes part.
    pub when: Option<Condition>,
    /// What an error does.
    pub on_error: OnError,
    /// Whether an empty text counts as absent.
    pub blank_is_absent: bool,
    /// Whether what is absent is written as null.
    pub absent_is_null: bool,
}

/// What gives a row's value.
pub enum Source {
    /// The first path that gives a value.
    From { paths: Vec<Path>, take: Take },
    /// A constant.
    Value(Value),
    /// A text with paths in it.
    Template(Template),
    /// An object made of rows.
    Fields(Vec<Row>),
    /// A list of messages as a text.
    Transcript(Box<Transcript>),
    /// A list made item by item: the first path that gives a list, and the rows of each item.
    Each { paths: Vec<Path>, rows: Vec<Row> },
}

impl Source {
    /// Where the value would come from, as written: one path, or all of a list.
    pub fn paths(&self) -> Option<String> {
        let paths = match self {
            Self::From { paths, .. } | Self::Each { paths, .. } => paths,
            Self::Transcript(transcript) => &transcript.messages,
            Self::Value(_) | Self::Template(_) | Self::Fields(_) => return None,
        };
        Some(paths.iter().map(Path::text).collect::<Vec<_>>().join(" or "))
    }
}

/// Which of a path's matches are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The first.
    First,
    /// The last.
    Last,
    /// All, as a list.
    All,
    /// Their number.
    Count,
    /// The only one; several are an error.
    One,
}

/// What an error in a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The mapping fails.
    Fail,
    /// The row is left out.
    Skip,
    /// The row takes its default.
    Default,
}

const TAKES: &[(&str, Take)] = &[
    ("first", Take::First),
    ("last", Take::Last),
    ("all", Take::All),
    ("count", Take::Count),
    ("one", Take::One),
];
const ON_ERRORS: &[(&str, OnError)] =
    &[("fail", OnError::Fail), ("skip", OnError::Skip), ("default", OnError::Default)];
const BLANKS: &[(&str, bool)] = &[("absent", true), ("keep", false)];

const ABSENTS: &[(&str, bool)] = &[("null", true), ("leave_out", false)];

const SOURCES: &[&str] = &["from", "value", "template", "fields", "transcript", "each"];

/// Reads a whole mapping.
pub fn read_mapping(node: &Node, faults: &mut Faults) -> Vec<Row> {
    if measure(&node.to_json(), MAPPING_BYTES).is_none() {
        faults.push(node.fault("", format!("a mapping has at most {MAPPING_BYTES} bytes"), None));
        return Vec::new();
    }
    let Some(mut table) = node.table("", faults) else { return Vec::new() };
    table.need("version");
    if let Some(version) = table.integer("version")
        && version != 1
    {
        table.fault("version", format!("unknown version {version}"), Some("version = 1".to_owned()));
    }
    table.text("description");
    let blank = table.choice("blank", BLANKS).unwrap_or(false);
    let absent = table.choice("absent", ABSENTS).unwrap_or(false);
    let mut reading = Reading { rows: 0, blank, absent, items: 0 };
    let rows = reading.rows_under(&mut table, "", 0);
    table.finish();
    rows
}

/// What is carried through the rows.
struct Reading {
    rows: usize,
    blank: bool,
    absent: bool,
    /// How many `each` surround the row.
    items: usize,
}

impl Reading {
    /// The rows in the table's `fields`; `parent` is the full `to` of the row that holds them.
    fn rows_under(&mut self, table: &mut TableReader<'_>, parent: &str, depth: usize) -> Vec<Row> {
        table.need("fields");
        let field = table.path("fields");
        let nodes = table.list("fields");
        if depth > TARGET_NESTING {
            table.fault("fields", format!("more than {TARGET_NESTING} `fields` inside one another"), None);
            return Vec::new();
        }
        let Some(nodes) = nodes else { return Vec::new() };
        if nodes.is_empty() {
            table.fault("fields", "no rows", Some("add a row with `to` and `from`".to_owned()));
        }
        let mut rows: Vec<Row> = Vec::with_capacity(nodes.len().min(ROWS));
        for (index, node) in nodes.iter().enumerate() {
            self.rows += 1;
            if self.rows > ROWS {
                if self.rows == ROWS + 1 {
                    table.fault("fields", format!("more than {ROWS} rows"), None);
                }
                break;
            }
            let Some(row) = self.row(node, &format!("{field}[{index}]"), parent, depth, table.faults())
            else {
                continue;
            };
            if let Some(other) = rows.iter().find(|other| overlap(&other.names, &row.names)) {
                table.faults().push(conflict(&row, other));
            }
            rows.push(row);
        }
        rows
    }

    fn row(
        &mut self,
        node: &Node,
        field: &str,
        parent: &str,
        depth: usize,
        faults: &mut Faults,
    ) -> Option<Row> {
        let mut table = node.table(field, faults)?;
        let own = table.need_text("to").unwrap_or_default();
        let place = table
            .node("to")
            .map_or_else(|| node.mark.place(field), |to| to.mark.place(format!("{field}.to")));
        let names = read_target(own, &mut table);
        let to = if parent.is_empty() { own.to_owned() } else { format!("{parent}.{own}") };
        let source = self.source(&mut table, &to, depth);
        let apply = read_apply(&mut table, self.items);
        let default =
            table.node("default").map(|value| constant(value, &format!("{field}.default"), table.faults()));
        let required = table.boolean("required").unwrap_or(false);
        let when = table.node("when").and_then(|when| {
            Condition::parse_inside(when, &format!("{field}.when"), self.items, table.faults())
        });
        let on_error = table.choice("on_error", ON_ERRORS).unwrap_or(OnError::Fail);
        let blank_is_absent = table.choice("blank", BLANKS).unwrap_or(self.blank);
        let absent_is_null = table.choice("absent", ABSENTS).unwrap_or(self.absent);
        if on_error == OnError::Default && default.is_none() {
            table.fault(
                "on_error",
                "there is no default to take",
                Some("add `default`, or on_error = \"skip\"".to_owned()),
            );
        }
        if on_error == OnError::Skip && required {
            let hint = "take away `required`, or give a `default` and on_error = \"default\"";
            table.fault("on_error", "a required row can't be left out", Some(hint.to_owned()));
        }
        table.finish();
        Some(Row {
            to,
            names: names?,
            place,
            source: source?,
            apply,
            default,
            required,
            when,
            on_error,
            blank_is_absent,
            absent_is_null,
        })
    }

    fn source(&mut self, table: &mut TableReader<'_>, to: &str, depth: usize) -> Option<Source> {
        let given: Vec<&'static str> = SOURCES.iter().copied().filter(|source| table.has(source)).collect();
        let take = table.choice("take", TAKES);
        if table.has("take") && given != ["from"] {
            table.fault(
                "take",
                "only a row with `from` has matches to take",
                Some("take away `take`".to_owned()),
            );
        }
        match given.as_slice() {
            [] => {
                let hint = "add `from`, `value`, `template`, `fields`, `each` or `transcript`";
                table.fault("to", "nothing says where the value comes from", Some(hint.to_owned()));
                None
            }
            ["from"] => read_paths(table, "from", self.items)
                .map(|paths| Source::From { paths, take: take.unwrap_or(Take::First) }),
            ["value"] => {
                let field = table.path("value");
                table.node("value").map(|node| Source::Value(constant(node, &field, table.faults())))
            }
            ["template"] => match Template::parse(table.text("template")?, self.items) {
                Ok(template) => {
                    let place = table.node("template").map(|node| node.mark.place(table.path("template")));
                    Some(Source::Template(template.at(&place.unwrap_or_default())))
                }
                Err(refusals) => {
                    for refusal in refusals {
                        table.fault("template", refusal.message, refusal.hint);
                    }
                    None
                }
            },
            ["fields"] => Some(Source::Fields(self.rows_under(table, to, depth + 1))),
            ["transcript"] => {
                let items = self.items;
                let mut table = table.table("transcript")?;
                let transcript = Transcript::read(&mut table, items, read_paths);
                table.finish();
                transcript.map(|transcript| Source::Transcript(Box::new(transcript)))
            }
            ["each"] => {
                let mut table = table.table("each")?;
                table.need("from");
                let paths = if table.has("from") { read_paths(&mut table, "from", self.items) } else { None };
                self.items += 1;
                let rows = self.rows_under(&mut table, to, depth + 1);
                self.items -= 1;
                table.finish();
                Some(Source::Each { paths: paths?, rows })
            }
            several => {
                let message = format!("a row has one source, here are {}", several.join(", "));
                table.fault(
                    several[1],
                    message,
                    Some("keep one, and move the rest into rows of their own".to_owned()),
                );
                None
            }
        }
    }
}

/// A path or a list of them, which `items` `each` surround.
fn read_paths(table: &mut TableReader<'_>, key: &'static str, items: usize) -> Option<Vec<Path>> {
    let field = table.path(key);
    let node = table.node(key)?;
    let depth = items;
    let items: Vec<(&Node, String)> = match &node.kind {
        Kind::List(items) => {
            items.iter().enumerate().map(|(index, item)| (item, format!("{field}[{index}]"))).collect()
        }
        _ => vec![(node, field)],
    };
    if items.is_empty() || items.len() > PATHS {
        table.fault(key, format!("{} paths, expected 1 to {PATHS}", items.len()), None);
        return None;
    }
    let mut paths = Vec::with_capacity(items.len());
    for (item, field) in &items {
        let Kind::Text(text) = &item.kind else {
            table.faults().push(item.fault(
                field,
                format!("expected a path, found {}", item.kind.name()),
                None,
            ));
            continue;
        };
        match Path::parse(text, depth) {
            Ok(path) => paths.push(path.at(item.mark.place(field))),
            Err(refusal) => table.faults().push(item.fault(field, refusal.message, refusal.hint)),
        }
    }
    (paths.len() == items.len()).then_some(paths)
}

fn read_apply(table: &mut TableReader<'_>, depth: usize) -> Vec<Applied> {
    let field = table.path("apply");
    let items = table.list("apply").unwrap_or_default();
    if items.len() > STEPS {
        table.fault("apply", format!("{} transforms, {STEPS} are the most", items.len()), None);
        return Vec::new();
    }
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Applied::parse(item, &format!("{field}[{index}]"), depth, table.faults()))
        .collect()
}

/// A value as written; a number that JSON can't hold is a fault.
fn constant(node: &Node, field: &str, faults: &mut Faults) -> Value {
    fn finite(node: &Node) -> bool {
        match &node.kind {
            Kind::Float(number) => number.is_finite(),
            Kind::List(items) => items.iter().all(finite),
            Kind::Table(entries) => entries.iter().all(|(_, item)| finite(item)),
            _ => true,
        }
    }
    if !finite(node) {
        faults.push(node.fault(field, "JSON has no such number", Some("write it as a text".to_owned())));
    }
    node.to_json()
}

fn conflict(row: &Row, other: &Row) -> Fault {
    let (message, hint) = if row.names == other.names {
        (format!("\"{}\" has a row already", row.to), "give both paths to one row: from = [\"$.a\", \"$.b\"]")
    } else {
        (
            format!("\"{}\" and \"{}\" can't both be written, one is inside the other", row.to, other.to),
            "put the inner rows into the `fields` of the outer one",
        )
    };
    Fault { place: row.place.clone(), message, hint: Some(hint.to_owned()) }
}
