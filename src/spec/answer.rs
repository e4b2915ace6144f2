//! What an answer means: ordered rules, first match wins.
//!
//! ```toml
//! [[answer]]
//! status = ["401", "403"]     # "410", "4xx", "400-499", or a list of such
//! outcome = "auth_failed"
//!
//! [[answer]]
//! status = "429"
//! retry_after = true          # only when the answer says when to come back
//! outcome = "throttled"
//! ```
//!
//! | key | what it asks of the answer |
//! |---|---|
//! | `status` | its HTTP status; must be there |
//! | `retry_after` | whether it has a usable `Retry-After` |
//! | `header`, `body` | see `conditions` |
//! | `json` | whether its body is JSON |
//! | `empty` | whether its body is empty, or only white space |
//! | `text` | whether its body matches a pattern |
//! | `outcome` | what it then comes to; must be there |
//! | `say` | why, for the delivery log: `the answer has no status` |
//! | `wait_secs` | how long a throttled lane waits where the answer doesn't say, 1 to 86400 |
//!
//! A file's rules come first; after them stand [`AnswerRules::default`]: 2xx is delivered, 410 gone, 429 and 503 with
//! a `Retry-After` are throttled, and whatever no rule takes is tried again. Redirects are never followed, so a 3xx
//! is a failure like any other.
//!
//! Whatever a rule or a body says, a 5xx is never a success and never the end: it is tried again.

use std::cell::OnceCell;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use super::conditions::{self, Test};
use super::extract::Pattern;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::job::Outcome;

pub(super) const OUTCOMES: &[(&str, Outcome)] = &[
    ("delivered", Outcome::Delivered),
    ("duplicate", Outcome::Duplicate),
    ("retry", Outcome::Retry),
    ("throttled", Outcome::Throttled),
    ("auth_failed", Outcome::AuthFailed),
    ("rejected", Outcome::Rejected),
    ("gone", Outcome::Gone),
    ("ambiguous", Outcome::Ambiguous),
];

/// HTTP statuses; RFC 9110 §15 gives them three digits and five classes.
const STATUSES: (u16, u16) = (100, 599);

/// Most rules of one file.
const MAX_RULES: usize = 64;
const MAX_SAY_CHARS: usize = 200;
const WAIT_SECS: (i64, i64) = (1, 86_400);

/// An answer as the rules see it.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, or what of it was read.
    pub body: &'a [u8],
    /// Whether it says when to come back.
    pub retry_after: bool,
    json: OnceCell<Option<Value>>,
}

impl<'a> Seen<'a> {
    /// An answer; its body is only parsed when a rule asks for it.
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8], retry_after: bool) -> Self {
        Self { status, headers, body, retry_after, json: OnceCell::new() }
    }

    /// The body, where it is JSON.
    pub fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_slice(self.body).ok()).as_ref()
    }
}

/// A set of HTTP statuses, or of a body's codes, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    fn statuses(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRule {
    /// The statuses it takes.
    pub status: StatusSet,
    /// Whether it takes only an answer with a usable `Retry-After` (`true`) or without one (`false`).
    pub retry_after: Option<bool>,
    /// What such an answer comes to.
    pub outcome: Outcome,
    /// Why, for the delivery log.
    pub say: Option<String>,
    /// How long a throttled lane waits where the answer doesn't say.
    pub wait: Option<Duration>,
    tests: Vec<Test>,
    json: Option<bool>,
    empty: Option<bool>,
    text: Option<Pattern>,
}

impl AnswerRule {
    fn takes(&self, seen: &Seen<'_>) -> bool {
        self.status.contains(seen.status)
            && self.retry_after.is_none_or(|wanted| wanted == seen.retry_after)
            && self.empty.is_none_or(|wanted| wanted == seen.body.trim_ascii().is_empty())
            && self.json.is_none_or(|wanted| wanted == seen.json().is_some())
            && self.text.as_ref().is_none_or(|pattern| pattern.is_match(&String::from_utf8_lossy(seen.body)))
            && self.tests.iter().all(|test| test.passes(seen))
    }

    /// Whether it asks for more than the status and `Retry-After`.
    fn asks_more(&self) -> bool {
        self.reads_body() || !self.tests.is_empty()
    }

