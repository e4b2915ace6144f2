//! What came of a connection's jobs, counted by day as outcomes are written, and what waits in its lane.

use super::codec::{self, strange};
use super::keys::Partition;
use super::link::Step;
use super::{Core, REPLY};
use crate::domain::id::{ConnectionId, JobId, TenantId};
use crate::store::StoreError;
use crate::store::log::{self, COUNTED_OPEN, TALLY_DAYS};
use crate::store::types::Tally;

impl Core {
    /// A connection's totals; see [`Store::tally`](crate::store::Store::tally).
    pub(super) async fn tally(
        &self,
        tenant: &TenantId,
        connection: ConnectionId,
    ) -> Result<Tally, StoreError> {
        let partition = self.keys.partition(tenant);
        let today = log::day_of(self.clock.now());
        let days: Vec<i64> = (today - TALLY_DAYS + 1..=today).collect();
        let mut steps: Vec<Step<'_>> = days
            .iter()
            .map(|day| {
                let mut get = redis::cmd("HGETALL");
                get.arg(self.keys.tally(partition, connection, *day));
                Step::Plain(get)
            })
            .collect();
        steps.push(self.open_jobs(partition, connection, b'F', b'G'));
        steps.push(self.open_jobs(partition, connection, b'D', b'E'));
        let mut answers = self.reads.run(&steps, REPLY).await?.into_iter();
        let mut tally = Tally::default();
        for day in days {
            let mut fields =
                codec::list(answers.next().ok_or_else(|| strange("too few days"))??)?.into_iter();
            while let (Some(slot), Some(count)) = (fields.next(), fields.next()) {
                let slot = u8::try_from(codec::number(&slot)?).map_err(|_| strange("a tally's slot"))?;
                tally.add(day, slot, codec::count(&count)?);
            }
        }
        let mut open = || -> Result<u64, StoreError> {
            let entries = codec::list(answers.next().ok_or_else(|| strange("no open jobs"))??)?;
            let count = entries.len() as u64;
            for entry in entries {
                let entry = codec::bytes(entry)?.unwrap_or_default();
                let id = entry.last_chunk::<16>().and_then(|id| codec::read_id(id));
                let made = id.map(JobId::time);
                tally.oldest = tally.oldest.into_iter().chain(made).min();
            }
            Ok(count)
        };
        let (queued, waiting) = (open()?, open()?);
        (tally.queued, tally.waiting) = (queued, waiting);
        Ok(tally)
    }

    /// Jobs that wait in these lanes of a tenant; see [`Store::backlog`](crate::store::Store::backlog).
    pub(super) async fn backlog_of(
        &self,
        tenant: &TenantId,
        connections: &[ConnectionId],
    ) -> Result<u64, StoreError> {
        let queue = self.keys.queue(self.keys.partition(tenant));
        let steps: Vec<Step<'_>> = connections
            .iter()
            .map(|connection| {
                let id = connection.bits().to_be_bytes();
                let bound = |bracket: u8, kind: u8| [&[bracket][..], &id, &[kind]].concat();
                let mut count = redis::cmd("ZLEXCOUNT");
                count.arg(&queue).arg(bound(b'[', b'D')).arg(bound(b'(', b'G'));
                Step::Plain(count)
            })
            .collect();
        let mut open = 0;
        for answer in self.reads.run(&steps, REPLY).await? {
            open += codec::count(&answer?)?;
        }
        Ok(open)
    }

    /// The command that reads the first jobs of one kind in a lane.
    fn open_jobs(&self, partition: Partition, connection: ConnectionId, from: u8, to: u8) -> Step<'_> {
        let bound =
            |bracket: u8, kind: u8| [&[bracket][..], &connection.bits().to_be_bytes(), &[kind]].concat();
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(self.keys.queue(partition)).arg(bound(b'[', from)).arg(bound(b'(', to));
        range.arg("LIMIT").arg(0).arg(COUNTED_OPEN);
        Step::Plain(range)
    }
}
