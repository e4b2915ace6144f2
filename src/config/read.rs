//! From the tree of all layers to a checked [`Config`].

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::settings::{SETTINGS, SettingKind, setting_of};
use super::telemetry;
use super::{
    Config, DeliveryConfig, EgressConfig, LimitsConfig, LogConfig, LogFormat, Role, SecretKey, StoreConfig,
};
use crate::connector::google_sheets::GoogleSettings;
use crate::domain::document::{Node, TableReader};
use crate::domain::fault::Faults;
use crate::domain::retention::{MAX_TYPES, Retention};
use crate::domain::secret::Secret;
use crate::service::public::ChatSettings;
use crate::store::redis::RedisSettings;

/// Reads the tree; `None` and faults where something is wrong. Whatever a section holds is read before any of it is given
/// up, so that one fault never hides the next.
pub(super) fn read(root: &Node, secret_key: Option<SecretKey>, faults: &mut Faults) -> Option<Config> {
    let mut table = root.table("", faults)?;
    let listen = parsed(&mut table, "listen", "expected an address and a port such as 127.0.0.1:8080");
    let data_dir = table.text("data_dir").map(PathBuf::from);
    let store = read_store(&mut table);
    let role = read_role(&mut table, store.as_ref());
    let catalogue_dir = table.text("catalogue_dir").map(PathBuf::from);
    let public_url = read_public_url(&mut table);
    let alerts_tenant = section(&mut table, "alerts", |table| {
        parsed(table, "tenant", "expected a tenant's id such as operations")
    });
    let trusted_proxies = read_ranges(&mut table, "trusted_proxies");
    let chat = section(&mut table, "chat", |table| {
        let timeout = seconds(table, "timeout_secs");
        let url = read_chat_url(table);
        let key = read_chat_key(table);
        if key.is_some() && !table.has("upstream_url") {
            let hint = "add chat.upstream_url".to_owned();
            table.fault("upstream_key", "says nothing without an upstream", Some(hint));
        }
        Some(url.zip(timeout).map(|(url, timeout)| ChatSettings { url, key, timeout }))
    });
    let delivery = section(&mut table, "delivery", |table| {
        let (concurrency, lease, drain) =
            (whole(table, "concurrency"), seconds(table, "lease_secs"), seconds(table, "drain_secs"));
        Some(DeliveryConfig { concurrency: concurrency?, lease: lease?, drain: drain? })
    });
    let egress = section(&mut table, "egress", |table| {
        let (allow_http, allow_ranges) = (table.boolean("allow_http"), read_ranges(table, "allow_ranges"));
        let connect_timeout = seconds(table, "connect_timeout_secs");
        Some(EgressConfig { allow_http: allow_http?, allow_ranges, connect_timeout: connect_timeout? })
    });
    let google = section(&mut table, "google", |table| {
        let api_root: Option<Url> =
            parsed(table, "api_root", "expected an address such as https://sheets.googleapis.com/");
        let token_hosts =
            table.texts("token_hosts").unwrap_or_default().into_iter().map(str::to_owned).collect();
        let mut api_root = api_root?;
        if !matches!(api_root.scheme(), "http" | "https") || api_root.query().is_some() {
            let hint = "expected an address such as https://sheets.googleapis.com/".to_owned();
            table.fault("api_root", "must be http or https, without a query", Some(hint));
        }
        if !api_root.path().ends_with('/') {
            let path = format!("{}/", api_root.path());
            api_root.set_path(&path);
        }
        Some(GoogleSettings { api_root, token_hosts })
    });
    let limits = section(&mut table, "limits", read_limits);
    let retention = section(&mut table, "retention", read_retention);
    let telemetry = section(&mut table, "telemetry", telemetry::read);
    let log = section(&mut table, "log", |table| {
        let format = table.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let level = read_level(table);
        Some(LogConfig { level: level?, format: format? })
    });
    table.finish();
    Some(Config {
        listen: listen?,
        data_dir: data_dir?,
        store: match store? {
            StoreConfig::Redis(settings) => {
                StoreConfig::Redis(RedisSettings { retention: retention.clone()?, ..settings })
            }
            StoreConfig::Sqlite => StoreConfig::Sqlite,
        },
        role: role?,
        catalogue_dir,
        public_url,
        alerts_tenant,
        trusted_proxies,
        chat: chat?,
        delivery: delivery?,
        egress: egress?,
        google: google?,
        limits: limits?,
        retention: retention?,
        telemetry: telemetry?,
        log: log?,
        secret_key,
    })
}

