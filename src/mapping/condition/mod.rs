//! Tests on an event, for a row's `when` and a connection's filter.
//!
//! A test is `{ path, op, value }`; tests are joined by `{ all = [...] }`, `{ any = [...] }` and `{ not = ... }`.
//! When a path has several matches, one that passes is enough. `ne` and `not_in` are exactly *not* `eq` and *not*
//! `in`, so they pass when the path gives nothing. `exists` asks for a value that is there and not null. Numbers
//! are compared by value, texts by their characters; a number is never equal to a text.

mod explain;

use std::cmp::Ordering;
use std::fmt;

use regex::Regex;
use serde_json::Value;

use super::context::Context;
use super::limits::{CONDITION_NESTING, CONDITION_TESTS, PATTERN_TEXT_BYTES, Work};
use super::path::{Found, Path, Scope};
use super::query::pattern;
use super::value::{compare, equal};
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::json::{Object, is_bare};

/// A checked and compiled condition.
pub struct Condition {
    source: Value,
    rule: Rule,
    /// The members of an event that it reads, where these are attributes and not the data.
    attributes: Option<Vec<Box<str>>>,
}

enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Test { path: Path, check: Check },
}

enum Check {
    Equal { value: Value, wanted: bool },
    Within { values: Vec<Value>, wanted: bool },
    Order { value: Value, accepts: fn(Ordering) -> bool },
    Contains(Value),
    Starts(String),
    Ends(String),
    Exists(bool),
    Matches(Regex),
}

#[derive(Clone, Copy)]
enum Op {
    Equal(bool),
    Within(bool),
    Order(fn(Ordering) -> bool),
    Contains,
    Starts,
    Ends,
    Exists,
    Matches,
}

const OPS: &[(&str, Op)] = &[
    ("eq", Op::Equal(true)),
    ("ne", Op::Equal(false)),
    ("gt", Op::Order(Ordering::is_gt)),
    ("gte", Op::Order(Ordering::is_ge)),
    ("lt", Op::Order(Ordering::is_lt)),
    ("lte", Op::Order(Ordering::is_le)),
    ("in", Op::Within(true)),
    ("not_in", Op::Within(false)),
    ("contains", Op::Contains),
    ("starts_with", Op::Starts),
    ("ends_with", Op::Ends),
    ("exists", Op::Exists),
    ("matches", Op::Matches),
];

impl Op {
    /// What it tests, for the documentation.
    fn summary(self) -> &'static str {
        match self {
            Self::Equal(true) => "equal to `value`; `1` is `1.0`, and a number is never equal to a text",
            Self::Equal(false) => "exactly not `eq`, so also when the path gives nothing",
            Self::Within(true) => "equal to one of the list in `value`",
            Self::Within(false) => "exactly not `in`, so also when the path gives nothing",
            Self::Order(_) => {
                "greater or less than `value`: a number against a number, a text against a text"
            }
            Self::Contains => "a text with `value` in it, or a list with an item equal to it",
            Self::Starts => "a text that starts with `value`",
            Self::Ends => "a text that ends with `value`",
            Self::Exists => "there and not null; with `value = false`, missing or null",
            Self::Matches => {
                "a text in which the pattern `value` is found; of linear time, without look-around"
            }
        }
    }
}

/// Every `op` and what it tests.
pub fn ops() -> impl Iterator<Item = (&'static str, &'static str)> {
    OPS.iter().map(|(name, op)| (*name, op.summary()))
}

impl Condition {
    /// Reads a condition; `field` is its path for messages. `None` when there is a fault.
    pub fn parse(node: &Node, field: &str, faults: &mut Faults) -> Option<Self> {
        Self::parse_inside(node, field, 0, faults)
    }

    /// [`Condition::parse`] where `items` `each` surround it.
    pub(super) fn parse_inside(node: &Node, field: &str, items: usize, faults: &mut Faults) -> Option<Self> {
        let before = faults.len();
        let rule = read_rule(node, field, Depth { joins: 0, items }, &mut 0, faults);
        let rule = rule.filter(|_| faults.len() == before)?;
        let attributes = attributes(&rule);
        Some(Self { source: node.to_json(), rule, attributes })
    }

