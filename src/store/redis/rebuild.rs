//! A server that was emptied under running processes: how they notice, and how the records come back.
//!
//! # Theory of operation
//!
//! The first process on an empty server writes an *epoch*, a name for this filling, and every process remembers the one it
//! found. A server without it was emptied (`FLUSHALL`, a restart without a file, a failover to an empty replica). Records
//! are neither written nor read then, and lanes that the server lost take no jobs, so nothing is accepted that would not
//! be delivered. Each process asks for the epoch whenever something is missing, and every few seconds.
//!
//! Events and jobs are lost with the server; records every process holds in memory. One of them, which puts its name into
//! a key, writes them again: each only where there is none, under revisions that go on where they were, so that the others
//! follow them as they follow any change. The same epoch comes last, and only if the key still says who wrote: a server
//! that was emptied again in between is filled from the beginning. Another epoch means that another gateway began anew;
//! nothing is mixed into its store.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use redis::Value;

use super::codec;
use super::keys::Partition;
use super::link::Step;
use super::records::Rule;
use super::script::Call;
use super::server;
use super::{Core, REPLY};
use crate::store::StoreError;
use crate::store::types::{Expected, Record, Revision};

/// Records written in one step.
const STEP: usize = 100;
/// How long a step may take before another process begins anew.
const TURN_MILLIS: u64 = 10_000;

impl Core {
    /// Fails when the server was emptied since this process started.
    pub(super) async fn check_epoch(&self) -> Result<(), StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.epoch());
        let found = codec::bytes(self.link.plain(get, REPLY).await?)?;
        self.judge_epoch(found.as_deref())
    }

    pub(super) fn judge_epoch(&self, found: Option<&[u8]>) -> Result<(), StoreError> {
        match found {
            Some(epoch) if epoch == self.epoch.as_bytes() => {
                self.emptied.store(false, Ordering::Release);
                Ok(())
            }
            Some(_) => Err(StoreError::Unavailable(
                "what this process kept in Redis is gone, and another gateway began anew there: restart this one, or \
                 restore a backup"
                    .to_owned(),
            )),
            None => {
                self.emptied.store(true, Ordering::Release);
                self.wake.nudge();
                Err(StoreError::Emptied)
            }
        }
    }

    /// Asks for the newest revision, and whether the server is still the one that was filled.
    pub(super) async fn look_for_changes(&self) -> Result<(), StoreError> {
        let mut get = redis::cmd("MGET");
        get.arg(self.keys.revision()).arg(self.keys.epoch());
        let answer = codec::list(self.link.plain(get, REPLY).await?)?;
        let [revision, epoch] =
            <[Value; 2]>::try_from(answer).map_err(|_| codec::strange("no two values"))?;
        self.judge_epoch(codec::bytes(epoch)?.as_deref())?;
        if revision != Value::Nil {
            self.wake.revise(codec::count(&revision)?);
        }
        Ok(())
    }

    /// Writes records again; see [`Store::rebuild`](crate::store::Store::rebuild).
    pub(super) async fn rebuild(&self, records: &[Record], newest: Revision) -> Result<bool, StoreError> {
        match self.check_epoch().await {
            Err(StoreError::Emptied) => {}
            other => return other.map(|()| false),
        }
        let mut set = redis::cmd("SET");
        set.arg(self.keys.rebuilder()).arg(&self.owner).arg("NX").arg("GET").arg("PX").arg(TURN_MILLIS);
        let other = codec::bytes(self.link.plain(set, REPLY).await?)?;
        if other.is_some_and(|other| other != self.owner.as_bytes()) {
            return Ok(false);
        }
        server::note_layout(&self.link, &self.keys).await?;
        let mut count_on = redis::cmd("SET");
        count_on.arg(self.keys.revision()).arg(newest).arg("NX");
        self.link.plain(count_on, REPLY).await?;
        for records in records.chunks(STEP) {
            self.put_again(records).await?;
        }
        let mut call = Call::new(vec![self.keys.rebuilder(), self.keys.epoch()]);
        call.value(self.owner.as_str()).value(self.epoch.as_str());
        if codec::count(&self.link.script(&self.scripts.rebuilt, call, REPLY).await?)? == 0 {
            return Err(StoreError::Emptied);
        }
        self.emptied.store(false, Ordering::Release);
        self.wake.mark_all();
        self.look_for_changes().await?;
        Ok(true)
    }

    /// Writes those records that are not there, and tells their lanes.
    async fn put_again(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut go_on = redis::cmd("SET");
        go_on.arg(self.keys.rebuilder()).arg(&self.owner).arg("XX").arg("PX").arg(TURN_MILLIS);
        let mut steps = vec![Step::Plain(go_on)];
        for record in records {
            steps.push(Step::Script(&self.scripts.put, self.put_call(record, Expected::Absent, "")?));
        }
        let mut answers = self.link.run(&steps, REPLY).await?.into_iter();
        if answers.next().unwrap_or(Ok(Value::Nil))? == Value::Nil {
            return Err(StoreError::Emptied);
        }
        let mut rules: BTreeMap<Partition, Vec<Rule>> = BTreeMap::new();
        for (record, answer) in records.iter().zip(answers) {
            // One that is there was written by whoever began before.
            let Ok(revision) = Revision::try_from(codec::number(&answer?)?) else { continue };
            if let Record::Connection(connection) = record {
                let partition = self.keys.partition(&connection.tenant);
                rules.entry(partition).or_default().push(Rule::of(connection, revision));
            }
        }
        for (partition, rules) in rules {
            self.mirror(partition, &rules).await?;
        }
        Ok(())
    }
}
