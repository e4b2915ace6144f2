//! A path that may match many nodes: the engine behind bounds.
//!
//! The promise is *right or refused, never silently wrong*. What the engine (`jsonpath-rust` 1.0.12) is known to
//! get wrong, what RFC 9535 does not have, and what can take long on a large event is refused when the mapping is
//! saved, with what to write instead. What is left visits each node of the event a bounded number of times: at
//! most one descendant segment, at most [`FAN_OUT`] selectors' worth of repetition, at most [`TESTS`] tests in
//! filters, and filters whose own paths are singular. The engine builds a text for each node it visits, as long as
//! the node's path; so an event is weighed before it is queried, and [`TOO_LARGE`] is the answer when the work
//! would be above [`WORK`], which is some tenths of a second. An event of 100 KiB is far below it.

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Segment, Selector, Test, TestFunction,
};
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

use super::path::Refusal;

/// How often one node may be selected: the product of the selectors of all segments.
const FAN_OUT: usize = 8;

/// Tests in the filters of one query.
const TESTS: usize = 16;

/// Node visits of one run, where a node with a path of 256 bytes counts as two.
const WORK: usize = 400_000;

/// Why a run is refused.
pub const TOO_LARGE: &str = "the event is too large for this query; name the keys on the way";

/// A checked query.
#[derive(Debug)]
pub struct Query {
    query: JpQuery,
    /// How often a node may be visited.
    visits: usize,
}

impl Query {
    /// Checks a parsed query.
    pub fn new(query: JpQuery) -> Result<Self, Refusal> {
        let visits = check(&query)?;
        Ok(Self { query, visits })
    }

    /// The matches in the engine's order.
    pub fn run<'e>(&self, root: &'e Value) -> Result<Vec<&'e Value>, &'static str> {
        weigh(root, 0, WORK / self.visits).ok_or(TOO_LARGE)?;
        // The engine answers an error only for a query that ends in a computed value, which no path does.
        let nodes = js_path_process(&self.query, root).unwrap_or_default();
        Ok(nodes.into_iter().map(|node| node.val).collect())
    }
}

/// What is left of `left` after a visit of every node; `None` when it is not enough.
fn weigh(value: &Value, path_bytes: usize, left: usize) -> Option<usize> {
    /// The brackets, quotes or digits of one step of a path.
    const STEP_BYTES: usize = 6;
    let left = left.checked_sub(1 + path_bytes / 256)?;
    match value {
        Value::Array(items) => {
            items.iter().try_fold(left, |left, item| weigh(item, path_bytes + STEP_BYTES, left))
        }
        Value::Object(entries) => entries
            .iter()
            .try_fold(left, |left, (key, item)| weigh(item, path_bytes + key.len() + STEP_BYTES, left)),
        _ => Some(left),
    }
}

/// How often the query may visit a node, if it is fit to run.
fn check(query: &JpQuery) -> Result<usize, Refusal> {
    let mut descendants = 0;
    let mut tests = 0_usize;
    let mut fan_out = 1_usize;
    for segment in &query.segments {
        let segment = match segment {
            Segment::Descendant(inner) => {
                descendants += 1;
                if matches!(**inner, Segment::Selectors(_)) {
                    return Err(Refusal::new(
                        "several selectors after \"..\" are not supported",
                        "write one path each: from = [\"$..a\", \"$..d\"]",
                    ));
                }
                inner
            }
            other => other,
        };
        let selectors = match segment {
            Segment::Selectors(selectors) => selectors.as_slice(),
            Segment::Selector(selector) => std::slice::from_ref(selector),
            Segment::Descendant(_) => return Err(Refusal::new("\"..\" twice in a row", "write \"..\" once")),
        };
        fan_out = fan_out.saturating_mul(selectors.len());
        for selector in selectors {
            if let Selector::Filter(filter) = selector {
                check_filter(filter, &mut tests)?;
            }
        }
    }
    if descendants > 1 {
        return Err(Refusal::new(
            "more than one \"..\" can take very long",
            "use one \"..\" and name the keys after it, such as \"$..items[*].name\"",
        ));
    }
    if fan_out > FAN_OUT {
        return Err(Refusal::new(
            format!("the lists of selectors multiply to {fan_out}, {FAN_OUT} is the most"),
            "use \"[*]\", or write several paths into `from`",
        ));
    }
    if tests > TESTS {
        return Err(Refusal::new(
            format!("{tests} tests in the filters, {TESTS} are the most"),
            "test for one thing in the path, and for the rest with `when`",
        ));
    }
    Ok(fan_out.saturating_mul(1 + tests))
}

