//! Whatever is written and whatever comes: an answer within bounds, soon, and the same each time. This is the bounded stand-in
//! for the fuzz targets in `fuzz/`, with the same properties.

use std::time::{Duration, Instant};

use patchbay::domain::time::Timestamp;
use patchbay::mapping::{Condition, Context, Mapping, evaluate_path, transforms};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::context;

/// Far above what any run takes in an unoptimised build, far below a stall.
const SOON: Duration = Duration::from_secs(8);

/// The processor's time that this thread has had, where the system tells: what others take from it does not count.
fn used() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn soon<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let (started, before) = (Instant::now(), used());
    let answer = act();
    let took = before.zip(used()).map_or(started.elapsed(), |(before, after)| after.saturating_sub(before));
    assert!(took < SOON, "{what} took {took:?}");
    answer
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[ a-zA-Z0-9@.:+<>&;/-]{0,24}".prop_map(Value::from),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:00Z".prop_map(Value::from),
        "\\+?[0-9 ()-]{3,18}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-e]|text|role|time|attachments", inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Paths by the grammar, with filters in filters, and sometimes with a slip.
fn any_path() -> impl Strategy<Value = String> {
    let int = prop_oneof![
        (-3_i64..4).prop_map(|n| n.to_string()),
        Just("9007199254740991".into()),
        Just("-9007199254740991".into())
    ];
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("é".to_owned()),
        Just("日本".to_owned())
    ];
    let plain = prop_oneof![
        name.clone().prop_map(|name| format!(".{name}")),
        name.clone().prop_map(|name| format!("..{name}")),
        Just("..*".to_owned()),
        Just("[*]".to_owned()),
        int.clone().prop_map(|n| format!("[{n}]")),
        (int.clone(), int.clone(), int.clone()).prop_map(|(a, b, c)| format!("[{a}:{b}:{c}]")),
        (name.clone(), int.clone()).prop_map(|(a, b)| format!("['{a}',{b},::-1]")),
    ];
    let segments = prop::collection::vec(plain, 0..5).prop_map(|parts| parts.concat());
    let literal = prop_oneof![
        int,
        Just("1.5e3".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("'a\\u0041\\''".to_owned()),
        Just("\"\\ud83d\\ude00\"".to_owned()),
    ];
    let op = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let function = prop::sample::select(vec!["length", "count", "value"]);
    let test =
        (segments.clone(), op, literal, function, 0..6_u8).prop_map(|(path, op, literal, function, kind)| {
            match kind {
                0 => format!("@{path} {op} {literal}"),
                1 => format!("{function}(@{path}) {op} {literal}"),
                2 => format!("!@{path}"),
                3 => format!("match(@{path}, 'a.*[^b]|\\\\p{{Lu}}+')"),
                4 => format!("search($.a, '{literal}')"),
                _ => format!("(@{path} || $..b) && {literal} {op} @.a"),
            }
        });
    let filters = test.prop_recursive(4, 8, 2, |inner| {
        (inner.clone(), inner).prop_map(|(left, right)| format!("@[?{left}][0] && ({right})"))
    });
    let slip = prop_oneof![4 => Just(String::new()), 1 => "[\\[\\](){}.@$?*'\" ,:!=<>&|a-z0-9-]{1,4}"];
    (segments.clone(), prop::option::of(filters), segments, slip).prop_map(|(before, filter, after, slip)| {
        let filter = filter.map(|filter| format!("[?{filter}]")).unwrap_or_default();
        format!("${before}{filter}{after}{slip}")
    })
}

