//! A path that may match many nodes: RFC 9535, compiled once, followed within a bounded amount of work.
//!
//! The promise is *right or refused, never silently wrong*. `jsonpath-rust` gives the grammar; its evaluation is
//! not used, since it compares numbers as floats, gets several queries wrong and builds a text for each node that it
//! visits. What is ill-typed, what RFC 9535 does not have, and a pattern that is not known when the mapping is saved
//! is refused then, with what to write instead (see `compile.rs`).
//!
//! A run spends one unit of [`Work`] for each node that it looks at, and ends with an error when there is none left:
//! a query such as `$..*..*..*` on a large event is told, not waited for.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

use super::limits::{PATTERN_TEXT_BYTES, Work};
use super::path::{Refusal, Step, walk};
use super::value::{compare, equal};

mod compile;
pub mod pattern;

pub use compile::steps;

#[cfg(test)]
mod compliance;

/// Why a run ends early.
pub type Stopped = &'static str;

/// A checked and compiled query.
#[derive(Debug)]
pub struct Query(Vec<Segment>);

/// One segment.
#[derive(Debug)]
struct Segment {
    /// Whether it was written with `..`.
    descendant: bool,
    selectors: Vec<Selector>,
}

#[derive(Debug)]
enum Selector {
    Name(Box<str>),
    Wildcard,
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Logical),
}

/// Where a query inside a filter starts.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Root,
    Current,
}

#[derive(Debug)]
enum Logical {
    Any(Vec<Logical>),
    All(Vec<Logical>),
    Not(Box<Logical>),
    /// Whether the singular path leads to something.
    Leads(Origin, Box<[Step]>),
    /// Whether the query matches anything.
    Matches(Origin, Query),
    Compare(Side, Relation, Side),
    /// `match` and `search`.
    Pattern(Side, Regex),
}

#[derive(Debug, Clone, Copy)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What stands beside a comparison, or in a function that takes one value.
#[derive(Debug)]
enum Side {
    Literal(Value),
    Singular(Origin, Box<[Step]>),
    Length(Box<Side>),
    Count(Origin, Query),
    /// The value of the only match.
    Only(Origin, Query),
}

/// What a filter's paths start from.
#[derive(Clone, Copy)]
struct Ground<'e, 'w> {
    root: &'e Value,
    current: &'e Value,
    work: &'w Work,
}

/// A side's value; `None` is RFC 9535's *Nothing*.
enum Given<'a> {
    Borrowed(Option<&'a Value>),
    Number(usize),
}

impl Query {
    /// Compiles what the parser gave.
    pub fn new(query: &jsonpath_rust::parser::model::JpQuery) -> Result<Self, Refusal> {
        compile::query(&query.segments)
    }

    /// The matches, in the order of RFC 9535, where a member's order is the object's.
    pub fn run<'e>(&self, root: &'e Value, work: &Work) -> Result<Vec<&'e Value>, Stopped> {
        self.from(Ground { root, current: root, work })
    }

    /// Every name in the query, outside its filters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|segment| &segment.selectors).filter_map(|selector| match selector {
            Selector::Name(name) => Some(&**name),
            _ => None,
        })
    }

    fn from<'e>(&self, ground: Ground<'e, '_>) -> Result<Vec<&'e Value>, Stopped> {
        let mut nodes = vec![ground.current];
        for segment in &self.0 {
            let mut found = Vec::new();
            for node in nodes {
                segment.select(node, ground, &mut found)?;
            }
            nodes = found;
        }
        Ok(nodes)
    }
}

