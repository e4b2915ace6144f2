use proptest::prelude::*;
use serde_json::json;

use super::context::sample;
use super::transform::tests::any_json;
use super::*;

fn mapping(fields: &Value) -> Mapping {
    Mapping::from_json(&json!({"version": 1, "fields": fields})).unwrap_or_else(|faults| panic!("{faults}"))
}

fn apply(fields: &Value, event: &Value) -> Result<Value, String> {
    let mapping = mapping(fields);
    let output = mapping.apply(event, &sample()).map(Value::Object);
    let preview = mapping.preview(event, &sample());
    assert_eq!(preview.output.as_ref(), output.as_ref().ok(), "the preview differs");
    assert_eq!(preview.error.as_ref(), output.as_ref().err(), "the preview differs");
    output.map_err(|error| error.to_string())
}

/// One row `x` over one event; what becomes of `x`.
fn row(row: Value, event: &Value) -> Result<Option<Value>, String> {
    let Value::Object(mut row) = row else { panic!("a row is an object") };
    row.insert("to".to_owned(), json!("x"));
    apply(&json!([row]), event).map(|output| output.get("x").cloned())
}

fn faults(text: &str) -> Vec<String> {
    Mapping::from_toml("m.toml", text).unwrap_err().list().iter().map(ToString::to_string).collect()
}

#[test]
fn absent_null_and_empty_are_three_things() {
    let event = json!({"null": null, "empty": "", "zero": 0, "no": false, "list": [], "blank": "  "});
    for (path, plain, with_default, blank) in [
        ("$.missing", None, json!("d"), None),
        ("$.null", Some(json!(null)), json!("d"), Some(json!(null))),
        ("$.empty", Some(json!("")), json!(""), None),
        ("$.zero", Some(json!(0)), json!(0), Some(json!(0))),
        ("$.no", Some(json!(false)), json!(false), Some(json!(false))),
        ("$.list", Some(json!([])), json!([]), Some(json!([]))),
        ("$.blank", Some(json!("  ")), json!("  "), Some(json!("  "))),
    ] {
        assert_eq!(row(json!({"from": path}), &event), Ok(plain.clone()), "{path}");
        assert_eq!(row(json!({"from": path, "default": "d"}), &event), Ok(Some(with_default)), "{path}");
        assert_eq!(row(json!({"from": path, "blank": "absent"}), &event), Ok(blank), "{path}");
        let there = plain.is_some_and(|value| !value.is_null());
        assert_eq!(row(json!({"from": path, "required": true}), &event).is_ok(), there, "{path}");
    }
    assert_eq!(
        row(json!({"from": "$.blank", "apply": ["trim"], "blank": "absent", "default": 1}), &event),
        Ok(Some(json!(1)))
    );
    assert_eq!(row(json!({"from": "$.null", "apply": ["trim"]}), &event), Ok(Some(json!(null))));
}

#[test]
fn the_first_path_with_a_value_wins() {
    let event = json!({"null": null, "empty": "", "a": 1, "b": 2});
    for (paths, value) in [
        (json!(["$.a", "$.b"]), Some(json!(1))),
        (json!(["$.missing", "$.null", "$.b", "$.a"]), Some(json!(2))),
        (json!(["$.missing", "$.null", "$.gone"]), Some(json!(null))),
        (json!(["$.missing", "$.gone"]), None),
        (json!(["$.empty", "$.a"]), Some(json!(""))),
    ] {
        assert_eq!(row(json!({"from": paths}), &event), Ok(value), "{paths}");
    }
    assert_eq!(row(json!({"from": ["$.empty", "$.a"], "blank": "absent"}), &event), Ok(Some(json!(1))));
}

