//! Transforms that hide. Normalise first (`trim`, `lower`, `email`), so that the same person gives the same hash.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Build, Run, Transform, fails, gives, optional, required, text_run, value_run};
use crate::domain::document::TableReader;
use crate::mapping::value::Shape;

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "sha256",
        makes: Some(Shape::Text),
        summary: "The SHA-256 of the UTF-8 bytes of a text, in lower case hex.",
        settings: &[],
        examples: &[
            gives(
                r#""sha256""#,
                r#""abc""#,
                r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#,
            ),
            fails(r#""sha256""#, "7"),
        ],
        whole: false,
        build: Build::Plain(|_| {
            text_run(|text| Ok(Some(hex::encode(Sha256::digest(text.as_bytes())).into())))
        }),
    },
    Transform {
        name: "hmac",
        makes: Some(Shape::Text),
        summary: "The HMAC-SHA256 (RFC 2104) of a text under a key, in lower case hex: the same person gives the same \
                  text in your systems and in no other. The key stands in the mapping and is no secret to who may \
                  read it: use it to tell people apart, not to prove anything.",
        settings: &[required("key", "8 to 200 characters")],
        examples: &[
            gives(
                r#"{"hmac": "key for leads"}"#,
                r#""ada@example.com""#,
                r#""6376e059c1105b49822e7fa77a5670d27a36ed5eb4befa2391f1c42c6355ab93""#,
            ),
            fails(r#"{"hmac": "key for leads"}"#, "7"),
        ],
        whole: false,
        build: Build::Plain(hmac),
    },
    Transform {
        name: "mask",
        makes: Some(Shape::Text),
        summary: "Replaces all but the last characters of a text by \"*\"; of a text that is not longer than twice \
                  what is kept, nothing is kept.",
        settings: &[optional("keep", "how many characters stay, 0 to 10; 4 by default")],
        examples: &[
            gives(r#""mask""#, r#""0712345678""#, r#""******5678""#),
            gives(r#"{"mask": 2}"#, r#""abcdé5""#, r#""****é5""#),
            gives(r#""mask""#, r#""1234""#, r#""****""#),
        ],
        whole: false,
        build: Build::Plain(mask),
    },
    Transform {
        name: "redact",
        makes: Some(Shape::Text),
        summary: "Replaces any value by a fixed text, so that it shows only that there was one.",
        settings: &[optional("text", "what to put in its place; \"[redacted]\" by default")],
        examples: &[
            gives(r#""redact""#, r#"{"card": "4111"}"#, r#""[redacted]""#),
            gives(r#"{"redact": "hidden"}"#, "7", r#""hidden""#),
        ],
        whole: false,
        build: Build::Plain(redact),
    },
];

fn hmac(settings: &mut TableReader<'_>) -> Option<Run> {
    settings.need("key");
    let key = settings.text("key")?;
    if !(8..=200).contains(&key.chars().count()) {
        settings.fault("key", "expected 8 to 200 characters", None);
        return None;
    }
    let keyed = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    text_run(move |text| {
        let mut mac = keyed.clone();
        mac.update(text.as_bytes());
        Ok(Some(hex::encode(mac.finalize().into_bytes()).into()))
    })
}

fn mask(settings: &mut TableReader<'_>) -> Option<Run> {
    let keep = if settings.has("keep") { settings.integer_within("keep", 0, 10)? } else { 4 };
    let keep = usize::try_from(keep).ok()?;
    text_run(move |text| {
        let length = text.chars().count();
        let hidden = if length > 2 * keep { length - keep } else { length };
        let shown = text.chars().skip(hidden);
        Ok(Some("*".repeat(hidden).chars().chain(shown).collect::<String>().into()))
    })
}

fn redact(settings: &mut TableReader<'_>) -> Option<Run> {
    let text = if settings.has("text") { settings.text("text")? } else { "[redacted]" }.to_owned();
    value_run(move |_| Ok(Some(text.clone().into())))
}
