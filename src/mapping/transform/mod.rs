//! The transforms of a row's `apply`: one table of names, settings and examples that the parser, the
//! documentation ([`list`]) and a test that runs every example all read.
//!
//! A transform is a pure function from a value to a value, to nothing (the row then counts as absent), or to an
//! error in plain words. It never sees null or absence. In a mapping it is written by its name, by
//! `{ name = { settings } }`, or by `{ name = value }` for its first setting.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::limits::VALUE_BYTES;
use super::path::{Scope, nearest_or_list};
use super::value::{Shape, kind};
use crate::domain::document::{Key, Kind, Node, TableReader};
use crate::domain::fault::Faults;

mod collections;
mod contact;
mod kinds;
mod logic;
mod markup;
mod names;
mod numbers;
mod phone;
mod privacy;
pub mod text;
pub mod time;

/// What a transform makes of a value: a value, nothing, or why it can't.
pub type Outcome<'v> = Result<Option<Cow<'v, Value>>, String>;

/// A transform with its settings. It sees the scope for the moment of the run and the work that is left.
pub type Run = Box<dyn for<'v, 's> Fn(Cow<'v, Value>, Scope<'s>) -> Outcome<'v> + Send + Sync>;

/// One transform of the language.
#[derive(Serialize)]
pub struct Transform {
    /// Its name in `apply`.
    pub name: &'static str,
    /// The shape of what it makes; `None` when that depends on its input or settings.
    pub makes: Option<Shape>,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its settings; the first one may be written without its name.
    pub settings: &'static [Setting],
    /// What it makes of what; each is run by a test.
    pub examples: &'static [Example],
    /// Whether a table given to it is its first setting rather than its settings.
    #[serde(skip)]
    whole: bool,
    #[serde(skip)]
    build: Build,
}

