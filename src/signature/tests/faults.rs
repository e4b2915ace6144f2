use super::parse;

#[test]
fn every_fault_of_a_table_is_told() {
    for (text, told) in [
        ("", vec!["c.toml:1:1: signature.algorithm: missing\n  hint: add \"algorithm\""]),
        (
            "algorithm = 'hmac_sha265'\nformt = 'x'",
            vec![
                "c.toml:1:13: signature.algorithm: unknown value \"hmac_sha265\"\n  hint: did you mean \"hmac_sha256\"?",
                "c.toml:2:1: signature.formt: unknown key\n  hint: did you mean \"format\"?",
            ],
        ),
        (
            "algorithm = 'hmac_sha256'\ncontent = '{timestmp}'\nencoding = 'base62'\nkey = 'wsec'\ntolerance_secs = 0",
            vec![
                "c.toml:4:7: signature.key: unknown value \"wsec\"\n  hint: did you mean \"whsec\"?",
                "c.toml:2:11: signature.content: unknown placeholder \"{timestmp}\"\n  hint: did you mean \"timestamp\"?",
                "c.toml:3:12: signature.encoding: unknown value \"base62\"\n  hint: did you mean \"base64\"?",
                "c.toml:5:18: signature.tolerance_secs: 0 is outside 1 to 86400",
            ],
        ),
        (
            "algorithm = 'hmac_sha256'\ncontent = '{id}{body}'\nformat = 'x'\n[headers]\n'X Y' = '{signature}'\nHost = '{signature}'\nX-A = '{sig}'\nX-B = 3\nX-C = '{secret}'",
            vec![
                "c.toml:5:1: signature.headers.X Y: \"X Y\" is no header name",
                "c.toml:6:1: signature.headers.Host: \"host\" is set by HTTP itself",
                "c.toml:7:7: signature.headers.X-A: unknown placeholder \"{sig}\"\n  hint: did you mean \"signature\"?",
                "c.toml:8:7: signature.headers.X-B: expected a text, found a whole number",
                "c.toml:3:10: signature.format: must hold {digest} once\n  hint: such as \"sha256={digest}\"",
                "c.toml:9:7: signature.headers.X-C: this would give the HMAC's key away\n  hint: did you mean {signature}?",
            ],
        ),
    ] {
        let faults = parse(text).unwrap_err();
        let found: Vec<String> = faults.list().iter().map(ToString::to_string).collect();
        assert_eq!(found, told, "{text}");
    }
}

#[test]
fn each_rule_of_a_table_refuses() {
    let hmac = |rest: &str| format!("algorithm = 'hmac_sha256'\n{rest}");
    for (text, told) in [
        ("algorithm = 'shared_secret'\nheaders.X-A = '{signature}'".to_owned(), "{signature} needs an HMAC"),
        ("algorithm = 'shared_secret'\nheaders.X-A = '{secret};a'".to_owned(), "must stand once, at the end"),
        ("algorithm = 'shared_secret'".to_owned(), "none carries {secret}"),
        (
            "algorithm = 'shared_secret'\nkey = 'hex'\nheaders.X-A = '{secret}'".to_owned(),
            "says nothing without an HMAC",
        ),
        ("algorithm = 'none'\nheaders.X-A = '{secret}'".to_owned(), "needs algorithm \"shared_secret\""),
        ("algorithm = 'bearer'\nheaders.X-A = '{secret}'".to_owned(), "always in \"Authorization\""),
        (hmac("headers = 3"), "expected a table, found a whole number"),
        (hmac("headers.X-A = '{signature}'\nheaders.x-a = '{id}'"), "header x-a is already written"),
        (hmac("headers.X-A = '{id}{signature}'"), "two placeholders touch"),
        (hmac("headers.X-A = '{event_type}:{signature}'"), "{event_type} needs a header of its own"),
        (hmac("headers.X-A = \"{signature}\\r\\nX-Evil: 1\""), "no header can hold this"),
        (hmac("headers.X-A = ' {signature}'"), "no header can hold this"),
        (hmac("format = \"\\n{digest}\"\nheaders.X-A = '{signature}'"), "no header can hold this"),
        (hmac("join = ' '\nheaders.X-A = 'v1:{signature}'"), "nothing but the joiner may stand beside"),
        (
            hmac("join = ','\nformat = 'v1,{digest}'\nheaders.X-A = '{signature}'"),
            "also occurs in \"format\"",
        ),
        (
            hmac("join = ', '\nformat = 'v1,{digest}'\nheaders.X-A = '{signature}'"),
            "also occurs in \"format\"",
        ),
        (hmac("format = 'v1 {digest} '\nheaders.X-A = '{signature}'"), "no header can hold this"),
        (hmac("join = '='\nheaders.X-A = '{signature}'"), "can't stand between signatures"),
        (hmac("join = ''\nheaders.X-A = '{signature}'"), "can't stand between signatures"),
        (hmac("tolerance_secs = 5\nheaders.X-A = '{signature}'"), "no header carries {timestamp}"),
        (hmac("content = 'a{'\nheaders.X-A = '{signature}'"), "a lone \"{\""),
    ] {
        let faults = parse(&text).unwrap_err();
        assert_eq!(faults.len(), 1, "{text}\n{faults}");
        assert!(faults.to_string().contains(told), "{text}\n{faults}");
    }
}