fn section<T>(
    table: &mut TableReader<'_>,
    key: &'static str,
    read: impl FnOnce(&mut TableReader<'_>) -> Option<T>,
) -> Option<T> {
    let mut inner = table.table(key)?;
    // Asked for up front: a fault in one key must not make its neighbours look unknown.
    for setting in SETTINGS {
        if let Some(name) = setting.key.strip_prefix(key).and_then(|rest| rest.strip_prefix('.')) {
            inner.has(name);
        }
    }
    let value = read(&mut inner);
    inner.finish();
    value
}

fn seconds(table: &mut TableReader<'_>, key: &'static str) -> Option<Duration> {
    whole(table, key).map(Duration::from_secs)
}

/// A whole number within the bounds of its setting.
pub(super) fn whole<T: TryFrom<i64>>(table: &mut TableReader<'_>, key: &'static str) -> Option<T> {
    let (least, most) = match setting_of(&table.path(key)).map(|setting| setting.kind) {
        Some(SettingKind::Whole(least, most)) => (least, most),
        _ => (0, i64::MAX),
    };
    table.integer_within(key, least, most).and_then(|number| T::try_from(number).ok())
}

pub(super) fn parsed<T: std::str::FromStr>(
    table: &mut TableReader<'_>,
    key: &'static str,
    wanted: &str,
) -> Option<T> {
    let text = table.text(key)?;
    let value = text.parse().ok();
    if value.is_none() {
        table.fault(key, format!("\"{text}\" does not fit"), Some(wanted.to_owned()));
    }
    value
}

fn read_store(table: &mut TableReader<'_>) -> Option<StoreConfig> {
    /// Ways to reach Redis: one server, with TLS, behind sentinels, a cluster.
    const SCHEMES: [&str; 6] = [
        "redis://",
        "rediss://",
        "redis+sentinel://",
        "rediss+sentinel://",
        "redis+cluster://",
        "rediss+cluster://",
    ];
    let redis = section(table, "redis", |table| {
        let partitions = whole(table, "partitions");
        let durability = parsed(table, "durability", "\"server\", \"fsync\" or \"replicas:N\"");
        let ca_file = table.text("ca_file").map(PathBuf::from);
        let prefix = table.text("prefix")?.to_owned();
        if !(1..=32).contains(&prefix.len()) || prefix.contains(['{', '}']) {
            table.fault("prefix", "must be 1 to 32 characters without braces", None);
            return None;
        }
        Some((partitions?, durability?, prefix, ca_file))
    });
    let text = table.text("store")?;
    if text == "sqlite" {
        return Some(StoreConfig::Sqlite);
    }
    if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        // Never the text itself: it may hold a password.
        let hint = "\"sqlite\", or a URL such as redis://127.0.0.1:6379".to_owned();
        table.fault("store", "is no store", Some(hint));
        return None;
    }
    let url = text.to_owned();
    let (partitions, durability, prefix, ca_file) = redis?;
    if ca_file.is_some() && !url.starts_with("rediss") {
        table.fault(
            "redis.ca_file",
            "is of no use without TLS",
            Some("a URL that begins with rediss".to_owned()),
        );
        return None;
    }
    let settings = RedisSettings { partitions, durability, prefix, ca_file, ..RedisSettings::new(url) };
    Some(StoreConfig::Redis(settings))
}

fn read_limits(table: &mut TableReader<'_>) -> Option<LimitsConfig> {
    let events_per_second = whole(table, "events_per_second");
    let requests_in_flight = whole(table, "requests_in_flight");
    let bytes_in_flight: Option<usize> = whole(table, "bytes_in_flight");
    let jobs_per_tenant = whole(table, "jobs_per_tenant");
    let connections_per_tenant = whole(table, "connections_per_tenant");
    let body_bytes = whole(table, "body_bytes");
    if bytes_in_flight.zip(body_bytes).is_some_and(|(all, one): (usize, usize)| all < one) {
        let hint = "the largest body must fit: raise it, or lower limits.body_bytes".to_owned();
        table.fault("bytes_in_flight", "is less than limits.body_bytes", Some(hint));
    }
    let deliveries_per_second = whole(table, "deliveries_per_second");
    let visitor_requests_per_minute = whole(table, "visitor_requests_per_minute");
    Some(LimitsConfig {
        events_per_second: events_per_second?,
        requests_in_flight: requests_in_flight?,
        bytes_in_flight: bytes_in_flight?,
        jobs_per_tenant: jobs_per_tenant?,
        connections_per_tenant: connections_per_tenant?,
        body_bytes: body_bytes?,
        deliveries_per_second: deliveries_per_second?,
        visitor_requests_per_minute: visitor_requests_per_minute?,
    })
}

