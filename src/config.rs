//! Configuration: one TOML file, environment variables over it, flags over both; every fault told at once.
//!
//! The settings are rows of [`settings::SETTINGS`]. The layers become one tree of nodes that remember where they came from,
//! and that tree is read strictly: an unknown key in the file, or an unknown `PATCHBAY_` variable, is a fault. This is
//! the only module that reads the environment.

mod environment;
mod in_force;
mod read;
mod secret_key;
pub mod settings;
mod telemetry;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::connector::google_sheets::GoogleSettings;
use crate::domain::document::{Key, Kind, Mark, Node};
use crate::domain::fault::{Fault, Faults, did_you_mean};
use crate::domain::id::TenantId;
use crate::service::public::ChatSettings;
use crate::service::traces::TraceSettings;
use crate::store::redis::RedisSettings;
pub use environment::{
    Environment, inherited_listener, named_variable, own_program, system_name, temporary_dir, wants_color,
};
pub use in_force::{InForce, in_force, without_secrets};
pub use secret_key::SecretKey;
use settings::{SETTINGS, Setting, SettingKind, setting_of};

/// The file that is read when nobody names one.
pub const DEFAULT_FILE: &str = "patchbay.toml";

/// Variables that are not settings: the secret key, and what the client commands read.
const OTHER_VARIABLES: [&str; 5] =
    [SECRET_KEY, "PATCHBAY_CONFIG", "PATCHBAY_URL", "PATCHBAY_KEY", "PATCHBAY_LISTEN_SECRET"];
const SECRET_KEY: &str = "PATCHBAY_SECRET_KEY";
const FILE_LIMIT_BYTES: u64 = 1_048_576;

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve HTTP.
    pub listen: SocketAddr,
    /// The folder of the embedded store and the secret key.
    pub data_dir: PathBuf,
    /// Which store keeps events and jobs.
    pub store: StoreConfig,
    /// What this process does; [`Role::Both`] wherever the store is the embedded one.
    pub role: Role,
    /// The operator's own connectors and mappings.
    pub catalogue_dir: Option<PathBuf>,
    /// By which address others reach this gateway.
    pub public_url: Option<Url>,
    /// The operator's tenant, which is told of alerts about every tenant.
    pub alerts_tenant: Option<TenantId>,
    /// The proxies that tell who a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Where a public chat's messages are answered.
    pub chat: Option<ChatSettings>,
    /// How deliveries run.
    pub delivery: DeliveryConfig,
    /// Where requests may go.
    pub egress: EgressConfig,
    /// Where Google is.
    pub google: GoogleSettings,
    /// What one tenant may use.
    pub limits: LimitsConfig,
    /// For how long events and finished deliveries are kept.
    pub retention: crate::domain::retention::Retention,
    /// What is told to others.
    pub telemetry: TelemetryConfig,
    /// How log lines look.
    pub log: LogConfig,
    /// The key that seals secrets, when the environment gives it.
    pub secret_key: Option<SecretKey>,
}

/// Which store keeps events and jobs.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// The embedded one, in the data folder.
    Sqlite,
    /// A Redis or Valkey server, shared by many gateways; its `retention` is [`Config::retention`].
    Redis(RedisSettings),
}

/// What a process does. Any number of each may run on one Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Both,
    /// Takes events in and answers the API.
    Api,
    /// Delivers; answers nothing but probes.
    Worker,
}

impl Role {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }

    /// Whether it answers the API.
    pub fn serves_api(self) -> bool {
        self != Self::Worker
    }

    /// Whether it delivers.
    pub fn delivers(self) -> bool {
        self != Self::Api
    }
}

/// How deliveries run.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Attempts under way at once, over all connections.
    pub concurrency: usize,
    /// For how long a job is leased.
    pub lease: Duration,
    /// For how long a stopping gateway waits for attempts under way.
    pub drain: Duration,
}

/// Where requests may go.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Whether `http://` is allowed.
    pub allow_http: bool,
    /// Ranges that are reachable though private.
    pub allow_ranges: Vec<IpNet>,
    /// How long reaching an endpoint may take.
    pub connect_timeout: Duration,
}