/// How a transform is made out of its settings.
#[derive(Clone, Copy)]
enum Build {
    /// Out of them alone.
    Plain(fn(&mut TableReader<'_>) -> Option<Run>),
    /// With the number of `each` that surround it, for paths that lead out of them.
    Inside(fn(&mut TableReader<'_>, usize) -> Option<Run>),
}

/// A setting of a transform.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it takes, and what it is when left out.
    pub summary: &'static str,
    /// Whether it must be written.
    pub required: bool,
}

/// An example; all texts are JSON.
#[derive(Debug, Serialize)]
pub struct Example {
    /// The entry in `apply`.
    pub apply: &'static str,
    /// The value before.
    pub input: &'static str,
    /// The value after.
    pub output: Shown,
}

/// What an example comes to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// This value.
    Value(&'static str),
    /// Nothing: the row is absent and takes its default.
    Absent,
    /// An error: the row's `on_error` decides.
    Error,
}

/// The groups and their transforms.
pub const GROUPS: &[(&str, &[&[Transform]])] = &[
    ("Texts", &[text::TRANSFORMS, markup::TRANSFORMS]),
    ("Names and contacts", &[names::TRANSFORMS, phone::TRANSFORMS, contact::TRANSFORMS]),
    ("Types", &[kinds::TRANSFORMS]),
    ("Times", &[time::TRANSFORMS]),
    ("Numbers", &[numbers::TRANSFORMS]),
    ("Logic", &[logic::TRANSFORMS]),
    ("Lists and objects", &[collections::TRANSFORMS]),
    ("Privacy", &[privacy::TRANSFORMS]),
];

/// All transforms, by group.
pub fn list() -> impl Iterator<Item = &'static Transform> + Clone {
    GROUPS.iter().flat_map(|(_, tables)| tables.iter().copied().flatten())
}

/// One entry of a row's `apply`, ready to run.
pub struct Applied {
    /// The transform's name.
    pub name: &'static str,
    /// The shape of what it makes, where that is known.
    pub makes: Option<Shape>,
    run: Run,
}

impl Applied {
    /// Reads an entry that `items` `each` surround; `field` is its path for messages.
    pub fn parse(node: &Node, field: &str, items: usize, faults: &mut Faults) -> Option<Self> {
        let (name, argument) = match &node.kind {
            Kind::Text(name) => (name, None),
            Kind::Table(entries) if entries.len() == 1 => (&entries[0].0.name, Some(&entries[0].1)),
            other => {
                let found = if matches!(other, Kind::Table(_)) { "several keys" } else { other.name() };
                let hint = "such as \"trim\" or { truncate = 80 }; one entry each";
                faults.push(node.fault(
                    field,
                    format!("expected one transform, found {found}"),
                    Some(hint.to_owned()),
                ));
                return None;
            }
        };
        let Some(transform) = list().find(|transform| transform.name == name) else {
            let hint = nearest_or_list(name, list().map(|transform| transform.name));
            faults.push(node.fault(field, format!("unknown transform \"{name}\""), Some(hint)));
            return None;
        };
        transform.apply_to(node, argument, &format!("{field}.{name}"), items, faults)
    }

    /// Runs the transform.
    pub fn run<'v>(&self, value: Cow<'v, Value>, scope: Scope<'_>) -> Outcome<'v> {
        scope.work.spend_on(&value)?;
        (self.run)(value, scope)
    }
}

impl Transform {
    fn apply_to(
        &self,
        entry: &Node,
        argument: Option<&Node>,
        field: &str,
        items: usize,
        faults: &mut Faults,
    ) -> Option<Applied> {
        let is_settings = |node: &Node| matches!(node.kind, Kind::Table(_)) && !self.whole;
        let (settings, short) = match (argument, self.settings.first()) {
            (None, _) => (Node { kind: Kind::Table(Vec::new()), mark: entry.mark.clone() }, None),
            (Some(node), _) if is_settings(node) => (node.clone(), None),
            (Some(node), Some(first)) => {
                let key = Key { name: first.name.to_owned(), mark: node.mark.clone() };
                (
                    Node { kind: Kind::Table(vec![(key, node.clone())]), mark: node.mark.clone() },
                    Some(first.name),
                )
            }
            (Some(node), None) => {
                let hint = format!("write \"{}\" alone", self.name);
                faults.push(node.fault(field, format!("{} takes no settings", self.name), Some(hint)));
                return None;
            }
        };
        let mut own = Faults::default();
        let mut table = settings.table(field, &mut own)?;
        let run = match self.build {
            Build::Plain(build) => build(&mut table),
            Build::Inside(build) => build(&mut table, items),
        };
        table.finish();
        let sound = own.is_empty();
        for mut fault in own.list().iter().cloned() {
            if let Some(name) = short {
                // The setting was written without its name, so the fault stands at the transform itself.
                fault.place.field = fault.place.field.replacen(&format!("{field}.{name}"), field, 1);
            }
            faults.push(fault);
        }
        run.filter(|_| sound).map(|run| Applied { name: self.name, makes: self.makes, run })
    }
}

/// A transform from text to text, to nothing or to an error. An unchanged text is passed on without a copy.
#[expect(clippy::unnecessary_wraps, reason = "it is what a `build` answers")]
fn text_run(
    change: impl for<'t> Fn(&'t str) -> Result<Option<Cow<'t, str>>, String> + Send + Sync + 'static,
) -> Option<Run> {
    Some(Box::new(move |value, _| {
        let text = need_text(&value)?;
        let changed = match change(text)? {
            None => return Ok(None),
            Some(Cow::Borrowed(same)) if same.len() == text.len() => None,
            Some(other) => Some(Value::String(other.into_owned())),
        };
        Ok(Some(changed.map_or(value, Cow::Owned)))
    }))
}

/// A transform that makes a new value.
#[expect(clippy::unnecessary_wraps, reason = "it is what a `build` answers")]
fn value_run(make: impl Fn(&Value) -> Result<Option<Value>, String> + Send + Sync + 'static) -> Option<Run> {
    Some(Box::new(move |value, _| Ok(make(&value)?.map(Cow::Owned))))
}

fn need_text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| {
        let hint = match value {
            Value::Number(_) | Value::Bool(_) => "; put \"string\" before it",
            Value::Array(_) => "; put \"join\" before it, or take one value with `take`",
            _ => "",
        };
        format!("expected a text, found {}{hint}", kind(value))
    })
}

fn check_length(bytes: usize) -> Result<(), String> {
    if bytes > VALUE_BYTES { Err(format!("the text would be above {VALUE_BYTES} bytes")) } else { Ok(()) }
}

const fn required(name: &'static str, summary: &'static str) -> Setting {
    Setting { name, summary, required: true }
}

const fn optional(name: &'static str, summary: &'static str) -> Setting {
    Setting { name, summary, required: false }
}

const fn gives(apply: &'static str, input: &'static str, output: &'static str) -> Example {
    Example { apply, input, output: Shown::Value(output) }
}

const fn absent(apply: &'static str, input: &'static str) -> Example {
    Example { apply, input, output: Shown::Absent }
}

const fn fails(apply: &'static str, input: &'static str) -> Example {
    Example { apply, input, output: Shown::Error }
}

#[cfg(test)]
pub(in crate::mapping) mod tests;
