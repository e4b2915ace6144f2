//! The cases of the `JSONPath` compliance test suite (`tests/mapping/compliance/`), and cases of our own beyond it.

use serde_json::{Value, json};

use super::super::context::sample;
use super::super::limits::Work;
use super::super::path::{Found, Path, Scope};
use super::pattern;

fn run(path: &str, document: &Value) -> Result<Vec<Value>, String> {
    let path = Path::parse(path, 0).map_err(|refusal| refusal.message)?;
    let (context, work) = (sample(), Work::new());
    let scope = Scope { root: document, context: &context, work: &work, item: None };
    Ok(match path.find(scope).map_err(str::to_owned)? {
        Found::One(value) => value.into_iter().map(std::borrow::Cow::into_owned).collect(),
        Found::Many(values) => values.into_iter().cloned().collect(),
    })
}

/// Valid queries that are refused, and why. Nothing else may be.
const REFUSED: &[(&str, &str)] =
    &[("no text in quotes", "a pattern from the document would be compiled for each node")];

#[test]
fn every_case_of_the_compliance_suite_is_right_or_refused() {
    let text = std::fs::read_to_string("tests/mapping/compliance/cts.json").unwrap();
    let suite: Value = serde_json::from_str(&text).unwrap();
    let cases = suite["tests"].as_array().unwrap();
    let (mut right, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases {
        let selector = case["selector"].as_str().unwrap();
        let answer = run(selector, &case["document"]);
        let one_of = case["result"].as_array().map(|_| vec![case["result"].clone()]);
        let wanted = one_of.or_else(|| case["results"].as_array().cloned()).unwrap_or_default();
        match answer {
            Ok(found) if wanted.contains(&json!(found)) => right += 1,
            Err(_) if case["invalid_selector"] == json!(true) => right += 1,
            Err(reason) if REFUSED.iter().any(|(part, _)| reason.contains(part)) => refused += 1,
            other => wrong.push(format!("{}: {selector} gave {other:?}, wanted {wanted:?}", case["name"])),
        }
    }
    println!("{} cases: {right} right, {refused} refused, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(right > 670 && refused < 10, "{right} right, {refused} refused");
}

#[test]
fn what_is_taken_is_right() {
    let event = json!({"items": [
        {"kind": "a", "n": 1, "tags": []},
        {"kind": "b", "n": 2, "tags": ["x", "y"]},
        {"kind": "a", "n": 3.5},
    ], "limit": 2, "none": [], "deep": {"kind": "c"}, "big": [9_007_199_254_740_992_i64, 9_007_199_254_740_993_i64]});
    for (path, matches) in [
        ("$.items[*].n", json!([1, 2, 3.5])),
        ("$.items[?@.kind != 'a' || @.n > 3].n", json!([2, 3.5])),
        ("$.items[?@.n >= $.limit].n", json!([2, 3.5])),
        ("$.items[?!@.tags].n", json!([3.5])),
        ("$.items[?(@.kind == 'a' && @.tags)].n", json!([1])),
        ("$.items[?length(@.tags) == 2].n", json!([2])),
        ("$.items[?count(@.tags[*]) == 0].n", json!([1, 3.5])),
        ("$.items[?value(@..kind) == 'b'].n", json!([2])),
        ("$.items[?@.tags[?@ == 'y']].n", json!([2])),
        ("$.items[?match(@.kind, '[bc]')].n", json!([2])),
        ("$.items[?search(@.kind, 'A|b')].n", json!([2])),
        ("$.items[::-1].n", json!([3.5, 2, 1])),
        ("$.items[0,-1].n", json!([1, 3.5])),
        ("$.items[0]['n','kind']", json!([1, "a"])),
        ("$..kind", json!(["a", "b", "a", "c"])),
        ("$..['limit','kind']", json!([2, "a", "b", "a", "c"])),
        ("$.missing[*].a", json!([])),
        ("$.limit[*]", json!([])),
        ("$.items[?@.missing == null].n", json!([])),
        // The engine of the parser takes these two for equal.
        ("$.big[?@ == $.big[1]]", json!([9_007_199_254_740_993_i64])),
        ("$.big[?@ > $.big[0]]", json!([9_007_199_254_740_993_i64])),
    ] {
        assert_eq!(json!(run(path, &event).unwrap()), matches, "{path}");
    }
}

#[test]
fn what_is_no_query_is_refused_with_a_hint() {
    for (path, hint) in [
        ("$[?length(@.a)]", "compare it"),
        ("$[?length(@.*) > 1]", "name the place"),
        ("$[?match(@.a, $.b)]", "can't come from the event"),
        ("$[?match(@.a, '\\\\d+')]", "[0-9]"),
        ("$[?match(@.a, '(?i)a')]", "(a|b)"),
        ("$[?match(@.a, '[a-z&&[b]]')]", "once"),
        ("$[?match(@.a, 'a**')]", "away"),
        ("$[?in(@.a, $.b)]", "\"==\""),
    ] {
        let refusal = Path::parse(path, 0).unwrap_err();
        assert!(refusal.hint.as_deref().is_some_and(|text| text.contains(hint)), "{path}: {refusal:?}");
    }
    assert!(pattern::plain("(a{100}){100}{100}").is_err());
    assert!(pattern::plain(&"a".repeat(600)).is_err());
}

#[test]
fn a_run_that_would_take_long_is_ended() {
    let wide = json!({"items": vec![json!({"n": 1}); 50_000]});
    assert_eq!(run("$..n", &wide).unwrap().len(), 50_000);
    let deep = (0..100).fold(json!(1), |inner, _| json!({"a": inner, "b": [1, 2, 3]}));
    for (path, ends) in [
        ("$..*..*..*..*", true),
        ("$..[?count($..*) > count($..*..*)]", true),
        ("$..[*,*,*][*,*,*]..*..*..*", true),
        ("$[?@..*..*..*]", false),
    ] {
        let started = std::time::Instant::now();
        let answer = run(path, &deep).map(|found| found.len());
        assert_eq!(answer == Err(Work::SPENT.to_owned()), ends, "{path}: {answer:?}");
        assert!(started.elapsed().as_secs() < 10, "{path} took {:?}", started.elapsed());
    }
    for slice in
        ["$.items[-9007199254740991:9007199254740991]", "$.items[9007199254740991::-9007199254740991]"]
    {
        assert!(run(slice, &wide).is_ok(), "{slice}");
    }
}
