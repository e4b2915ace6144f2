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
//! A file's rules come first; after them stand [`AnswerRules::default`]: 2xx is delivered, 410 gone, 429 and 503 with
//! a `Retry-After` are throttled, and whatever no rule takes is tried again. Redirects are never followed, so a 3xx
//! is a failure like any other.

use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::job::Outcome;

const OUTCOMES: &[(&str, Outcome)] = &[
    ("delivered", Outcome::Delivered),
    ("retry", Outcome::Retry),
    ("throttled", Outcome::Throttled),
    ("auth_failed", Outcome::AuthFailed),
    ("rejected", Outcome::Rejected),
    ("gone", Outcome::Gone),
];

/// HTTP statuses; RFC 9110 §15 gives them three digits and five classes.
const FIRST: u16 = 100;
const LAST: u16 = 599;

/// Most rules of one file.
const MAX_RULES: usize = 64;

/// A set of HTTP statuses, as ranges.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRule {
    /// The statuses it takes.
    pub status: StatusSet,
    /// Whether it takes only an answer with a usable `Retry-After` (`true`) or without one (`false`).
    pub retry_after: Option<bool>,
    /// What such an answer comes to.
    pub outcome: Outcome,
}

/// A connector's rules, the default ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRules(Vec<AnswerRule>);

impl Default for AnswerRules {
    fn default() -> Self {
        let rule = |status: &[(u16, u16)], retry_after, outcome| AnswerRule {
            status: StatusSet(status.to_vec()),
            retry_after,
            outcome,
        };
        Self(vec![
            rule(&[(200, 299)], None, Outcome::Delivered),
            rule(&[(410, 410)], None, Outcome::Gone),
            rule(&[(429, 429), (503, 503)], Some(true), Outcome::Throttled),
        ])
    }
}

impl AnswerRules {
    /// What an answer of this status comes to; `retry_after` is whether it says when to come back.
    pub fn outcome(&self, status: u16, retry_after: bool) -> Outcome {
        self.0
            .iter()
            .find(|rule| {
                rule.status.contains(status) && rule.retry_after.is_none_or(|wanted| wanted == retry_after)
            })
            .map_or(Outcome::Retry, |rule| rule.outcome)
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
                rules.push(rule);
            }
        }
        rules.extend(Self::default().0);
        Self(rules)
    }
}

/// What the rules so far take, to find one that never applies.
#[derive(Default)]
struct Taken {
    without_retry_after: std::collections::BTreeSet<u16>,
    with_retry_after: std::collections::BTreeSet<u16>,
}

impl Taken {
    /// Takes the rule's statuses; answers whether any was still free.
    fn adds(&mut self, rule: &AnswerRule) -> bool {
        let mut new = false;
        for status in rule.status.statuses() {
            if rule.retry_after != Some(true) {
                new |= self.without_retry_after.insert(status);
            }
            if rule.retry_after != Some(false) {
                new |= self.with_retry_after.insert(status);
            }
        }
        new
    }
}

fn parse_rule(node: &Node, field: &str, faults: &mut Faults) -> Option<AnswerRule> {
    let mut table = node.table(field, faults)?;
    let status = if table.need("status") { parse_statuses(&mut table) } else { None };
    let retry_after = table.boolean("retry_after");
    table.need("outcome");
    let outcome = table.choice("outcome", OUTCOMES);
    table.finish();
    Some(AnswerRule { status: status?, retry_after, outcome: outcome? })
}

fn parse_statuses(table: &mut TableReader<'_>) -> Option<StatusSet> {
    let node = table.node("status")?;
    let path = table.path("status");
    let faults = table.faults();
    let Kind::List(items) = &node.kind else {
        return parse_range(node, &path, faults).map(|range| StatusSet(vec![range]));
    };
    if items.is_empty() {
        faults.push(node.fault(&path, "an empty list takes no answer", Some(EXAMPLES.to_owned())));
    }
    let ranges: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| parse_range(item, &format!("{path}[{index}]"), faults))
        .collect();
    (!ranges.is_empty()).then_some(StatusSet(ranges))
}

const EXAMPLES: &str = "such as 410, \"410\", \"4xx\" or \"400-499\"";

