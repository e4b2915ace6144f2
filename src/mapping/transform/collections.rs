//! Transforms of lists and objects.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Applied, Build, Run, Transform, absent, fails, gives, optional, required, value_run};
use crate::domain::document::{Node, TableReader};
use crate::mapping::condition::Condition;
use crate::mapping::limits::STEPS;
use crate::mapping::path::{Item, Path, Scope, Step, walk};
use crate::mapping::value::{Shape, compare, equal, kind};

/// Keys of one `pick` or `omit`.
const KEYS: usize = 100;
/// Items that `unique` compares with one another.
const UNIQUE_ITEMS: usize = 10_000;

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "sort",
        makes: Some(Shape::List),
        summary: "Sorts a list: numbers by value, then texts by their characters, then the rest as it came.",
        settings: &[
            optional("by", "a path in each item, such as \"$.price\"; the item itself by default"),
            optional("order", "\"ascending\" (default) or \"descending\""),
        ],
        examples: &[
            gives(r#""sort""#, r#"["b", 10, "a", 2]"#, r#"[2, 10, "a", "b"]"#),
            gives(r#"{"sort": "$.n"}"#, r#"[{"n": 2}, {"n": 1}]"#, r#"[{"n": 1}, {"n": 2}]"#),
            gives(r#"{"sort": {"order": "descending"}}"#, "[1, 3, 2]", "[3, 2, 1]"),
            fails(r#""sort""#, r#""text""#),
        ],
        whole: false,
        build: Build::Plain(sort),
    },
    Transform {
        name: "unique",
        makes: Some(Shape::List),
        summary: "Leaves the first of several equal items.",
        settings: &[optional("by", "a path in each item that must differ; the item itself by default")],
        examples: &[
            gives(r#""unique""#, r#"["a", "b", "a", 1, 1.0]"#, r#"["a", "b", 1]"#),
            gives(
                r#"{"unique": "$.id"}"#,
                r#"[{"id": 1, "n": 1}, {"id": 1, "n": 2}]"#,
                r#"[{"id": 1, "n": 1}]"#,
            ),
        ],
        whole: false,
        build: Build::Plain(unique),
    },
    Transform {
        name: "flatten",
        makes: Some(Shape::List),
        summary: "Puts the items of lists in a list into the list itself.",
        settings: &[optional("levels", "how many lists deep, 1 (default) to 8")],
        examples: &[
            gives(r#""flatten""#, "[1, [2, [3]]]", "[1, 2, [3]]"),
            gives(r#"{"flatten": 2}"#, "[1, [2, [3]]]", "[1, 2, 3]"),
        ],
        whole: false,
        build: Build::Plain(flatten),
    },
    Transform {
        name: "pick",
        makes: None,
        summary: "Leaves some keys of an object, in the order given; of a list, in each object.",
        settings: &[required("keys", "the keys that stay")],
        examples: &[
            gives(r#"{"pick": ["b", "a"]}"#, r#"{"a": 1, "b": 2, "c": 3}"#, r#"{"b": 2, "a": 1}"#),
            gives(r#"{"pick": ["a"]}"#, r#"[{"a": 1, "b": 2}, {"b": 3}]"#, r#"[{"a": 1}, {}]"#),
            fails(r#"{"pick": ["a"]}"#, "7"),
        ],
        whole: false,
        build: Build::Plain(pick),
    },
    Transform {
        name: "omit",
        makes: None,
        summary: "Takes some keys of an object away; of a list, in each object.",
        settings: &[required("keys", "the keys that go")],
        examples: &[gives(r#"{"omit": ["b"]}"#, r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#)],
        whole: false,
        build: Build::Plain(omit),
    },
    Transform {
        name: "merge",
        makes: Some(Shape::Object),
        summary: "Makes one object of a list of objects; of two values of a key, the later one stays.",
        settings: &[],
        examples: &[
            gives(r#""merge""#, r#"[{"a": 1, "b": 1}, null, {"b": 2}]"#, r#"{"a": 1, "b": 2}"#),
            fails(r#""merge""#, "[1]"),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(merge)),
    },
    Transform {
        name: "values",
        makes: Some(Shape::List),
        summary: "Makes a list of the values of an object, in their order: rows become the items of a list.",
        settings: &[],
        examples: &[
            gives(r#""values""#, r#"{"0": "a", "1": {"b": 2}}"#, r#"["a", {"b": 2}]"#),
            gives(r#""values""#, "{}", "[]"),
            fails(r#""values""#, r#""text""#),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(values)),
    },
    Transform {
        name: "filter",
        makes: Some(Shape::List),
        summary: "Leaves the items of a list that pass a condition, in which \"$\" is the item, \"$parent\" what \"$\" is \
                  around it, and \"$index\" its number, from 0.",
        settings: &[required("where", "a condition: { path, op, value }, or all, any, not")],
        examples: &[
            gives(
                r#"{"filter": {"where": {"path": "$.kind", "op": "eq", "value": "sms"}}}"#,
                r#"[{"kind": "sms"}, {"kind": "mail"}]"#,
                r#"[{"kind": "sms"}]"#,
            ),
            gives(r#"{"filter": {"where": {"path": "$", "op": "gt", "value": 1}}}"#, "[1, 2, 3]", "[2, 3]"),
            gives(
                r#"{"filter": {"where": {"path": "$index", "op": "lt", "value": 2}}}"#,
                "[7, 8, 9]",
                "[7, 8]",
            ),
        ],
        whole: false,
        build: Build::Inside(filter),
    },
    Transform {
        name: "map",
        makes: Some(Shape::List),
        summary: "Runs transforms on each item of a list; an item that comes to nothing is left out.",
        settings: &[required("apply", "the transforms, in order")],
        examples: &[
            gives(r#"{"map": ["trim", "lower"]}"#, r#"[" A", "B "]"#, r#"["a", "b"]"#),
            gives(r#"{"map": [{"lookup": {"a": 1}}]}"#, r#"["a", "z"]"#, "[1]"),
            fails(r#"{"map": ["integer"]}"#, r#"["x"]"#),
            absent(r#"{"map": ["trim"]}"#, "null"),
        ],
        whole: false,
        build: Build::Inside(map),
    },
];

fn list_of(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(format!("expected a list, found {}; put \"array\" before it", kind(other))),
    }
}

/// The path in `by`, which leads to one place in an item.
fn by(settings: &mut TableReader<'_>) -> Option<Box<[Step]>> {
    if !settings.has("by") {
        return Some(Box::default());
    }
    let refusal = match Path::parse(settings.text("by")?, 0) {
        Ok(path) => match path.steps() {
            Some(steps) => return Some(steps.into()),
            None => ("the path leads to several places".to_owned(), Some("such as \"$.price\"".to_owned())),
        },
        Err(refusal) => (refusal.message, refusal.hint),
    };
    settings.fault("by", refusal.0, refusal.1);
    None
}

fn sort(settings: &mut TableReader<'_>) -> Option<Run> {
    let by = by(settings);
    let orders = [("ascending", false), ("descending", true)];
    let descending = settings.has("order") && settings.choice("order", &orders)?;
    let by = by?;
    value_run(move |value| {
        let rank = |item: Option<&Value>| match item {
            Some(Value::Number(_)) => 0,
            Some(Value::String(_)) => 1,
            _ => 2,
        };
        let mut sorted: Vec<&Value> = list_of(value)?.iter().collect();
        sorted.sort_by(|left, right| {
            let (left, right) = (walk(left, &by), walk(right, &by));
            let both = || left.zip(right).and_then(|(left, right)| compare(left, right));
            let order = both().unwrap_or(Ordering::Equal);
            rank(left).cmp(&rank(right)).then(if descending { order.reverse() } else { order })
        });
        Ok(Some(sorted.into_iter().cloned().collect()))
    })
}

fn unique(settings: &mut TableReader<'_>) -> Option<Run> {
    let by = by(settings)?;
    Some(Box::new(move |value, scope| {
        let items = list_of(&value)?;
        if items.len() > UNIQUE_ITEMS {
            return Err(format!("{} items, {UNIQUE_ITEMS} are the most", items.len()));
        }
        let mut kept: Vec<&Value> = Vec::new();
        for item in items {
            scope.work.spend(kept.len())?;
            let own = walk(item, &by);
            let same = |other: &&Value| match (own, walk(other, &by)) {
                (Some(own), Some(other)) => equal(own, other),
                // What has no such place is not known to be the same.
                _ => false,
            };
            if !kept.iter().any(same) {
                kept.push(item);
            }
        }
        if kept.len() == items.len() {
            return Ok(Some(value));
        }
        Ok(Some(Cow::Owned(kept.into_iter().cloned().collect())))
    }))
}

fn flatten(settings: &mut TableReader<'_>) -> Option<Run> {
    fn into(items: &[Value], levels: i64, flat: &mut Vec<Value>) {
        for item in items {
            match item {
                Value::Array(inner) if levels > 0 => into(inner, levels - 1, flat),
                other => flat.push(other.clone()),
            }
        }
    }
    let levels = if settings.has("levels") { settings.integer_within("levels", 1, 8)? } else { 1 };
    value_run(move |value| {
        let mut flat = Vec::new();
        into(list_of(value)?, levels, &mut flat);
        Ok(Some(Value::Array(flat)))
    })
}

fn keys(settings: &mut TableReader<'_>) -> Option<Vec<String>> {
    settings.need("keys");
    let keys: Vec<String> = settings.texts("keys")?.into_iter().map(str::to_owned).collect();
    if keys.is_empty() || keys.len() > KEYS {
        settings.fault("keys", format!("{} keys, expected 1 to {KEYS}", keys.len()), None);
        return None;
    }
    Some(keys)
}

/// Changes an object, or each object of a list.
fn objects(
    value: &Value,
    change: &impl Fn(&Map<String, Value>) -> Map<String, Value>,
) -> Result<Option<Value>, String> {
    let one = |value: &Value| match value {
        Value::Object(entries) => Ok(Value::Object(change(entries))),
        other => Err(format!("expected an object or a list of objects, found {}", kind(other))),
    };
    match value {
        Value::Array(items) => Ok(Some(Value::Array(items.iter().map(one).collect::<Result<_, _>>()?))),
        other => one(other).map(Some),
    }
}

fn pick(settings: &mut TableReader<'_>) -> Option<Run> {
    let keys = keys(settings)?;
    value_run(move |value| {
        objects(value, &|entries| {
            keys.iter().filter_map(|key| Some((key.clone(), entries.get(key)?.clone()))).collect()
        })
    })
}

fn omit(settings: &mut TableReader<'_>) -> Option<Run> {
    let keys = keys(settings)?;
    value_run(move |value| {
        objects(value, &|entries| {
            let stays = |(key, _): &(&String, &Value)| !keys.contains(key);
            entries.iter().filter(stays).map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    })
}

fn values(value: &Value) -> Result<Option<Value>, String> {
    match value {
        Value::Object(entries) => Ok(Some(entries.values().cloned().collect())),
        other => Err(format!("expected an object, found {}", kind(other))),
    }
}

fn merge(value: &Value) -> Result<Option<Value>, String> {
    let mut merged = Map::new();
    for item in list_of(value)? {
        match item {
            Value::Object(entries) => {
                merged.extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            Value::Null => {}
            other => return Err(format!("an item is {}, expected objects", kind(other))),
        }
    }
    Ok(Some(Value::Object(merged)))
}

fn filter(settings: &mut TableReader<'_>, items: usize) -> Option<Run> {
    settings.need("where");
    let node = settings.node("where")?;
    let field = settings.path("where");
    let condition = Condition::parse_inside(node, &field, items + 1, settings.faults())?;
    Some(Box::new(move |value, scope| {
        let mut kept = Vec::new();
        for (index, root) in list_of(&value)?.iter().enumerate() {
            let item = Item { index, outer: scope };
            if condition.holds(Scope { root, item: Some(&item), ..scope })? {
                kept.push(root.clone());
            }
        }
        Ok(Some(Cow::Owned(Value::Array(kept))))
    }))
}

fn map(settings: &mut TableReader<'_>, items: usize) -> Option<Run> {
    settings.need("apply");
    let field = settings.path("apply");
    let nodes: &[Node] = settings.list("apply")?;
    // A `map` in a `map` is bounded by the nesting of what can be written: 8 levels of brackets.
    if nodes.len() > STEPS || field.matches(".map").count() > 3 {
        settings.fault(
            "apply",
            format!("more than {STEPS} transforms, or too many `map` inside one another"),
            None,
        );
        return None;
    }
    let applied: Vec<Option<Applied>> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| Applied::parse(node, &format!("{field}[{index}]"), items, settings.faults()))
        .collect();
    let applied: Vec<Applied> = applied.into_iter().collect::<Option<_>>()?;
    Some(Box::new(move |value, scope| {
        if value.is_null() {
            return Ok(None);
        }
        let mut mapped = Vec::new();
        for (index, item) in list_of(&value)?.iter().enumerate() {
            let last = run_all(&applied, item, scope).map_err(|reason| format!("item {index}: {reason}"))?;
            mapped.extend(last.map(Cow::into_owned));
        }
        Ok(Some(Cow::Owned(Value::Array(mapped))))
    }))
}

fn run_all<'v>(applied: &[Applied], item: &'v Value, scope: Scope<'_>) -> super::Outcome<'v> {
    let mut value = Cow::Borrowed(item);
    for step in applied {
        if value.is_null() {
            break;
        }
        match step.run(value, scope).map_err(|reason| format!("{}: {reason}", step.name))? {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok((!value.is_null()).then_some(value))
}
