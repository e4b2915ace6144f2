//! What a rule asks of an answer beside its status: headers, fields of the body, its raw text.
//!
//! ```toml
//! header = { name = "x-error", matches = "quota" }           # or eq, in, exists
//! body = { path = "$.status", code = "4xx" }                 # or eq, in, exists, matches
//! body = [{ path = "$.ok", eq = false }, { path = "$.error", exists = true }]     # all of them
//! ```
//!
//! `code` compares as people mean status codes: 200, 200.0, "200" and " 200 " are equal, and `true` is none. It takes what a
//! rule's `status` takes. A path that leads to several values passes when one of them does; `exists = false` when there is none,
//! or only null.

use http::HeaderName;
use serde_json::Value;

use super::answer::{Seen, StatusSet, parse_ranges};
use super::extract::Pattern;
use super::header::read_name;
use super::rows::BodyPath;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Faults;

const MAX_TESTS: usize = 16;
/// Codes of a body are any that fit; vendors have 0 and 10000 too.
const CODES: (u16, u16) = (0, u16::MAX);
const CHECKS: &[&str] = &["eq", "in", "exists", "code", "matches"];

/// A test on one place of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    place: TestPlace,
    check: Check,
}

#[derive(Debug, Clone, PartialEq)]
enum TestPlace {
    Header(HeaderName),
    Body(std::sync::Arc<BodyPath>),
}

#[derive(Debug, Clone, PartialEq)]
enum Check {
    In(Vec<Value>),
    Exists(bool),
    Code(StatusSet),
    Matches(Pattern),
}

impl Test {
    /// Whether the answer passes. What is no JSON has nothing at any path.
    pub(super) fn passes(&self, seen: &Seen<'_>) -> bool {
        let values: Vec<Value> = match &self.place {
            TestPlace::Header(name) => seen
                .headers
                .get_all(name)
                .iter()
                .map(|value| Value::String(String::from_utf8_lossy(value.as_bytes()).trim().to_owned()))
                .collect(),
            TestPlace::Body(path) => seen.json().map(|body| path.find(body)).unwrap_or_default(),
        };
        match &self.check {
            Check::Exists(wanted) => values.iter().any(|value| !value.is_null()) == *wanted,
            Check::In(wanted) => values.iter().any(|value| wanted.iter().any(|one| same(one, value))),
            Check::Code(codes) => values.iter().filter_map(code).any(|code| codes.contains(code)),
            Check::Matches(pattern) => {
                values.iter().any(|value| value.as_str().is_some_and(|text| pattern.is_match(text)))
            }
        }
    }

    /// Whether it reads the body.
    pub(super) fn reads_body(&self) -> bool {
        matches!(self.place, TestPlace::Body(_))
    }
}

/// Equality in which 1 is 1.0.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

/// A status code, however it is written.
fn code(value: &Value) -> Option<u16> {
    let number: f64 = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            if !text.starts_with(|first: char| first.is_ascii_digit()) {
                return None;
            }
            text.parse().ok()?
        }
        _ => return None,
    };
    let fits = number.fract() == 0.0 && (f64::from(CODES.0)..=f64::from(CODES.1)).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within the type")]
    fits.then_some(number as u16)
}

/// Reads the tests under `key`: one table, or a list of tables that must all pass.
pub(super) fn parse(table: &mut TableReader<'_>, key: &'static str) -> Vec<Test> {
    let Some(node) = table.node(key) else { return Vec::new() };
    let path = table.path(key);
    let of_header = key == "header";
    let faults = table.faults();
    let Kind::List(items) = &node.kind else {
        return test(node, &path, of_header, faults).into_iter().collect();
    };
    if items.is_empty() || items.len() > MAX_TESTS {
        faults.push(node.fault(&path, format!("{} tests, expected 1 to {MAX_TESTS}", items.len()), None));
    }
    items
        .iter()
        .take(MAX_TESTS)
        .enumerate()
        .filter_map(|(index, item)| test(item, &format!("{path}[{index}]"), of_header, faults))
        .collect()
}

fn test(node: &Node, field: &str, of_header: bool, faults: &mut Faults) -> Option<Test> {
    let mut table = node.table(field, faults)?;
    let place = if of_header {
        table.need("name");
        read_name(&mut table, "name").map(TestPlace::Header)
    } else {
        table.need_text("path").and_then(|text| match BodyPath::parse(text) {
            Ok(path) => Some(TestPlace::Body(std::sync::Arc::new(path))),
            Err((message, hint)) => {
                table.fault("path", message, hint);
                None
            }
        })
    };
    let given: Vec<&str> = CHECKS.iter().copied().filter(|key| table.has(key)).collect();
    let check = match given.as_slice() {
        ["eq"] => table.node("eq").map(|node| Check::In(vec![node.to_json()])),
        ["in"] => table.list("in").map(|items| Check::In(items.iter().map(Node::to_json).collect())),
        ["exists"] => table.boolean("exists").map(Check::Exists),
        ["code"] => parse_ranges(&mut table, "code", CODES).map(Check::Code),
        ["matches"] => table.text("matches").and_then(|text| match Pattern::parse(text) {
            Ok(pattern) => Some(Check::Matches(pattern)),
            Err((message, hint)) => {
                table.fault("matches", message, hint);
                None
            }
        }),
        [] => {
            table.fault("eq", "nothing is asked", Some(format!("add one of {}", CHECKS.join(", "))));
            None
        }
        several => {
            let hint = "one question a test; write a list of tests where all must hold".to_owned();
            table.fault(several[1], format!("stands beside \"{}\"", several[0]), Some(hint));
            None
        }
    };
    table.finish();
    Some(Test { place: place?, check: check? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn codes_are_equal_however_they_are_written() {
        for value in [json!(200), json!(200.0), json!("200"), json!(" 200 "), json!("200.0"), json!(2e2)] {
            assert_eq!(code(&value), Some(200), "{value}");
        }
        for value in [
            json!(true),
            json!(null),
            json!("OK"),
            json!(200.5),
            json!(-1),
            json!(""),
            json!("inf"),
            json!([200]),
            json!(70_000),
        ] {
            assert_eq!(code(&value), None, "{value}");
        }
    }
}
