//! What the server promises: read once at start, before anything is stored.

use std::str::FromStr;

use redis::{InfoDict, Value};

use super::REPLY;
use super::codec;
use super::keys::Keys;
use super::link::{Link, Step};
use crate::store::{About, StoreError};

/// How long a durable write may take on the server's side.
const WAIT_MILLIS: u64 = 1_500;
/// Raised with every change of the keys or of what lies in them.
const FORMAT: &str = "5";

/// What a stored event has survived when the store says that it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What the server's own settings give.
    #[default]
    Server,
    /// It is on the server's disk.
    Fsync,
    /// This many replicas have it.
    Replicas(u32),
}

/// A text names no durability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected \"server\", \"fsync\" or \"replicas:N\" with N from 1 to 16")]
pub struct InvalidDurability;

impl FromStr for Durability {
    type Err = InvalidDurability;

    fn from_str(text: &str) -> Result<Self, InvalidDurability> {
        match text {
            "server" => Ok(Self::Server),
            "fsync" => Ok(Self::Fsync),
            _ => text
                .strip_prefix("replicas:")
                .and_then(|count| count.parse().ok())
                .filter(|count| (1..=16).contains(count))
                .map(Self::Replicas)
                .ok_or(InvalidDurability),
        }
    }
}

impl Durability {
    /// The command that follows a write and waits for what is promised.
    pub(super) fn command(self) -> Option<redis::Cmd> {
        match self {
            Self::Server => None,
            Self::Fsync => {
                let mut wait = redis::cmd("WAITAOF");
                wait.arg(1).arg(0).arg(WAIT_MILLIS);
                Some(wait)
            }
            Self::Replicas(count) => {
                let mut wait = redis::cmd("WAIT");
                wait.arg(count).arg(WAIT_MILLIS);
                Some(wait)
            }
        }
    }