impl Segment {
    fn select<'e>(
        &self,
        node: &'e Value,
        ground: Ground<'e, '_>,
        found: &mut Vec<&'e Value>,
    ) -> Result<(), Stopped> {
        ground.work.spend(1)?;
        for selector in &self.selectors {
            selector.select(node, ground, found)?;
        }
        if self.descendant {
            match node {
                Value::Array(items) => {
                    items.iter().try_for_each(|item| self.select(item, ground, found))?;
                }
                Value::Object(entries) => {
                    entries.values().try_for_each(|item| self.select(item, ground, found))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Selector {
    fn select<'e>(
        &self,
        node: &'e Value,
        ground: Ground<'e, '_>,
        found: &mut Vec<&'e Value>,
    ) -> Result<(), Stopped> {
        match (self, node) {
            (Self::Name(name), Value::Object(entries)) => found.extend(entries.get(&**name)),
            (Self::Index(index), Value::Array(items)) => {
                found.extend(position(*index, items.len()).and_then(|position| items.get(position)));
            }
            (Self::Wildcard, Value::Array(items)) => {
                ground.work.spend(items.len())?;
                found.extend(items);
            }
            (Self::Wildcard, Value::Object(entries)) => {
                ground.work.spend(entries.len())?;
                found.extend(entries.values());
            }
            (Self::Slice { start, end, step }, Value::Array(items)) => {
                slice(*start, *end, *step, items.len(), |position| {
                    ground.work.spend(1)?;
                    found.extend(items.get(position));
                    Ok(())
                })?;
            }
            (Self::Filter(test), Value::Array(items)) => test.keep(items.iter(), ground, found)?,
            (Self::Filter(test), Value::Object(entries)) => test.keep(entries.values(), ground, found)?,
            _ => {}
        }
        Ok(())
    }
}

/// The position that an index means; a negative one counts from the end.
pub fn position(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(position) => Some(position),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// Calls `take` with each position of a slice (RFC 9535 §2.3.4.2.2).
fn slice(
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
    length: usize,
    mut take: impl FnMut(usize) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (start, end) = if step < 0 {
        (start.unwrap_or(length - 1), end.unwrap_or(-length - 1))
    } else {
        (start.unwrap_or(0), end.unwrap_or(length))
    };
    let (start, end) = (from_start(start), from_start(end));
    let (mut index, last) = if step < 0 {
        (start.clamp(-1, length - 1), end.clamp(-1, length - 1))
    } else {
        (start.clamp(0, length), end.clamp(0, length))
    };
    while (step > 0 && index < last) || (step < 0 && index > last) {
        if let Ok(position) = usize::try_from(index) {
            take(position)?;
        }
        index = index.saturating_add(step);
    }
    Ok(())
}

impl Logical {
    fn keep<'e>(
        &self,
        items: impl Iterator<Item = &'e Value>,
        ground: Ground<'e, '_>,
        found: &mut Vec<&'e Value>,
    ) -> Result<(), Stopped> {
        for item in items {
            if self.holds(Ground { current: item, ..ground })? {
                found.push(item);
            }
        }
        Ok(())
    }

    fn holds(&self, ground: Ground<'_, '_>) -> Result<bool, Stopped> {
        ground.work.spend(1)?;
        Ok(match self {
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(ground)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(ground)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Not(inner) => !inner.holds(ground)?,
            Self::Leads(origin, steps) => walk(ground.at(*origin), steps).is_some(),
            Self::Matches(origin, query) => !query.from(ground.from(*origin))?.is_empty(),
            Self::Compare(left, relation, right) => {
                relation.holds(&left.give(ground)?, &right.give(ground)?, ground.work)?
            }
            Self::Pattern(side, pattern) => match side.give(ground)? {
                Given::Borrowed(Some(Value::String(text))) => {
                    if text.len() > PATTERN_TEXT_BYTES {
                        return Err("a text is too long for match() or search()");
                    }
                    ground.work.spend(text.len())?;
                    pattern.is_match(text)
                }
                _ => false,
            },
        })
    }
}

impl<'e> Ground<'e, '_> {
    fn at(self, origin: Origin) -> &'e Value {
        match origin {
            Origin::Root => self.root,
            Origin::Current => self.current,
        }
    }

    fn from(self, origin: Origin) -> Self {
        Self { current: self.at(origin), ..self }
    }
}

impl Side {
    fn give<'a>(&'a self, ground: Ground<'a, '_>) -> Result<Given<'a>, Stopped> {
        Ok(match self {
            Self::Literal(value) => Given::Borrowed(Some(value)),
            Self::Singular(origin, steps) => Given::Borrowed(walk(ground.at(*origin), steps)),
            Self::Length(of) => match of.give(ground)? {
                Given::Borrowed(Some(Value::String(text))) => {
                    ground.work.spend(text.len() / 16)?;
                    Given::Number(text.chars().count())
                }
                Given::Borrowed(Some(Value::Array(items))) => Given::Number(items.len()),
                Given::Borrowed(Some(Value::Object(entries))) => Given::Number(entries.len()),
                _ => Given::Borrowed(None),
            },
            Self::Count(origin, query) => Given::Number(query.from(ground.from(*origin))?.len()),
            Self::Only(origin, query) => match query.from(ground.from(*origin))?.as_slice() {
                [value] => Given::Borrowed(Some(value)),
                _ => Given::Borrowed(None),
            },
        })
    }
}

impl Given<'_> {
    fn with<T>(&self, take: impl FnOnce(Option<&Value>) -> T) -> T {
        match self {
            Self::Borrowed(value) => take(*value),
            Self::Number(number) => take(Some(&Value::from(*number))),
        }
    }
}

impl Relation {
    fn holds(self, left: &Given<'_>, right: &Given<'_>, work: &Work) -> Result<bool, Stopped> {
        left.with(|left| right.with(|right| self.compare(left, right, work)))
    }

    fn compare(self, left: Option<&Value>, right: Option<&Value>, work: &Work) -> Result<bool, Stopped> {
        let (Some(left), Some(right)) = (left, right) else {
            let both_nothing = left.is_none() && right.is_none();
            return Ok(match self {
                Self::Equal | Self::LessOrEqual | Self::GreaterOrEqual => both_nothing,
                Self::NotEqual => !both_nothing,
                Self::Less | Self::Greater => false,
            });
        };
        work.spend_on(left)?;
        let order = || compare(left, right);
        Ok(match self {
            Self::Equal => equal(left, right),
            Self::NotEqual => !equal(left, right),
            Self::Less => order().is_some_and(Ordering::is_lt),
            Self::Greater => order().is_some_and(Ordering::is_gt),
            Self::LessOrEqual => order().is_some_and(Ordering::is_lt) || equal(left, right),
            Self::GreaterOrEqual => order().is_some_and(Ordering::is_gt) || equal(left, right),
        })
    }
}