fn read_role(table: &mut TableReader<'_>, store: Option<&StoreConfig>) -> Option<Role> {
    let roles = [Role::Both, Role::Api, Role::Worker].map(|role| (role.name(), role));
    let role = table.choice("role", &roles)?;
    if role != Role::Both && matches!(store, Some(StoreConfig::Sqlite)) {
        let hint = "the embedded store belongs to one process, which does all: set store to a redis:// URL that every \
                    process reaches, or leave role out";
        table.fault("role", format!("\"{}\" needs Redis as the store", role.name()), Some(hint.to_owned()));
        return None;
    }
    Some(role)
}

fn read_public_url(table: &mut TableReader<'_>) -> Option<Url> {
    let url: Url = parsed(table, "public_url", "expected an address such as https://hooks.example.com")?;
    if matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none() {
        return Some(url);
    }
    let hint = "expected an address such as https://hooks.example.com".to_owned();
    table.fault("public_url", "must be http or https, without a query", Some(hint));
    None
}

fn read_retention(table: &mut TableReader<'_>) -> Option<Retention> {
    const HINT: &str =
        "a type or a family and its days, such as \"conversation.*=1\"; no more than deliveries_days";
    let days = |days: u64| Duration::from_hours(24 * days);
    let all: Option<u64> = whole(table, "deliveries_days");
    let mut types = Vec::new();
    let texts = table.texts("types").unwrap_or_default();
    if texts.len() > MAX_TYPES {
        table.fault("types", format!("are more than {MAX_TYPES}"), None);
    }
    for text in texts {
        let read = text.rsplit_once('=').and_then(|(pattern, count)| {
            let count = count.trim().parse::<u64>().ok().filter(|count| *count > 0)?;
            Some((pattern.trim().parse().ok()?, count))
        });
        match read.filter(|(_, count)| all.is_none_or(|all| *count <= all)) {
            Some((pattern, count)) => types.push((pattern, days(count))),
            None => table.fault("types", format!("\"{text}\" is no retention"), Some(HINT.to_owned())),
        }
    }
    Some(Retention::new(days(all?), types))
}

fn read_chat_url(table: &mut TableReader<'_>) -> Option<Url> {
    let hint = "expected an address such as https://chat.example.com/reply";
    let url: Url = parsed(table, "upstream_url", hint)?;
    if matches!(url.scheme(), "http" | "https") {
        return Some(url);
    }
    table.fault("upstream_url", "must be http or https", Some(hint.to_owned()));
    None
}

fn read_chat_key(table: &mut TableReader<'_>) -> Option<Secret> {
    let key = table.text("upstream_key")?;
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(Secret::new(key));
    }
    let hint = "letters, digits and signs, as in a header; without \"Bearer\"".to_owned();
    table.fault("upstream_key", "is no bearer token", Some(hint));
    None
}

fn read_ranges(table: &mut TableReader<'_>, key: &'static str) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in table.texts(key).unwrap_or_default() {
        let single = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        match text.parse().ok().or_else(single) {
            Some(range) => ranges.push(range),
            None => table.fault(
                key,
                format!("\"{text}\" is no address range"),
                Some("expected one such as 10.1.0.0/16 or fd00::/8".to_owned()),
            ),
        }
    }
    ranges
}

fn read_level(table: &mut TableReader<'_>) -> Option<String> {
    let level = table.text("level")?;
    if level.parse::<tracing_subscriber::EnvFilter>().is_ok() {
        return Some(level.to_owned());
    }
    let hint =
        "one of error, warn, info, debug, trace, or a filter such as \"info,patchbay=debug\"".to_owned();
    table.fault("level", format!("\"{level}\" is no log level"), Some(hint));
    None
}
