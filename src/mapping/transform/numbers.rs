//! Transforms of numbers.

use serde_json::{Number, Value};

use super::{Build, Run, Transform, fails, gives, optional, required, value_run};
use crate::domain::document::{Kind, TableReader};
use crate::mapping::value::{Shape, compare, kind};

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "round",
        makes: Some(Shape::Number),
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
        build: Build::Plain(round),
    },
    Transform {
        name: "scale",
        makes: Some(Shape::Number),
        summary: "Multiplies a number, to 15 digits: 19.99 by 100 is 1999, as for an amount in cents.",
        settings: &[required("by", "the number to multiply by")],
        examples: &[
            gives(r#"{"scale": 100}"#, "19.99", "1999"),
            gives(r#"{"scale": 0.01}"#, "1999", "19.99"),
            gives(r#"{"scale": 60}"#, "2", "120"),
            fails(r#"{"scale": 60}"#, r#""2""#),
        ],
        whole: false,
        build: Build::Plain(scale),
    },
    Transform {
        name: "clamp",
        makes: Some(Shape::Number),
        summary: "Keeps a number within bounds.",
        settings: &[
            optional("least", "what a smaller number becomes"),
            optional("most", "what a larger number becomes"),
        ],
        examples: &[
            gives(r#"{"clamp": {"least": 1, "most": 5}}"#, "7", "5"),
            gives(r#"{"clamp": {"least": 1, "most": 5}}"#, "4.5", "4.5"),
            gives(r#"{"clamp": {"least": 0}}"#, "-2", "0"),
            fails(r#"{"clamp": {"most": 5}}"#, r#""7""#),
        ],
        whole: false,
        build: Build::Plain(clamp),
    },
];

fn need_number(value: &Value) -> Result<&Number, String> {
    value
        .as_number()
        .ok_or_else(|| format!("expected a number, found {}; put \"number\" before it", kind(value)))
}

/// The whole number that a float is; `None` for a fraction or what no longer has one.
pub fn whole(number: f64) -> Option<Value> {
    /// Up to here every whole number is a float of its own (2^53).
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within i64")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Value::from(number as i64))
}

fn round(settings: &mut TableReader<'_>) -> Option<Run> {
    let places = if settings.has("places") { settings.integer_within("places", 0, 9)? } else { 0 };
    let scale = 10_f64.powi(i32::try_from(places).ok()?);
    value_run(move |value| {
        let number = need_number(value)?;
        if number.is_i64() || number.is_u64() {
            return Ok(Some(value.clone()));
        }
        let number = number.as_f64().unwrap_or(f64::NAN);
        if places == 0 {
            return whole(number.round())
                .map(Some)
                .ok_or_else(|| "too large to be a whole number".to_owned());
        }
        let scaled = (number * scale).round() / scale;
        Ok(Some(Value::from(if scaled.is_finite() { scaled } else { number })))
    })
}

/// A number setting.
fn number_setting(settings: &mut TableReader<'_>, name: &'static str) -> Option<Value> {
    let node = settings.node(name)?;
    match &node.kind {
        Kind::Integer(number) => Some(Value::from(*number)),
        Kind::Float(number) if number.is_finite() => Some(Value::from(*number)),
        other => {
            settings.fault(name, format!("expected a number, found {}", other.name()), None);
            None
        }
    }
}

fn scale(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("by");
    let by = number_setting(settings, "by")?;
    value_run(move |value| {
        let number = need_number(value)?;
        if let (Some(left), Some(right)) = (number.as_i64(), by.as_i64())
            && let Some(product) = left.checked_mul(right)
        {
            return Ok(Some(product.into()));
        }
        let product = number.as_f64().zip(by.as_f64()).map_or(f64::NAN, |(left, right)| left * right);
        // Fifteen digits are what a float holds for sure; the rest is noise of the multiplication.
        let clean: f64 = format!("{product:.14e}").parse().unwrap_or(f64::NAN);
        if !clean.is_finite() {
            return Err("the product is too large".to_owned());
        }
        Ok(Some(whole(clean).unwrap_or_else(|| Value::from(clean))))
    })
}

fn clamp(settings: &mut TableReader<'_>) -> Option<Run> {
    let least = number_setting(settings, "least");
    let most = number_setting(settings, "most");
    if (settings.has("least") && least.is_none()) || (settings.has("most") && most.is_none()) {
        return None;
    }
    if let (Some(least), Some(most)) = (&least, &most)
        && compare(least, most).is_some_and(std::cmp::Ordering::is_gt)
    {
        settings.fault("least", "above `most`", None);
        return None;
    }
    value_run(move |value| {
        need_number(value)?;
        let below =
            least.as_ref().filter(|least| compare(value, least).is_some_and(std::cmp::Ordering::is_lt));
        let above = most.as_ref().filter(|most| compare(value, most).is_some_and(std::cmp::Ordering::is_gt));
        Ok(Some(below.or(above).unwrap_or(value).clone()))
    })
}
