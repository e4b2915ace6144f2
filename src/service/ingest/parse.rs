//! The four forms in which events come, read into one: plain JSON, and `CloudEvents` structured, batched and binary.
//!
//! Pure. One pass over a body checks it and leaves it compact; attributes are cut out of that, and the data is never more than text.
//! What that pass can't answer is read as a tree of values: an error, with its place, or a name that is there twice.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::attributes::{Draft, Incoming, written};
use crate::domain::fault::Faults;
use crate::domain::json::{compact, items};
use crate::service::MAX_BATCH;

/// How deep an event's JSON may nest; the event itself is the first level.
pub const MAX_NESTING: usize = 64;

/// Headers of which a `CloudEvent` in binary mode has one at the least.
const BINARY: [HeaderName; 3] = [
    HeaderName::from_static("ce-specversion"),
    HeaderName::from_static("ce-id"),
    HeaderName::from_static("ce-type"),
];

/// Why nothing at all could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says, without the place.
        message: String,
    },
    /// Nested too deep.
    #[error("the JSON nests deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// A content type that is none of ours.
    #[error("the content type \"{0}\" is not read here")]
    MediaType(String),
    /// Too many events, or none.
    #[error("the batch has {0} events")]
    BatchSize(usize),
}

/// What came in one request.
#[derive(Debug)]
pub struct Parsed {
    /// Whether it was a list, and so is answered item by item.
    pub batch: bool,
    /// Each event, or what is wrong with it. One exactly when it is no batch.
    pub items: Vec<Result<Incoming, Faults>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Structured,
    StructuredBatch,
    Binary,
}

/// Reads a request's events.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Parsed, ParseError> {
    let form = form(headers)?;
    if form == Form::Binary {
        let data = if body.trim_ascii().is_empty() { None } else { Some(read(body)?) };
        return Ok(Parsed { batch: false, items: vec![binary(headers, data)] });
    }
    let draft = |event, at: &str| match form {
        Form::Plain => Draft::plain(event, at),
        _ => Draft::cloud_event(event, at),
    };
    let body = read(body)?;
    match (form, items(&body)) {
        (Form::Plain | Form::StructuredBatch, Some(events)) => {
            if !(1..=MAX_BATCH).contains(&events.len()) {
                return Err(ParseError::BatchSize(events.len()));
            }
            let read = |(index, event)| draft(event, &format!("[{index}]"));
            Ok(Parsed { batch: true, items: events.into_iter().enumerate().map(read).collect() })
        }
        (Form::StructuredBatch, None) => {
            let mut faults = Faults::default();
            faults.at_field("", "expected a list of events", None);
            Ok(Parsed { batch: false, items: vec![Err(faults)] })
        }
        _ => Ok(Parsed { batch: false, items: vec![draft(body, "")] }),
    }
}

fn form(headers: &HeaderMap) -> Result<Form, ParseError> {
    let written = headers.get(CONTENT_TYPE).map_or(Ok("application/json"), |value| {
        value.to_str().map_err(|_| ParseError::MediaType("(not readable)".to_owned()))
    })?;
    let lower = written.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let charset_fits = parts.all(|parameter| {
        parameter
            .strip_prefix("charset=")
            .is_none_or(|charset| ["utf-8", "us-ascii"].contains(&charset.trim_matches('"')))
    });
    let refused = || ParseError::MediaType(written.chars().take(100).collect());
    if !charset_fits {
        return Err(refused());
    }
    // The longer one first: it begins with the shorter one.
    if media.starts_with("application/cloudevents-batch") {
        return if media.ends_with("+json") { Ok(Form::StructuredBatch) } else { Err(refused()) };
    }
    if media.starts_with("application/cloudevents") {
        return if media.ends_with("+json") { Ok(Form::Structured) } else { Err(refused()) };
    }
    if media != "application/json" && !(media.starts_with("application/") && media.ends_with("+json")) {
        return Err(refused());
    }
    let binary = BINARY.iter().any(|name| headers.contains_key(name));
    Ok(if binary { Form::Binary } else { Form::Plain })
}

/// The body as compact JSON: the text that the tree of its values would be written as.
pub(super) fn read(body: &[u8]) -> Result<Bytes, ParseError> {
    match compact(body, levels(body)) {
        Some(text) => Ok(text.into()),
        None => json(body).map(|value| written(&value)),
    }
}

