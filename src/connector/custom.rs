//! A connection's own headers, checked when it is saved.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::fault::{Fault, Faults, key_in_field};
use crate::spec::ConnectorSpec;
use crate::spec::header::reserved_by_http;

const MAX_HEADERS: usize = 32;
/// Name and value together.
const MAX_HEADER_BYTES: usize = 4_096;

/// What stands for a name that is too long or too odd to show.
const MAX_SHOWN_CHARS: usize = 64;

/// Checks a connection's headers against HTTP and its connector. All faults are told at once, at `headers.<name>`;
/// values may be secrets, so no fault shows one and each is marked sensitive.
pub fn check_custom_headers(
    spec: &ConnectorSpec,
    headers: &BTreeMap<String, String>,
) -> Result<HeaderMap, Faults> {
    let mut faults = Faults::default();
    let mut checked = HeaderMap::with_capacity(headers.len().min(MAX_HEADERS));
    if headers.len() > MAX_HEADERS {
        let hint = format!("at most {MAX_HEADERS}");
        faults.push(Fault::at_field("headers", format!("{} headers", headers.len()), Some(hint)));
        return Err(faults);
    }
    for (name, value) in headers {
        match check(spec, name, value) {
            Ok((name, _)) if checked.contains_key(&name) => {
                let hint = "upper and lower case are the same in a header's name";
                faults.push(at(name.as_str(), "is set twice", Some(hint.to_owned())));
            }
            Ok((name, value)) => {
                checked.insert(name, value);
            }
            Err((message, hint)) => faults.push(at(name, message, hint)),
        }
    }
    faults.into_result(checked)
}

fn at(name: &str, message: impl Into<String>, hint: Option<String>) -> Fault {
    let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
    Fault::at_field(format!("headers.{}", key_in_field(&shown)), message, hint)
}

type Refused = (String, Option<String>);

fn check(spec: &ConnectorSpec, name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Refused> {
    let refused = |message: &str, hint: &str| Err((message.to_owned(), Some(hint.to_owned())));
    if name.len() + value.len() > MAX_HEADER_BYTES {
        return refused("is too long", "name and value together are at most 4096 bytes");
    }
    let Ok(parsed) = name.parse::<HeaderName>() else {
        return refused("is no header name", "letters, digits and hyphens, such as X-Api-Key");
    };
    if let Some(why) = reserved_by_http(&parsed) {
        return Err((format!("can't be set: {why}"), Some("leave it out".to_owned())));
    }
    let of_standard = parsed.as_str().starts_with("webhook-");
    if of_standard || spec.request.reserved_headers.contains(&parsed) {
        let message = format!("can't be set: \"{}\" writes it itself", spec.id);
        let message =
            if of_standard { "can't be set: it belongs to Standard Webhooks".to_owned() } else { message };
        return Err((message, Some("choose another name".to_owned())));
    }
    if value.contains(['\r', '\n']) {
        return refused(
            "holds a line break",
            "a header is one line: delete the break, often at the end of a copied key",
        );
    }
    if value.trim() != value {
        return refused("begins or ends with a space", "delete it: receivers do so too");
    }
    // The type itself takes bytes beyond ASCII, which receivers read in different ways.
    match HeaderValue::from_str(value) {
        Ok(mut value_checked) if value.is_ascii() => {
            value_checked.set_sensitive(true);
            Ok((parsed, value_checked))
        }
        _ => refused("holds a character that no header can", "write ASCII; encode anything else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Catalogue;

    fn check_all(headers: &[(&str, &str)]) -> Result<HeaderMap, Faults> {
        let catalogue = Catalogue::load(None).unwrap();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check_custom_headers(catalogue.connector("webhook").unwrap(), &headers)
    }

    #[test]
    fn what_may_be_set_is_marked_sensitive() {
        let checked = check_all(&[("X-Api-Key", "k3y"), ("Authorization", "Bearer abc")]).unwrap();
        assert_eq!(checked["x-api-key"], "k3y");
        assert!(checked.values().all(HeaderValue::is_sensitive));
    }

    #[test]
    fn what_would_break_a_request_or_fake_a_signature_is_refused_without_showing_the_value() {
        let cases = [
            ("Host", "s3cret", "it belongs to HTTP itself"),
            ("content-length", "s3cret", "it belongs to HTTP itself"),
            ("Transfer-Encoding", "s3cret", "it belongs to HTTP itself"),
            ("Connection", "s3cret", "it belongs to HTTP itself"),
            ("Content-Type", "s3cret", "how the body is written"),
            ("User-Agent", "s3cret", "the gateway sends"),
            ("Proxy-Authorization", "s3cret", "it speaks to proxies"),
            ("webhook-signature", "s3cret", "belongs to Standard Webhooks"),
            ("Webhook-New", "s3cret", "belongs to Standard Webhooks"),
            ("X-A", "s3cret\r\nX-Evil: 1", "holds a line break"),
            ("X-A", " s3cret", "begins or ends with a space"),
            ("X-A", "s3cret ü", "holds a character that no header can"),
            ("X A", "s3cret", "is no header name"),
            ("", "s3cret", "is no header name"),
            ("X\r\nEvil", "s3cret", "is no header name"),
        ];
        for (name, value, part) in cases {
            let faults = check_all(&[(name, value)]).unwrap_err();
            let told = faults.to_string();
            assert!(told.contains(part) && told.contains("hint: "), "{name}: {told}");
            assert!(!told.contains("s3cret") && !told.contains('\r'), "{told}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = check_all(&[("Host", "x"), ("X-A", "1"), ("x-a", "2"), ("X-Long", &"v".repeat(4_091))])
            .unwrap_err();
        let fields: Vec<&str> = faults.list().iter().map(|fault| fault.place.field.as_str()).collect();
        assert_eq!(fields, ["headers.Host", "headers.X-Long", "headers.x-a"]);
        assert!(check_all(&[("X-Long", &"v".repeat(4_090))]).is_ok());
        let names: Vec<String> = (0..=MAX_HEADERS).map(|number| format!("x-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(check_all(&many).unwrap_err().len(), 1);
        assert!(check_all(&many[1..]).is_ok());
    }
}
