//! Transforms that choose: lookups and values that count as missing.

use std::borrow::Cow;

use serde_json::Value;

use super::{Build, Run, Transform, absent, fails, gives, required};
use crate::domain::document::{Kind, Node, TableReader};
use crate::mapping::value::{equal, kind, scalar_text};

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "lookup",
        makes: None,
        summary: "Replaces a value by what a table has for it; a value that is not in the table counts as absent, so \
                  that the row's `default` is taken.",
        settings: &[required("table", "values by the text of what is looked up")],
        examples: &[
            gives(r#"{"lookup": {"new": "Open", "won": "Closed"}}"#, r#""won""#, r#""Closed""#),
            gives(r#"{"lookup": {"1": true}}"#, "1", "true"),
            absent(r#"{"lookup": {"new": "Open"}}"#, r#""lost""#),
            fails(r#"{"lookup": {"new": "Open"}}"#, "[]"),
        ],
        whole: true,
        build: Build::Plain(lookup),
    },
    Transform {
        name: "default_if",
        makes: None,
        summary: "Makes some values count as absent, so that the row's `default` is taken.",
        settings: &[required("values", "the list of values that count as absent")],
        examples: &[
            absent(r#"{"default_if": ["N/A", "-", ""]}"#, r#""N/A""#),
            gives(r#"{"default_if": ["N/A", "-"]}"#, r#""Ada""#, r#""Ada""#),
            absent(r#"{"default_if": [0]}"#, "0.0"),
        ],
        whole: false,
        build: Build::Plain(default_if),
    },
];

fn lookup(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("table");
    let node = settings.node("table")?;
    let Kind::Table(entries) = &node.kind else {
        settings.fault(
            "table",
            format!("expected a table, found {}", node.kind.name()),
            Some("{ lookup = { new = \"Open\" } }".to_owned()),
        );
        return None;
    };
    let table: std::collections::HashMap<String, Value> =
        entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect();
    Some(Box::new(move |value, _| {
        let text = scalar_text(&value).ok_or_else(|| format!("{} can't be looked up", kind(&value)))?;
        Ok(table.get(&*text).map(|found| Cow::Owned(found.clone())))
    }))
}

fn default_if(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("values");
    let values: Vec<Value> = settings.list("values")?.iter().map(Node::to_json).collect();
    Some(Box::new(move |value, _| Ok((!values.iter().any(|listed| equal(listed, &value))).then_some(value))))
}
