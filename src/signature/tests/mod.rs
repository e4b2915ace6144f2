mod faults;
mod properties;
mod vectors;

use http::{HeaderMap, HeaderName, HeaderValue};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::document::Node;
use crate::domain::fault::Faults;
use crate::domain::time::Timestamp;

const STANDARD: &str = r#"
algorithm = "hmac_sha256"
key = "whsec"
content = "{id}.{timestamp}.{body}"
encoding = "base64"
format = "v1,{digest}"
ed25519_format = "v1a,{digest}"
join = " "
tolerance_secs = 300
[headers]
"webhook-id" = "{id}"
"webhook-timestamp" = "{timestamp}"
"webhook-signature" = "{signature}"
"#;
const GITHUB: &str = r#"
algorithm = "hmac_sha256"
format = "sha256={digest}"
headers."X-Hub-Signature-256" = "{signature}"
"#;
const STRIPE: &str = r#"
algorithm = "hmac_sha256"
content = "{timestamp}.{body}"
format = "v1={digest}"
join = ","
headers."Stripe-Signature" = "t={timestamp},{signature}"
"#;
const SLACK: &str = r#"
algorithm = "hmac_sha256"
content = "v0:{timestamp}:{body}"
format = "v0={digest}"
[headers]
"X-Slack-Request-Timestamp" = "{timestamp}"
"X-Slack-Signature" = "{signature}"
"#;
const SHOPIFY: &str = r#"
algorithm = "hmac_sha256"
encoding = "base64"
headers."X-Shopify-Hmac-Sha256" = "{signature}"
"#;
const SHARED: &str = r#"
algorithm = "shared_secret"
[headers]
"X-FC-Event" = "{event_type}"
"X-FC-Signature" = "{secret}"
"#;
const BEARER: &str = "algorithm = 'bearer'";
/// Every key form, hash and placeholder that the others leave out.
const MILLIS: &str = r#"
algorithm = "hmac_sha512"
key = "hex"
content = "{method} {url} {timestamp_ms} {body}"
encoding = "base64"
[headers]
"X-Time" = "{timestamp_ms}"
"X-Sign" = "hmac {signature}"
"#;
const SHA1: &str = r#"
algorithm = "hmac_sha1"
key = "base64"
content = "{id}{timestamp}{body}"
format = "sha1={digest}"
join = "; "
headers."X-Sign" = "id={id}; {signature}; t={timestamp}"
"#;
/// Mailgun's: the signature is in the body and covers a timestamp and a token.
const MAILGUN: &str = r#"
algorithm = "hmac_sha256"
content = "{timestamp}{id}"
[fields]
timestamp = "{timestamp}"
token = "{id}"
signature = "{signature}"
"#;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const SPECS: &[&str] = &[STANDARD, GITHUB, STRIPE, SLACK, SHOPIFY, SHARED, BEARER, MILLIS, SHA1];

fn parse(text: &str) -> Result<SignatureSpec, Faults> {
    let node = Node::from_toml("c.toml", text)?;
    let mut faults = Faults::default();
    let spec = node.table("signature", &mut faults).and_then(SignatureSpec::parse);
    assert_eq!(spec.is_some(), faults.is_empty(), "{faults}");
    spec.ok_or(faults)
}

