//! Transforms from one kind of value to another.

use std::borrow::Cow;

use serde_json::Value;

use super::numbers::whole;
use super::{Build, Run, Transform, absent, fails, gives, need_text, value_run};
use crate::domain::document::TableReader;
use crate::mapping::value::{Shape, kind, scalar_text};

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "string",
        makes: Some(Shape::Text),
        summary: "Makes a text of a number or a boolean.",
        settings: &[],
        examples: &[
            gives(r#""string""#, "7", r#""7""#),
            gives(r#""string""#, "true", r#""true""#),
            gives(r#""string""#, r#""as it is""#, r#""as it is""#),
            fails(r#""string""#, "[1]"),
        ],
        whole: false,
        build: Build::Plain(string),
    },
    Transform {
        name: "integer",
        makes: Some(Shape::Integer),
        summary: "Makes a whole number of a text or a number; a fraction is an error.",
        settings: &[],
        examples: &[
            gives(r#""integer""#, r#"" 42 ""#, "42"),
            gives(r#""integer""#, "42.0", "42"),
            fails(r#""integer""#, "42.5"),
            fails(r#""integer""#, r#""forty""#),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(|value| number(value).and_then(|value| integer(&value)).map(Some))),
    },
    Transform {
        name: "number",
        makes: Some(Shape::Number),
        summary: "Makes a number of a text.",
        settings: &[],
        examples: &[
            gives(r#""number""#, r#""2.50""#, "2.5"),
            gives(r#""number""#, r#""7""#, "7"),
            fails(r#""number""#, r#""1,000""#),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(|value| number(value).map(Some))),
    },
    Transform {
        name: "boolean",
        makes: Some(Shape::Boolean),
        summary: "Makes true or false of yes/no, on/off, y/n, true/false, 1/0 in any case.",
        settings: &[],
        examples: &[
            gives(r#""boolean""#, r#""Yes""#, "true"),
            gives(r#""boolean""#, "0", "false"),
            fails(r#""boolean""#, r#""maybe""#),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(|value| boolean(value).map(|flag| Some(Value::Bool(flag))))),
    },
    Transform {
        name: "json_encode",
        makes: Some(Shape::Text),
        summary: "Makes a text that holds the value as JSON without blanks.",
        settings: &[],
        examples: &[gives(r#""json_encode""#, r#"{"a": [1, "x"]}"#, r#""{\"a\":[1,\"x\"]}""#)],
        whole: false,
        build: Build::Plain(|_| value_run(|value| Ok(Some(Value::String(value.to_string()))))),
    },
    Transform {
        name: "json_decode",
        makes: None,
        summary: "Reads a text that holds JSON; `null` in it counts as absent.",
        settings: &[],
        examples: &[
            gives(r#""json_decode""#, r#""{\"a\": [1]}""#, r#"{"a": [1]}"#),
            absent(r#""json_decode""#, r#""null""#),
            fails(r#""json_decode""#, r#""{""#),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(json_decode)),
    },
    Transform {
        name: "array",
        makes: Some(Shape::List),
        summary: "Makes a list of one item of what is no list.",
        settings: &[],
        examples: &[gives(r#""array""#, r#""a""#, r#"["a"]"#), gives(r#""array""#, r#"["a"]"#, r#"["a"]"#)],
        whole: false,
        build: Build::Plain(array),
    },
];

#[expect(clippy::unnecessary_wraps, reason = "it is what a `build` answers")]
fn string(_: &mut TableReader<'_>) -> Option<Run> {
    Some(Box::new(|value, _| {
        if value.is_string() {
            return Ok(Some(value));
        }
        let text = scalar_text(&value)
            .ok_or_else(|| format!("{} has no one text; use \"json_encode\" or \"join\"", kind(&value)))?
            .into_owned();
        Ok(Some(Cow::Owned(Value::String(text))))
    }))
}

fn number(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        Value::String(text) => {
            let text = text.trim();
            if let Ok(whole) = text.parse::<i64>() {
                return Ok(whole.into());
            }
            let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            let parsed = text.parse::<f64>().ok().filter(|number| plain && number.is_finite());
            parsed.map(Value::from).ok_or_else(|| "the text is no number".to_owned())
        }
        other => Err(format!("expected a number, found {}", kind(other))),
    }
}

fn integer(value: &Value) -> Result<Value, String> {
    if value.is_i64() || value.is_u64() {
        return Ok(value.clone());
    }
    value.as_f64().and_then(whole).ok_or_else(|| "not a whole number; put \"round\" before it".to_owned())
}

fn boolean(value: &Value) -> Result<bool, String> {
    let text = scalar_text(value).ok_or_else(|| format!("expected true or false, found {}", kind(value)))?;
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("neither yes nor no".to_owned()),
    }
}

fn json_decode(value: &Value) -> Result<Option<Value>, String> {
    let text = need_text(value)?;
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(None),
        Ok(decoded) => Ok(Some(decoded)),
        Err(error) => Err(format!("no JSON: {error}")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a `build` answers")]
fn array(_: &mut TableReader<'_>) -> Option<Run> {
    Some(Box::new(|value, _| {
        if value.is_array() || value.is_null() {
            return Ok(Some(value));
        }
        Ok(Some(Cow::Owned(Value::Array(vec![value.into_owned()]))))
    }))
}