fn check_filter(filter: &Filter, tests: &mut usize) -> Result<(), Refusal> {
    match filter {
        Filter::Or(parts) | Filter::And(parts) => parts.iter().try_for_each(|part| check_filter(part, tests)),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => check_filter(expr, tests),
        Filter::Atom(FilterAtom::Test { expr, .. }) => {
            *tests += 1;
            check_test(expr)
        }
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            *tests += 1;
            let (Comparison::Eq(left, right)
            | Comparison::Ne(left, right)
            | Comparison::Gt(left, right)
            | Comparison::Gte(left, right)
            | Comparison::Lt(left, right)
            | Comparison::Lte(left, right)) = &**comparison;
            check_side(left)?;
            check_side(right)
        }
    }
}

fn check_test(test: &Test) -> Result<(), Refusal> {
    match test {
        Test::RelQuery(segments) | Test::AbsQuery(JpQuery { segments }) if singular(segments) => Ok(()),
        Test::RelQuery(_) | Test::AbsQuery(_) => Err(Refusal::new(
            "a filter can only test a plain path, without \"*\", \"..\", slices or another filter",
            "name the key: \"[?@.items[0].kind]\"",
        )),
        Test::Function(function) => Err(match &**function {
            TestFunction::Length(_) | TestFunction::Count(_) | TestFunction::Value(_) => {
                Refusal::new("a number or value is no test", "compare it: \"[?length(@.name) > 0]\"")
            }
            TestFunction::Match(..) | TestFunction::Search(..) => Refusal::new(
                "match() and search() in a path are not supported",
                "compare with \"==\", or test with `when` and op = \"matches\"",
            ),
            TestFunction::Custom(name, _) => Refusal::new(
                format!("{name}() is not part of JSONPath (RFC 9535)"),
                "compare with \"==\" and \"||\"",
            ),
        }),
    }
}

fn check_side(side: &Comparable) -> Result<(), Refusal> {
    let Comparable::Function(function) = side else { return Ok(()) };
    match function {
        TestFunction::Length(argument) => match &**argument {
            FnArg::Literal(_) => Ok(()),
            FnArg::Test(test) => match &**test {
                Test::RelQuery(segments) | Test::AbsQuery(JpQuery { segments }) if singular(segments) => {
                    Ok(())
                }
                _ => Err(length_hint()),
            },
            FnArg::Filter(_) => Err(length_hint()),
        },
        TestFunction::Count(_) => Err(Refusal::new(
            "count() is not supported",
            "take = \"count\" on the row, or length(@.list) for the size of a list",
        )),
        TestFunction::Value(_) => {
            Err(Refusal::new("value() is not supported", "compare the path itself: \"@.a == 1\""))
        }
        TestFunction::Match(..) | TestFunction::Search(..) | TestFunction::Custom(..) => {
            Err(Refusal::new("a test can't be compared", "take away the comparison"))
        }
    }
}

fn length_hint() -> Refusal {
    Refusal::new("length() takes one value, not the matches of a query", "length(@.list)")
}

