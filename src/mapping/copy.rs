//! Mappings that only take members of the event as they are: what they make is written out of its text, without a tree.

use bytes::Bytes;

use super::limits::{OUTPUT_NESTING, VALUE_BYTES};
use super::path::Step;
use super::rows::{Row, Source, Take};
use crate::domain::json::{Object, is_bare};

/// A mapping of which every row is a member of the event, or all of it.
#[derive(Debug)]
pub struct Copies(Vec<Copy>);

#[derive(Debug)]
struct Copy {
    /// The field's name as JSON, with its colon.
    name: Vec<u8>,
    /// Which member; `None` for the whole event.
    member: Option<Box<str>>,
    /// Whether there has to be a value that is not null.
    is_needed: bool,
    /// Whether it stays out when there is no member.
    is_left_out: bool,
}

impl Copies {
    /// What the rows copy; `None` when one of them does more.
    pub fn of(rows: &[Row]) -> Option<Self> {
        rows.iter().map(copy).collect::<Option<_>>().map(Self)
    }

    /// The output as JSON: what the evaluator makes, written. `None` when the evaluator has to judge this event, as where there is
    /// no value for a row that needs one, or when it comes near to a bound.
    pub fn write(&self, event: &Object) -> Option<Bytes> {
        // The output is one level, and a member has one less than the event.
        if event.levels() >= OUTPUT_NESTING {
            return None;
        }
        let mut written = Vec::with_capacity(event.text().len());
        for copy in &self.0 {
            let value = match &copy.member {
                Some(member) => event.member(member),
                None => Some(event.text().clone()),
            };
            match value {
                Some(value) if copy.is_needed && value == b"null"[..] => return None,
                Some(value) => {
                    written.push(if written.is_empty() { b'{' } else { b',' });
                    written.extend_from_slice(&copy.name);
                    written.extend_from_slice(&value);
                }
                None if copy.is_needed || !copy.is_left_out => return None,
                None => {}
            }
            if written.len() > VALUE_BYTES / 2 {
                return None;
            }
        }
        if written.is_empty() {
            written.push(b'{');
        }
        written.push(b'}');
        Some(written.into())
    }
}

fn copy(row: &Row) -> Option<Copy> {
    let Source::From { paths, take: Take::First | Take::Last | Take::One } = &row.source else { return None };
    let ([path], [name]) = (paths.as_slice(), row.names.as_slice()) else { return None };
    let member = match path.steps()? {
        [] => None,
        [Step::Name(name)] if is_bare(name) => Some(name.clone()),
        _ => return None,
    };
    if !row.apply.is_empty() || row.when.is_some() || row.blank_is_absent {
        return None;
    }
    let name = format!("{}:", serde_json::Value::from(name.as_str())).into_bytes();
    let is_needed = row.required || row.default.is_some();
    Some(Copy { name, member, is_needed, is_left_out: !row.absent_is_null })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::domain::json::Object;
    use crate::mapping::Mapping;
    use crate::mapping::context::sample;

    fn mapping(rows: &Value) -> Mapping {
        Mapping::from_json(&json!({ "version": 1, "fields": rows })).unwrap()
    }

    fn webhook() -> Mapping {
        Mapping::from_toml("w.toml", include_str!("../../mappings/standard_webhook.toml")).unwrap()
    }

    fn by_evaluator(mapping: &Mapping, event: &Object) -> Option<String> {
        mapping.apply(event.tree(), &sample()).ok().map(|output| Value::Object(output).to_string())
    }

    #[test]
    fn only_rows_that_take_members_as_they_are_are_copied() {
        let event = Object::from(json!({"id": "1", "data": {"a": 1}}));
        let copied = |row: Value| mapping(&json!([row])).copy(&event).is_some();
        assert!(copied(json!({"to": "a", "from": "$.data"})));
        assert!(copied(json!({"to": "a", "from": "$"})));
        assert!(copied(
            json!({"to": "a", "from": ["$['id']"], "take": "one", "required": true, "default": 1})
        ));
        assert!(copied(json!({"to": "a\"b", "from": "$.gone"})));
        for row in [
            json!({"to": "a", "from": "$.data.a"}),
            json!({"to": "a", "from": ["$.id", "$.data"]}),
            json!({"to": "a.b", "from": "$.id"}),
            json!({"to": "a", "from": "$.id", "take": "all"}),
            json!({"to": "a", "from": "$.id", "take": "count"}),
            json!({"to": "a", "from": "$.id", "apply": ["trim"]}),
            json!({"to": "a", "from": "$.id", "when": {"path": "$.id", "op": "eq", "value": 1}}),
            json!({"to": "a", "from": "$.id", "blank": "absent"}),
            json!({"to": "a", "from": "$.gone", "absent": "null"}),
            json!({"to": "a", "from": "$.gone", "default": 1}),
            json!({"to": "a", "from": "$.gone", "required": true}),
            json!({"to": "a", "from": "$[0]"}),
            json!({"to": "a", "from": "$.*"}),
            json!({"to": "a", "from": "$['\"']"}),
            json!({"to": "a", "from": "$event.id"}),
            json!({"to": "a", "value": 1}),
        ] {
            assert!(!copied(row.clone()), "{row}");
        }
    }

    #[test]
    fn what_comes_near_to_a_bound_is_left_to_the_evaluator() {
        let nested = |levels: usize| {
            let list = (1..levels).fold(json!([]), |inner, _| json!([inner]));
            Object::from(json!({"type": "x", "time": "t", "data": list}))
        };
        for levels in 1..40 {
            let event = nested(levels);
            let (copied, evaluated) = (webhook().copy(&event), by_evaluator(&webhook(), &event));
            assert!(copied.is_none() || evaluated.is_some(), "{levels}");
            assert_eq!(copied.is_some(), levels < 31, "{levels}");
        }
        let large = Object::from(json!({"type": "x", "time": "t", "data": "x".repeat(1024 * 1024)}));
        assert!(webhook().copy(&large).is_none() && by_evaluator(&webhook(), &large).is_none());
    }

    proptest! {
        #[test]
        fn a_copy_is_what_the_evaluator_makes(
            text in ".{0,20}",
            number in any::<i64>(),
            kind in prop_oneof![Just(json!(null)), Just(json!("x")), Just(json!(7))],
            missing in 0..4_usize,
        ) {
            let mut event = json!({"id": "1", "type": kind, "time": "t", "data": {"n": [number, {text.as_str(): text}], "é\n": null}});
            if let Some(name) = ["type", "time", "data"].get(missing) {
                event.as_object_mut().unwrap().shift_remove(*name);
            }
            let event = Object::from(event);
            for mapping in [webhook(), mapping(&json!([{"to": "all", "from": "$"}, {"to": "é\"", "from": "$.type"}]))] {
                if let Some(copied) = mapping.copy(&event) {
                    prop_assert_eq!(Some(String::from_utf8(copied.to_vec()).unwrap()), by_evaluator(&mapping, &event));
                } else {
                    prop_assert_eq!(by_evaluator(&mapping, &event), None);
                }
            }
        }
    }
}
