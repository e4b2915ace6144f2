use super::*;

fn parse(text: &str) -> Result<AnswerRules, Faults> {
    let node = Node::from_toml("c.toml", text).unwrap();
    let mut faults = Faults::default();
    let mut table = node.table("", &mut faults).unwrap();
    let rules = AnswerRules::parse(&mut table);
    table.finish();
    faults.into_result(rules)
}

#[test]
fn without_rules_the_default_ones_hold() {
    let rules = parse("").unwrap();
    assert_eq!(rules, AnswerRules::default());
    let cases = [
        (200, false, Outcome::Delivered),
        (299, true, Outcome::Delivered),
        (301, false, Outcome::Retry),
        (400, false, Outcome::Retry),
        (401, false, Outcome::Retry),
        (408, false, Outcome::Retry),
        (410, true, Outcome::Gone),
        (425, false, Outcome::Retry),
        (429, false, Outcome::Retry),
        (429, true, Outcome::Throttled),
        (500, true, Outcome::Retry),
        (503, false, Outcome::Retry),
        (503, true, Outcome::Throttled),
        (999, false, Outcome::Retry),
    ];
    for (status, retry_after, wanted) in cases {
        assert_eq!(rules.outcome(status, retry_after), wanted, "{status} {retry_after}");
    }
}

#[test]
fn a_files_rules_come_first_and_the_first_that_matches_wins() {
    let rules = parse(
        "[[answer]]\nstatus = [401, \"403\"]\noutcome = 'auth_failed'\n\
         [[answer]]\nstatus = '408-408'\noutcome = 'retry'\n\
         [[answer]]\nstatus = 429\nretry_after = false\noutcome = 'rejected'\n\
         [[answer]]\nstatus = '400-428'\noutcome = 'rejected'\n",
    )
    .unwrap();
    let cases = [
        (401, Outcome::AuthFailed),
        (403, Outcome::AuthFailed),
        (404, Outcome::Rejected),
        (408, Outcome::Retry),
        (410, Outcome::Rejected),
        (429, Outcome::Rejected),
        (204, Outcome::Delivered),
    ];
    for (status, wanted) in cases {
        assert_eq!(rules.outcome(status, false), wanted, "{status}");
    }
    assert_eq!(rules.outcome(429, true), Outcome::Throttled);
}

#[test]
fn every_fault_of_the_rules_is_told() {
    let faults = parse(
        "[[answer]]\nstatus = '6xx'\noutcome = 'retry'\n\
         [[answer]]\nstatus = ['4xx', 'foo', 410, '499-400']\noutcome = 'dropped'\n\
         [[answer]]\nstatus = '5xx'\noutcome = 'retry'\n\
         [[answer]]\nstatus = 503\noutcome = 'retry'\n\
         [[answer]]\noutcom = 'gone'\n",
    )
    .unwrap_err();
    let told: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "c.toml:2:10: answer[0].status: no HTTP statuses\n  hint: statuses are 100 to 599, the smaller one first",
            "c.toml:5:18: answer[1].status[1]: no HTTP statuses\n  hint: such as 410, \"410\", \"4xx\" or \"400-499\"",
            "c.toml:5:30: answer[1].status[3]: no HTTP statuses\n  hint: statuses are 100 to 599, the smaller one first",
            "c.toml:6:11: answer[1].outcome: unknown value \"dropped\"\n  hint: one of delivered, duplicate, retry, throttled, auth_failed, rejected, gone, ambiguous",
            "c.toml:10:1: answer[3]: never applies: the rules before it take all of its statuses\n  hint: move it up, or delete it",
            "c.toml:13:1: answer[4].status: missing\n  hint: add \"status\"",
            "c.toml:13:1: answer[4].outcome: missing\n  hint: add \"outcome\"",
            "c.toml:14:1: answer[4].outcom: unknown key\n  hint: did you mean \"outcome\"?",
        ]
    );
}

fn judged(rules: &AnswerRules, status: u16, body: &str) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("x-error", "Quota used up".parse().unwrap());
    rules.judge(&Seen::new(status, &headers, body.as_bytes(), false)).outcome
}