    fn reads_body(&self) -> bool {
        self.json.is_some()
            || self.empty.is_some()
            || self.text.is_some()
            || self.tests.iter().any(Test::reads_body)
    }
}

/// What the rules make of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement<'r> {
    /// What it comes to.
    pub outcome: Outcome,
    /// Why, where the rule says.
    pub say: Option<&'r str>,
    /// How long to wait, where the rule says.
    pub wait: Option<Duration>,
}

/// A connector's rules, the default ones included.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRules(Vec<AnswerRule>);

impl Default for AnswerRules {
    fn default() -> Self {
        let rule = |status: &[(u16, u16)], retry_after, outcome| AnswerRule {
            status: StatusSet(status.to_vec()),
            retry_after,
            outcome,
            say: None,
            wait: None,
            tests: Vec::new(),
            json: None,
            empty: None,
            text: None,
        };
        Self(vec![
            rule(&[(200, 299)], None, Outcome::Delivered),
            rule(&[(410, 410)], None, Outcome::Gone),
            rule(&[(429, 429), (503, 503)], Some(true), Outcome::Throttled),
        ])
    }
}

impl AnswerRules {
    /// What an answer comes to.
    pub fn judge(&self, seen: &Seen<'_>) -> Judgement<'_> {
        let Some(rule) = self.0.iter().find(|rule| rule.takes(seen)) else {
            return Judgement { outcome: Outcome::Retry, say: None, wait: None };
        };
        let outcome = if may_be(seen.status, rule.outcome) { rule.outcome } else { Outcome::Retry };
        Judgement { outcome, say: rule.say.as_deref(), wait: rule.wait }
    }

    /// Whether some rule for this status reads the body, so that an answer that broke off says nothing.
    pub fn read_body(&self, status: u16) -> bool {
        self.0.iter().any(|rule| rule.status.contains(status) && rule.reads_body())
    }

    /// What an answer of this status with an empty body comes to.
    #[cfg(test)]
    pub fn outcome(&self, status: u16, retry_after: bool) -> Outcome {
        self.judge(&Seen::new(status, &HeaderMap::new(), b"", retry_after)).outcome
    }

    /// The rules in the order in which they are tried, the default ones last.
    pub fn list(&self) -> &[AnswerRule] {
        &self.0
    }

    /// Reads `[[answer]]` out of a connector file.
    pub(super) fn parse(table: &mut TableReader<'_>) -> Self {
        let nodes = table.list("answer").unwrap_or_default();
        if nodes.len() > MAX_RULES {
            table.fault("answer", format!("more than {MAX_RULES} rules"), None);
        }
        let path = table.path("answer");
        let faults = table.faults();
        let mut taken = Taken::default();
        let mut rules = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().take(MAX_RULES).enumerate() {
            let field = format!("{path}[{index}]");
            if let Some(rule) = parse_rule(node, &field, faults) {
                if !taken.adds(&rule) {
                    let message = "never applies: the rules before it take all of its statuses";
                    faults.push(node.fault(&field, message, Some("move it up, or delete it".to_owned())));
                }
                if rule.status.statuses().all(|status| !may_be(status, rule.outcome)) {
                    let message = "a 5xx is never a success and never the end: it is tried again";
                    faults.push(node.fault(&field, message, Some("write outcome = \"retry\"".to_owned())));
                }
                rules.push(rule);
            }
        }
        rules.extend(Self::default().0);
        Self(rules)
    }
}

/// Whether an answer of this status may come to this outcome: an error of the server says nothing about the request.
fn may_be(status: u16, outcome: Outcome) -> bool {
    !(500..=599).contains(&status)
        || !matches!(outcome, Outcome::Delivered | Outcome::Duplicate | Outcome::Rejected | Outcome::Gone)
}

/// What the rules so far take, to find one that never applies.
#[derive(Default)]
struct Taken {
    without_retry_after: std::collections::BTreeSet<u16>,
    with_retry_after: std::collections::BTreeSet<u16>,
}

impl Taken {
    /// Takes the rule's statuses, unless it asks for more; answers whether any was still free.
    fn adds(&mut self, rule: &AnswerRule) -> bool {
        let mut new = false;
        for status in rule.status.statuses() {
            if rule.retry_after != Some(true) {
                new |= !self.without_retry_after.contains(&status);
            }
            if rule.retry_after != Some(false) {
                new |= !self.with_retry_after.contains(&status);
            }
            if rule.asks_more() {
                continue;
            }
            if rule.retry_after != Some(true) {
                self.without_retry_after.insert(status);
            }
            if rule.retry_after != Some(false) {
                self.with_retry_after.insert(status);
            }
        }
        new
    }
}

fn parse_rule(node: &Node, field: &str, faults: &mut Faults) -> Option<AnswerRule> {
    let mut table = node.table(field, faults)?;
    let status = if table.need("status") { parse_ranges(&mut table, "status", STATUSES) } else { None };
    let retry_after = table.boolean("retry_after");
    table.need("outcome");
    let outcome = table.choice("outcome", OUTCOMES);
    let mut tests = conditions::parse(&mut table, "header");
    tests.extend(conditions::parse(&mut table, "body"));
    let json = table.boolean("json");
    let empty = table.boolean("empty");
    let text = table.text("text").and_then(|text| match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err((message, hint)) => {
            table.fault("text", message, hint);
            None
        }
    });
    let say = table.text("say").map(str::to_owned);
    if say.as_ref().is_some_and(|say| say.trim().is_empty() || say.chars().count() > MAX_SAY_CHARS) {
        table.fault("say", format!("expected 1 to {MAX_SAY_CHARS} characters"), None);
    }
    let wait = table
        .integer_within("wait_secs", WAIT_SECS.0, WAIT_SECS.1)
        .map(|secs| Duration::from_secs(secs.unsigned_abs()));
    if wait.is_some() && outcome.is_some_and(|outcome| outcome != Outcome::Throttled) {
        let hint = "write outcome = \"throttled\", or leave it out".to_owned();
        table.fault("wait_secs", "only a throttled lane waits", Some(hint));
    }
    table.finish();
    Some(AnswerRule { status: status?, retry_after, outcome: outcome?, say, wait, tests, json, empty, text })
}