#[test]
fn how_many_matches_is_declared() {
    let event = json!({"items": [{"n": 1}, {"n": 2}], "one": [{"n": 3}], "none": []});
    for (take, items, one, none, plain) in [
        ("first", Some(json!(1)), Some(json!(3)), None, Some(json!([]))),
        ("last", Some(json!(2)), Some(json!(3)), None, Some(json!([]))),
        ("all", Some(json!([1, 2])), Some(json!([3])), None, Some(json!([[]]))),
        ("count", Some(json!(2)), Some(json!(1)), Some(json!(0)), Some(json!(1))),
    ] {
        for (path, value) in
            [("$.items[*].n", items), ("$.one[*].n", one), ("$.none[*].n", none), ("$.none", plain)]
        {
            assert_eq!(row(json!({"from": path, "take": take}), &event), Ok(value), "{take} {path}");
        }
    }
    assert_eq!(row(json!({"from": "$.one[*].n", "take": "one"}), &event), Ok(Some(json!(3))));
    let error = row(json!({"from": "$.items[*].n", "take": "one"}), &event).unwrap_err();
    assert_eq!(error, "field \"x\" from $.items[*].n: 2 matches where one was declared");
    assert_eq!(row(json!({"from": "$.items[*].n"}), &event), Ok(Some(json!(1))));
}

#[test]
fn an_error_does_what_the_row_says() {
    let event = json!({"a": "not an address"});
    let with = |more: Value| {
        let mut fields = json!({"from": "$.a", "apply": ["trim", "email"]});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row(fields, &event)
    };
    assert_eq!(with(json!({})).unwrap_err(), "field \"x\" from $.a: email: no mail address: no \"@\"");
    assert_eq!(with(json!({"on_error": "skip", "default": 1})), Ok(None));
    assert_eq!(with(json!({"on_error": "default", "default": 1})), Ok(Some(json!(1))));
    assert_eq!(
        with(json!({"when": {"path": "$.b", "op": "exists"}, "required": true, "default": 1})),
        Ok(None)
    );
}

#[test]
fn rows_nest() {
    let fields = json!([
        {"to": "contact.name.first", "from": "$.first"},
        {"to": "id", "from": "$event.id"},
        {"to": "contact.phone", "from": "$.phone"},
        {"to": "address", "fields": [
            {"to": "city", "from": "$.city"},
            {"to": "geo.lat", "from": "$.lat"},
        ]},
        {"to": "empty", "fields": [{"to": "a", "from": "$.missing"}]},
        {"to": "text", "fields": [{"to": "a", "value": 1}], "apply": ["json_encode"]},
    ]);
    let output =
        apply(&fields, &json!({"first": "Ada", "phone": "1", "city": "London", "lat": 51.5})).unwrap();
    let wanted = r#"{"contact":{"name":{"first":"Ada"},"phone":"1"},"id":"evt_1","address":{"city":"London","geo":{"lat":51.5}},"text":"{\"a\":1}"}"#;
    assert_eq!(output.to_string(), wanted);
    let mapping = mapping(&fields);
    let targets: Vec<&str> = mapping.targets().map(|(to, _)| to).collect();
    assert_eq!(
        targets,
        [
            "contact.name.first",
            "id",
            "contact.phone",
            "address",
            "address.city",
            "address.geo.lat",
            "empty",
            "empty.a",
            "text",
            "text.a"
        ]
    );
}

#[test]
fn an_inner_error_is_the_outer_rows_to_handle() {
    let fields = |on_error| {
        json!([
            {"to": "a", "on_error": on_error, "fields": [{"to": "b", "from": "$.b", "required": true}, {"to": "c", "value": 1}]},
            {"to": "d", "value": 2},
        ])
    };
    assert_eq!(apply(&fields("skip"), &json!({})), Ok(json!({"d": 2})));
    let error = apply(&fields("fail"), &json!({})).unwrap_err();
    assert_eq!(error, "field \"a.b\" from $.b: the field is required, and there is no value for it");
}