    /// Whether the answer to [`Self::command`] says that the promise holds.
    pub(super) fn holds(self, answer: Result<Value, StoreError>) -> Result<(), StoreError> {
        let reached = match answer? {
            Value::Array(counts) => counts.first().map_or(Ok(0), codec::count)?,
            value => codec::count(&value)?,
        };
        match self {
            Self::Replicas(count) if reached < u64::from(count) => Err(StoreError::Unavailable(format!(
                "only {reached} of {count} replicas took the write in time; it may be stored"
            ))),
            Self::Fsync if reached < 1 => Err(StoreError::Unavailable(
                "the write was not synced to disk in time; it may be stored".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// The settings that matter here; `None` where the server does not tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub version: String,
    pub policy: Option<String>,
    pub append_only: Option<bool>,
    pub fsync: Option<String>,
    waits: bool,
}

/// Refuses a server that would evict what it keeps or can't give the wanted durability. Gives what it promises, with the
/// warning that an operator has to see, and what has to be waited for: with `appendfsync always` an answer comes after
/// the sync anyway.
pub(super) async fn check(link: &Link, durability: Durability) -> Result<(About, Durability), StoreError> {
    let settings = read(link).await?;
    let notes: Vec<String> =
        [judge(&settings, durability)?, unread(&settings)].into_iter().flatten().collect();
    let note = Some(notes.join(" ")).filter(|note| !note.is_empty());
    let about = About { engine: "redis", shared: true, durability: survives(&settings, durability), note };
    Ok((about, waited_for(&settings, durability)))
}

/// What a write has to wait for: with `appendfsync always` an answer comes after the sync anyway.
fn waited_for(settings: &Settings, durability: Durability) -> Durability {
    let always = settings.fsync.as_deref() == Some("always");
    if durability == Durability::Fsync && always { Durability::Server } else { durability }
}

/// What a managed server did not let this user read, and how to look for oneself.
fn unread(settings: &Settings) -> Option<String> {
    let names: Vec<&str> = [
        ("maxmemory-policy (must be noeviction)", settings.policy.is_none()),
        ("appendonly (should be yes)", settings.append_only.is_none()),
        (
            "appendfsync (always: 202 means on disk; everysec: a second may be lost)",
            settings.fsync.is_none() && settings.append_only != Some(false),
        ),
    ]
    .into_iter()
    .filter_map(|(name, is_unread)| is_unread.then_some(name))
    .collect();
    let list = names.join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "Redis does not let the gateway's user read {list}: look with `redis-cli CONFIG GET '*'` as an administrator, \
             or in the provider's console."
        )
    })
}

/// What an accepted event survives, as [`About`] names it.
fn survives(settings: &Settings, durability: Durability) -> String {
    match (durability, settings.append_only, settings.fsync.as_deref()) {
        (Durability::Replicas(count), ..) => return format!("replicas:{count}"),
        (Durability::Fsync, ..) | (_, Some(true), Some("always")) => "fsync",
        (_, Some(false), _) => "memory",
        (_, Some(true), Some("everysec")) => "everysec",
        (_, Some(true), Some("no")) => "system",
        _ => "unknown",
    }
    .to_owned()
}

pub(super) async fn read(link: &Link) -> Result<Settings, StoreError> {
    let mut info = redis::cmd("INFO");
    info.arg("everything");
    let mut known = redis::cmd("COMMAND");
    known.arg("INFO").arg("WAITAOF");
    let mut settings = Settings::default();
    let told = match link.plain(info, REPLY).await {
        Ok(told) => Some(told),
        // A user that may not ask; any other error is the server's.
        Err(error) if error.to_string().contains("NOPERM") => None,
        Err(error) => return Err(error),
    };
    if let Some(text) = told.and_then(one_text) {
        let info = InfoDict::new(&text);
        settings.version = info.get("redis_version").unwrap_or_default();
        settings.policy = info.get("maxmemory_policy");
        settings.append_only = info.get::<u8>("aof_enabled").map(|enabled| enabled == 1);
    }
    settings.waits = link.plain(known, REPLY).await.is_ok_and(|answer| {
        matches!(&answer, Value::Array(found) if matches!(found.first(), Some(Value::Array(about)) if !about.is_empty()))
    });
    // Managed servers may refuse CONFIG; then INFO has to do.
    for (name, place) in [("maxmemory-policy", 0), ("appendonly", 1), ("appendfsync", 2)] {
        let Some(value) = setting(link, name).await? else { continue };
        match place {
            0 => settings.policy = Some(value),
            1 => settings.append_only = Some(value == "yes"),
            _ => settings.fsync = Some(value),
        }
    }
    Ok(settings)
}

/// One setting of the server, if it tells.
pub(super) async fn setting(link: &Link, name: &str) -> Result<Option<String>, StoreError> {
    let mut config = redis::cmd("CONFIG");
    config.arg("GET").arg(name);
    let answer = link.run(&[Step::Plain(config)], REPLY).await?.pop();
    Ok(answer.and_then(Result::ok).and_then(config_value))
}

/// The text of one server, also where a cluster answers for each of its nodes.
fn one_text(value: Value) -> Option<String> {
    match value {
        Value::Map(nodes) => nodes.into_iter().find_map(|(_, value)| one_text(value)),
        Value::VerbatimString { text, .. } => Some(text),
        value => codec::text(value).ok(),
    }
}

fn config_value(value: Value) -> Option<String> {
    codec::list(value).ok()?.into_iter().nth(1).and_then(one_text)
}

fn judge(settings: &Settings, durability: Durability) -> Result<Option<String>, StoreError> {
    let major = settings.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        return Err(StoreError::Unavailable(format!(
            "Redis {} is too old: the gateway needs Redis 7 or newer, or Valkey",
            settings.version
        )));
    }
    match settings.policy.as_deref() {
        Some("noeviction") | None => {}
        Some(policy) => {
            return Err(StoreError::Unavailable(format!(
                "Redis is set to drop data when its memory is full (maxmemory-policy {policy}), and accepted events with it: \
                 set `maxmemory-policy noeviction` (CONFIG SET maxmemory-policy noeviction)"
            )));
        }
    }
    let always = settings.fsync.as_deref() == Some("always");
    let append_only = settings.append_only == Some(true);
    if durability == Durability::Fsync && !(append_only && (always || settings.waits)) {
        return Err(StoreError::Unavailable(
            "durability = \"fsync\" needs `appendonly yes`, and either a server with WAITAOF (Redis 7.2) or \
             `appendfsync always`"
                .to_owned(),
        ));
    }
    let note = match (settings.append_only, settings.fsync.as_deref()) {
        (Some(false), _) if matches!(durability, Durability::Replicas(_)) => Some(
            "Redis runs without an append-only file: a 202 means that the event is in the memory of the wanted \
             replicas, and is lost if all of them stop. Set `appendonly yes`."
                .to_owned(),
        ),
        (Some(false), _) => Some(
            "Redis runs without an append-only file: a 202 means no more than that the event is in the server's \
             memory, and events accepted since the last snapshot are LOST when it stops. Set `appendonly yes`."
                .to_owned(),
        ),
        (Some(true), Some("everysec")) if durability == Durability::Server => Some(
            "Redis syncs its append-only file once a second: events accepted in the last second may be lost when the \
             machine stops. Set `durability = \"fsync\"` or `appendfsync always` to close the gap."
                .to_owned(),
        ),
        (Some(true), Some("no")) if durability == Durability::Server => Some(
            "Redis leaves it to the system when its append-only file is synced: events of the last half minute may be \
             lost when the machine stops. Set `appendfsync always`."
                .to_owned(),
        ),
        _ => None,
    };
    Ok(note)
}

