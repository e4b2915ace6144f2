//! Transforms of texts, and between texts and lists of texts.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use unicode_segmentation::GraphemeCursor;

use super::{
    Build, Run, Transform, absent, check_length, fails, gives, need_text, optional, required, text_run,
    value_run,
};
use crate::domain::document::TableReader;
use crate::mapping::limits::PATTERN_TEXT_BYTES;
use crate::mapping::query::pattern;
use crate::mapping::value::{Shape, kind, scalar_text};

/// Characters of a text that a setting puts into values.
const SETTING_CHARS: usize = 1_000;

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "trim",
        makes: Some(Shape::Text),
        summary: "Takes blanks and line ends away from both ends of a text.",
        settings: &[],
        examples: &[gives(r#""trim""#, r#""  Ada \n""#, r#""Ada""#), fails(r#""trim""#, "7")],
        whole: false,
        build: Build::Plain(|_| text_run(|text| Ok(Some(Cow::Borrowed(text.trim()))))),
    },
    Transform {
        name: "lower",
        makes: Some(Shape::Text),
        summary: "Makes a text lower case.",
        settings: &[],
        examples: &[gives(r#""lower""#, r#""ÅDA Lovelace""#, r#""åda lovelace""#)],
        whole: false,
        build: Build::Plain(|_| text_run(|text| Ok(Some(text.to_lowercase().into())))),
    },
    Transform {
        name: "upper",
        makes: Some(Shape::Text),
        summary: "Makes a text upper case.",
        settings: &[],
        examples: &[gives(r#""upper""#, r#""ke""#, r#""KE""#)],
        whole: false,
        build: Build::Plain(|_| text_run(|text| Ok(Some(text.to_uppercase().into())))),
    },
    Transform {
        name: "title",
        makes: Some(Shape::Text),
        summary: "Gives each word a capital first letter and makes the rest lower case.",
        settings: &[],
        examples: &[gives(r#""title""#, r#""ada KING-noel""#, r#""Ada King-Noel""#)],
        whole: false,
        build: Build::Plain(|_| text_run(|text| Ok(Some(title(text).into())))),
    },
    Transform {
        name: "replace",
        makes: Some(Shape::Text),
        summary: "Replaces every occurrence of a text by another.",
        settings: &[
            required("from", "the text to look for"),
            required("to", "what to put in its place, may be empty"),
        ],
        examples: &[
            gives(r#"{"replace": {"from": " ", "to": "_"}}"#, r#""a b c""#, r#""a_b_c""#),
            gives(r#"{"replace": {"from": "+", "to": ""}}"#, r#""+254 7""#, r#""254 7""#),
        ],
        whole: false,
        build: Build::Plain(replace),
    },
    Transform {
        name: "truncate",
        makes: Some(Shape::Text),
        summary: "Cuts a text to a number of characters (Unicode code points, as most systems count); what people see \
                  as one character, such as an emoji or a letter with accents, is never split.",
        settings: &[
            required("characters", "the most characters that are left, from 1"),
            optional("ending", "a text that ends what was cut and counts as part of it; none by default"),
        ],
        examples: &[
            gives(r#"{"truncate": 3}"#, r#""Nairobi""#, r#""Nai""#),
            gives(r#"{"truncate": {"characters": 5, "ending": "…"}}"#, r#""Nairobi""#, r#""Nair…""#),
            gives(r#"{"truncate": 4}"#, r#""Hi 👩‍👧!""#, r#""Hi ""#),
            gives(r#"{"truncate": 10}"#, r#""Nairobi""#, r#""Nairobi""#),
        ],
        whole: false,
        build: Build::Plain(truncate),
    },
    Transform {
        name: "split",
        makes: Some(Shape::List),
        summary: "Splits a text into a list; an empty text is an empty list.",
        settings: &[required("separator", "what stands between the items")],
        examples: &[
            gives(r#"{"split": ", "}"#, r#""a, b, c""#, r#"["a", "b", "c"]"#),
            gives(r#"{"split": ","}"#, r#""""#, "[]"),
        ],
        whole: false,
        build: Build::Plain(split),
    },
    Transform {
        name: "join",
        makes: Some(Shape::Text),
        summary: "Joins a list of texts, numbers and booleans into one text, leaving out null.",
        settings: &[optional("separator", "what stands between the items; \", \" by default")],
        examples: &[
            gives(r#"{"join": " "}"#, r#"["a", 2, null, true]"#, r#""a 2 true""#),
            gives(r#""join""#, r#"["a", "b"]"#, r#""a, b""#),
            fails(r#""join""#, r#"[["a"]]"#),
        ],
        whole: false,
        build: Build::Plain(join),
    },
    Transform {
        name: "pad",
        makes: Some(Shape::Text),
        summary: "Fills a text up to a number of characters.",
        settings: &[
            required("length", "characters, 1 to 1000; a longer text stays as it is"),
            optional("with", "what to fill with; \"0\" by default"),
            optional("side", "\"left\" (default) or \"right\""),
        ],
        examples: &[
            gives(r#"{"pad": 5}"#, r#""42""#, r#""00042""#),
            gives(r#"{"pad": {"length": 4, "with": " .", "side": "right"}}"#, r#""a""#, r#""a . ""#),
        ],
        whole: false,
        build: Build::Plain(pad),
    },
    Transform {
        name: "extract",
        makes: Some(Shape::Text),
        summary: "Takes the first part of a text that a pattern finds; nothing found counts as absent. Of linear \
                  time: no look-around and no back-references.",
        settings: &[
            required("pattern", "the pattern, at most 500 characters"),
            optional("group", "which \"(...)\" of it; the first by default, 0 is all of it"),
        ],
        examples: &[
            gives(r#"{"extract": "Order ([0-9]+)"}"#, r#""Order 1042, paid""#, r#""1042""#),
            gives(r#"{"extract": "[A-Z]{2}\\d+"}"#, r#""ref AB12""#, r#""AB12""#),
            gives(r#"{"extract": {"pattern": "(a)(b)", "group": 2}}"#, r#""ab""#, r#""b""#),
            absent(r#"{"extract": "x"}"#, r#""abc""#),
        ],
        whole: false,
        build: Build::Plain(extract),
    },
    Transform {
        name: "slug",
        makes: Some(Shape::Text),
        summary: "Makes a text lower case letters and digits with single dashes between, as for an address or a key.",
        settings: &[],
        examples: &[gives(r#""slug""#, r#""  Hello, World 2! ""#, r#""hello-world-2""#)],
        whole: false,
        build: Build::Plain(|_| text_run(|text| Ok(Some(slug(text).into())))),
    },
    Transform {
        name: "url_encode",
        makes: Some(Shape::Text),
        summary: "Percent-encodes all but the letters, digits and \"-._~\" (RFC 3986, unreserved).",
        settings: &[],
        examples: &[gives(r#""url_encode""#, r#""a b/é""#, r#""a%20b%2F%C3%A9""#)],
        whole: false,
        build: Build::Plain(|_| text_run(url_encode)),
    },
    Transform {
        name: "base64",
        makes: Some(Shape::Text),
        summary: "Encodes the UTF-8 bytes of a text as base64 (RFC 4648).",
        settings: &[optional("alphabet", "\"standard\" (default, padded) or \"url\" (not padded)")],
        examples: &[
            gives(r#""base64""#, r#""Ada?>""#, r#""QWRhPz4=""#),
            gives(r#"{"base64": "url"}"#, r#""Ada?>""#, r#""QWRhPz4""#),
        ],
        whole: false,
        build: Build::Plain(base64),
    },
];

fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        inside = character.is_alphanumeric() || (inside && matches!(character, '\'' | '’'));
    }
    titled
}

fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn url_encode(text: &str) -> Result<Option<Cow<'_, str>>, String> {
    use std::fmt::Write;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if text.as_bytes().iter().all(plain) {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if plain(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").map_err(|error| error.to_string())?;
        }
    }
    Ok(Some(encoded.into()))
}

/// A short text setting; too long is a fault.
fn short_text(settings: &mut TableReader<'_>, name: &'static str) -> Option<String> {
    let text = settings.text(name)?;
    if text.chars().count() > SETTING_CHARS {
        settings.fault(name, format!("above {SETTING_CHARS} characters"), None);
        return None;
    }
    Some(text.to_owned())
}

/// A short text setting that must be there and not empty.
fn separator(settings: &mut TableReader<'_>, name: &'static str) -> Option<String> {
    settings.need(name);
    let text = short_text(settings, name)?;
    if text.is_empty() {
        settings.fault(name, "an empty text", Some("give at least one character".to_owned()));
        return None;
    }
    Some(text)
}

fn replace(settings: &mut TableReader<'_>) -> Option<Run> {
    let from = separator(settings, "from");
    settings.need("to");
    let to = short_text(settings, "to");
    let (from, to) = (from?, to?);
    text_run(move |text| {
        let count = text.matches(&from).count();
        if count == 0 {
            return Ok(Some(Cow::Borrowed(text)));
        }
        check_length((text.len() - count * from.len()).saturating_add(count.saturating_mul(to.len())))?;
        Ok(Some(text.replace(&from, &to).into()))
    })
}

fn truncate(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("characters");
    let most = settings.integer_within("characters", 1, 1_000_000);
    let ending = if settings.has("ending") { short_text(settings, "ending")? } else { String::new() };
    let most = usize::try_from(most?).ok()?;
    let Some(kept) = most.checked_sub(ending.chars().count()) else {
        settings.fault("ending", format!("longer than {most} characters"), None);
        return None;
    };
    text_run(move |text| {
        if text.char_indices().nth(most).is_none() {
            return Ok(Some(Cow::Borrowed(text)));
        }
        Ok(Some(format!("{}{ending}", first_characters(text, kept)).into()))
    })
}

/// The start of a text with at most `most` code points, cut between graphemes (UAX 29).
pub fn first_characters(text: &str, most: usize) -> &str {
    let Some((limit, _)) = text.char_indices().nth(most) else { return text };
    let mut cursor = GraphemeCursor::new(limit, text.len(), true);
    match cursor.is_boundary(text, 0) {
        Ok(false) => {
            let start = cursor.prev_boundary(text, 0).ok().flatten().unwrap_or(0);
            &text[..start]
        }
        _ => &text[..limit],
    }
}

fn pad(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("length");
    let length = settings.integer_within("length", 1, 1_000);
    let sides = [("left", true), ("right", false)];
    let left = if settings.has("side") { settings.choice("side", &sides)? } else { true };
    let with = if settings.has("with") { separator(settings, "with")? } else { "0".to_owned() };
    let length = usize::try_from(length?).ok()?;
    text_run(move |text| {
        let missing = length.saturating_sub(text.chars().count());
        if missing == 0 {
            return Ok(Some(Cow::Borrowed(text)));
        }
        let filling: String = with.chars().cycle().take(missing).collect();
        Ok(Some(if left { format!("{filling}{text}") } else { format!("{text}{filling}") }.into()))
    })
}

fn extract(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("pattern");
    let text = settings.text("pattern")?;
    let pattern = match pattern::plain(text) {
        Ok(pattern) => pattern,
        Err(refusal) => {
            settings.fault("pattern", refusal.message, refusal.hint);
            return None;
        }
    };
    let groups = pattern.captures_len() - 1;
    let most = i64::try_from(groups).ok()?;
    let group = if settings.has("group") { settings.integer_within("group", 0, most)? } else { most.min(1) };
    let group = usize::try_from(group).ok()?;
    Some(Box::new(move |value, scope| {
        let text = need_text(&value)?;
        if text.len() > PATTERN_TEXT_BYTES {
            return Err(format!("above {PATTERN_TEXT_BYTES} bytes, too long for a pattern"));
        }
        scope.work.spend(text.len())?;
        let found = pattern.captures(text).and_then(|captures| captures.get(group));
        Ok(found.map(|found| Cow::Owned(Value::from(found.as_str()))))
    }))
}

fn split(settings: &mut TableReader<'_>) -> Option<Run> {
    let separator = separator(settings, "separator")?;
    value_run(move |value| {
        let text = need_text(value)?;
        let items =
            if text.is_empty() { Vec::new() } else { text.split(&separator).map(Value::from).collect() };
        Ok(Some(Value::Array(items)))
    })
}

fn join(settings: &mut TableReader<'_>) -> Option<Run> {
    let separator =
        if settings.has("separator") { short_text(settings, "separator")? } else { ", ".to_owned() };
    value_run(move |value| {
        let items = value.as_array().ok_or_else(|| format!("expected a list, found {}", kind(value)))?;
        let mut joined = String::new();
        for (index, item) in items.iter().filter(|item| !item.is_null()).enumerate() {
            let text = scalar_text(item)
                .ok_or_else(|| format!("an item is {}, which has no place in a text", kind(item)))?;
            if index > 0 {
                joined.push_str(&separator);
            }
            joined.push_str(&text);
            check_length(joined.len())?;
        }
        Ok(Some(Value::String(joined)))
    })
}

fn base64(settings: &mut TableReader<'_>) -> Option<Run> {
    let choices = [("standard", &STANDARD), ("url", &URL_SAFE_NO_PAD)];
    let engine = if settings.has("alphabet") { settings.choice("alphabet", &choices)? } else { &STANDARD };
    text_run(move |text| Ok(Some(engine.encode(text).into())))
}
