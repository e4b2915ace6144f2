use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::spec::Catalogue;

/// Sun, 06 Nov 1994 08:49:37 GMT, the date in RFC 9110's examples.
const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<::http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Answer {
        status,
        headers: map,
        body: Bytes::copy_from_slice(body),
        truncated: false,
        body_complete: true,
        elapsed: Duration::from_millis(12),
    }
}

fn webhook() -> std::sync::Arc<ConnectorSpec> {
    std::sync::Arc::clone(Catalogue::load(None).unwrap().connector("webhook").unwrap())
}

#[test]
fn retry_after_is_seconds_or_a_date_and_bounded() {
    let cases = [
        ("120", Some(120)),
        (" 7 ", Some(7)),
        ("0", Some(1)),
        ("86400", Some(86_400)),
        ("86401", Some(86_400)),
        ("99999999999999999999999999", Some(86_400)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(1)),
        ("Sat, 05 Nov 1994 08:49:37 GMT", Some(1)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("5 s", None),
    ];
    for (text, secs) in cases {
        let headers = answer(503, &[("retry-after", text)], b"").headers;
        assert_eq!(retry_after(&headers, NOW), secs.map(Duration::from_secs), "{text:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
}

#[test]
fn what_went_wrong_is_told_in_plain_words() {
    let peer = || "crm.example:443".to_owned();
    let limit = Duration::from_secs(15);
    let cases = [
        (
            SendError::Timeout { peer: peer(), limit, after_sending: true },
            Outcome::Ambiguous,
            "no answer from crm.example:443 within 15 s; it may have arrived",
        ),
        (
            SendError::Dropped { peer: peer(), detail: "connection reset".to_owned(), after_sending: true },
            Outcome::Ambiguous,
            "the connection to crm.example:443 broke before the answer came: connection reset; it may have arrived",
        ),
        (
            SendError::Connect { peer: peer(), detail: "connection refused".to_owned() },
            Outcome::Retry,
            "could not connect to crm.example:443: connection refused",
        ),
    ];
    for (error, outcome, reason) in cases {
        let wanted = Verdict::plain(outcome, reason);
        assert_eq!(classify(&webhook(), Err(&error), NOW), wanted);
    }
    let refusal = crate::egress::AddressPolicy::default().check_url("https://10.0.0.1/").unwrap_err();
    let verdict = classify(&webhook(), Err(&SendError::Refused(refusal)), NOW);
    assert_eq!(verdict.outcome, Outcome::Retry, "a name may point elsewhere tomorrow");
    assert!(verdict.reason.contains("10.0.0.1 is not a public address"), "{}", verdict.reason);
}

#[test]
fn the_other_sides_words_are_one_bounded_line() {
    for (words, wanted) in [
        (" a\n\tb\u{202e}c\u{7}d ", Some("\"a b c d\"".to_owned())),
        ("", None),
        ("\r\n ", None),
        (&"ü".repeat(301), Some(format!("\"{}…\"", "ü".repeat(300)))),
    ] {
        assert_eq!(quoted(words), wanted);
    }
}

#[test]
fn spans_are_short_to_read() {
    let cases = [(1_000, "1 s"), (1_001, "2 s"), (119_000, "119 s"), (120_000, "2 min"), (121_000, "3 min")];
    for (millis, text) in cases.into_iter().chain([(7_200_000, "2 h"), (9_000_000, "2 h 30 min")]) {
        assert_eq!(span(Duration::from_millis(millis)), text);
    }
}

#[test]
fn an_attempt_keeps_what_a_person_needs() {
    let answer = answer(500, &[("x-request-id", "r1"), ("set-cookie", "session=s3cret")], b"no \xff disk");
    let verdict = classify(&webhook(), Ok(&answer), NOW);
    let kept = attempt(3, NOW, Duration::from_secs(9), Some(&answer), &verdict);
    assert_eq!((kept.number, kept.at, kept.duration_ms, kept.status), (3, NOW, 12, Some(500)));
    assert_eq!(kept.reason, "the endpoint answered 500 Internal Server Error");
    assert_eq!(kept.body, "no \u{fffd} disk");
    let headers: Vec<(&str, &str)> =
        kept.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("x-request-id", "r1"), ("set-cookie", "[hidden]")]);

    let kept = attempt(1, NOW, Duration::from_secs(9), None, &verdict);
    assert_eq!((kept.duration_ms, kept.status, kept.body.as_str()), (9_000, None, ""));
}

#[test]
fn an_attempt_is_bounded_and_cut_between_characters() {
    let body = format!("{}ü", "x".repeat(BODY_LIMIT_BYTES - 1));
    assert_eq!(kept_body(body.as_bytes()), "x".repeat(BODY_LIMIT_BYTES - 1));
    assert_eq!(kept_body(&[0xff; BODY_LIMIT_BYTES]).len(), BODY_LIMIT_BYTES / 3 * 3);
    let long = "v".repeat(7_000);
    let many: Vec<(&str, &str)> = [("x-a", long.as_str()); 5].to_vec();
    let kept = kept_headers(&answer(200, &many, b"").headers);
    let size: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert_eq!((kept.len(), size), (3, HEADERS_LIMIT_BYTES), "the last one is cut to what room is left");
}

proptest! {
    #[test]
    fn whatever_comes_back_is_kept_within_bounds(body: Vec<u8>, value in "[ -~]{0,40}") {
        let answer = answer(503, &[("retry-after", value.as_str())], &body);
        let verdict = classify(&webhook(), Ok(&answer), NOW);
        prop_assert!(verdict.retry_after.is_none_or(|span| span >= RETRY_AFTER_LEAST && span <= RETRY_AFTER_CAP));
        let kept = attempt(1, NOW, Duration::ZERO, Some(&answer), &verdict);
        prop_assert!(kept.body.len() <= BODY_LIMIT_BYTES);
    }
}
