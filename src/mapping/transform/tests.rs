use super::*;
use crate::mapping::context::sample;
use crate::mapping::limits::Work;
use proptest::prelude::*;
use serde_json::json;

fn parse(apply: &Value) -> Result<Applied, Faults> {
    let mut faults = Faults::default();
    match Applied::parse(&Node::from_json(apply), "apply[0]", 0, &mut faults) {
        Some(applied) => Ok(applied),
        None => Err(faults),
    }
}

/// Runs a transform at 2026-05-03T14:22:08Z.
fn run<'v>(applied: &Applied, value: Cow<'v, Value>) -> Outcome<'v> {
    let (context, work) = (sample(), Work::new());
    applied.run(value, Scope { root: &Value::Null, context: &context, work: &work, item: None })
}

#[test]
fn every_example_is_true() {
    for transform in list() {
        assert!(!transform.examples.is_empty(), "{} has no example", transform.name);
        for example in transform.examples {
            let about = format!("{} of {}", example.apply, example.input);
            let applied = parse(&serde_json::from_str(example.apply).unwrap())
                .unwrap_or_else(|faults| panic!("{about}: {faults}"));
            assert_eq!(applied.name, transform.name, "{about}");
            let input: Value = serde_json::from_str(example.input).unwrap();
            let output = run(&applied, Cow::Borrowed(&input)).map(|output| output.map(Cow::into_owned));
            match example.output {
                Shown::Value(wanted) => {
                    assert_eq!(output, Ok(Some(serde_json::from_str(wanted).unwrap())), "{about}");
                }
                Shown::Absent => assert_eq!(output, Ok(None), "{about}"),
                Shown::Error => assert!(output.is_err(), "{about}: {output:?}"),
            }
        }
    }
}

#[test]
fn names_are_unique_and_required_settings_are_required() {
    let names: Vec<&str> = list().map(|transform| transform.name).collect();
    for (index, transform) in list().enumerate() {
        assert!(!names[..index].contains(&transform.name), "{} twice", transform.name);
        let needs = transform.settings.iter().any(|setting| setting.required);
        assert_eq!(parse(&json!(transform.name)).is_err(), needs, "{}", transform.name);
    }
}

#[test]
fn a_wrong_entry_is_told_where_it_stands() {
    for (apply, message) in [
        (json!("trimm"), "apply[0]: unknown transform \"trimm\"\n  hint: did you mean \"trim\"?"),
        (json!({"trim": 3}), "apply[0].trim: trim takes no settings\n  hint: write \"trim\" alone"),
        (json!({"truncate": 0}), "apply[0].truncate: 0 is outside 1 to 1000000"),
        (
            json!({"truncate": {"charcters": 3}}),
            "apply[0].truncate.characters: missing\n  hint: add \"characters\"\napply[0].truncate.charcters: unknown key\n  hint: did you mean \"characters\"?",
        ),
        (json!({"split": ""}), "apply[0].split: an empty text\n  hint: give at least one character"),
        (json!({"time": "epok"}), "apply[0].time: unknown value \"epok\"\n  hint: did you mean \"epoch\"?"),
        (
            json!({"lookup": 3}),
            "apply[0].lookup: expected a table, found a whole number\n  hint: { lookup = { new = \"Open\" } }",
        ),
    ] {
        let faults = parse(&apply).err().unwrap();
        assert_eq!(faults.to_string(), message);
    }
    assert!(parse(&json!({"trim": 1, "lower": 2})).is_err());
    assert!(parse(&json!(7)).is_err());
}

#[test]
fn a_plain_pattern_is_written_as_the_library_does() {
    use jiff::tz::TimeZone;
    for pattern in ["%Y-%m-%d %H:%M", "%d/%m/%Y", "at %H%M%S.", "%Y"] {
        let written = parse(&json!({"time": {"format": pattern}})).unwrap();
        for seconds in [0_i64, 1_777_818_128, -62_135_596_800, -70_000_000_000, 253_402_207_200] {
            let value = Value::from(seconds * 1_000);
            let moment = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(TimeZone::UTC);
            let wanted = json!(jiff::fmt::strtime::format(pattern, &moment).unwrap());
            let output = run(&written, Cow::Owned(value)).unwrap();
            assert_eq!(output.as_deref(), Some(&wanted), "{pattern} at {seconds}");
        }
    }
}

#[test]
fn growth_is_bounded() {
    let grow = parse(&json!({"replace": {"from": "a", "to": "a".repeat(1_000)}})).unwrap();
    let text = Value::String("a".repeat(2_000));
    assert!(run(&grow, Cow::Owned(text)).is_err());
}

#[test]
fn an_unchanged_text_is_not_copied() {
    let value = json!("ada@example.com");
    for name in ["trim", "email", "url_encode", "string"] {
        let applied = parse(&json!(name)).unwrap();
        let plain = if name == "url_encode" { json!("ada") } else { value.clone() };
        let output = run(&applied, Cow::Borrowed(&plain)).unwrap().unwrap();
        assert!(matches!(output, Cow::Borrowed(_)), "{name}");
    }
}

pub(in crate::mapping) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[ a-zA-Z0-9@.:+-]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-d]", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_transform_panics_or_makes_null(value in any_json()) {
        for transform in list() {
            for example in transform.examples {
                let applied = parse(&serde_json::from_str(example.apply).unwrap()).unwrap();
                if let Ok(Some(output)) = run(&applied, Cow::Borrowed(&value)) {
                    prop_assert!(value.is_null() || !output.is_null(), "{} made null of {value}", transform.name);
                }
            }
        }
    }

    #[test]
    fn normalising_twice_changes_nothing(text in "\\PC{0,24}") {
        for name in ["trim", "lower", "slug", "email", "full_name", "string", "time", "phone", "country", "domain"] {
            let applied = parse(&json!(name)).unwrap();
            let value = Value::String(text.clone());
            if let Ok(Some(once)) = run(&applied, Cow::Borrowed(&value)) {
                prop_assert_eq!(run(&applied, Cow::Borrowed(&*once)).unwrap(), Some(once.clone()), "{} of {:?}", name, &text);
            }
        }
    }
}
