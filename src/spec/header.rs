//! Headers that a connector fixes, and those that nobody may set.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, header};

use super::template::{Known, Mistake, Template};
use crate::domain::document::TableReader;

pub use super::template::Names;

/// A header's value over [`Names`] and the connector's options. `{{` and `}}` are the braces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderTemplate(Template);

impl HeaderTemplate {
    pub(super) fn parse(source: &str, known: Known<'_>) -> Result<Self, Mistake> {
        let fits = source.is_ascii() && HeaderValue::from_str(source).is_ok();
        if source.is_empty() || source.trim() != source || !fits {
            return Err(Mistake {
                message: "no header can hold this".to_owned(),
                hint: Some("use ASCII in one line, without a space at either end".to_owned()),
            });
        }
        Template::parse(source, known).map(Self)
    }

    /// The options that it shows.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        self.0.options()
    }

    /// With the connection's options in their places. The error is the name of an option that has no value.
    pub fn bind<'t>(&'t self, values: &BTreeMap<String, String>) -> Result<Self, &'t str> {
        let line = |value: &str, _| value.chars().map(|c| if c == ' ' { c } else { visible(c) }).collect();
        self.0.bind(values, line).map(Self)
    }

    /// The value when it shows nothing of a delivery, so that it can be made once.
    pub fn fixed(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.0.fixed()?).ok()
    }

    /// The value for one delivery. What is no visible ASCII is shown as `?`, because a header is one line whatever
    /// the platform calls its events.
    pub fn render(&self, names: &Names<'_>) -> HeaderValue {
        let text = self.0.text(names, |value, text| text.extend(value.chars().map(visible)));
        // Literals were checked when parsed and values just now, so this always fits.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("?"))
    }
}

/// The header's name under `key`; what is none is a fault.
pub(super) fn read_name(table: &mut TableReader<'_>, key: &'static str) -> Option<HeaderName> {
    let text = table.text(key)?;
    let name = text.parse().ok();
    if name.is_none() {
        let hint = "a name is letters, digits and hyphens, such as X-Api-Key".to_owned();
        table.fault(key, format!("\"{text}\" is no header name"), Some(hint));
    }
    name
}

fn visible(letter: char) -> char {
    if letter.is_ascii_graphic() { letter } else { '?' }
}

/// Why HTTP or the gateway itself keeps a header; `None` when a file or a connection may set it.
pub fn reserved_by_http(name: &HeaderName) -> Option<&'static str> {
    const FRAMING: [HeaderName; 10] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::ACCEPT_ENCODING,
    ];
    if FRAMING.contains(name) || matches!(name.as_str(), "keep-alive" | "http2-settings") {
        Some("it belongs to HTTP itself")
    } else if name == header::CONTENT_TYPE {
        Some("it says how the body is written")
    } else if name == header::USER_AGENT {
        Some("it says that the gateway sends")
    } else if name.as_str().starts_with("proxy-") {
        Some("it speaks to proxies")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: Known<'_> = Known { names: true, target: false, options: &[], secrets: true };
    const NAMES: Names<'_> = Names { event_type: "lead.captured", event_id: "a\r\nb ü", job_id: "job_1" };

    #[test]
    fn a_header_is_one_line_whatever_the_event_is_called() {
        let cases = [
            ("{event_type}", "lead.captured"),
            ("v1;{event_id};{job_id}", "v1;a??b??;job_1"),
            ("{{x}} a b", "{x} a b"),
        ];
        for (source, wanted) in cases {
            assert_eq!(HeaderTemplate::parse(source, KNOWN).unwrap().render(&NAMES), wanted, "{source}");
        }
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_header(kind in any::<String>(), id in "[\\r\\n :a-z\u{0}\u{85}\u{2028}]{0,16}") {
            let names = Names { event_type: &kind, event_id: &id, job_id: "job_1" };
            let template = HeaderTemplate::parse("{event_type};{event_id};{job_id}", KNOWN).unwrap();
            let value = template.render(&names);
            let text = value.to_str().unwrap();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && text.ends_with(";job_1"));
            prop_assert_eq!(text.len(), kind.chars().count() + id.chars().count() + 7);
            let option = super::super::option::OptionSpec {
                name: "team".to_owned(),
                description: "The team".to_owned(),
                required: true,
                default: None,
                example: None,
                secret: false,
            };
            let known = Known { options: std::slice::from_ref(&option), ..KNOWN };
            let bound = HeaderTemplate::parse("x{team}x", known).unwrap();
            let bound = bound.bind(&BTreeMap::from([("team".to_owned(), format!("{kind}{id}"))])).unwrap();
            prop_assert!(bound.fixed().is_some_and(|value| value.to_str().is_ok()));
        }
    }

    #[test]
    fn only_a_template_without_placeholders_is_made_once() {
        assert_eq!(
            HeaderTemplate::parse("a {{b}}", KNOWN).unwrap().fixed(),
            Some(HeaderValue::from_static("a {b}"))
        );
        assert_eq!(HeaderTemplate::parse("a {job_id}", KNOWN).unwrap().fixed(), None);
    }

    #[test]
    fn options_are_put_in_once_and_stay_one_line() {
        let option = super::super::option::OptionSpec {
            name: "team".to_owned(),
            description: "The team".to_owned(),
            required: true,
            default: None,
            example: None,
            secret: false,
        };
        let known = Known { options: std::slice::from_ref(&option), ..KNOWN };
        let template = HeaderTemplate::parse("{team};{job_id}", known).unwrap();
        let values = BTreeMap::from([("team".to_owned(), "a b\r\nX: 1".to_owned())]);
        assert_eq!(template.bind(&values).unwrap().render(&NAMES), "a b??X: 1;job_1");
        assert_eq!(template.bind(&BTreeMap::new()), Err("team"));
        let fixed = HeaderTemplate::parse("{team}", known).unwrap().bind(&values).unwrap();
        assert_eq!(fixed.fixed(), Some(HeaderValue::from_static("a b??X: 1")));
    }

    #[test]
    fn mistakes_are_told_with_a_hint() {
        let cases = [
            ("{event_typ}", "unknown placeholder \"{event_typ}\"", "did you mean \"event_type\"?"),
            ("{zzz}", "unknown placeholder \"{zzz}\"", "known here: {event_type}, {event_id}, {job_id}"),
            ("{job_id", "a lone \"{\"", "write \"{{\" for the brace itself"),
            ("}", "a lone \"}\"", "write \"}}\" for the brace itself"),
            ("a\r\nb", "no header can hold this", "use ASCII in one line, without a space at either end"),
            ("ü", "no header can hold this", "use ASCII in one line, without a space at either end"),
            ("", "no header can hold this", "use ASCII in one line, without a space at either end"),
        ];
        for (source, message, hint) in cases {
            let mistake = HeaderTemplate::parse(source, KNOWN).unwrap_err();
            assert_eq!(
                (mistake.message.as_str(), mistake.hint.as_deref()),
                (message, Some(hint)),
                "{source}"
            );
        }
    }
}
