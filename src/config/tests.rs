use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn faults(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let faults = Config::from_text("patchbay.toml", text, &environment(pairs), &[]).unwrap_err();
    faults.list().iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = Config::from_text("", "", &Environment::default(), &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir, Path::new("./patchbay-data"));
    assert_eq!(config.delivery.concurrency, 512);
    assert_eq!(config.delivery.drain, Duration::from_secs(20));
    assert_eq!(config.retention, Duration::from_hours(24 * 7).into());
    assert!(!config.egress.allow_http && config.egress.allow_ranges.is_empty());
    assert!(config.catalogue_dir.is_none() && config.public_url.is_none());
}

#[test]
fn types_are_kept_shorter_than_the_rest() {
    let text = "[retention]\ndeliveries_days = 5\ntypes = ['conversation.*=1', 'lead.captured = 5']\n";
    let config = Config::from_text("patchbay.toml", text, &Environment::default(), &[]).unwrap();
    for (kind, days) in [("conversation.ended", 1), ("lead.captured", 5), ("rating.given", 5)] {
        assert_eq!(config.retention.of(kind), Duration::from_hours(24 * days), "{kind}");
    }
    let told = faults("[retention]\ntypes = ['a=0', 'a=8', 'a', 'a b=1']\n", &[]);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1].contains("retention.types: \"a=8\" is no retention"), "{told:?}");
}

#[test]
fn flags_go_before_variables_and_variables_before_the_file() {
    let text = "listen = '127.0.0.1:1'\n[delivery]\nconcurrency = 1\n[log]\nformat = 'json'\n";
    let environment = environment(&[
        ("PATCHBAY_LISTEN", "127.0.0.1:2"),
        ("PATCHBAY_DELIVERY_CONCURRENCY", "2"),
        ("PATCHBAY_EGRESS_ALLOW_HTTP", "1"),
        ("PATCHBAY_EGRESS_ALLOW_RANGES", "127.0.0.0/8, ::1"),
        ("PATCHBAY_LOG_LEVEL", ""),
        ("PATCHBAY_SERVICE_HOST", "10.0.0.1"),
        ("PATCHBAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOME", "/root"),
    ]);
    let flags = [Given { key: "listen", name: "--listen".to_owned(), text: "127.0.0.1:3".to_owned() }];
    let config = Config::from_text("patchbay.toml", text, &environment, &flags).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.delivery.concurrency, 2);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "info");
    assert!(config.egress.allow_http);
    assert_eq!(config.egress.allow_ranges.len(), 2);
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_a_hint() {
    let text = "lisen = '127.0.0.1:8080'\nstore = 'redis'\npublic_url = 'ftp://x'\n[delivery]\nconcurrency = 0\n\
                lease_secs = 'long'\nretries = 3\n[egress]\nallow_ranges = ['10.0.0.0/8', 'everything']\n[log]\n\
                format = 'jsn'\nlevel = 'a=b=c'\n";
    let told = faults(text, &[("PATCHBAY_LIMITS_BODY_BYTES", "lots"), ("PATCHBAY_DELIVRY_CONCURRENCY", "3")]);
    assert_eq!(
        told,
        [
            "PATCHBAY_DELIVRY_CONCURRENCY: unknown environment variable\n  hint: did you mean \
             \"PATCHBAY_DELIVERY_CONCURRENCY\"?",
            "patchbay.toml:2:9: store: is no store\n  hint: \"sqlite\", or a URL such as \
             redis://127.0.0.1:6379",
            "patchbay.toml:3:14: public_url: must be http or https, without a query\n  hint: expected an \
             address such as https://hooks.example.com",
            "patchbay.toml:5:15: delivery.concurrency: 0 is outside 1 to 16384",
            "patchbay.toml:6:14: delivery.lease_secs: expected a whole number, found a text",
            "patchbay.toml:7:1: delivery.retries: unknown key\n  hint: known here: concurrency, lease_secs, \
             drain_secs",
            "patchbay.toml:9:16: egress.allow_ranges: \"everything\" is no address range\n  hint: expected \
             one such as 10.1.0.0/16 or fd00::/8",
            "PATCHBAY_LIMITS_BODY_BYTES: expected a whole number, found a text",
            "patchbay.toml:11:10: log.format: unknown value \"jsn\"\n  hint: did you mean \"json\"?",
            "patchbay.toml:12:9: log.level: \"a=b=c\" is no log level\n  hint: one of error, warn, info, \
             debug, trace, or a filter such as \"info,patchbay=debug\"",
            "patchbay.toml:1:1: lisen: unknown key\n  hint: did you mean \"listen\"?",
        ]
    );
}

