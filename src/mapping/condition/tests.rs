use super::*;
use crate::mapping::context::sample;
use serde_json::json;

fn holds(condition: &Value) -> bool {
    let event = json!({"type": "lead.created", "data": {"score": 7, "name": "Ada", "tags": ["vip", "new"], "none": null,
        "items": [{"n": 1}, {"n": 5}]}});
    let condition = Condition::from_json(condition).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(Condition::from_json(condition.to_json()).unwrap(), condition);
    condition.matches(&event, &sample())
}

#[test]
fn every_operator_does_what_it_says() {
    for (path, op, value, result) in [
        ("$.data.score", "eq", json!(7.0), true),
        ("$.data.score", "eq", json!("7"), false),
        ("$.data.missing", "eq", json!(null), false),
        ("$.data.none", "eq", json!(null), true),
        ("$.data.score", "ne", json!(7), false),
        ("$.data.missing", "ne", json!(7), true),
        ("$.data.score", "gt", json!(6), true),
        ("$.data.score", "gt", json!(7), false),
        ("$.data.score", "gte", json!(7), true),
        ("$.data.score", "lt", json!("8"), false),
        ("$.data.score", "lte", json!(7.5), true),
        ("$.data.name", "gt", json!("Aaa"), true),
        ("$.type", "in", json!(["a", "lead.created"]), true),
        ("$.type", "not_in", json!(["a", "lead.created"]), false),
        ("$.data.missing", "not_in", json!(["a"]), true),
        ("$.data.tags", "contains", json!("vip"), true),
        ("$.data.name", "contains", json!("da"), true),
        ("$.data.score", "contains", json!("7"), false),
        ("$.type", "starts_with", json!("lead."), true),
        ("$.type", "ends_with", json!(".deleted"), false),
        ("$.data.none", "exists", json!(true), false),
        ("$.data.name", "exists", json!(true), true),
        ("$.data.missing", "exists", json!(false), true),
        ("$.data.name", "matches", json!("(?i)^ada$"), true),
        ("$.data.score", "matches", json!("7"), false),
        ("$.data.items[*].n", "gt", json!(4), true),
        ("$.data.items[*].n", "ne", json!(5), false),
        ("$.data.items[?@.n > 9]", "exists", json!(true), false),
        ("$event.type", "eq", json!("lead.created"), true),
    ] {
        assert_eq!(holds(&json!({"path": path, "op": op, "value": value})), result, "{path} {op} {value}");
    }
    assert!(holds(&json!({"path": "$.data.name", "op": "exists"})));
}

#[test]
fn conditions_are_joined() {
    let yes = json!({"path": "$.data.name", "op": "exists"});
    let no = json!({"not": yes});
    assert!(!holds(&no));
    assert!(holds(&json!({"all": [yes, yes]})));
    assert!(!holds(&json!({"all": [yes, no]})));
    assert!(holds(&json!({"any": [no, {"not": no}]})));
    assert!(!holds(&json!({"any": [no, no]})));
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = Condition::from_json(&json!({"any": [
        {"path": "data.x", "op": "equals", "value": 1},
        {"path": "$.a", "op": "in", "value": "x"},
        {"path": "$.a", "op": "matches", "value": "(?=x)"},
        {"op": "gt", "vlaue": 1},
        {"all": [], "not": {}},
    ]}))
    .unwrap_err();
    let lines: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
    for (index, start) in [
        "any[0].path: \"data.x\" is no JSONPath",
        "any[0].op: unknown value \"equals\"",
        "any[1].value: expected a list of values, found a text",
        "any[2].value: not a pattern",
        "any[3].path: missing",
        "any[3].value: missing",
        "any[3].vlaue: unknown key",
        "any[4].not: all and not stand side by side",
    ]
    .iter()
    .enumerate()
    {
        assert!(lines[index].starts_with(start), "{lines:#?}");
    }
}

#[test]
fn size_is_bounded() {
    let test = json!({"path": "$.a", "op": "exists"});
    assert!(Condition::from_json(&json!({"any": vec![test.clone(); 90]})).is_ok());
    let faults = Condition::from_json(&json!({"any": vec![test.clone(); 500]})).unwrap_err();
    assert_eq!(faults.len(), 1);
    let deep = (0..20).fold(test, |inner, _| json!({"not": inner}));
    assert!(Condition::from_json(&deep).is_err());
}

#[test]
fn a_condition_on_attributes_does_not_look_into_the_data() {
    let event = json!({"id": "1", "type": "a", "source": "bot", "n": {"x": 1}, "data": {"a": 1}});
    for (condition, is_read) in [
        (json!({"path": "$.type", "op": "eq", "value": "a"}), false),
        (json!({"path": "$['source']", "op": "ne", "value": "bot"}), false),
        (json!({"path": "$.gone", "op": "exists", "value": false}), false),
        (json!({"path": "$.n.x", "op": "gt", "value": 0}), false),
        (json!({"path": "$event.id", "op": "exists"}), false),
        (
            json!({"all": [{"path": "$.type", "op": "eq", "value": "a"}, {"not": {"path": "$.type", "op": "eq", "value": 1}}]}),
            false,
        ),
        (
            json!({"any": [{"path": "$.type", "op": "eq", "value": "b"}, {"path": "$.data.a", "op": "eq", "value": 1}]}),
            true,
        ),
        (json!({"path": "$.data", "op": "exists"}), true),
        (json!({"path": "$", "op": "exists"}), true),
        (json!({"path": "$.*", "op": "eq", "value": "bot"}), true),
        (json!({"path": "$['\"']", "op": "exists", "value": false}), true),
    ] {
        let parsed = Condition::from_json(&condition).unwrap();
        assert_eq!(parsed.attributes.is_none(), is_read, "{condition}");
        let passes = parsed.passes(&event.clone().into(), &sample());
        assert_eq!(passes, parsed.matches(&event, &sample()), "{condition}");
    }
}