fn parse_range(node: &Node, field: &str, faults: &mut Faults) -> Option<(u16, u16)> {
    let range = match &node.kind {
        Kind::Integer(status) => u16::try_from(*status).ok().map(|status| (status, status)),
        Kind::Text(text) => range(text),
        _ => None,
    };
    match range {
        Some((first, last)) if FIRST <= first && first <= last && last <= LAST => Some((first, last)),
        Some(_) => {
            let hint = format!("statuses are {FIRST} to {LAST}, the smaller one first");
            faults.push(node.fault(field, "no HTTP statuses", Some(hint)));
            None
        }
        None => {
            faults.push(node.fault(field, "no HTTP statuses", Some(EXAMPLES.to_owned())));
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AnswerRules, Faults> {
        let node = Node::from_toml("c.toml", text).unwrap();
        let mut faults = Faults::default();
        let mut table = node.table("", &mut faults).unwrap();
        let rules = AnswerRules::parse(&mut table);
        table.finish();
        faults.into_result(rules)
    }

    #[test]
    fn without_rules_the_default_ones_hold() {
        let rules = parse("").unwrap();
        assert_eq!(rules, AnswerRules::default());
        let cases = [
            (200, false, Outcome::Delivered),
            (299, true, Outcome::Delivered),
            (301, false, Outcome::Retry),
            (400, false, Outcome::Retry),
            (401, false, Outcome::Retry),
            (408, false, Outcome::Retry),
            (410, true, Outcome::Gone),
            (425, false, Outcome::Retry),
            (429, false, Outcome::Retry),
            (429, true, Outcome::Throttled),
            (500, true, Outcome::Retry),
            (503, false, Outcome::Retry),
            (503, true, Outcome::Throttled),
            (999, false, Outcome::Retry),
        ];
        for (status, retry_after, wanted) in cases {
            assert_eq!(rules.outcome(status, retry_after), wanted, "{status} {retry_after}");
        }
    }

    #[test]
    fn a_files_rules_come_first_and_the_first_that_matches_wins() {
        let rules = parse(
            "[[answer]]\nstatus = [401, \"403\"]\noutcome = 'auth_failed'\n\
             [[answer]]\nstatus = '408-408'\noutcome = 'retry'\n\
             [[answer]]\nstatus = 429\nretry_after = false\noutcome = 'rejected'\n\
             [[answer]]\nstatus = '400-428'\noutcome = 'rejected'\n",
        )
        .unwrap();
        let cases = [
            (401, Outcome::AuthFailed),
            (403, Outcome::AuthFailed),
            (404, Outcome::Rejected),
            (408, Outcome::Retry),
            (410, Outcome::Rejected),
            (429, Outcome::Rejected),
            (204, Outcome::Delivered),
        ];
        for (status, wanted) in cases {
            assert_eq!(rules.outcome(status, false), wanted, "{status}");
        }
        assert_eq!(rules.outcome(429, true), Outcome::Throttled);
    }

    #[test]
    fn every_fault_of_the_rules_is_told() {
        let faults = parse(
            "[[answer]]\nstatus = '6xx'\noutcome = 'retry'\n\
             [[answer]]\nstatus = ['4xx', 'foo', 410, '499-400']\noutcome = 'dropped'\n\
             [[answer]]\nstatus = '5xx'\noutcome = 'retry'\n\
             [[answer]]\nstatus = 503\noutcome = 'gone'\n\
             [[answer]]\noutcom = 'gone'\n",
        )
        .unwrap_err();
        let told: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "c.toml:2:10: answer[0].status: no HTTP statuses\n  hint: statuses are 100 to 599, the smaller one first",
                "c.toml:5:18: answer[1].status[1]: no HTTP statuses\n  hint: such as 410, \"410\", \"4xx\" or \"400-499\"",
                "c.toml:5:30: answer[1].status[3]: no HTTP statuses\n  hint: statuses are 100 to 599, the smaller one first",
                "c.toml:6:11: answer[1].outcome: unknown value \"dropped\"\n  hint: one of delivered, retry, throttled, auth_failed, rejected, gone",
                "c.toml:10:1: answer[3]: never applies: the rules before it take all of its statuses\n  hint: move it up, or delete it",
                "c.toml:13:1: answer[4].status: missing\n  hint: add \"status\"",
                "c.toml:13:1: answer[4].outcome: missing\n  hint: add \"outcome\"",
                "c.toml:14:1: answer[4].outcom: unknown key\n  hint: did you mean \"outcome\"?",
            ]
        );
    }
}