fn spec(text: &str) -> SignatureSpec {
    parse(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn message<'a>(id: &'a str, seconds: i64, body: &'a [u8]) -> Message<'a> {
    let url = "https://example.com/hook?a=1";
    Message { id, timestamp: at(seconds), event_type: "lead.captured", method: "POST", url, body }
}

fn map(headers: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
    headers.into_iter().collect()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn received<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Received<'a> {
    Received { method: "POST", url: "https://example.com/hook?a=1", headers, body, form: None }
}

fn texts(headers: &[(HeaderName, HeaderValue)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
}

#[test]
fn shared_secrets_travel_as_they_are() {
    for (text, wanted) in [
        (SHARED, vec![("x-fc-event", "lead.captured"), ("x-fc-signature", "hunter2")]),
        (BEARER, vec![("authorization", "Bearer hunter2")]),
    ] {
        let spec = spec(text);
        let key = spec.key("hunter2").unwrap();
        let sent = spec.sign(&[&key], &message("m", 1, b"{}"));
        assert_eq!(texts(&sent), wanted);
        assert!(sent.last().unwrap().1.is_sensitive());
        let other = spec.key("hunter3").unwrap();
        let sent = map(sent);
        assert_eq!(spec.verify(&[&other], &received(&sent, b"{}"), at(9)), Err(VerifyError::Mismatch));
        assert!(spec.verify(&[&other, &key], &received(&sent, b"{}"), at(9)).is_ok());
    }
    let bearer = spec(BEARER);
    let key = bearer.key("hunter2").unwrap();
    let lower = headers(&[("authorization", "bearer hunter2")]);
    assert!(
        bearer.verify(&[&key], &received(&lower, b""), at(9)).is_ok(),
        "RFC 9110 11.1: the scheme has no case"
    );
}

#[test]
fn without_a_secret_headers_that_need_none_are_still_sent() {
    let sent = spec(STANDARD).sign(&[], &message("m", 1, b"{}"));
    assert_eq!(texts(&sent), [("webhook-id", "m"), ("webhook-timestamp", "1")]);
    assert!(spec(GITHUB).sign(&[], &message("m", 1, b"{}")).is_empty());
    assert!(SignatureSpec::none().sign(&[], &message("m", 1, b"{}")).is_empty());
}

#[test]
fn an_unsigned_spec_takes_anything_and_a_signed_one_nothing_without_a_key() {
    let empty = HeaderMap::new();
    let none = spec("algorithm = 'none'");
    assert_eq!(none, SignatureSpec::none());
    assert!(!none.needs_secret());
    assert_eq!(none.verify(&[], &received(&empty, b"x"), at(1)), Ok(Verified::default()));
    assert!(none.check_secret("x").is_err());
    for text in SPECS {
        assert_eq!(spec(text).verify(&[], &received(&empty, b"x"), at(1)), Err(VerifyError::NoSecret));
    }
}

#[test]
fn what_is_sent_badly_is_told() {
    let standard = spec(STANDARD);
    let key = standard.key(SECRET).unwrap();
    let (id, time, signature) = ("webhook-id", "webhook-timestamp", "webhook-signature");
    let good = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    for (pairs, told) in [
        (vec![(time, "1"), (signature, good)], "header webhook-id is missing"),
        (vec![(id, "a"), (signature, good)], "header webhook-timestamp is missing"),
        (vec![(id, "a"), (time, "1")], "header webhook-signature is missing"),
        (
            vec![(id, "a"), (time, "1.5"), (signature, good)],
            "header webhook-timestamp is malformed: expected <timestamp>",
        ),
        (
            vec![(id, "a"), (time, "-1"), (signature, good)],
            "header webhook-timestamp is malformed: expected <timestamp>",
        ),
        (
            vec![(id, "a"), (time, "9999999999999999999999"), (signature, good)],
            "header webhook-timestamp is malformed: expected <timestamp>",
        ),
        (vec![(id, "a.b"), (time, "1"), (signature, good)], "header webhook-id is malformed: expected <id>"),
        (
            vec![(id, "a"), (time, "1"), (signature, "v2,AAAA v1,*")],
            "header webhook-signature is malformed: expected v1,<base64 digest>",
        ),
        (
            vec![(id, "a"), (id, "b"), (time, "1"), (signature, good)],
            "header webhook-id is malformed: expected it once, found it twice",
        ),
        (
            vec![(id, "a"), (time, "1000"), (signature, good)],
            "the signature fits no active secret: check the secret, and that the body's own bytes were signed",
        ),
    ] {
        let error = standard.verify(&[&key], &received(&headers(&pairs), b"{}"), at(1_000)).unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}

#[test]
fn a_timestamp_is_checked_both_ways_to_the_second() {
    for text in [STANDARD, STRIPE, SLACK, MILLIS, SHA1] {
        let spec = spec(text);
        let key = spec.key(&spec.generate_secret([7; 32])).unwrap();
        let sent = map(spec.sign(&[&key], &message("m", 10_000, b"{}")));
        let check = |now| spec.verify(&[&key], &received(&sent, b"{}"), at(now)).map(|found| found.timestamp);
        assert_eq!(check(10_300), Ok(Some(10_000)));
        assert_eq!(check(9_700), Ok(Some(10_000)));
        assert_eq!(check(10_301), Err(VerifyError::TooOld { by_secs: 301, tolerance_secs: 300 }));
        assert_eq!(check(9_699), Err(VerifyError::TooNew { by_secs: 301, tolerance_secs: 300 }));
    }
}

#[test]
fn while_a_secret_is_rotated_either_key_verifies() {
    for (text, both) in [(STANDARD, true), (STRIPE, true), (SHA1, true), (GITHUB, false), (SHARED, false)] {
        let spec = spec(text);
        let [new, old, other] = [1, 2, 3].map(|seed| spec.key(&spec.generate_secret([seed; 32])).unwrap());
        let sent = map(spec.sign(&[&new, &old], &message("m", 5, b"{}")));
        let check = |keys: &[&SigningKey]| spec.verify(keys, &received(&sent, b"{}"), at(5)).is_ok();
        assert!(check(&[&new]), "{text}");
        assert_eq!(check(&[&old]), both, "{text}");
        assert!(check(&[&other, &new]), "{text}");
        assert!(!check(&[&other]), "{text}");
        // And the other way: the sender still has the old secret alone, the receiver knows both.
        let sent = map(spec.sign(&[&old], &message("m", 5, b"{}")));
        assert!(spec.verify(&[&new, &old], &received(&sent, b"{}"), at(5)).is_ok(), "{text}");
    }
}

#[test]
fn a_list_may_come_in_any_order_with_strangers_in_it() {
    let spec = spec(STRIPE);
    let key = spec.key("k").unwrap();
    let sent = spec.sign(&[&key], &message("m", 5, b"{}"));
    let digest = sent[0].1.to_str().unwrap().split_once("v1=").unwrap().1.to_owned();
    for value in [
        format!("v1={digest},t=5"),
        format!("t=5, v0=00ff, v1=ff, v1={digest}"),
        format!("t=5,v1={},x", digest.to_uppercase()),
    ] {
        let headers = headers(&[("stripe-signature", &value)]);
        assert!(spec.verify(&[&key], &received(&headers, b"{}"), at(5)).is_ok(), "{value}");
    }
}

#[test]
fn a_signature_in_the_body_is_read_from_json_and_from_a_form() {
    let spec = spec(MAILGUN);
    assert!(spec.receives_only());
    assert!(!self::spec(STANDARD).receives_only());
    let key = spec.key("key-mailgun").unwrap();
    assert!(spec.sign(&[&key], &message("m", 5, b"{}")).is_empty());
    let digest = "194eb0ec08467ce892a7012fe76d0b69881992924d87c32f703bd84373f32f87";
    let form = format!("recipient=a%40b.c&timestamp=1529006854&token=a8ce0edb2dd8&signature={digest}");
    let json = format!(r#"{{"timestamp":1529006854,"token":"a8ce0edb2dd8","signature":"{digest}"}}"#);
    let form_type = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
    let json_type = headers(&[("content-type", "application/json")]);
    let signed = Some(Sha256::digest("1529006854a8ce0edb2dd8").into());
    let verified = Verified { id: Some("a8ce0edb2dd8".to_owned()), timestamp: Some(1_529_006_854), signed };
    for (headers, body) in [(&form_type, form), (&json_type, json)] {
        let check = |body: &str| spec.verify(&[&key], &received(headers, body.as_bytes()), at(1_529_006_900));
        assert_eq!(check(&body), Ok(verified.clone()));
        assert_eq!(check(&body.replace("a8ce", "a8cf")), Err(VerifyError::Mismatch));
        assert_eq!(check("[").unwrap_err().to_string(), "body field timestamp is missing");
        let error = check(&body.replace("token", "tokem")).unwrap_err();
        assert_eq!(error.to_string(), "body field token is missing");
    }
    let nested = self::spec(&MAILGUN.replace("\ntoken", "\n\"signature.token\""));
    let error = nested.verify(&[&key], &received(&json_type, b"{\"timestamp\":\"5\"}"), at(5)).unwrap_err();
    assert_eq!(error, VerifyError::Missing { slot: Slot::Field("signature.token".to_owned()) });
}

#[test]
fn whatever_stands_in_an_id_headers_are_one_line_each_and_agree_with_the_signature() {
    let spec = spec(STANDARD);
    let key = spec.key(SECRET).unwrap();
    for (id, sent_id) in [("a\r\nX-Evil: 1", "a??X-Evil:?1"), ("ü", "?"), ("", "?"), ("a.1.b", "a?1?b")] {
        let sent = map(spec.sign(&[&key], &message(id, 5, b"{}")));
        assert_eq!(sent["webhook-id"], sent_id);
        assert!(spec.verify(&[&key], &received(&sent, b"{}"), at(5)).is_ok());
    }
    assert!(self::spec(SHARED).key("a\r\nX-Evil: 1").is_err());
}

const ED25519: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const ED25519_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

#[test]
fn an_ed25519_key_signs_after_the_others_and_its_public_half_verifies() {
    let spec = spec(STANDARD);
    let (hmac, private) =
        (spec.key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(), spec.key(ED25519).unwrap());
    let body = br#"{"test": 2432232314}"#;
    let now = Timestamp::from_millis(1_614_265_330_000);
    let message = Message {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: now,
        event_type: "",
        method: "POST",
        url: "",
        body,
    };
    // The first is the published vector of Standard Webhooks, the second that of its first server.
    let both = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= \
        v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
    let headers: HeaderMap = spec.sign(&[&private, &hmac], &message).into_iter().collect();
    assert_eq!(headers["webhook-signature"], both);
    let seed = spec.key("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=").unwrap();
    let alone: HeaderMap = spec.sign(&[&seed], &message).into_iter().collect();
    assert_eq!(alone["webhook-signature"], both[both.find("v1a").unwrap()..]);

    let verify = |headers: &HeaderMap, key: &SigningKey, body: &[u8]| {
        let received = Received { method: "POST", url: "", headers, body, form: None };
        spec.verify(&[key], &received, now).map(|verified| verified.id)
    };
    let public = spec.key(ED25519_PUBLIC).unwrap();
    let other = spec.key("whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    for key in [&public, &private, &hmac] {
        assert!(verify(&headers, key, body).is_ok());
        assert_eq!(verify(&headers, key, b"{}"), Err(VerifyError::Mismatch));
    }
    assert!(verify(&alone, &public, body).is_ok());
    for key in [&hmac, &other] {
        assert_eq!(verify(&alone, key, body), Err(VerifyError::Mismatch));
    }
    assert!(spec.sign(&[&public], &message).iter().all(|(name, _)| name != "webhook-signature"));
}

#[test]
fn an_ed25519_key_of_another_form_is_refused_without_showing_it() {
    let spec = spec(STANDARD);
    for (secret, part) in [
        ("whsk_AAAA", "base64 of 32 bytes"),
        ("whsk_*", "base64 of 32 bytes"),
        (
            "whpk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
            "32 bytes",
        ),
        (
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
            "public half",
        ),
        (ED25519_PUBLIC, "can't sign"),
    ] {
        let reason = spec.check_secret(secret).unwrap_err();
        assert!(reason.contains(part) && !reason.contains(secret), "{reason}");
    }
    assert_eq!(spec.check_secret(ED25519), Ok(()));
}