#[test]
fn the_embedded_store_has_one_process_that_does_all() {
    let told = faults("role = 'worker'", &[]);
    assert!(
        told[0].starts_with("patchbay.toml:1:8: role: \"worker\" needs Redis as the store\n  hint: "),
        "{told:?}"
    );
    let environment = environment(&[("PATCHBAY_ROLE", "api"), ("PATCHBAY_STORE", "redis://localhost")]);
    let config = Config::from_text("", "", &environment, &[]).unwrap();
    assert_eq!(config.role, Role::Api);
    assert!(config.role.serves_api() && !config.role.delivers());
}

#[test]
fn a_section_that_is_no_table_and_broken_toml_are_faults() {
    assert_eq!(faults("log = 3", &[]), ["patchbay.toml:1:7: log: expected a table, found a whole number"]);
    assert!(faults("listen = ", &[])[0].starts_with("patchbay.toml:1:"));
}

#[test]
fn a_secret_key_is_32_bytes_and_is_never_shown() {
    let told = faults("", &[("PATCHBAY_SECRET_KEY", "c2hvcnQ=")]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("PATCHBAY_SECRET_KEY: expected 32 bytes in base64"), "{told:?}");
    assert!(!told[0].contains("c2hvcnQ"));
    let given = environment(&[("PATCHBAY_SECRET_KEY", &STANDARD.encode([7; 32]))]);
    let config = Config::from_text("", "", &given, &[]).unwrap();
    assert_eq!(config.secret_key.as_ref().unwrap().reveal(), &[7; 32]);
    assert!(format!("{config:?}{given:?}").contains("[secret]"));
    assert!(!format!("{config:?}{given:?}").contains(&STANDARD.encode([7; 32])));
}

#[test]
fn a_named_file_that_is_missing_is_a_fault() {
    let faults = Config::load(Some(Path::new("no/such.toml")), &Environment::default(), &[]).unwrap_err();
    assert!(faults.list()[0].to_string().starts_with("no/such.toml: cannot be read"), "{faults}");
}

#[test]
fn one_fault_of_a_section_hides_no_other() {
    let text = SETTINGS
        .iter()
        .filter(|setting| setting.key.contains('.'))
        .fold(String::new(), |text, setting| text + &format!("{} = {{}}\n", setting.key));
    let told = faults(&text, &[]);
    for setting in SETTINGS.iter().filter(|setting| setting.key.contains('.')) {
        assert!(
            told.iter().any(|fault| fault.contains(&format!("{}: ", setting.key))),
            "{}: {told:?}",
            setting.key
        );
    }
}

#[test]
fn the_catalogues_folder_is_found_whatever_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patchbay.toml");
    std::fs::write(&file, "lisen = 1\ncatalogue_dir = 'mine'\n").unwrap();
    let found = |pairs| Config::catalogue_dir(Some(&file), &environment(pairs), &[]);
    assert_eq!(found(&[]), Some(PathBuf::from("mine")));
    assert_eq!(found(&[("PATCHBAY_CATALOGUE_DIR", "other")]), Some(PathBuf::from("other")));
    std::fs::write(&file, "lisen = 1").unwrap();
    assert_eq!(found(&[]), None);
}

#[test]
fn every_setting_is_read_by_its_own_kind() {
    for setting in SETTINGS {
        let wrong = match setting.kind {
            SettingKind::Text | SettingKind::OneOf(_) => "7",
            _ => "{ a = 1 }",
        };
        let text = format!("{} = {wrong}", setting.key);
        let told = faults(&text, &[]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&format!("{}: expected", setting.key)), "{told:?}");
        assert!(settings::reference_text().contains(setting.meaning));
        assert!(settings::reference_markdown().contains(setting.key));
    }
}

#[test]
fn opentelemetrys_variables_are_other_names_and_ours_go_before_them() {
    let traces = |pairs: &[(&str, &str)]| {
        Config::from_text("", "", &environment(pairs), &[]).unwrap().telemetry.traces
    };
    assert!(traces(&[]).is_none(), "nothing is told unless someone asks for it");
    let theirs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a=b, x-other=2"),
        ("OTEL_SERVICE_NAME", "what others may need"),
    ];
    let settings = traces(&theirs).unwrap();
    assert_eq!(settings.url.as_str(), "http://127.0.0.1:4318/v1/traces");
    let headers: Vec<_> =
        settings.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("x-key", "a=b"), ("x-other", "2")]);
    assert!(!format!("{settings:?}").contains("a=b"));
    assert_eq!((settings.sample_percent, settings.names_tenants), (100, false));
    let ours = [&theirs[..], &[("PATCHBAY_TELEMETRY_OTLP_ENDPOINT", "https://collector.example/otlp/")]];
    assert_eq!(traces(&ours.concat()).unwrap().url.as_str(), "https://collector.example/otlp/v1/traces");
    let told = faults("[telemetry]\notlp_endpoint = 'ftp://x'\notlp_headers = ['key: secret']", &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!format!("{told:?}").contains("secret"));
}
