//! Transforms from one kind of value to another, and of numbers.

use std::borrow::Cow;

use serde_json::Value;

use super::{Run, Transform, fails, gives, optional, value_run};
use crate::domain::document::TableReader;
use crate::mapping::value::{kind, scalar_text};

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "string",
        summary: "Makes a text of a number or a boolean.",
        settings: &[],
        examples: &[
            gives(r#""string""#, "7", r#""7""#),
            gives(r#""string""#, "true", r#""true""#),
            gives(r#""string""#, r#""as it is""#, r#""as it is""#),
            fails(r#""string""#, "[1]"),
        ],
        whole: false,
        build: string,
    },
    Transform {
        name: "integer",
        summary: "Makes a whole number of a text or a number; a fraction is an error.",
        settings: &[],
        examples: &[
            gives(r#""integer""#, r#"" 42 ""#, "42"),
            gives(r#""integer""#, "42.0", "42"),
            fails(r#""integer""#, "42.5"),
            fails(r#""integer""#, r#""forty""#),
        ],
        whole: false,
        build: |_| value_run(|value| number(value).and_then(|value| integer(&value)).map(Some)),
    },
    Transform {
        name: "number",
        summary: "Makes a number of a text.",
        settings: &[],
        examples: &[
            gives(r#""number""#, r#""2.50""#, "2.5"),
            gives(r#""number""#, r#""7""#, "7"),
            fails(r#""number""#, r#""1,000""#),
        ],
        whole: false,
        build: |_| value_run(|value| number(value).map(Some)),
    },
    Transform {
        name: "boolean",
        summary: "Makes true or false of yes/no, on/off, y/n, true/false, 1/0 in any case.",
        settings: &[],
        examples: &[
            gives(r#""boolean""#, r#""Yes""#, "true"),
            gives(r#""boolean""#, "0", "false"),
            fails(r#""boolean""#, r#""maybe""#),
        ],
        whole: false,
        build: |_| value_run(|value| boolean(value).map(|flag| Some(Value::Bool(flag)))),
    },
    Transform {
        name: "json_encode",
        summary: "Makes a text that holds the value as JSON without blanks.",
        settings: &[],
        examples: &[gives(r#""json_encode""#, r#"{"a": [1, "x"]}"#, r#""{\"a\":[1,\"x\"]}""#)],
        whole: false,
        build: |_| value_run(|value| Ok(Some(Value::String(value.to_string())))),
    },
    Transform {
        name: "round",
        summary: "Rounds a number, halves away from zero; without places the result is a whole number.",
        settings: &[optional("places", "digits after the point, 0 (default) to 9")],
        examples: &[
            gives(r#""round""#, "2.5", "3"),
            gives(r#""round""#, "-2.5", "-3"),
            gives(r#"{"round": 2}"#, "3.14159", "3.14"),
            gives(r#"{"round": 2}"#, "7", "7"),
            fails(r#""round""#, r#""7.2""#),
        ],
        whole: false,
        build: round,
    },
];

#[expect(clippy::unnecessary_wraps, reason = "it is what a `build` answers")]
fn string(_: &mut TableReader<'_>) -> Option<Run> {
    Some(Box::new(|value| {
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

/// The whole number that a float is; `None` for a fraction or what no longer has one.
fn whole(number: f64) -> Option<Value> {
    /// Up to here every whole number is a float of its own (2^53).
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within i64")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Value::from(number as i64))
}

fn boolean(value: &Value) -> Result<bool, String> {
    let text = scalar_text(value).ok_or_else(|| format!("expected true or false, found {}", kind(value)))?;
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("neither yes nor no".to_owned()),
    }
}

fn round(settings: &mut TableReader<'_>) -> Option<Run> {
    let places = if settings.has("places") { settings.integer_within("places", 0, 9)? } else { 0 };
    let scale = 10_f64.powi(i32::try_from(places).ok()?);
    value_run(move |value| {
        if value.is_i64() || value.is_u64() {
            return Ok(Some(value.clone()));
        }
        let number = value
            .as_f64()
            .ok_or_else(|| format!("expected a number, found {}; put \"number\" before it", kind(value)))?;
        if places == 0 {
            return whole(number.round())
                .map(Some)
                .ok_or_else(|| "too large to be a whole number".to_owned());
        }
        let scaled = (number * scale).round() / scale;
        Ok(Some(Value::from(if scaled.is_finite() { scaled } else { number })))
    })
}
