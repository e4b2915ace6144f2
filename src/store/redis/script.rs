//! The Lua scripts: each is one atomic step, run by its hash and sent in full when the server forgot it.

mod constants;
mod unused;

use std::io::Write;
use std::sync::Arc;

use redis::Cmd;
use sha1::{Digest, Sha1};

use super::Durability;

/// A script.
#[derive(Debug)]
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(source: &str) -> Self {
        let source = unused::take_out(&constants::put_in(source));
        let hash = hex::encode(Sha1::digest(source.as_bytes()));
        Self { source, hash }
    }

    /// A script of a partition, which begins with what all of them share.
    fn of_partition(flags: &str, body: &str) -> Self {
        Self::new(&format!("#!lua{flags}\n{}{body}", include_str!("lua/partition.lua")))
    }

    /// A script that stands alone.
    fn of_control(flags: &str, body: &str) -> Self {
        Self::new(&format!("#!lua{flags}\n{body}"))
    }

    /// The command that makes the server keep it.
    fn load(&self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(&self.source);
        load
    }

    /// The command that runs it by hash; `full` sends its text, which makes the server keep it.
    pub fn command(&self, call: &Call, full: bool) -> Cmd {
        let name = if full { "EVAL" } else { "EVALSHA" };
        let script = if full { &self.source } else { &self.hash };
        let words = 3 + call.fixed.len() + call.keys.ends.len() + call.values.ends.len();
        let bytes = script.len() + 64 * call.fixed.len() + call.keys.bytes.len() + call.values.bytes.len();
        let mut command = Cmd::with_capacity(words, bytes);
        command.arg(name).arg(script).arg(call.fixed.len() + call.keys.ends.len());
        for key in call.fixed.iter() {
            command.arg(&key[..]);
        }
        call.keys.iter().for_each(|key| {
            command.arg(key);
        });
        call.values.iter().for_each(|value| {
            command.arg(value);
        });
        command
    }
}

/// Words one after the other, so that a call takes memory a few times and not for each of them.
#[derive(Debug, Default)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).filter_map(|(begin, end)| self.bytes.get(begin..*end))
    }
}

/// Keys and values of one run of a script.
#[derive(Debug, Default)]
pub(super) struct Call {
    fixed: Arc<[Vec<u8>]>,
    keys: Words,
    values: Words,
}

impl Call {
    /// With these keys declared, which many calls share.
    pub fn new(fixed: impl Into<Arc<[Vec<u8>]>>) -> Self {
        Self { fixed: fixed.into(), ..Self::default() }
    }

    /// Declares a key; the answer is its index in Lua's `KEYS`.
    pub fn key(&mut self, key: impl AsRef<[u8]>) -> usize {
        self.keys.push(key.as_ref());
        self.fixed.len() + self.keys.ends.len()
    }

    /// Appends a value.
    pub fn value(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        self.values.push(value.as_ref());
        self
    }

    /// Appends a number.
    pub fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        // Memory takes whatever is written to it.
        let _ = write!(self.values.bytes, "{number}");
        self.values.ends.push(self.values.bytes.len());
        self
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
                    include_str!("lua/owners.lua"),
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
            lease: Script::of_partition(
                always,
                concat!(
                    include_str!("lua/owners.lua"),
                    include_str!("lua/turn.lua"),
                    include_str!("lua/lease.lua")
                ),
            ),
            settle: Script::of_partition(
                always,
                concat!(
                    include_str!("lua/owners.lua"),
                    include_str!("lua/turn.lua"),
                    include_str!("lua/settle.lua")
                ),
            ),
            record: Script::of_partition(always, include_str!("lua/record.lua")),
            hold: Script::of_partition(always, include_str!("lua/hold.lua")),
            beat: Script::of_partition(
                always,
                concat!(include_str!("lua/owners.lua"), include_str!("lua/beat.lua")),
            ),
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

    /// What a connection that writes begins with. Where a wait follows what was written, the server is told the scripts
    /// beforehand: a forgotten one would cost that wait twice.
    pub fn opening(&self, durability: Durability) -> Vec<Cmd> {
        let awaited = [&self.ingest, &self.commit];
        if durability.command().is_some() { awaited.map(Script::load).into() } else { Vec::new() }
    }
}
