//! Records: few, small, under a rising revision; and the copies of their settings that lanes follow.

use redis::Value;

use super::codec::{self, strange};
use super::keys::Partition;
use super::link::Step;
use super::script::Call;
use super::{Core, REPLY};
use crate::domain::connection::{Connection, ConnectionState};
use crate::domain::id::{ConnectionId, MappingVersion, TenantId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::types::{Change, Expected, Record, RecordId, Revision};

/// Records deleted in one step.
const STEP: usize = 200;
/// Lanes told in one step.
const LANES: usize = 64;
/// Changes read in one step.
const CHANGES: usize = 200;

/// What a lane follows.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub connection: ConnectionId,
    pub revision: Revision,
    /// Empty when nobody knows any more; such a lane is closed.
    pub tenant: String,
    pub concurrency: u32,
    pub batch: u32,
    pub paused: bool,
    pub closed: bool,
    pub deleted: bool,
    /// Jobs made before are to be cancelled before it gives any.
    pub unwanted_before: Option<Timestamp>,
    /// The noted effect that is written now.
    pub resolves: String,
}

impl Rule {
    pub fn of(connection: &Connection, revision: Revision) -> Self {
        Self {
            connection: connection.id,
            revision,
            tenant: connection.tenant.to_string(),
            concurrency: if connection.batch > 1 { 1 } else { connection.concurrency },
            batch: connection.batch,
            paused: matches!(connection.state, ConnectionState::Paused { .. }),
            closed: !connection.state.takes_jobs(),
            deleted: false,
            unwanted_before: connection.unwanted_before,
            resolves: String::new(),
        }
    }

    pub fn gone(connection: ConnectionId, revision: Revision, tenant: &str) -> Self {
        Self {
            connection,
            revision,
            tenant: tenant.to_owned(),
            concurrency: 1,
            batch: 1,
            paused: false,
            closed: true,
            deleted: true,
            unwanted_before: None,
            resolves: String::new(),
        }
    }
}

fn name_of(id: &RecordId) -> String {
    match id {
        RecordId::Tenant(id) => format!("t:{id}"),
        RecordId::Key(id) => format!("k:{id}"),
        RecordId::Connection(id) => format!("c:{id}"),
        RecordId::Source(id) => format!("s:{id}"),
        RecordId::Chore(id) => format!("h:{id}"),
    }
}

fn id_of(name: &str) -> Result<RecordId, StoreError> {
    let read = match name.split_at_checked(2) {
        Some(("t:", id)) => id.parse().ok().map(RecordId::Tenant),
        Some(("k:", id)) => id.parse().ok().map(RecordId::Key),
        Some(("c:", id)) => id.parse().ok().map(RecordId::Connection),
        Some(("s:", id)) => id.parse().ok().map(RecordId::Source),
        Some(("h:", id)) => id.parse().ok().map(RecordId::Chore),
        _ => None,
    };
    read.ok_or_else(|| StoreError::Corrupt(format!("a record is called {name:?}")))
}

fn owner_of(record: &Record) -> &str {
    record.owner().map_or("", TenantId::as_str)
}

impl Core {
    fn control(&self, tenant: &str) -> Call {
        let owned = if tenant.is_empty() { self.keys.docs() } else { self.keys.owned_by(tenant) };
        Call::new(vec![
            self.keys.docs(),
            self.keys.feed(),
            self.keys.revision(),
            self.keys.unmirrored(),
            owned,
            self.keys.epoch(),
        ])
    }

    /// The call that writes a record where this epoch is (an empty one stands for any).
    pub(super) fn put_call(
        &self,
        record: &Record,
        expected: Expected,
        epoch: &str,
    ) -> Result<Call, StoreError> {
        let document = record.document()?;
        let owner = owner_of(record);
        let mut call = self.control(owner);
        call.value(name_of(&record.id())).value(document);
        match expected {
            Expected::Absent => call.number(-1),
            Expected::At(revision) => call.number(revision),
        };
        call.number(u8::from(matches!(record, Record::Connection(_))))
            .value(owner)
            .value(self.keys.changes_channel())
            .value(epoch);
        Ok(call)
    }

    /// Writes a record; see [`Store::put`](crate::store::Store::put).
    pub(super) async fn put(&self, record: &Record, expected: Expected) -> Result<Revision, StoreError> {
        let call = self.put_call(record, expected, &self.epoch)?;
        let answer = codec::number(&self.link.script(&self.scripts.put, call, REPLY).await?)?;
        if answer == -2 {
            self.check_epoch().await?;
        }
        let revision = Revision::try_from(answer).map_err(|_| StoreError::Conflict)?;
        if let Record::Connection(connection) = record {
            self.mirror(self.keys.partition(&connection.tenant), &[Rule::of(connection, revision)]).await?;
        }
        self.wake.revise(revision);
        Ok(revision)
    }