#[test]
fn a_rule_may_read_headers_and_the_body() {
    let rules = parse(
        "[[answer]]\nstatus = '2xx'\nbody = { path = '$.status', code = 200 }\noutcome = 'delivered'\n\
         [[answer]]\nstatus = '2xx'\nbody = { path = '$.status', code = ['400', '402-499'] }\noutcome = 'rejected'\n\
         [[answer]]\nstatus = '2xx'\nbody = [{ path = '$.ok', eq = true }, { path = '$.id', exists = true }]\noutcome = 'duplicate'\n\
         [[answer]]\nstatus = '2xx'\nempty = true\noutcome = 'ambiguous'\n\
         [[answer]]\nstatus = '2xx'\njson = false\noutcome = 'retry'\n\
         [[answer]]\nstatus = '2xx'\noutcome = 'rejected'\nsay = 'the answer has no status'\n\
         [[answer]]\nstatus = '4xx'\ntext = '(?i)please unsubscribe'\noutcome = 'gone'\n\
         [[answer]]\nstatus = 403\nbody = { path = '$[*].errorCode', in = ['LIMIT', 'BUSY'] }\noutcome = 'throttled'\nwait_secs = 900\n\
         [[answer]]\nstatus = 402\nheader = { name = 'X-Error', matches = 'Quota' }\noutcome = 'throttled'\n",
    )
    .unwrap();
    for (status, body, wanted) in [
        (200, r#"{"status": 200}"#, Outcome::Delivered),
        (201, r#"{"status": " 200 "}"#, Outcome::Delivered),
        (200, r#"{"status": 200.0}"#, Outcome::Delivered),
        (200, r#"{"status": true}"#, Outcome::Rejected),
        (200, r#"{"status": "404"}"#, Outcome::Rejected),
        (200, r#"{"status": 401}"#, Outcome::Rejected),
        (200, r#"{"ok": true, "id": 7}"#, Outcome::Duplicate),
        (200, r#"{"ok": true, "id": null}"#, Outcome::Rejected),
        (204, " \n", Outcome::Ambiguous),
        (200, "<html>", Outcome::Retry),
        (404, "Please unsubscribe me!", Outcome::Gone),
        (403, r#"[{"errorCode": "X"}, {"errorCode": "BUSY"}]"#, Outcome::Throttled),
        (403, r#"[{"errorCode": "X"}]"#, Outcome::Retry),
        (402, "", Outcome::Throttled),
    ] {
        assert_eq!(judged(&rules, status, body), wanted, "{status} {body}");
    }
    let headers = HeaderMap::new();
    let seen = Seen::new(200, &headers, b"{}", false);
    assert_eq!(rules.judge(&seen).say, Some("the answer has no status"));
    let seen = Seen::new(403, &headers, br#"[{"errorCode": "LIMIT"}]"#, false);
    assert_eq!(rules.judge(&seen).wait, Some(Duration::from_mins(15)));
    assert!(rules.read_body(200) && !rules.read_body(500));
}

#[test]
fn a_5xx_is_tried_again_whatever_its_body_says() {
    for outcome in ["delivered", "duplicate", "rejected", "gone"] {
        let rules = parse(&format!(
            "[[answer]]\nstatus = '100-599'\nbody = {{ path = '$.status', code = 200 }}\noutcome = '{outcome}'\n"
        ))
        .unwrap();
        for status in 500..=599 {
            assert_eq!(judged(&rules, status, r#"{"status": 200}"#), Outcome::Retry, "{outcome} {status}");
        }
        let faults = parse(&format!("[[answer]]\nstatus = '5xx'\noutcome = '{outcome}'\n")).unwrap_err();
        assert!(faults.to_string().contains("never a success"), "{faults}");
    }
}

#[test]
fn faults_of_what_a_rule_asks_are_told() {
    let faults = parse(
        "[[answer]]\nstatus = 200\nbody = { path = 'status', code = 'x' }\nheader = { name = 'a b', eq = 1 }\n\
         text = '('\nwait_secs = 5\noutcome = 'retry'\nsay = ' '\n\
         [[answer]]\nstatus = 201\nbody = [{ path = '$.a' }, { path = '$.a', eq = 1, in = [1] }, { path = '$.a', codes = 1 }]\noutcome = 'retry'\n",
    )
    .unwrap_err()
    .to_string();
    for wanted in [
        "answer[0].body.path: \"status\" is no JSONPath",
        "answer[0].body.code: no codes",
        "answer[0].header.name: \"a b\" is no header name",
        "answer[0].text: not a pattern",
        "answer[0].wait_secs: only a throttled lane waits",
        "answer[0].say: expected 1 to 200 characters",
        "answer[1].body[0].eq: nothing is asked",
        "answer[1].body[1].in: stands beside \"eq\"",
        "answer[1].body[2].codes: unknown key",
    ] {
        assert!(faults.contains(wanted), "missing: {wanted}\nin:\n{faults}");
    }
}
