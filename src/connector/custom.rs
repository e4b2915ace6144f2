//! A connection's own headers, checked when it is saved.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::fault::{Fault, Faults};
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
    Fault::at_field(format!("headers.{}", shown.escape_debug()), message, hint)
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
    let Ok(mut parsed_value) = HeaderValue::from_str(value) else {
        return refused("holds a character that no header can", "write ASCII; encode anything else");
    };
    parsed_value.set_sensitive(true);
    Ok((parsed, parsed_value))
}