    /// Tells lanes of a partition what their records say, and notes that they know.
    pub(super) async fn mirror(&self, partition: Partition, rules: &[Rule]) -> Result<(), StoreError> {
        for rules in rules.chunks(LANES) {
            let mut call = self.call(partition);
            let mut known = Call::new(vec![self.keys.unmirrored()]);
            for rule in rules {
                call.value(rule.connection.bits().to_be_bytes())
                    .number(rule.revision)
                    .value(rule.tenant.as_str())
                    .number(rule.concurrency)
                    .number(rule.batch)
                    .number(u8::from(rule.paused))
                    .number(u8::from(rule.closed))
                    .number(u8::from(rule.deleted))
                    .number(rule.unwanted_before.map_or(0, Timestamp::millis))
                    .value(rule.resolves.as_str());
                known
                    .value(name_of(&RecordId::Connection(rule.connection)))
                    .value(format!("{} {}", rule.revision, rule.tenant));
            }
            let ahead = self.link.script(&self.scripts.rule, call, REPLY).await?;
            self.look_ahead(partition, &codec::list(ahead)?)?;
            self.link.script(&self.scripts.mirrored, known, REPLY).await?;
        }
        Ok(())
    }

    /// Records as they are now; `None` for those that are not.
    pub(super) async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<(Record, Revision)>>, StoreError> {
        // The revision first: a document that is newer than its revision is told again by whoever wrote it.
        let mut revisions = redis::cmd("ZMSCORE");
        revisions.arg(self.keys.feed());
        let mut documents = redis::cmd("HMGET");
        documents.arg(self.keys.docs());
        for id in ids {
            let name = name_of(id);
            revisions.arg(&name);
            documents.arg(name);
        }
        let steps = [Step::Plain(revisions), Step::Plain(documents)];
        let mut answers = self.link.run(&steps, REPLY).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil)).and_then(codec::list);
        let (revisions, documents) = (next()?, next()?);
        ids.iter()
            .zip(revisions.into_iter().zip(documents))
            .map(|(id, (revision, document))| {
                let Some(document) = codec::bytes(document)? else { return Ok(None) };
                let revision = match revision {
                    Value::Nil => 0,
                    Value::Double(revision) => format!("{revision:.0}").parse().unwrap_or(0),
                    revision => codec::count(&revision)?,
                };
                Ok(Some((id.parse(&document)?, revision)))
            })
            .collect()
    }

    /// Tells a partition of lanes that it does not know.
    pub(super) async fn teach(
        &self,
        partition: Partition,
        connections: &[ConnectionId],
    ) -> Result<(), StoreError> {
        let ids: Vec<RecordId> = connections.iter().map(|id| RecordId::Connection(*id)).collect();
        let mut newest = redis::cmd("GET");
        newest.arg(self.keys.revision());
        let newest = match self.link.plain(newest, REPLY).await? {
            Value::Nil => 0,
            revision => codec::count(&revision)?,
        };
        let records = self.read(&ids).await?;
        if records.iter().any(Option::is_none) {
            // A job for a connection that was deleted is not made; but an emptied server knows none of them.
            self.check_epoch().await?;
        }
        let rules: Vec<Rule> = connections
            .iter()
            .zip(records)
            .map(|(id, record)| match record {
                Some((Record::Connection(connection), revision)) => Rule::of(&connection, revision),
                _ => Rule::gone(*id, newest, ""),
            })
            .collect();
        self.mirror(partition, &rules).await
    }

    /// Deletes a record; see [`Store::delete`](crate::store::Store::delete).
    pub(super) async fn delete(&self, id: &RecordId) -> Result<bool, StoreError> {
        let Some((record, _)) = self.read(std::slice::from_ref(id)).await?.pop().flatten() else {
            return self.check_epoch().await.map(|()| false);
        };
        let RecordId::Tenant(tenant) = id else {
            return Ok(self.erase(&[(id.clone(), owner_of(&record).to_owned())]).await? > 0);
        };
        loop {
            let mut some = redis::cmd("SRANDMEMBER");
            some.arg(self.keys.owned_by(tenant.as_str())).arg(STEP);
            let owned = codec::list(self.link.plain(some, REPLY).await?)?
                .into_iter()
                .map(|name| Ok((id_of(&codec::text(name)?)?, tenant.to_string())))
                .collect::<Result<Vec<_>, StoreError>>()?;
            self.erase(&owned).await?;
            let mut call = self.control(tenant.as_str());
            call.value(name_of(id)).number(0).value("").value(self.keys.changes_channel()).number(1);
            let answer = codec::number(&self.link.script(&self.scripts.delete, call, REPLY).await?)?;
            if answer >= 0 {
                self.wake.revise(u64::try_from(answer).unwrap_or(0));
                return Ok(answer > 0);
            }
        }
    }

    /// Deletes records that are no tenants, and closes their lanes; gives how many there were.
    async fn erase(&self, records: &[(RecordId, String)]) -> Result<usize, StoreError> {
        let steps: Vec<Step<'_>> = records
            .iter()
            .map(|(id, tenant)| {
                let mut call = self.control(tenant);
                call.value(name_of(id))
                    .number(u8::from(matches!(id, RecordId::Connection(_))))
                    .value(tenant.as_str())
                    .value(self.keys.changes_channel())
                    .number(0);
                Step::Script(&self.scripts.delete, call)
            })
            .collect();
        let mut erased = 0;
        let mut closed: Vec<(Partition, Rule)> = Vec::new();
        for ((id, tenant), answer) in records.iter().zip(self.link.run(&steps, REPLY).await?) {
            let revision = codec::count(&answer?)?;
            if revision == 0 {
                continue;
            }
            erased += 1;
            self.wake.revise(revision);
            if let (RecordId::Connection(connection), Ok(owner)) = (id, tenant.parse::<TenantId>()) {
                closed.push((self.keys.partition(&owner), Rule::gone(*connection, revision, tenant)));
            }
        }
        // They are all of one tenant.
        if let Some((partition, _)) = closed.first() {
            let partition = *partition;
            let rules: Vec<Rule> = closed.into_iter().map(|(_, rule)| rule).collect();
            self.mirror(partition, &rules).await?;
        }
        Ok(erased)
    }

    /// Changes after a revision; see [`Store::changes`](crate::store::Store::changes).
    pub(super) async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        let mut since = since;
        loop {
            let step = CHANGES.min(limit - changes.len());
            let some = self.some_changes(since, step).await?;
            let full = some.len() == step;
            since = some.last().map_or(since, |change| change.revision);
            changes.extend(some);
            if !full || changes.len() >= limit {
                return Ok(changes);
            }
        }
    }

    async fn some_changes(&self, since: Revision, limit: usize) -> Result<Vec<Change>, StoreError> {
        let mut epoch = redis::cmd("GET");
        epoch.arg(self.keys.epoch());
        let mut call = Call::new(vec![self.keys.docs(), self.keys.feed()]);
        call.number(since).number(limit);
        let steps = [Step::Script(&self.scripts.changes, call), Step::Plain(epoch)];
        let mut answers = self.link.run(&steps, REPLY).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let (answer, epoch) = (next()?, codec::bytes(next()?)?);
        self.judge_epoch(epoch.as_deref())?;
        codec::list(answer)?
            .into_iter()
            .map(|change| {
                let mut change = codec::list(change)?.into_iter();
                let mut next = || change.next().unwrap_or(Value::Nil);
                let id = id_of(&codec::text(next())?)?;
                let revision = codec::count(&next())?;
                let record = codec::bytes(next())?.map(|document| id.parse(&document)).transpose()?;
                Ok(Change { revision, id, record })
            })
            .collect()
    }

    /// Lanes that a crash kept from hearing of their records; gives how many.
    pub(super) async fn mirror_left_behind(&self) -> Result<usize, StoreError> {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(self.keys.unmirrored()).arg(0).arg("COUNT").arg(STEP);
        let found = codec::list(self.link.plain(scan, REPLY).await?)?.pop().unwrap_or(Value::Nil);
        let mut left = 0;
        let mut found = codec::list(found)?.into_iter();
        while let (Some(name), Some(note)) = (found.next(), found.next()) {
            let (name, note) = (codec::text(name)?, codec::text(note)?);
            let (revision, tenant) = note.split_once(' ').ok_or_else(|| strange(&note))?;
            let (RecordId::Connection(connection), Ok(owner)) = (id_of(&name)?, tenant.parse::<TenantId>())
            else {
                continue;
            };
            let revision = revision.parse().map_err(|_| strange(&note))?;
            let rule = match self.read(&[RecordId::Connection(connection)]).await?.pop().flatten() {
                Some((Record::Connection(record), revision)) => Rule::of(&record, revision),
                _ => Rule::gone(connection, revision, tenant),
            };
            self.mirror(self.keys.partition(&owner), &[rule]).await?;
            left += 1;
        }
        Ok(left)
    }

    /// Keeps a mapping's source.
    pub(super) async fn put_mapping(
        &self,
        version: MappingVersion,
        source: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let mut set = redis::cmd("HSETNX");
        set.arg(self.keys.mappings()).arg(version.bits().to_be_bytes().as_slice()).arg(source.to_string());
        self.link.plain(set, REPLY).await.map(|_| ())
    }

    /// A mapping's source.
    pub(super) async fn mapping(
        &self,
        version: MappingVersion,
    ) -> Result<Option<serde_json::Value>, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.mappings()).arg(version.bits().to_be_bytes().as_slice());
        codec::bytes(self.link.plain(get, REPLY).await?)?
            .map(|source| serde_json::from_slice(&source))
            .transpose()
            .map_err(|error| StoreError::Corrupt(format!("mapping {version}: {error}")))
    }
}