    /// [`Condition::parse`] on JSON.
    pub fn from_json(value: &Value) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        match Self::parse(&Node::from_json(value), "", &mut faults) {
            Some(condition) => Ok(condition),
            None => Err(faults),
        }
    }

    /// Whether the event passes; one that is too large for a query of the condition does not.
    /// [`Condition::decide`] tells the two apart.
    pub fn matches(&self, event: &Value, context: &Context<'_>) -> bool {
        self.decide(event, context).unwrap_or(false)
    }

    /// Whether an event passes. Its data is looked into only where the condition reads it.
    pub fn passes(&self, event: &Object, context: &Context<'_>) -> bool {
        match &self.attributes {
            Some(names) => self.matches(&event.part(names), context),
            None => self.matches(event.tree(), context),
        }
    }

    /// Whether the event passes, or why that can't be said: a query of the condition would take too long on an
    /// event of this size.
    pub fn decide(&self, event: &Value, context: &Context<'_>) -> Result<bool, &'static str> {
        let work = Work::new();
        self.holds(Scope { root: event, context, work: &work, item: None })
    }

    /// Whether what the scope holds passes.
    pub(super) fn holds(&self, scope: Scope<'_>) -> Result<bool, &'static str> {
        self.rule.holds(scope)
    }

    /// Every path of the condition.
    pub(super) fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.rule.collect_paths(&mut paths);
        paths
    }

    /// The condition as it was written; [`Condition::from_json`] of it gives an equal one.
    pub fn to_json(&self) -> &Value {
        &self.source
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.source)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The members that a rule on an event reads; `None` when it may read its data.
fn attributes(rule: &Rule) -> Option<Vec<Box<str>>> {
    let (mut paths, mut names) = (Vec::new(), Vec::new());
    rule.collect_paths(&mut paths);
    let is_known = paths.into_iter().all(|path| path.reads_member(&mut names));
    names.sort_unstable();
    names.dedup();
    let is_attribute = |name: &&str| *name != "data" && is_bare(name);
    (is_known && names.iter().all(is_attribute)).then(|| names.into_iter().map(Box::from).collect())
}

impl Rule {
    fn collect_paths<'r>(&'r self, paths: &mut Vec<&'r Path>) {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().for_each(|rule| rule.collect_paths(paths)),
            Self::Not(rule) => rule.collect_paths(paths),
            Self::Test { path, .. } => paths.push(path),
        }
    }

    fn holds(&self, scope: Scope<'_>) -> Result<bool, &'static str> {
        let one_is = |rules: &[Self], wanted: bool| {
            for rule in rules {
                if rule.holds(scope)? == wanted {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        match self {
            Self::All(rules) => one_is(rules, false).map(|fails| !fails),
            Self::Any(rules) => one_is(rules, true),
            Self::Not(rule) => rule.holds(scope).map(|holds| !holds),
            Self::Test { path, check } => {
                let found = path.find(scope)?;
                let values: &[&Value] = match &found {
                    Found::One(Some(value)) => &[&**value],
                    Found::One(None) => &[],
                    Found::Many(values) => values,
                };
                for value in values {
                    if check.passes(value, scope.work)? {
                        return Ok(check.wanted());
                    }
                }
                Ok(!check.wanted())
            }
        }
    }
}

impl Check {
    /// Whether a match should pass; `ne`, `not_in` and `exists = false` want that none does.
    fn wanted(&self) -> bool {
        match self {
            Self::Equal { wanted, .. } | Self::Within { wanted, .. } | Self::Exists(wanted) => *wanted,
            _ => true,
        }
    }

    fn passes(&self, found: &Value, work: &Work) -> Result<bool, &'static str> {
        work.spend_on(found)?;
        Ok(match self {
            Self::Equal { value, .. } => equal(found, value),
            Self::Within { values, .. } => {
                work.spend(values.len())?;
                values.iter().any(|value| equal(found, value))
            }
            Self::Order { value, accepts } => compare(found, value).is_some_and(accepts),
            Self::Contains(value) => match (found, value) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), _) => items.iter().any(|item| equal(item, value)),
                _ => false,
            },
            Self::Starts(part) => found.as_str().is_some_and(|text| text.starts_with(part)),
            Self::Ends(part) => found.as_str().is_some_and(|text| text.ends_with(part)),
            Self::Exists(_) => !found.is_null(),
            Self::Matches(pattern) => match found.as_str() {
                Some(text) if text.len() > PATTERN_TEXT_BYTES => {
                    return Err("a text is too long for a pattern");
                }
                Some(text) => {
                    work.spend(text.len())?;
                    pattern.is_match(text)
                }
                None => false,
            },
        })
    }
}