fn singular(segments: &[Segment]) -> bool {
    segments
        .iter()
        .all(|segment| matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonpath_rust::parser::parse_json_path;
    use serde_json::json;

    fn query(text: &str) -> Result<Query, Refusal> {
        Query::new(parse_json_path(text).unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    #[test]
    fn what_is_taken_is_right() {
        let event = json!({"items": [
            {"kind": "a", "n": 1, "tags": []},
            {"kind": "b", "n": 2, "tags": ["x", "y"]},
            {"kind": "a", "n": 3.5},
        ], "limit": 2, "none": [], "deep": {"kind": "c"}});
        for (path, matches) in [
            ("$.items[*].n", json!([1, 2, 3.5])),
            ("$.items[?@.kind == 'a'].n", json!([1, 3.5])),
            ("$.items[?@.kind != 'a' || @.n > 3].n", json!([2, 3.5])),
            ("$.items[?@.n >= $.limit].n", json!([2, 3.5])),
            ("$.items[?@.tags].n", json!([1, 2])),
            ("$.items[?!@.tags].n", json!([3.5])),
            ("$.items[?(@.kind == 'a' && @.tags)].n", json!([1])),
            ("$.items[?length(@.tags) == 2].n", json!([2])),
            ("$.items[?length(@.tags) == 0].n", json!([1])),
            ("$.items[0:2].n", json!([1, 2])),
            ("$.items[::-1].n", json!([3.5, 2, 1])),
            ("$.items[0,-1].n", json!([1, 3.5])),
            ("$.items[0]['n','kind']", json!([1, "a"])),
            ("$..kind", json!(["a", "b", "a", "c"])),
            ("$.none[*]", json!([])),
            ("$.missing[*].a", json!([])),
            ("$.limit[*]", json!([])),
            ("$.items[?@.missing == null].n", json!([])),
        ] {
            assert_eq!(json!(query(path).unwrap().run(&event).unwrap()), matches, "{path}");
        }
    }

    #[test]
    fn what_is_wrong_or_slow_is_refused_with_a_hint() {
        for (path, hint) in [
            ("$..['a','d']", "from = ["),
            ("$[?@[?@>1]]", "name the key"),
            ("$[?@.*]", "name the key"),
            ("$[?@..a]", "name the key"),
            ("$[?$.a[*]]", "name the key"),
            ("$[?count(@.a[*]) == 0]", "take = \"count\""),
            ("$[?count(@.a) > 1]", "take = \"count\""),
            ("$[?length(@.a)]", "compare it"),
            ("$[?length(@.*) > 1]", "length(@.list)"),
            ("$[?value(@.a) == 1]", "compare the path"),
            ("$[?match(@.a, 'x.*')]", "`when`"),
            ("$[?search(@.a, @.b)]", "`when`"),
            ("$[?in(@.a, $.b)]", "\"==\""),
            ("$..*..*..*", "use one"),
            ("$..a..b", "use one"),
            ("$[*,*][*,*][*,*][*,*]", "[*]"),
            (&format!("$[?{}]", vec!["@.a == 1"; 20].join(" || ")), "`when`"),
        ] {
            let refusal = query(path).unwrap_err();
            assert!(refusal.hint.as_deref().is_some_and(|text| text.contains(hint)), "{path}: {refusal:?}");
        }
    }

    #[test]
    fn a_run_that_would_take_long_is_refused() {
        let wide = json!({"items": vec![json!({"n": 1}); 50_000]});
        assert_eq!(query("$..n").unwrap().run(&wide).unwrap().len(), 50_000);
        assert_eq!(
            query("$.items[?@.n == 1 || @.n == 2 || @.n == 3 || @.n == 4]").unwrap().run(&wide),
            Err(TOO_LARGE)
        );
        let deep = (0..120)
            .fold(json!(1), |inner, _| json!({"a long name that is repeated": inner, "l": vec![0; 800]}));
        assert_eq!(query("$..*").unwrap().run(&deep), Err(TOO_LARGE));
    }
}