#[test]
fn a_filters_condition_sees_what_surrounds_its_items() {
    let row = |path: &str| {
        json!([{"to": "x", "each": {"from": "$.groups", "fields": [
        {"to": "n", "from": "$.items", "apply": [{"filter": {"where": {"path": path, "op": "eq", "value": 1}}}]}]}}])
    };
    let event = json!({"only": 1, "groups": [{"only": 2, "items": [1, 2]}, {"only": 1, "items": [2, 1]}]});
    let both = json!({"x": [{"n": [1, 2]}, {"n": [2, 1]}]});
    assert_eq!(apply(&row("$parent.$parent.only"), &event), Ok(both));
    assert_eq!(apply(&row("$parent.only"), &event), Ok(json!({"x": [{"n": []}, {"n": [2, 1]}]})));
    assert_eq!(apply(&row("$parent.$index"), &event), Ok(json!({"x": [{"n": []}, {"n": [2, 1]}]})));
    assert_eq!(apply(&row("$index"), &event), Ok(json!({"x": [{"n": [2]}, {"n": [1]}]})));
    let faults =
        Mapping::from_json(&json!({"version": 1, "fields": row("$parent.$parent.$parent.x")})).unwrap_err();
    assert!(faults.to_string().contains("leads out of 3 `each`"), "{faults}");
}

#[test]
fn the_preview_tells_every_station() {
    let mapping = mapping(&json!([
        {"to": "name", "from": ["$.gone", "$.name"], "apply": ["trim", "first_name"]},
        {"to": "stage", "from": "$.stage", "apply": [{"lookup": {"new": "Open"}}], "default": "Open"},
        {"to": "mail", "from": "$.name", "apply": ["email"]},
        {"to": "in", "fields": [{"to": "ner", "template": "{{$.gone}}"}]},
        {"to": "off", "value": 1, "when": {"path": "$.name", "op": "exists", "value": false}},
    ]));
    let preview = mapping.preview(&json!({"name": " Ada L ", "stage": "old"}), &sample());
    assert_eq!(preview.output, None);
    assert_eq!(preview.error.as_ref().map(|error| error.field.as_str()), Some("mail"));
    assert_eq!(
        json!(preview.fields),
        json!([
            {"to": "name", "source": "$.name", "raw": " Ada L ",
             "steps": [{"name": "trim", "result": "Ada L"}, {"name": "first_name", "result": "Ada"}],
             "value": "Ada", "note": null, "error": null},
            {"to": "stage", "source": "$.stage", "raw": "old", "steps": [{"name": "lookup", "result": null}],
             "value": "Open", "note": "the default, since there is no value", "error": null},
            {"to": "mail", "source": "$.name", "raw": " Ada L ", "steps": [{"name": "email", "result": null}],
             "value": null, "note": null, "error": "email: no mail address: no \"@\""},
            {"to": "in", "source": "fields", "raw": null, "steps": [], "value": null, "note": "the source gave nothing", "error": null},
            {"to": "in.ner", "source": "template", "raw": null, "steps": [], "value": null, "note": "the source gave nothing", "error": null},
            {"to": "off", "source": null, "raw": null, "steps": [], "value": null,
             "note": "the condition in `when` is not met", "error": null},
        ])
    );
}

