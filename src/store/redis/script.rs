//! The Lua scripts: each is one atomic step, run by its hash and sent in full when the server forgot it.

use redis::Cmd;
use sha1::{Digest, Sha1};

/// A script.
#[derive(Debug)]
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(source: String) -> Self {
        let hash = hex::encode(Sha1::digest(source.as_bytes()));
        Self { source, hash }
    }

    /// A script of a partition, which begins with what all of them share.
    fn of_partition(flags: &str, body: &str) -> Self {
        Self::new(format!("#!lua{flags}\n{}{body}", include_str!("lua/partition.lua")))
    }

    /// A script that stands alone.
    fn of_control(flags: &str, body: &str) -> Self {
        Self::new(format!("#!lua{flags}\n{body}"))
    }

    /// The command that runs it by hash; `full` sends its text, which makes the server keep it.
    pub fn command(&self, call: &Call, full: bool) -> Cmd {
        let mut command = redis::cmd(if full { "EVAL" } else { "EVALSHA" });
        command.arg(if full { &self.source } else { &self.hash }).arg(call.keys.len());
        for key in &call.keys {
            command.arg(&key[..]);
        }
        for value in &call.values {
            command.arg(&value[..]);
        }
        command
    }
}

/// Keys and values of one run of a script.
#[derive(Debug, Default)]
pub(super) struct Call {
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
}

impl Call {
    /// With these keys declared.
    pub fn new(keys: Vec<Vec<u8>>) -> Self {
        Self { keys, values: Vec::new() }
    }

    /// Declares a key; the answer is its index in Lua's `KEYS`.
    pub fn key(&mut self, key: Vec<u8>) -> usize {
        self.keys.push(key);
        self.keys.len()
    }

    /// Appends a value.
    pub fn value(&mut self, value: impl Into<Vec<u8>>) -> &mut Self {
        self.values.push(value.into());
        self
    }

    /// Appends a number.
    pub fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        self.value(number.to_string())
    }
}

/// All scripts. Those that free memory or that end what was begun run even when the server's memory is full.
#[derive(Debug)]
pub(super) struct Scripts {
    pub ingest: Script,
    pub scout: Script,
    pub stage: Script,
    pub commit: Script,
    pub apply: Script,
    pub discard: Script,
    pub lease: Script,
    pub settle: Script,
    pub record: Script,
    pub hold: Script,
    pub beat: Script,
    pub reclaim: Script,
    pub rule: Script,
    pub retry: Script,
    pub add_job: Script,
    pub erase: Script,
    pub import: Script,
    pub cancel: Script,
    pub remove: Script,
    pub peek: Script,
    pub stats: Script,
    pub put: Script,
    pub delete: Script,
    pub changes: Script,
    pub mirrored: Script,
    pub spend: Script,
    pub take_hold: Script,
    pub let_go: Script,
    pub rebuilt: Script,
}

impl Scripts {
    pub fn new() -> Self {
        let always = " flags=allow-oom";
        let reads = " flags=no-writes";
        Self {
            ingest: Script::of_partition(
                "",
                concat!(
                    include_str!("lua/dedupe.lua"),
                    include_str!("lua/event.lua"),
                    include_str!("lua/ingest.lua")
                ),
            ),
            scout: Script::of_partition(reads, include_str!("lua/scout.lua")),
            stage: Script::of_partition(
                "",
                concat!(include_str!("lua/dedupe.lua"), include_str!("lua/stage.lua")),
            ),
            commit: Script::of_partition(
                "",
                concat!(include_str!("lua/dedupe.lua"), include_str!("lua/commit.lua")),
            ),
            apply: Script::of_partition(
                always,
                concat!(
                    include_str!("lua/dedupe.lua"),
                    include_str!("lua/event.lua"),
                    include_str!("lua/apply.lua")
                ),
            ),
            discard: Script::of_partition(always, include_str!("lua/discard.lua")),
            lease: Script::of_partition(always, include_str!("lua/lease.lua")),
            settle: Script::of_partition(always, include_str!("lua/settle.lua")),
            record: Script::of_partition(always, include_str!("lua/record.lua")),
            hold: Script::of_partition(always, include_str!("lua/hold.lua")),
            beat: Script::of_partition(always, include_str!("lua/beat.lua")),
            reclaim: Script::of_partition(always, include_str!("lua/reclaim.lua")),
            rule: Script::of_partition(always, include_str!("lua/rule.lua")),
            retry: Script::of_partition("", include_str!("lua/retry.lua")),
            add_job: Script::of_partition(
                "",
                concat!(include_str!("lua/event.lua"), include_str!("lua/add_job.lua")),
            ),
            erase: Script::of_partition(always, include_str!("lua/erase.lua")),
            import: Script::of_partition("", include_str!("lua/import.lua")),
            cancel: Script::of_partition(always, include_str!("lua/cancel.lua")),
            remove: Script::of_partition(always, include_str!("lua/remove.lua")),
            peek: Script::of_partition(always, include_str!("lua/peek.lua")),
            stats: Script::of_partition(reads, include_str!("lua/stats.lua")),
            put: Script::of_control("", include_str!("lua/control_put.lua")),
            delete: Script::of_control(always, include_str!("lua/control_delete.lua")),
            changes: Script::of_control(reads, include_str!("lua/control_changes.lua")),
            mirrored: Script::of_control(always, include_str!("lua/control_mirrored.lua")),
            spend: Script::of_control(always, include_str!("lua/spend.lua")),
            take_hold: Script::of_control(always, include_str!("lua/take_hold.lua")),
            let_go: Script::of_control(always, include_str!("lua/let_go.lua")),
            rebuilt: Script::of_control(always, include_str!("lua/control_rebuilt.lua")),
        }
    }
}