/// What one tenant, source or visitor may use.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Events a second.
    pub events_per_second: u32,
    /// Requests under way at once in a process.
    pub requests_in_flight: usize,
    /// Bytes of their bodies.
    pub bytes_in_flight: usize,
    /// Open jobs.
    pub jobs_per_tenant: u64,
    /// Connections.
    pub connections_per_tenant: usize,
    /// The largest request body.
    pub body_bytes: usize,
    /// Verified deliveries of a source a second.
    pub deliveries_per_second: u32,
    /// Requests of a visitor to the public paths a minute.
    pub visitor_requests_per_minute: u32,
}

/// What is told to others of what happens here.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// Where traces go; nowhere without.
    pub traces: Option<TraceSettings>,
}

/// How log lines look.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// A level or a filter.
    pub level: String,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A setting given outside the file: by a variable or a flag.
#[derive(Debug, Clone)]
pub struct Given {
    /// The setting's key.
    pub key: &'static str,
    /// How the person gave it, for messages: `--listen`.
    pub name: String,
    /// The value as text.
    pub text: String,
}

impl Config {
    /// Reads `file` ([`DEFAULT_FILE`] where it exists when `None`), the environment over it, and `flags` over both.
    pub fn load(file: Option<&Path>, environment: &Environment, flags: &[Given]) -> Result<Self, Faults> {
        let (name, text) = read_file(file)?;
        Self::from_text(&name, &text, environment, flags)
    }

    /// The catalogue's folder alone, whatever is wrong with the other settings: so that what is wrong with its files can be
    /// told beside that.
    pub fn catalogue_dir(file: Option<&Path>, environment: &Environment, flags: &[Given]) -> Option<PathBuf> {
        let (name, text) = read_file(file).unwrap_or_default();
        let root = layered(&name, &text, &given_by(environment, flags, &mut Faults::default())).ok()?;
        let mut unheard = Faults::default();
        root.table("", &mut unheard)?.text("catalogue_dir").map(PathBuf::from)
    }

    /// Reads a file's text, the environment over it, and `flags` over both.
    pub fn from_text(
        file: &str,
        text: &str,
        environment: &Environment,
        flags: &[Given],
    ) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let given = given_by(environment, flags, &mut faults);
        let root = match layered(file, text, &given) {
            Ok(root) => root,
            Err(syntax) => {
                faults.extend(syntax);
                return Err(faults);
            }
        };
        let secret_key = read_secret_key(environment, &mut faults);
        let mut read = Faults::default();
        let config = read::read(&root, secret_key, &mut read);
        for fault in read.list() {
            faults.push(under_its_given_name(fault.clone(), &given));
        }
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }
}