/// What surrounds a rule.
#[derive(Clone, Copy)]
struct Depth {
    /// `all`, `any` and `not`.
    joins: usize,
    /// `each`.
    items: usize,
}

fn read_rule(node: &Node, field: &str, depth: Depth, tests: &mut usize, faults: &mut Faults) -> Option<Rule> {
    *tests += 1;
    let inner_depth = Depth { joins: depth.joins + 1, ..depth };
    if depth.joins > CONDITION_NESTING || *tests > CONDITION_TESTS {
        if *tests <= CONDITION_TESTS + 1 {
            let message = format!(
                "a condition has at most {CONDITION_TESTS} tests and {CONDITION_NESTING} levels of all, any, not"
            );
            faults.push(node.fault(field, message, Some("use op = \"in\" for a list of values".to_owned())));
        }
        return None;
    }
    let mut table = node.table(field, faults)?;
    let joins: Vec<&str> = ["all", "any", "not"].into_iter().filter(|join| table.has(join)).collect();
    let rule = match joins.as_slice() {
        [] => read_test(&mut table, depth.items),
        [join @ ("all" | "any")] => {
            let path = table.path(join);
            let items =
                if *join == "all" { table.list("all") } else { table.list("any") }.unwrap_or_default();
            if items.is_empty() {
                table.fault(join, "an empty list of conditions", Some("add a condition to it".to_owned()));
            }
            let rules = items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    read_rule(item, &format!("{path}[{index}]"), inner_depth, tests, table.faults())
                })
                .collect::<Vec<_>>();
            let rules = rules.into_iter().collect::<Option<Vec<_>>>();
            if *join == "all" { rules.map(Rule::All) } else { rules.map(Rule::Any) }
        }
        ["not"] => {
            let path = table.path("not");
            let inner = table.node("not")?;
            read_rule(inner, &path, inner_depth, tests, table.faults()).map(|rule| Rule::Not(Box::new(rule)))
        }
        several => {
            let message = format!("{} stand side by side", several.join(" and "));
            table.fault(several[1], message, Some("put one inside the other".to_owned()));
            None
        }
    };
    table.finish();
    rule
}

fn read_test(table: &mut TableReader<'_>, items: usize) -> Option<Rule> {
    let place = table.node("path").map(|node| node.mark.place(table.path("path"))).unwrap_or_default();
    let path = table.need_text("path").and_then(|text| match Path::parse(text, items) {
        Ok(path) => Some(path.at(place)),
        Err(refusal) => {
            table.fault("path", refusal.message, refusal.hint);
            None
        }
    });
    table.need("op");
    let op = table.choice("op", OPS);
    let value = table.node("value");
    let check = op.and_then(|op| match (op, value) {
        (Op::Exists, None) => Some(Check::Exists(true)),
        (_, None) => {
            table.need("value");
            None
        }
        (op, Some(node)) => {
            read_check(op, node).map_err(|(message, hint)| table.fault("value", message, hint)).ok()
        }
    });
    Some(Rule::Test { path: path?, check: check? })
}

fn read_check(op: Op, node: &Node) -> Result<Check, (String, Option<String>)> {
    let wrong = |wanted: &str| Err((format!("expected {wanted}, found {}", node.kind.name()), None));
    Ok(match (op, &node.kind) {
        (Op::Equal(wanted), _) => Check::Equal { value: node.to_json(), wanted },
        (Op::Within(wanted), Kind::List(items)) => {
            Check::Within { values: items.iter().map(Node::to_json).collect(), wanted }
        }
        (Op::Within(_), _) => return wrong("a list of values"),
        (Op::Order(accepts), Kind::Integer(_) | Kind::Float(_) | Kind::Text(_)) => {
            Check::Order { value: node.to_json(), accepts }
        }
        (Op::Order(_), _) => return wrong("a number or a text"),
        (Op::Contains, _) => Check::Contains(node.to_json()),
        (Op::Starts, Kind::Text(text)) => Check::Starts(text.clone()),
        (Op::Ends, Kind::Text(text)) => Check::Ends(text.clone()),
        (Op::Exists, Kind::Boolean(wanted)) => Check::Exists(*wanted),
        (Op::Exists, _) => return wrong("true or false"),
        (Op::Matches, Kind::Text(text)) => {
            Check::Matches(pattern::plain(text).map_err(|refusal| (refusal.message, refusal.hint))?)
        }
        (Op::Starts | Op::Ends | Op::Matches, _) => return wrong("a text"),
    })
}

#[cfg(test)]
mod tests;
