//! Every setting of the gateway as one table, from which defaults, kinds, bounds, `--help` and the README come.

use std::fmt::Write as _;

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// A list of texts; in the environment, separated by commas.
    Texts,
    /// One of these names.
    OneOf(&'static [&'static str]),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key, with its section: `delivery.concurrency`.
    pub key: &'static str,
    /// What it may hold.
    pub kind: SettingKind,
    /// What holds when nobody says otherwise, as TOML; empty for "not set".
    pub default: &'static str,
    /// What it does, in one sentence without a full stop.
    pub meaning: &'static str,
}

impl Setting {
    /// The environment variable that sets it: `PATCHBAY_DELIVERY_CONCURRENCY`.
    pub fn variable(&self) -> String {
        format!("PATCHBAY_{}", self.key.to_uppercase().replace('.', "_"))
    }
}

const fn setting(
    key: &'static str,
    kind: SettingKind,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { key, kind, default, meaning }
}

use SettingKind::{Flag, OneOf, Text, Texts, Whole};

/// Every setting there is, in the order in which people read about them.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        Text,
        "\"127.0.0.1:8080\"",
        "Address and port to serve HTTP on; port 0 takes a free one",
    ),
    setting("data_dir", Text, "\"./patchbay-data\"", "Folder of the embedded store and the secret key"),
    setting(
        "store",
        Text,
        "\"sqlite\"",
        "Which store keeps events and jobs: sqlite, or redis://, redis+sentinel://, redis+cluster:// URL; rediss for TLS",
    ),
    setting(
        "redis.partitions",
        Whole(1, 1_024),
        "16",
        "Partitions that tenants are spread over in Redis; fixed once something is stored",
    ),
    setting(
        "redis.durability",
        Text,
        "\"server\"",
        "What a 202 waits for: server (what the server is set to), fsync, or replicas:N",
    ),
    setting("redis.prefix", Text, "\"pb\"", "What every key in Redis begins with"),
    setting(
        "redis.ca_file",
        Text,
        "",
        "Certificates (PEM) by which Redis is known with TLS, in place of the system's",
    ),
    setting(
        "role",
        OneOf(&["both", "api", "worker"]),
        "\"both\"",
        "What this process does: takes events and answers the API, delivers, or both; one of them alone needs Redis",
    ),
    setting(
        "catalogue_dir",
        Text,
        "",
        "Folder with your own connectors/ and mappings/, added to the built-in ones",
    ),
    setting("public_url", Text, "", "The address by which others reach this gateway, for links"),
    setting(
        "alerts.tenant",
        Text,
        "",
        "The operator's own tenant: its connections are told of alerts about every tenant, where they ask for gateway.*",
    ),
    setting(
        "trusted_proxies",
        Texts,
        "[]",
        "Address ranges of proxies in front of the gateway, whose X-Forwarded-For says who a visitor is",
    ),
    setting(
        "chat.upstream_url",
        Text,
        "",
        "Where the messages of public chats are answered: takes and gives JSON; must be reachable by the egress settings",
    ),
    setting("chat.upstream_key", Text, "", "Shown to the chat's upstream as a bearer token"),
    setting("chat.timeout_secs", Whole(1, 60), "20", "Seconds that the chat's upstream may take to answer"),
    setting(
        "delivery.concurrency",
        Whole(1, 16_384),
        "512",
        "Attempts under way at once, over all connections",
    ),
    setting(
        "delivery.lease_secs",
        Whole(70, 3_600),
        "90",
        "Seconds until a job comes back that a stopped process had taken; more than the longest attempt and its writing",
    ),
    setting(
        "delivery.drain_secs",
        Whole(0, 600),
        "20",
        "Seconds that a stopping gateway waits for attempts under way",
    ),
    setting("egress.allow_http", Flag, "false", "Whether connections may use http:// and not only https://"),
    setting(
        "egress.allow_ranges",
        Texts,
        "[]",
        "Address ranges that are reachable though private, such as \"10.1.0.0/16\"",
    ),
    setting("egress.connect_timeout_secs", Whole(1, 60), "5", "Seconds to reach an endpoint"),
    setting("google.api_root", Text, "\"https://sheets.googleapis.com/\"", "Where the Google Sheets API is"),
    setting(
        "google.token_hosts",
        Texts,
        "[\"oauth2.googleapis.com\"]",
        "Hosts that a service account's key may ask for access tokens",
    ),
    setting(
        "limits.events_per_second",
        Whole(0, 1_000_000),
        "1000",
        "Events a tenant may send in a second, to all processes together; bursts of twice that pass; 0 is no limit",
    ),
    setting(
        "limits.requests_in_flight",
        Whole(1, 65_536),
        "4096",
        "Requests that a process has under way at once before it refuses more (503); probes are let through",
    ),
    setting(
        "limits.bytes_in_flight",
        Whole(65_536, 17_179_869_184),
        "67108864",
        "Bytes of request bodies that a process has in memory at once before it refuses more (503)",
    ),
    setting(
        "limits.jobs_per_tenant",
        Whole(0, 1_000_000_000),
        "0",
        "Jobs of a tenant that may wait to be delivered before its events are refused (429); 0 is no limit",
    ),
    setting("limits.connections_per_tenant", Whole(1, 100_000), "1000", "Connections a tenant may have"),
    setting(
        "limits.body_bytes",
        Whole(1_024, 16_777_216),
        "1048576",
        "The largest request body that is accepted",
    ),
    setting(
        "limits.deliveries_per_second",
        Whole(0, 1_000_000),
        "100",
        "Verified webhooks that a source takes in a second; bursts of twice that pass; 0 is no limit",
    ),
    setting(
        "limits.visitor_requests_per_minute",
        Whole(0, 1_000_000),
        "30",
        "Requests that a visitor may send to the public chat paths in a minute; 0 is no limit",
    ),
    setting(
        "retention.deliveries_days",
        Whole(1, 3_650),
        "7",
        "Days for which events and their finished deliveries are kept",
    ),
    setting(
        "retention.types",
        Texts,
        "[]",
        "Types that are kept shorter, with their days, such as \"conversation.*=1\"; the first that matches counts",
    ),
    setting(
        "telemetry.otlp_endpoint",
        Text,
        "",
        "OpenTelemetry collector that traces are sent to, as OTLP over HTTP with JSON; also OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    setting(
        "telemetry.otlp_headers",
        Texts,
        "[]",
        "Headers of each request to the collector, such as \"x-api-key=abc\"; also OTEL_EXPORTER_OTLP_HEADERS",
    ),
    setting(
        "telemetry.sample_percent",
        Whole(0, 100),
        "100",
        "Of 100 traces that begin at the gateway so many are recorded; a caller's traceparent says for itself",
    ),
    setting("telemetry.tenants", Flag, "false", "Whether spans name the tenant"),
    setting(
        "log.format",
        OneOf(&["text", "json"]),
        "\"text\"",
        "How log lines look; they go to standard error",
    ),
    setting(
        "log.level",
        Text,
        "\"info\"",
        "What is logged: error, warn, info, debug, trace, or a filter such as \"info,patchbay=debug\"",
    ),
];

/// The setting under `key`.
pub fn setting_of(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The settings as a reference for `--help`.
pub fn reference_text() -> String {
    let mut text = String::from(
        "Settings, in patchbay.toml or --config FILE; each also as an environment variable \
         (delivery.concurrency is PATCHBAY_DELIVERY_CONCURRENCY), which goes before the file:\n",
    );
    for Setting { key, default, meaning, .. } in SETTINGS {
        let default = if default.is_empty() { "not set" } else { default };
        let _ = write!(text, "\n  {key} = {default}\n      {meaning}");
    }
    text.push_str(
        "\n\nPATCHBAY_SECRET_KEY (32 bytes in base64, from the environment only) seals stored secrets; \
         without it the key lies in <data_dir>/secret.key.",
    );
    text
}

/// The settings as a Markdown table for the README.
pub fn reference_markdown() -> String {
    let mut text = String::from("| setting | default | meaning |\n|---|---|---|\n");
    for Setting { key, default, meaning, .. } in SETTINGS {
        let default = if default.is_empty() { "not set".to_owned() } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{key}` | {default} | {meaning} |");
    }
    text
}