/// Reads one range or a list of ranges under `key`, all within `bounds`.
pub(super) fn parse_ranges(
    table: &mut TableReader<'_>,
    key: &'static str,
    bounds: (u16, u16),
) -> Option<StatusSet> {
    let node = table.node(key)?;
    let path = table.path(key);
    let faults = table.faults();
    let Kind::List(items) = &node.kind else {
        return parse_range(node, &path, bounds, faults).map(|range| StatusSet(vec![range]));
    };
    if items.is_empty() {
        faults.push(node.fault(&path, "an empty list takes no answer", Some(EXAMPLES.to_owned())));
    }
    let ranges: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| parse_range(item, &format!("{path}[{index}]"), bounds, faults))
        .collect();
    (!ranges.is_empty()).then_some(StatusSet(ranges))
}

const EXAMPLES: &str = "such as 410, \"410\", \"4xx\" or \"400-499\"";

fn parse_range(node: &Node, field: &str, bounds: (u16, u16), faults: &mut Faults) -> Option<(u16, u16)> {
    let what = if bounds == STATUSES { "no HTTP statuses" } else { "no codes" };
    let range = match &node.kind {
        Kind::Integer(status) => u16::try_from(*status).ok().map(|status| (status, status)),
        Kind::Text(text) => range(text),
        _ => None,
    };
    match range {
        Some((first, last)) if bounds.0 <= first && first <= last && last <= bounds.1 => Some((first, last)),
        Some(_) => {
            let hint = format!("statuses are {} to {}, the smaller one first", bounds.0, bounds.1);
            faults.push(node.fault(field, what, Some(hint)));
            None
        }
        None => {
            faults.push(node.fault(field, what, Some(EXAMPLES.to_owned())));
            None
        }
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| (text.len() == 3).then(|| text.parse::<u16>().ok()).flatten();
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse::<u16>().ok().filter(|class| *class < 10)? * 100;
        return Some((class, class + 99));
    }
    match text.split_once('-') {
        Some((first, last)) => Some((status(first.trim())?, status(last.trim())?)),
        None => status(text).map(|status| (status, status)),
    }
}

#[cfg(test)]
mod tests;