fn any_rows() -> impl Strategy<Value = Vec<Value>> {
    let applies: Vec<Value> = transforms()
        .flat_map(|transform| transform.examples)
        .map(|example| serde_json::from_str(example.apply).unwrap())
        .collect();
    let apply = prop::collection::vec(prop::sample::select(applies), 0..4);
    let source = prop_oneof![
        any_path().prop_map(|path| json!({"from": path})),
        (any_path(), prop::sample::select(vec!["all", "count", "last", "one"]))
            .prop_map(|(path, take)| json!({"from": path, "take": take})),
        any_path().prop_map(|path| json!({"template": format!("<{{{{{path}}}}}>")})),
        (any_path(), any_path()).prop_map(|(list, path)| json!({"each": {"from": list, "fields": [
            {"to": "x", "from": path}, {"to": "y", "from": "$parent.a"}, {"to": "z", "from": "$index"}]}})),
        (any_path(), 100..200_u32, any::<bool>()).prop_map(|(messages, most, latest)| json!({"transcript": {
            "messages": messages, "max_chars": most, "keep": if latest { "latest" } else { "earliest" },
            "order": "newest_first", "line": "{{time}} {{number}} {{speaker}}: {{text}} {{$.a}}"}})),
        any_json().prop_map(|value| json!({"value": value})),
    ];
    let row =
        (source, apply, prop::sample::select(vec!["fail", "skip"])).prop_map(|(mut row, apply, on_error)| {
            row["apply"] = Value::Array(apply);
            row["on_error"] = json!(on_error);
            row
        });
    prop::collection::vec(row, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_path_on_any_document_is_answered(path in any_path(), document in any_json()) {
        let first = soon(&path, || evaluate_path(&path, &document));
        prop_assert_eq!(first, evaluate_path(&path, &document));
    }

    #[test]
    fn any_text_is_a_path_or_told(path in "\\PC{0,40}") {
        let _ = soon(&path, || evaluate_path(&path, &Value::Null));
    }

    #[test]
    fn any_rows_on_any_event_are_answered(mut rows in any_rows(), event in any_json()) {
        for (index, row) in rows.iter_mut().enumerate() {
            row["to"] = json!(format!("k{index}"));
        }
        let written = json!({"version": 1, "fields": rows});
        let Ok(mapping) = Mapping::from_json(&written) else { return Ok(()) };
        let first = soon("a run", || mapping.apply(&event, &context(&event)));
        prop_assert_eq!(&first, &mapping.apply(&event, &context(&event)));
        let preview = mapping.preview(&event, &context(&event));
        prop_assert_eq!(preview.error.as_ref(), first.as_ref().err());
        if let Ok(output) = first {
            prop_assert_eq!(preview.output, Some(Value::Object(output.clone())));
            prop_assert!(Value::Object(output).to_string().len() <= 1024 * 1024 + 64);
        }
    }

    #[test]
    fn a_transcript_is_never_longer_than_asked(texts in prop::collection::vec("\\PC{0,60}", 0..40), most in 100..400_usize,
        latest: bool, newest_first: bool) {
        let messages: Vec<Value> = texts.iter().enumerate()
            .map(|(index, text)| json!({"role": "user", "text": text, "time": 1_700_000_000 + index})).collect();
        let mapping = Mapping::from_json(&json!({"version": 1, "fields": [{"to": "x", "transcript": {
            "messages": "$.m", "max_chars": most, "keep": if latest { "latest" } else { "earliest" },
            "order": if newest_first { "newest_first" } else { "given" }}}]})).unwrap();
        let event = json!({"m": messages});
        let output = mapping.apply(&event, &context(&event)).unwrap();
        if let Some(text) = output.get("x").and_then(Value::as_str) {
            prop_assert!(text.chars().count() <= most, "{} of {most}", text.chars().count());
        }
    }
}

/// What each part may do at most, all in one mapping that is meant to hold things up.
#[test]
fn a_mapping_that_is_meant_to_stall_is_ended() {
    let wide = json!({"big": "aé ".repeat(100_000), "items": vec![json!({"n": 1, "t": "x".repeat(200)}); 900],
        "deep": (0..100).fold(json!(1), |inner, _| json!({"a": inner, "b": [1, 2, 3]}))});
    let each = json!({"from": "$.items", "fields": [{"to": "e", "each": {"from": "$parent.items", "fields": [
        {"to": "t", "from": "$.t", "apply": ["upper", "lower", "title"]}]}}]});
    let nasty = "(?:[a-zé]{1,20}[ x]{0,3}){1,12}z";
    for (name, row) in [
        ("each in each", json!({"each": each})),
        (
            "a query in each",
            json!({"each": {"from": "$.items", "fields": [{"to": "q", "from": "$parent..*", "take": "count", "on_error": "skip"}]}}),
        ),
        ("long texts", json!({"from": "$.big", "apply": vec![json!("title"); 20], "on_error": "skip"})),
        (
            "patterns",
            json!({"each": {"from": "$.items", "fields": [{"to": "p", "from": "$.t", "apply": [{"extract": nasty}]}]}}),
        ),
        ("a pattern on much", json!({"from": "$.big", "apply": [{"truncate": 40_000}, {"extract": nasty}]})),
        (
            "conditions",
            json!({"value": 1, "when": {"any": vec![json!({"path": "$..*", "op": "matches", "value": nasty}); 50]}}),
        ),
        ("unique", json!({"from": "$..*", "take": "all", "apply": ["unique"], "on_error": "skip"})),
    ] {
        let rows: Vec<Value> = (0..20)
            .map(|index| {
                let mut row = row.clone();
                row["to"] = json!(format!("k{index}"));
                row
            })
            .collect();
        let mapping = Mapping::from_json(&json!({"version": 1, "fields": rows}))
            .unwrap_or_else(|faults| panic!("{name}: {faults}"));
        let _ = soon(name, || mapping.apply(&wide, &context(&wide)));
    }
}

#[test]
fn a_singular_path_allocates_nothing() {
    let event = json!({"id": "e", "data": {"lead": {"email": "ada@example.com", "tags": ["a", "b"]}}});
    let condition = Condition::from_json(&json!({"all": [
        {"path": "$.data.lead.email", "op": "ends_with", "value": "example.com"},
        {"path": "$.data['lead'].tags[-1]", "op": "in", "value": ["b"]},
        {"path": "$.data.missing.more", "op": "exists", "value": false}
    ]}))
    .unwrap();
    let context = Context { now: Timestamp::default(), ..context(&event) };
    let used = allocation_counter::measure(|| assert!(condition.matches(&event, &context)));
    assert_eq!(used.count_total, 0);
}