/// How deep a body may nest: [`MAX_NESTING`] levels, one more for a batch's list.
fn levels(body: &[u8]) -> usize {
    MAX_NESTING + usize::from(body.trim_ascii_start().first() == Some(&b'['))
}

/// Parses JSON that nests at most [`MAX_NESTING`] levels, one more for a batch's list.
pub fn json(body: &[u8]) -> Result<Value, ParseError> {
    if nests_deeper(body, levels(body)) {
        return Err(ParseError::TooDeep);
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        ParseError::Syntax {
            line: error.line(),
            column: error.column(),
            message: text.strip_suffix(&place).unwrap_or(&text).to_owned(),
        }
    })
}

/// Whether brackets outside of texts open more than `levels` at once.
fn nests_deeper(body: &[u8], levels: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// The `CloudEvents` HTTP binding's binary mode: attributes as headers, `data` as the body.
fn binary(headers: &HeaderMap, data: Option<Bytes>) -> Result<Incoming, Faults> {
    let mut faults = Faults::default();
    let mut draft = Draft::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let mut values = headers.get_all(name).iter();
        let value = values.next().and_then(|value| header_text(value.as_bytes()));
        match (value, values.next()) {
            (Some(value), None) => draft.set_cloud(attribute, written(&value), "ce-", &mut faults),
            (_, Some(_)) => faults.at_field(name.as_str(), "is there twice", None),
            (None, None) => faults.at_field(
                name.as_str(),
                "is not readable",
                Some("percent-encode what is not visible ASCII, as UTF-8".to_owned()),
            ),
        }
    }
    draft.data = data;
    draft.finish_cloud("ce-", faults)
}