/// The configuration file's name and text; both empty where there is none and none is named.
fn read_file(file: Option<&Path>) -> Result<(String, String), Faults> {
    let path = match file {
        Some(path) => Some(path),
        None => Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()),
    };
    let Some(path) = path else { return Ok(Default::default()) };
    let name = path.display().to_string();
    match read_bounded(path) {
        Ok(text) => Ok((name, text)),
        Err(message) => {
            let mut faults = Faults::default();
            let hint = file.map(|_| "--config names the file to read".to_owned());
            faults.at_field(&name, message, hint);
            Err(faults)
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let unread = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "cannot be read: there is no such file".to_owned(),
        kind => format!("cannot be read: {kind}"),
    };
    let size = std::fs::metadata(path).map_err(unread)?.len();
    if size > FILE_LIMIT_BYTES {
        return Err(format!("is {size} bytes, more than {FILE_LIMIT_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(unread)
}

/// The file's tree, with the defaults below it and what was given over it.
fn layered(file: &str, text: &str, given: &[Given]) -> Result<Node, Faults> {
    let mut root = Node::from_toml(file, text)?;
    for setting in SETTINGS {
        put_default(&mut root, setting);
    }
    for value in given {
        if let Some(setting) = setting_of(value.key) {
            put(&mut root, setting.key, node_of(setting.kind, &value.text));
        }
    }
    Ok(root)
}

fn given_by(environment: &Environment, flags: &[Given], faults: &mut Faults) -> Vec<Given> {
    let variables: Vec<(String, &Setting)> =
        SETTINGS.iter().map(|setting| (setting.variable(), setting)).collect();
    let mut given = Vec::new();
    // First, so that our own variables go before them.
    for (name, key) in telemetry::VARIABLES {
        if let Some(text) = environment.get(name) {
            given.push(Given { key, name: name.to_owned(), text: text.to_owned() });
        }
    }
    for name in
        environment.names().filter(|name| !telemetry::VARIABLES.iter().any(|(other, _)| name == other))
    {
        if let Some((_, setting)) = variables.iter().find(|(variable, _)| variable == name) {
            let text = environment.get(name).unwrap_or_default().to_owned();
            given.push(Given { key: setting.key, name: name.to_owned(), text });
        } else if !OTHER_VARIABLES.contains(&name) {
            let known = variables.iter().map(|(variable, _)| variable.as_str()).chain(OTHER_VARIABLES);
            let hint = did_you_mean(name, known)
                .or_else(|| Some("`patchbay serve --help` lists every setting".to_owned()));
            faults.at_field(name, "unknown environment variable", hint);
        }
    }
    given.extend_from_slice(flags);
    given
}

/// A fault of a value that stands in no file is told under the name by which it was given.
fn under_its_given_name(mut fault: Fault, given: &[Given]) -> Fault {
    if fault.place.file.is_none() {
        let field = fault.place.field.split('[').next().unwrap_or_default();
        if let Some(value) = given.iter().rev().find(|value| value.key == field) {
            fault.place.field.clone_from(&value.name);
        }
    }
    fault
}

/// A value from the environment as the node that the file would have held; what does not fit stays a text, and the reader
/// tells the fault.
fn node_of(kind: SettingKind, text: &str) -> Node {
    let text = text.trim();
    let plain = || Kind::Text(text.to_owned());
    let kind = match kind {
        SettingKind::Text | SettingKind::OneOf(_) => plain(),
        SettingKind::Flag => match text {
            "true" | "1" => Kind::Boolean(true),
            "false" | "0" => Kind::Boolean(false),
            _ => plain(),
        },
        SettingKind::Whole(..) => text.parse().map_or_else(|_| plain(), Kind::Integer),
        SettingKind::Texts => Kind::List(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node { kind: Kind::Text(item.to_owned()), mark: Mark::default() })
                .collect(),
        ),
    };
    Node { kind, mark: Mark::default() }
}

fn put_default(root: &mut Node, setting: &Setting) {
    if setting.default.is_empty() {
        return;
    }
    let Ok(node) = Node::from_toml("", &format!("value = {}", setting.default)) else { return };
    let Kind::Table(mut entries) = node.kind else { return };
    let Some((_, value)) = entries.pop() else { return };
    if slot(root, setting.key).is_some_and(|(entries, name)| !entries.iter().any(|(key, _)| key.name == name))
    {
        put(root, setting.key, value);
    }
}

fn put(root: &mut Node, key: &str, value: Node) {
    let Some((entries, name)) = slot(root, key) else { return };
    match entries.iter_mut().find(|(key, _)| key.name == name) {
        Some((_, node)) => *node = value,
        None => entries.push((Key { name: name.to_owned(), mark: Mark::default() }, value)),
    }
}

/// The table in which `key` stands, made where it is missing; `None` where the file has something else there, which is a
/// fault of its own.
fn slot<'n, 'k>(root: &'n mut Node, key: &'k str) -> Option<(&'n mut Vec<(Key, Node)>, &'k str)> {
    let Kind::Table(entries) = &mut root.kind else { return None };
    let Some((section, name)) = key.split_once('.') else { return Some((entries, key)) };
    let at = entries.iter().position(|(key, _)| key.name == section).unwrap_or_else(|| {
        let key = Key { name: section.to_owned(), mark: Mark::default() };
        entries.push((key, Node { kind: Kind::Table(Vec::new()), mark: Mark::default() }));
        entries.len() - 1
    });
    slot(&mut entries[at].1, name)
}

fn read_secret_key(environment: &Environment, faults: &mut Faults) -> Option<SecretKey> {
    let key = SecretKey::from_base64(environment.get(SECRET_KEY)?);
    if key.is_none() {
        let hint = "make one with: head -c 32 /dev/urandom | base64".to_owned();
        faults.at_field(SECRET_KEY, "expected 32 bytes in base64", Some(hint));
    }
    key
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
