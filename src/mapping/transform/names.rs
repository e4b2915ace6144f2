//! Transforms of people's names and addresses.

use std::borrow::Cow;

use serde_json::Value;

use super::{Build, Transform, absent, fails, gives, text_run, value_run};
use crate::mapping::value::{Shape, kind};

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "first_name",
        makes: Some(Shape::Text),
        summary: "The first word of a name.",
        settings: &[],
        examples: &[
            gives(r#""first_name""#, r#""Vincent van Gogh""#, r#""Vincent""#),
            gives(r#""first_name""#, r#""Pelé""#, r#""Pelé""#),
            absent(r#""first_name""#, r#""  ""#),
        ],
        whole: false,
        build: Build::Plain(|_| text_run(|name| Ok(name.split_whitespace().next().map(Cow::Borrowed)))),
    },
    Transform {
        name: "last_name",
        makes: Some(Shape::Text),
        summary: "All but the first word of a name; nothing for a single word.",
        settings: &[],
        examples: &[
            gives(r#""last_name""#, r#""Vincent  van Gogh""#, r#""van Gogh""#),
            absent(r#""last_name""#, r#""Pelé""#),
        ],
        whole: false,
        build: Build::Plain(|_| text_run(|name| Ok(last_name(name).map(Cow::Owned)))),
    },
    Transform {
        name: "full_name",
        makes: Some(Shape::Text),
        summary: "One name out of its parts: a text, a list of texts, or an object with a first and a last name.",
        settings: &[],
        examples: &[
            gives(r#""full_name""#, r#"" Ada   Lovelace ""#, r#""Ada Lovelace""#),
            gives(r#""full_name""#, r#"["Ada", "", null, "Lovelace"]"#, r#""Ada Lovelace""#),
            gives(r#""full_name""#, r#"{"lastName": "Lovelace", "firstName": "Ada"}"#, r#""Ada Lovelace""#),
            absent(r#""full_name""#, r#"["", null]"#),
            fails(r#""full_name""#, "7"),
        ],
        whole: false,
        build: Build::Plain(|_| value_run(full_name)),
    },
    Transform {
        name: "email",
        makes: Some(Shape::Text),
        summary: "A mail address without blanks and in lower case; what is no address is an error.",
        settings: &[],
        examples: &[
            gives(r#""email""#, r#"" Ada@Example.COM ""#, r#""ada@example.com""#),
            gives(r#""email""#, r#""mailto:a.b+c@mail.example.org""#, r#""a.b+c@mail.example.org""#),
            fails(r#""email""#, r#""ada@localhost""#),
            fails(r#""email""#, r#""ada at example.com""#),
        ],
        whole: false,
        build: Build::Plain(|_| text_run(email)),
    },
];

fn last_name(name: &str) -> Option<String> {
    let words: Vec<&str> = name.split_whitespace().skip(1).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The keys under which the parts of a name are found, in the order of the parts.
const PARTS: &[&[&str]] = &[
    &["first_name", "firstName", "first", "given_name", "givenName"],
    &["middle_name", "middleName", "middle"],
    &["last_name", "lastName", "last", "family_name", "familyName", "surname"],
];

fn full_name(value: &Value) -> Result<Option<Value>, String> {
    let parts: Vec<&Value> = match value {
        Value::String(_) => vec![value],
        Value::Array(items) => items.iter().collect(),
        Value::Object(entries) => {
            PARTS.iter().filter_map(|keys| keys.iter().find_map(|key| entries.get(*key))).collect()
        }
        other => return Err(format!("expected a text, a list or an object, found {}", kind(other))),
    };
    let mut words = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_null()) {
        let text = part.as_str().ok_or_else(|| format!("a part of the name is {}", kind(part)))?;
        words.extend(text.split_whitespace());
    }
    Ok((!words.is_empty()).then(|| Value::String(words.join(" "))))
}

/// Checks the shape that mail systems take (RFC 5321 §4.5.3.1 for the lengths), not that the mailbox exists.
fn email(text: &str) -> Result<Option<Cow<'_, str>>, String> {
    let text = text.trim();
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let wrong = |why: &str| Err(format!("no mail address: {why}"));
    let Some((local, domain)) = address.rsplit_once('@') else { return wrong("no \"@\"") };
    if local.is_empty() || local.len() > 64 || address.len() > 254 {
        return wrong("too short or too long");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return wrong("a dot where none can be");
    }
    if local.chars().any(|character| {
        character.is_whitespace() || character.is_control() || "@\"(),:;<>[\\]".contains(character)
    }) {
        return wrong("a character that can't be in it");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
    };
    if !domain.contains('.') || !domain.split('.').all(label) {
        return wrong("the part after \"@\" is no domain");
    }
    if address.chars().any(char::is_uppercase) {
        return Ok(Some(address.to_lowercase().into()));
    }
    Ok(Some(Cow::Borrowed(address)))
}