#[test]
fn all_faults_of_a_file_are_told_at_once_with_place_and_hint() {
    let faults = faults(
        r#"
version = 2
colour = "red"
[[fields]]
to = "a"
from = "data.lead"
aply = ["trim"]
[[fields]]
to = "b..c"
value = 1
template = "{{$.x}}"
[[fields]]
to = "d"
from = ["$.x", 3, "$[?length(@)]"]
apply = ["trimm", { truncate = "x" }]
on_error = "default"
[[fields]]
to = "d"
transcript = {}
[[fields]]
from = "$.x"
when = { path = "$evnt.id", op = "eq", value = 1 }
[[fields]]
to = "e"
take = "all"
value = nan
required = true
on_error = "skip"
[[fields]]
to = "f"
[[fields]]
to = "g.h"
from = "$.x"
[[fields]]
to = "g"
fields = []
"#,
    );
    let wanted = [
        "m.toml:2:11: version: unknown version 2\n  hint: version = 1",
        "m.toml:6:8: fields[0].from: \"data.lead\" is no JSONPath\n  hint: a path starts at the event: \"$.data.lead\"",
        "m.toml:7:1: fields[0].aply: unknown key\n  hint: did you mean \"apply\"?",
        "m.toml:9:6: fields[1].to: an empty name",
        "m.toml:11:12: fields[1].template: a row has one source, here are value, template",
        "m.toml:14:16: fields[2].from[1]: expected a path, found a whole number",
        "m.toml:14:19: fields[2].from[2]: a number or value is no test",
        "m.toml:15:10: fields[2].apply[0]: unknown transform \"trimm\"\n  hint: did you mean \"trim\"?",
        "m.toml:15:32: fields[2].apply[1].truncate: expected a whole number, found a text",
        "m.toml:16:12: fields[2].on_error: there is no default to take",
        "m.toml:19:14: fields[3].transcript.messages: missing",
        "m.toml:20:1: fields[4].to: missing",
        "m.toml:22:17: fields[4].when.path: \"$evnt.id\" is not known beside the event\n  hint: did you mean \"$event.id\"?",
        "m.toml:25:8: fields[5].take: only a row with `from` has matches to take",
        "m.toml:26:9: fields[5].value: JSON has no such number",
        "m.toml:28:12: fields[5].on_error: a required row can't be left out",
        "m.toml:30:6: fields[6].to: nothing says where the value comes from",
        "m.toml:36:10: fields[8].fields: no rows",
        "m.toml:35:6: fields[8].to: \"g\" and \"g.h\" can't both be written, one is inside the other",
        "m.toml:3:1: colour: unknown key",
    ];
    for (fault, start) in faults.iter().zip(wanted) {
        assert!(fault.starts_with(start), "expected {start}\n   found {fault}");
    }
    assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
}

#[test]
fn a_mapping_is_bounded() {
    let rows: Vec<Value> = (0..501).map(|index| json!({"to": format!("c{index}"), "value": 1})).collect();
    let faults = Mapping::from_json(&json!({"version": 1, "fields": rows})).unwrap_err();
    assert_eq!(faults.to_string(), "fields: more than 500 rows");
    let large = json!({"version": 1, "fields": [{"to": "a", "value": "x".repeat(300_000)}]});
    assert!(Mapping::from_json(&large).is_err());
}

#[test]
fn the_output_is_bounded() {
    let event = json!({"large": "x".repeat(600_000), "many": vec![1; 1_001], "deep": (0..31).fold(json!(1), |inner, _| json!([inner]))});
    assert!(apply(&json!([{"to": "a", "from": "$.large"}]), &event).is_ok());
    let error =
        apply(&json!([{"to": "a", "from": "$.large"}, {"to": "b", "from": "$.large"}]), &event).unwrap_err();
    assert_eq!(error, "field \"b\": the output would be above 1048576 bytes");
    let error = apply(&json!([{"to": "a", "from": "$.many[*]", "take": "count"}]), &event).unwrap_err();
    assert_eq!(error, "field \"a\" from $.many[*]: 1001 matches, 1000 are the most");
    assert!(apply(&json!([{"to": "a", "from": "$.deep"}]), &event).is_ok());
    assert!(apply(&json!([{"to": "a.b", "from": "$.deep"}]), &event).is_err());
    let preview = mapping(&json!([{"to": "a", "from": "$.large"}])).preview(&event, &sample());
    assert_eq!(preview.fields[0].raw, Some(json!("(a text, too large to be shown)")));
    let twice = json!([{"to": "a", "template": "{{$.large}}{{$.large}}"}]);
    assert!(apply(&twice, &event).is_err());
}

#[test]
fn toml_and_json_make_equal_mappings() {
    let toml = Mapping::from_toml(
        "m.toml",
        "version = 1\ndescription = 'x'\nblank = 'absent'\n[[fields]]\nto = 'a'\nfrom = '$.x'\nblank = 'keep'\n[[fields]]\nto = 'b'\nfrom = '$.x'",
    )
    .unwrap();
    let json = Mapping::from_json(toml.to_json()).unwrap();
    assert_eq!(toml, json);
    assert_eq!(Value::Object(json.apply(&json!({"x": ""}), &sample()).unwrap()), json!({"a": ""}));
}

