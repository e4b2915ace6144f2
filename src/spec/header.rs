//! Headers that a connector fixes, and those that nobody may set.

use http::{HeaderName, HeaderValue, header};

use crate::domain::fault::did_you_mean;

/// What a fixed header may show of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// `{event_type}`, such as `lead.captured`.
    pub event_type: &'a str,
    /// `{event_id}`, as the platform gave it.
    pub event_id: &'a str,
    /// `{job_id}`, stable over all attempts.
    pub job_id: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Var {
    EventType,
    EventId,
    JobId,
}

const VARS: &[(&str, Var)] =
    &[("event_type", Var::EventType), ("event_id", Var::EventId), ("job_id", Var::JobId)];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Value(Var),
}

/// A header's value over [`Names`]. `{{` and `}}` are the braces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderTemplate(Vec<Part>);

/// Why a text is no header template, and what would mend it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl HeaderTemplate {
    pub(super) fn parse(source: &str) -> Result<Self, Mistake> {
        let fits = source.is_ascii() && HeaderValue::from_str(source).is_ok();
        if source.is_empty() || source.trim() != source || !fits {
            return Err(Mistake {
                message: "no header can hold this".to_owned(),
                hint: Some("use ASCII in one line, without a space at either end".to_owned()),
            });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(further) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = further;
                continue;
            }
            let Some((name, further)) = (brace == "{").then(|| after.split_once('}')).flatten() else {
                return Err(Mistake {
                    message: format!("a lone \"{brace}\""),
                    hint: Some(format!("write \"{brace}{brace}\" for the brace itself")),
                });
            };
            let Some((_, var)) = VARS.iter().find(|(known, _)| *known == name) else {
                return Err(Mistake {
                    message: format!("unknown placeholder \"{{{name}}}\""),
                    hint: did_you_mean(name, VARS.iter().map(|(known, _)| *known))
                        .or_else(|| Some("known here: {event_type}, {event_id}, {job_id}".to_owned())),
                });
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Value(*var));
            rest = further;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// The value when it shows nothing of a delivery, so that it can be made once.
    pub fn fixed(&self) -> Option<HeaderValue> {
        match self.0.as_slice() {
            [Part::Literal(text)] => HeaderValue::from_str(text).ok(),
            _ => None,
        }
    }

    /// The value for one delivery. What is no visible ASCII is shown as `?`, because a header is one line whatever
    /// the platform calls its events.
    pub fn render(&self, names: &Names<'_>) -> HeaderValue {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Value(var) => {
                    let value = match var {
                        Var::EventType => names.event_type,
                        Var::EventId => names.event_id,
                        Var::JobId => names.job_id,
                    };
                    text.extend(value.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }));
                }
            }
        }
        // Literals were checked when parsed and values just now, so this always fits.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("?"))
    }
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
    use super::*;

    const NAMES: Names<'_> = Names { event_type: "lead.captured", event_id: "a\r\nb ü", job_id: "job_1" };

    #[test]
    fn a_header_is_one_line_whatever_the_event_is_called() {
        let cases = [
            ("{event_type}", "lead.captured"),
            ("v1;{event_id};{job_id}", "v1;a??b??;job_1"),
            ("{{x}} a b", "{x} a b"),
        ];
        for (source, wanted) in cases {
            assert_eq!(HeaderTemplate::parse(source).unwrap().render(&NAMES), wanted, "{source}");
        }
    }

    #[test]
    fn only_a_template_without_placeholders_is_made_once() {
        assert_eq!(
            HeaderTemplate::parse("a {{b}}").unwrap().fixed(),
            Some(HeaderValue::from_static("a {b}"))
        );
        assert_eq!(HeaderTemplate::parse("a {job_id}").unwrap().fixed(), None);
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
            let mistake = HeaderTemplate::parse(source).unwrap_err();
            assert_eq!(
                (mistake.message.as_str(), mistake.hint.as_deref()),
                (message, Some(hint)),
                "{source}"
            );
        }
    }
}
