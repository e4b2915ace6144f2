use super::*;

/// Published by a system's owner or computed with another implementation.
struct Vector {
    spec: &'static str,
    secret: &'static str,
    id: &'static str,
    seconds: i64,
    body: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

const VECTORS: &[Vector] = &[
    Vector {
        spec: STANDARD,
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        seconds: 1_649_367_553,
        body: r#"{"email":"test@example.com","username":"test_user"}"#,
        headers: &[
            ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            ("webhook-timestamp", "1649367553"),
            ("webhook-signature", "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        ],
    },
    Vector {
        spec: STANDARD,
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        seconds: 1_614_265_330,
        body: r#"{"test": 2432232314}"#,
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
    },
    Vector {
        spec: GITHUB,
        secret: "It's a Secret to Everybody",
        id: "",
        seconds: 1,
        body: "Hello, World!",
        headers: &[(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
    },
    // Slack's documented example.
    Vector {
        spec: SLACK,
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        id: "",
        seconds: 1_531_420_618,
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
               &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
               &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554\
               %2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        headers: &[
            ("x-slack-request-timestamp", "1531420618"),
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ],
    },
    // Computed with another implementation.
    Vector {
        spec: STRIPE,
        secret: "whsec_test",
        id: "msg_1",
        seconds: 1_700_000_000,
        body: r#"{"id":"evt_1"}"#,
        headers: &[(
            "stripe-signature",
            "t=1700000000,v1=c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925",
        )],
    },
    Vector {
        spec: SHOPIFY,
        secret: "hush",
        id: "msg_1",
        seconds: 1_700_000_000,
        body: r#"{"id":"evt_1"}"#,
        headers: &[("x-shopify-hmac-sha256", "+TTNLrIAr++NEmlyRgFUnRYTKAMRFpBc9+Qp7eD6x2I=")],
    },
    Vector {
        spec: MILLIS,
        secret: "00ff10",
        id: "msg_1",
        seconds: 1_700_000_000,
        body: r#"{"id":"evt_1"}"#,
        headers: &[
            ("x-time", "1700000000000"),
            (
                "x-sign",
                "hmac KTfEXJlaeA4HzeRoq9WUIwC44E0iKQCq3gh5Ff1Ke1nTDfr1mhhjJef7xY/J3AIECp7Z+zTKNnCQlBO8W2jO5w==",
            ),
        ],
    },
    Vector {
        spec: SHA1,
        secret: "c2VjcmV0",
        id: "msg_1",
        seconds: 1_700_000_000,
        body: r#"{"id":"evt_1"}"#,
        headers: &[("x-sign", "id=msg_1; sha1=3f2b6ed7b066f8b318438f13de456e20a7b7c333; t=1700000000")],
    },
];

#[test]
fn known_signatures_come_out_and_go_in() {
    for Vector { spec: text, secret, id, seconds, body, headers: wanted } in VECTORS {
        let spec = spec(text);
        assert_eq!(spec.check_secret(secret), Ok(()));
        let key = spec.key(secret).unwrap();
        let sent = spec.sign(&[&key], &message(id, *seconds, body.as_bytes()));
        assert_eq!(texts(&sent), *wanted);
        assert!(spec.header_names().eq(wanted.iter().map(|(name, _)| *name)));
        let verified = spec.verify(&[&key], &received(&map(sent), body.as_bytes()), at(*seconds)).unwrap();
        assert_eq!(verified.timestamp.is_some(), text.contains("{timestamp"), "{text}");
        assert_eq!(verified.id.as_deref(), text.contains("{id}").then_some(*id), "{text}");
    }
}