/// A header's value by the binding, section 3.1.3.2: unquoted, then percent-decoded to UTF-8.
fn header_text(value: &[u8]) -> Option<String> {
    let unquoted: Vec<u8>;
    let value = match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        None => value,
        Some(inner) => {
            let mut bytes = inner.iter();
            let unescape = || {
                let byte = bytes.next()?;
                if *byte == b'\\' { bytes.next().copied() } else { Some(*byte) }
            };
            unquoted = std::iter::from_fn(unescape).collect();
            &unquoted
        }
    };
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn one(pairs: &[(&'static str, &'static str)], body: &str) -> Result<Incoming, Faults> {
        let mut parsed = parse(&headers(pairs), body.as_bytes()).unwrap();
        assert_eq!(parsed.items.len(), 1);
        parsed.items.remove(0)
    }

    #[test]
    fn the_four_forms_give_the_same_event() {
        let plain = one(
            &[("content-type", "application/json; charset=utf-8")],
            r#"{"type":"lead.captured","id":"1","source":"bot","time":"2026-05-03T14:22:08Z","data":{"a":1}}"#,
        )
        .unwrap();
        let structured = r#"{"specversion":"1.0","type":"lead.captured","id":"1","source":"bot","time":"2026-05-03T14:22:08Z","data":{"a":1}}"#;
        let cloud = one(&[("content-type", "application/cloudevents+json")], structured).unwrap();
        let binary = one(
            &[
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-type", "lead.captured"),
                ("ce-id", "1"),
                ("ce-source", "b%6Ft"),
                ("ce-time", "\"2026-05-03T14:22:08Z\""),
            ],
            r#"{"a":1}"#,
        )
        .unwrap();
        let batch = parse(
            &headers(&[("content-type", "application/cloudevents-batch+json")]),
            format!("[{structured},{structured}]").as_bytes(),
        )
        .unwrap();
        assert!(batch.batch);
        assert_eq!(plain, cloud);
        assert_eq!(plain, binary);
        assert!(batch.items.iter().all(|item| item.as_ref() == Ok(&plain)));
    }

    #[test]
    fn extensions_and_subject_are_kept() {
        let event = one(
            &[("content-type", "application/cloudevents+json")],
            r#"{"specversion":"1.0","type":"t","id":"1","source":"s","subject":"x","myext":7,"tenant":"acme","data":null}"#,
        )
        .unwrap();
        assert_eq!(event.others, [("subject".to_owned(), "\"x\"".into()), ("myext".to_owned(), "7".into())]);
        assert_eq!(event.tenant.unwrap().as_str(), "acme");
    }

    #[test]
    fn all_faults_of_an_event_are_told_with_their_place() {
        let (plain, cloud) = ("application/json", "application/cloudevents+json");
        let cases: [(&str, &str, &[&str]); 8] = [
            (plain, r#"{"tpye":"x","data":{}}"#, &["/tpye", "/type"]),
            (plain, r#"{"type":"a b"}"#, &["/type", "/data"]),
            (
                plain,
                r#"{"type":7,"id":"","source":"a\u0000","time":"now","tenant":"a b","data":1}"#,
                &["/type", "/id", "/source", "/time", "/tenant"],
            ),
            (plain, "7", &[""]),
            (cloud, r#"{"type":"x","id":"1","source":"s"}"#, &["/specversion"]),
            (cloud, r#"{"specversion":"0.3","type":"x"}"#, &["/specversion", "/id", "/source"]),
            (
                cloud,
                r#"{"specversion":"1.0","type":"x","id":"1","source":"s","data_base64":"aa"}"#,
                &["/data_base64"],
            ),
            (
                cloud,
                r#"{"specversion":"1.0","type":"x","id":"1","source":"s","Bad":"a","deep":{}}"#,
                &["/Bad", "/deep"],
            ),
        ];
        for (media, body, pointers) in cases {
            let faults = one(&[("content-type", media)], body).unwrap_err();
            let found: Vec<String> = faults.list().iter().map(|fault| fault.place.pointer()).collect();
            assert_eq!(found, pointers, "{body}: {faults}");
        }
    }

    #[test]
    fn a_batch_is_read_item_by_item() {
        let parsed = parse(
            &headers(&[("content-type", "application/json")]),
            br#"[{"type":"a","data":1},{"type":"b"},7]"#,
        )
        .unwrap();
        let pointers: Vec<_> = parsed
            .items
            .iter()
            .map(|item| item.as_ref().err().map(|faults| faults.list()[0].place.pointer()))
            .collect();
        assert_eq!(pointers, [None, Some("/1/data".to_owned()), Some("/2".to_owned())]);
    }

    #[test]
    fn what_can_not_be_read_at_all_is_refused() {
        let plain = headers(&[("content-type", "application/json")]);
        let of = |text: &str| parse(&plain, text.as_bytes()).unwrap_err();
        assert!(matches!(of("{\"a\":\n 1,}"), ParseError::Syntax { line: 2, column: 4, .. }));
        assert!(matches!(of(""), ParseError::Syntax { .. }));
        assert_eq!(of("[]"), ParseError::BatchSize(0));
        let items = vec!["1"; MAX_BATCH + 1].join(",");
        assert_eq!(of(&format!("[{items}]")), ParseError::BatchSize(MAX_BATCH + 1));
        for media in [
            "text/plain",
            "application/cloudevents+avro",
            "application/cloudevents-batch",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
        ] {
            let mut map = HeaderMap::new();
            map.insert(CONTENT_TYPE, media.parse().unwrap());
            assert_eq!(parse(&map, b"{}").unwrap_err(), ParseError::MediaType(media.to_owned()));
        }
    }

    #[test]
    fn nesting_is_bounded_before_parsing() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let body = |levels: usize| format!(r#"{{"type":"x","data":{}}}"#, nested(levels));
        assert!(json(body(MAX_NESTING - 1).as_bytes()).is_ok());
        assert_eq!(json(body(MAX_NESTING).as_bytes()), Err(ParseError::TooDeep));
        assert!(json(format!("[{}]", body(MAX_NESTING - 1)).as_bytes()).is_ok());
        assert_eq!(json("[".repeat(1_000_000).as_bytes()), Err(ParseError::TooDeep));
        assert!(json(br#"{"a":"[[[\"[[["}"#).is_ok());
    }

    #[test]
    fn odd_percent_signs_are_refused() {
        for (text, wanted) in [
            ("a%20b", Some("a b")),
            ("%C3%BC", Some("ü")),
            ("\"a\\\"b\"", Some("a\"b")),
            ("%", None),
            ("%2", None),
            ("%+1", None),
            ("%FF", None),
        ] {
            assert_eq!(header_text(text.as_bytes()).as_deref(), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&headers(&[("content-type", "application/json")]), &body);
            let _ = parse(&headers(&[("content-type", "application/cloudevents+json")]), &body);
            let _ = header_text(&body);
        }
    }
}