/// Notes format and partitions where nothing is stored yet, else refuses others; gives the epoch, which is the caller's
/// where there was none.
pub(super) async fn claim_layout(link: &Link, keys: &Keys, epoch: &str) -> Result<String, StoreError> {
    let mut rebuilder = redis::cmd("EXISTS");
    rebuilder.arg(keys.rebuilder());
    if codec::count(&link.plain(rebuilder, REPLY).await?)? > 0 {
        return Err(StoreError::Unavailable(
            "Redis was emptied, and another gateway is writing its records again: start once it is done"
                .to_owned(),
        ));
    }
    note_layout(link, keys).await?;
    let mut set = redis::cmd("SET");
    set.arg(keys.epoch()).arg(epoch).arg("NX").arg("GET");
    let known = codec::bytes(link.plain(set, REPLY).await?)?;
    Ok(known.map_or_else(|| epoch.to_owned(), |known| String::from_utf8_lossy(&known).into_owned()))
}

/// Notes format and partitions where nothing is stored yet, else refuses others.
pub(super) async fn note_layout(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    let partitions = keys.partitions().to_string();
    let set = |field: &str, value: &str| {
        let mut command = redis::cmd("HSETNX");
        command.arg(keys.layout()).arg(field).arg(value);
        Step::Plain(command)
    };
    let mut get = redis::cmd("HMGET");
    get.arg(keys.layout()).arg("format").arg("partitions");
    let steps = [set("format", FORMAT), set("partitions", &partitions), Step::Plain(get)];
    let mut answers = link.run(&steps, REPLY).await?;
    let found = codec::list(answers.pop().unwrap_or(Ok(Value::Nil))?)?;
    for answer in answers {
        answer?;
    }
    let mut found = found.into_iter().map(codec::text);
    let mut next = || found.next().unwrap_or_else(|| Err(codec::strange("no layout")));
    let (format, known) = (next()?, next()?);
    if format != FORMAT {
        return Err(StoreError::Corrupt(format!(
            "these keys were written by another version of the gateway (format {format}, this one knows {FORMAT}): move them with \
             that version to the embedded store (`patchbay store migrate`), and with this one from there to an empty Redis"
        )));
    }
    if known != partitions {
        return Err(StoreError::Unavailable(format!(
            "Redis holds {known} partitions and the configuration asks for {partitions}: keep the number, or move to \
             another prefix with `patchbay store migrate`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(policy: &str, append_only: bool, fsync: &str) -> Settings {
        Settings {
            version: "7.0.15".to_owned(),
            policy: Some(policy.to_owned()),
            append_only: Some(append_only),
            fsync: Some(fsync.to_owned()),
            waits: false,
        }
    }

    #[test]
    fn a_server_that_would_lose_events_is_refused_or_named() {
        let evicts = judge(&settings("allkeys-lru", true, "always"), Durability::Server).unwrap_err();
        assert!(evicts.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{evicts}");
        let memory = judge(&settings("noeviction", false, "always"), Durability::Server).unwrap();
        assert!(memory.unwrap().contains("LOST"));
        assert!(judge(&settings("noeviction", true, "everysec"), Durability::Server).unwrap().is_some());
        assert_eq!(judge(&settings("noeviction", true, "always"), Durability::Server), Ok(None));
        assert!(
            judge(&Settings { version: "6.2.1".to_owned(), ..Settings::default() }, Durability::Server)
                .is_err()
        );
    }

    #[test]
    fn fsync_needs_a_server_that_can() {
        assert_eq!(judge(&settings("noeviction", true, "always"), Durability::Fsync), Ok(None));
        assert!(judge(&settings("noeviction", true, "everysec"), Durability::Fsync).is_err());
        let waits = Settings { waits: true, ..settings("noeviction", true, "everysec") };
        assert_eq!(judge(&waits, Durability::Fsync), Ok(None));
        assert!(judge(&Settings { append_only: Some(false), ..waits }, Durability::Fsync).is_err());
    }

    #[test]
    fn what_a_write_waits_for_follows_the_server() {
        let old = settings("noeviction", true, "always");
        assert_eq!(
            waited_for(&old, Durability::Fsync),
            Durability::Server,
            "the answer comes after the sync"
        );
        let new = Settings { waits: true, ..settings("noeviction", true, "everysec") };
        assert_eq!(waited_for(&new, Durability::Fsync), Durability::Fsync);
        let packed = Durability::Fsync.command().unwrap().get_packed_command();
        assert!(packed.windows(7).any(|word| word == b"WAITAOF"), "{packed:?}");
        let answer = |local: i64| Ok(Value::Array(vec![Value::Int(local), Value::Int(0)]));
        assert_eq!(Durability::Fsync.holds(answer(1)), Ok(()));
        assert!(Durability::Fsync.holds(answer(0)).is_err(), "it was not synced in time");
        assert!(Durability::Replicas(2).holds(Ok(Value::Int(1))).is_err());
        assert_eq!(Durability::Replicas(2).holds(Ok(Value::Int(2))), Ok(()));
        assert_eq!(Durability::Server.command().map(|_| ()), None);
    }

    #[test]
    fn what_could_not_be_read_is_named() {
        assert_eq!(unread(&settings("noeviction", true, "always")), None);
        let note = unread(&Settings { fsync: None, ..settings("noeviction", true, "always") }).unwrap();
        assert!(note.contains("appendfsync") && !note.contains("maxmemory-policy"), "{note}");
        let note = unread(&Settings::default()).unwrap();
        assert!(note.contains("maxmemory-policy") && note.contains("CONFIG GET"), "{note}");
    }

    #[test]
    fn what_an_event_survives_has_a_name() {
        let name = |append_only, fsync, durability| {
            survives(&settings("noeviction", append_only, fsync), durability)
        };
        assert_eq!(name(true, "always", Durability::Server), "fsync");
        assert_eq!(name(true, "everysec", Durability::Fsync), "fsync");
        assert_eq!(name(true, "everysec", Durability::Server), "everysec");
        assert_eq!(name(true, "no", Durability::Server), "system");
        assert_eq!(name(false, "always", Durability::Server), "memory");
        assert_eq!(name(false, "always", Durability::Replicas(2)), "replicas:2");
        assert_eq!(survives(&Settings::default(), Durability::Server), "unknown");
    }

    #[test]
    fn durability_has_three_names() {
        assert_eq!("replicas:2".parse(), Ok(Durability::Replicas(2)));
        assert_eq!("fsync".parse(), Ok(Durability::Fsync));
        for bad in ["", "replicas:0", "replicas:x", "disk"] {
            assert_eq!(bad.parse::<Durability>(), Err(InvalidDurability), "{bad}");
        }
    }
}
