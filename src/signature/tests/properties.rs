use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn any_spec() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(SPECS)
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        text in any_spec(), seed: [u8; 32], id in ".{0,12}", event_type in ".{0,8}",
        body in proptest::collection::vec(any::<u8>(), 0..300), seconds in 0..5_000_000_000_i64, off in -300..=300_i64,
    ) {
        let spec = spec(text);
        let key = spec.key(&spec.generate_secret(seed)).unwrap();
        let message = Message { event_type: &event_type, ..message(&id, seconds, &body) };
        let sent = spec.sign(&[&key], &message);
        prop_assert_eq!(sent.len(), spec.header_names().count());
        prop_assert!(spec.verify(&[&key], &received(&map(sent), &body), at(seconds + off)).is_ok());
    }

    #[test]
    fn any_secret_of_text_signs_or_is_refused(text in any_spec(), secret in ".{0,40}", body in ".{0,20}") {
        let spec = spec(text);
        match spec.key(&secret) {
            Ok(key) => {
                prop_assert_eq!(spec.check_secret(&secret), Ok(()));
                let sent = map(spec.sign(&[&key], &message("m", 5, body.as_bytes())));
                prop_assert!(spec.verify(&[&key], &received(&sent, body.as_bytes()), at(5)).is_ok());
            }
            Err(error) => prop_assert_eq!(spec.check_secret(&secret), Err(error.to_string())),
        }
    }

    #[test]
    fn one_flipped_bit_of_body_or_secret_fails(
        text in any_spec(), seed: [u8; 32], body in proptest::collection::vec(any::<u8>(), 1..100), at_bit: prop::sample::Index,
    ) {
        let spec = spec(text);
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let bit = at_bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let key = spec.key(&spec.generate_secret(seed)).unwrap();
        let sent = map(spec.sign(&[&key], &message("m", 5, &body)));
        let other = spec.key(&spec.generate_secret(flip(&seed).try_into().unwrap())).unwrap();
        prop_assert_eq!(spec.verify(&[&other], &received(&sent, &body), at(5)), Err(VerifyError::Mismatch));
        if text != SHARED && text != BEARER {
            prop_assert_eq!(spec.verify(&[&key], &received(&sent, &flip(&body)), at(5)), Err(VerifyError::Mismatch));
        }
    }

    #[test]
    fn one_flipped_bit_of_a_header_fails(text in any_spec(), seed: [u8; 32], at_bit: prop::sample::Index) {
        let spec = spec(text);
        let key = spec.key(&spec.generate_secret(seed)).unwrap();
        let mut sent = spec.sign(&[&key], &message("msg_1", 1_700_000_000, b"{}"));
        sent.retain(|(name, _)| name != "x-fc-event");
        let carrier = at_bit.index(sent.len());
        let whole = sent[carrier].1.as_bytes().to_vec();
        let bit = at_bit.index(whole.len() * 8);
        let mut bent = whole.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        // Hex digits and the name of the Bearer scheme have no case.
        prop_assume!(!(matches!(text, GITHUB | STRIPE | SLACK | SHA1 | BEARER) && bent.eq_ignore_ascii_case(&whole)));
        let Ok(value) = HeaderValue::from_bytes(&bent) else { return Ok(()) };
        sent[carrier].1 = value;
        let now = at(1_700_000_000);
        let refused = spec.verify(&[&key], &received(&map(sent), b"{}"), now).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn no_header_makes_it_panic(text in any_spec(), value in "[ -~]{0,60}", number in 0..3_usize) {
        let spec = spec(text);
        let key = spec.key(&spec.generate_secret([1; 32])).unwrap();
        let mut sent = map(spec.sign(&[&key], &message("m", 5, b"{}")));
        let name = spec.header_names().nth(number % spec.header_names().count()).unwrap().to_owned();
        sent.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(&value).unwrap());
        drop(spec.verify(&[&key], &received(&sent, b"{}"), at(5)));
    }
}
