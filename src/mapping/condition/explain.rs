//! Why a condition does not hold, in words a person can act on: the first test that stands in the way, and what the event
//! has there.

use serde_json::Value;

use super::{Condition, Rule};
use crate::mapping::context::Context;
use crate::mapping::limits::Work;
use crate::mapping::path::{Found, Scope};

/// Characters of a value in an explanation.
const SHOWN_CHARS: usize = 60;
/// Alternatives that are told one by one.
const SHOWN_TESTS: usize = 3;

impl Condition {
    /// Why the event does not pass; `None` when it does. Values of the event are in it.
    ///
    /// ```
    /// use patchbay::mapping::{Condition, Context};
    /// use serde_json::json;
    /// let filter = Condition::from_json(&json!({"path": "$.data.score", "op": "gte", "value": 4})).unwrap();
    /// let why = |event| filter.why_not(&event, &Context::empty());
    /// assert_eq!(why(json!({"data": {"score": 5}})), None);
    /// assert_eq!(why(json!({"data": {"score": 2}})).unwrap(), "$.data.score gte 4: the event has 2");
    /// assert_eq!(why(json!({"data": {}})).unwrap(), "$.data.score gte 4: the event has nothing there");
    /// ```
    pub fn why_not(&self, event: &Value, context: &Context<'_>) -> Option<String> {
        let work = Work::new();
        let scope = Scope { root: event, context, work: &work, item: None };
        match self.holds(scope) {
            Ok(true) => None,
            Ok(false) => Some(why(&self.rule, &self.source, scope)),
            Err(reason) => Some(reason.to_owned()),
        }
    }
}

/// Why a rule that does not hold does not.
fn why(rule: &Rule, source: &Value, scope: Scope<'_>) -> String {
    match rule {
        Rule::All(rules) => {
            let mut each = rules.iter().zip(list(source, "all"));
            let fails = each.find(|(rule, _)| !matches!(rule.holds(scope), Ok(true)));
            fails.map_or_else(String::new, |(rule, source)| why(rule, source, scope))
        }
        Rule::Any(rules) => {
            let mut told: Vec<String> = rules
                .iter()
                .zip(list(source, "any"))
                .take(SHOWN_TESTS)
                .map(|(rule, source)| why(rule, source, scope))
                .collect();
            if rules.len() > SHOWN_TESTS {
                told.push(format!("and {} more", rules.len() - SHOWN_TESTS));
            }
            format!("none of: {}", told.join("; "))
        }
        Rule::Not(_) => format!("it meets what it should not: {}", short(&source["not"])),
        Rule::Test { path, .. } => {
            let test = match source.get("value") {
                Some(value) => format!("{} {}", text(&source["op"]), short(value)),
                None => text(&source["op"]).to_owned(),
            };
            let found = match path.find(scope) {
                Ok(Found::One(Some(value))) => short(&value),
                Ok(Found::Many(values)) if !values.is_empty() => {
                    let more = if values.len() > 1 {
                        format!(" and {} more", values.len() - 1)
                    } else {
                        String::new()
                    };
                    format!("{}{more}", short(values[0]))
                }
                Ok(_) => "nothing there".to_owned(),
                Err(reason) => return format!("{} {test}: {reason}", path.text()),
            };
            format!("{} {test}: the event has {found}", path.text())
        }
    }
}

fn list<'s>(source: &'s Value, key: &str) -> &'s [Value] {
    source.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS {
        return text;
    }
    text.chars().take(SHOWN_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_stands_in_the_way_is_told() {
        let event = json!({"type": "lead.captured", "data": {"score": 2, "tags": ["a", "b"]}});
        for (condition, wanted) in [
            (
                json!({"all": [{"path": "$.type", "op": "exists"}, {"path": "$.data.email", "op": "exists"}]}),
                "$.data.email exists: the event has nothing there",
            ),
            (
                json!({"any": [{"path": "$.data.score", "op": "gt", "value": 2}, {"path": "$.data.tags[*]", "op": "eq", "value": "c"}]}),
                "none of: $.data.score gt 2: the event has 2; $.data.tags[*] eq \"c\": the event has \"a\" and 1 more",
            ),
            (
                json!({"not": {"path": "$.type", "op": "starts_with", "value": "lead."}}),
                "it meets what it should not: {\"path\":\"$.type\",\"op\":\"starts_with\",\"value\":\"lead.\"}",
            ),
        ] {
            let condition = Condition::from_json(&condition).unwrap();
            assert_eq!(condition.why_not(&event, &Context::empty()).as_deref(), Some(wanted));
        }
    }

    proptest! {
        #[test]
        fn there_is_a_reason_exactly_when_it_does_not_hold(
            event in crate::mapping::transform::tests::any_json(),
            op in prop::sample::select(vec!["eq", "ne", "contains", "exists"]),
            joined in 0_u8..4,
        ) {
            let value = if op == "exists" { json!(true) } else { json!("a") };
            let test = json!({"path": "$..a", "op": op, "value": value});
            let condition = match joined {
                0 => test,
                1 => json!({"all": [test.clone(), test]}),
                2 => json!({"any": [test.clone(), {"not": test}]}),
                _ => json!({"not": {"any": [test]}}),
            };
            let condition = Condition::from_json(&condition).unwrap();
            let why = condition.why_not(&event, &Context::empty());
            prop_assert_eq!(why.is_none(), condition.matches(&event, &Context::empty()));
            prop_assert!(why.is_none_or(|why| !why.is_empty()));
        }
    }
}