#[test]
fn types_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Mapping>();
    shared::<Condition>();
}

/// A row that any event can be put through, with its place in `order` as its name.
fn any_row() -> impl Strategy<Value = Value> {
    let from = prop::sample::select(vec![
        "$",
        "$.a",
        "$.b",
        "$['c'][0]",
        "$[-1]",
        "$..a",
        "$[*]",
        "$.a[?@.b == 1]",
        "$event.id",
    ]);
    let take = prop::sample::select(vec!["first", "last", "all", "count"]);
    let apply = prop::sample::subsequence(
        vec!["trim", "title", "string", "json_encode", "integer", "time", "join", "sha256"],
        0..3,
    );
    let on_error = prop::sample::select(vec!["fail", "skip"]);
    (from, take, apply, on_error, any::<bool>()).prop_map(|(from, take, apply, on_error, blank)| {
        json!({"from": from, "take": take, "apply": apply, "on_error": on_error, "blank": if blank { "absent" } else { "keep" }})
    })
}

proptest! {
    #[test]
    fn any_event_gives_an_output_or_an_error_and_the_preview_agrees(
        event in any_json(),
        mut rows in prop::collection::vec(any_row(), 1..6),
    ) {
        for (index, row) in rows.iter_mut().enumerate() {
            row["to"] = json!(format!("k{}", 9 - index));
        }
        if let Ok(Value::Object(output)) = apply(&json!(rows), &event) {
            let order: Vec<&String> = output.keys().collect();
            prop_assert!(order.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", order);
        }
    }

    #[test]
    fn what_a_template_is_filled_with_stays_inside_its_text(
        name in any::<String>(), other in "[\"\\\\{}$\\n\\r&=<>]{0,12}",
    ) {
        let fields = json!([{"to": "t", "template": "{{$.name}}: \"{{$.other}}\""}, {"to": "z", "value": 1}]);
        let output = apply(&fields, &json!({"name": name, "other": other})).unwrap();
        let read: Value = serde_json::from_str(&output.to_string()).unwrap();
        prop_assert_eq!(read, json!({"t": format!("{name}: \"{other}\""), "z": 1}));
    }

    #[test]
    fn the_order_of_rows_is_the_order_of_the_output(
        names in prop::collection::btree_set("[a-z]{1,6}", 1..12).prop_map(|names| names.into_iter().collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let rows: Vec<Value> = names.iter().map(|name| json!({"to": name, "value": 1})).collect();
        let output = apply(&json!(rows), &json!({})).unwrap();
        prop_assert_eq!(output.as_object().unwrap().keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    }

    #[test]
    fn any_json_is_a_mapping_or_faults(value in any_json()) {
        let _ = Mapping::from_json(&value);
        let _ = Mapping::from_json(&json!({"version": 1, "fields": [value.clone()]}));
        let _ = Mapping::from_json(&json!({"version": 1, "fields": [{"to": "a", "from": "$.a", "apply": [value.clone()], "when": value.clone()}]}));
        let _ = Condition::from_json(&value);
    }

    #[test]
    fn any_text_is_a_path_or_a_hint(text in "[$.@\\[\\]()?*:,'a-c0-2<=&|! -]{0,24}", event in any_json()) {
        match Path::parse(&text, 0) {
            Ok(path) => {
                let (context, work) = (sample(), Work::new());
                path.find(Scope { root: &event, context: &context, work: &work, item: None }).unwrap();
            }
            Err(refusal) => prop_assert!(refusal.hint.is_some()),
        }
    }

    #[test]
    fn a_default_stands_in_for_absent_and_null_alone(value in any_json()) {
        let result = row(json!({"from": "$.v", "default": "d"}), &json!({"v": value}));
        prop_assert_eq!(result, Ok(Some(if value.is_null() { json!("d") } else { value })));
    }
}
