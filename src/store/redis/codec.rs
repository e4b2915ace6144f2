//! How domain values lie in Redis, and how its answers are read.

use redis::Value;

use super::keys::{Base, Partition, job_id};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, EventKey, JobId, MappingVersion, TenantId};
use crate::domain::job::{Job, JobState};
use crate::domain::json::Object;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A job's record without its reason; `RECORD` in `partition.lua` is the same.
const RECORD: usize = 53;

/// What an event says of itself beside its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub jobs: u32,
    pub key: EventKey,
    pub received: Timestamp,
    pub created: Timestamp,
    pub tenant: TenantId,
    pub id: String,
    pub kind: String,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobRecord {
    pub connection: ConnectionId,
    pub mapping: MappingVersion,
    pub state: JobState,
    pub attempts: u32,
    pub tries: u32,
    pub due: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub reason: String,
}

/// Six big-endian bytes of milliseconds; what lies outside of them is cut to their ends.
pub(super) fn time_bytes(time: Timestamp) -> [u8; 6] {
    let millis = u64::try_from(time.millis()).unwrap_or(0).min((1 << 48) - 1);
    let [_, _, bytes @ ..] = millis.to_be_bytes();
    bytes
}

/// The time in an event's name.
pub(super) fn time_of(base: &Base) -> Timestamp {
    let [time @ .., _, _, _, _, _] = base;
    let millis = time.iter().fold(0, |number, byte| number << 8 | i64::from(*byte));
    Timestamp::from_millis(millis)
}

/// Writes the meta of a new event; the script puts the count of jobs before it.
pub(super) fn write_meta(event: &Event, created: Timestamp) -> Vec<u8> {
    let tenant = event.tenant.as_str();
    let mut bytes = Vec::with_capacity(32 + tenant.len() + event.id.len() + event.kind.len());
    bytes.extend_from_slice(&event.key.bits().to_be_bytes());
    bytes.extend_from_slice(&time_bytes(event.received));
    bytes.extend_from_slice(&time_bytes(created));
    // Tenant ids have at most 64 bytes, types at most 128.
    bytes.push(u8::try_from(tenant.len()).unwrap_or(0));
    bytes.extend_from_slice(tenant.as_bytes());
    bytes.push(u8::try_from(event.kind.len()).unwrap_or(0));
    bytes.extend_from_slice(event.kind.as_bytes());
    bytes.extend_from_slice(event.id.as_bytes());
    bytes
}

/// Reads what lies packed in bytes, from their beginning on; `None` where there are too few.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes, at most eight.
    pub fn number(&mut self, length: usize) -> Option<u64> {
        Some(self.take(length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Sixteen bytes of an id.
    pub fn bits(&mut self) -> Option<u128> {
        Some(u128::from_be_bytes(self.take(16)?.try_into().ok()?))
    }

    /// Six bytes of milliseconds.
    pub fn time(&mut self) -> Option<Timestamp> {
        i64::try_from(self.number(6)?).ok().map(Timestamp::from_millis)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// A number of four bytes.
    pub fn short(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }
}

/// Reads an event's meta.
pub(super) fn read_meta(bytes: &[u8]) -> Option<Meta> {
    let mut reader = Reader(bytes);
    Some(Meta {
        jobs: u32::try_from(reader.number(3)?).ok()?,
        key: EventKey::from_bits(reader.bits()?),
        received: reader.time()?,
        created: reader.time()?,
        tenant: {
            let length = usize::try_from(reader.number(1)?).ok()?;
            reader.text(length)?.parse().ok()?
        },
        kind: {
            let length = usize::try_from(reader.number(1)?).ok()?;
            reader.text(length)?
        },
        id: String::from_utf8_lossy(reader.0).into_owned(),
    })
}

/// Reads a list of whole numbers as `cmsgpack` writes it: a partition's counters.
pub(super) fn read_counters(bytes: &[u8]) -> Option<Vec<i64>> {
    let mut reader = Reader(bytes);
    let length = match reader.number(1)? {
        short @ 0x90..=0x9f => short - 0x90,
        0xdc => reader.number(2)?,
        _ => return None,
    };
    let signed = |number: u64, bytes: u32| {
        // Shifted to the top and back, the sign spreads.
        let shift = 64 - 8 * bytes;
        (number << shift).cast_signed() >> shift
    };
    (0..length)
        .map(|_| {
            Some(match reader.number(1)? {
                small @ 0..=0x7f => signed(small, 8),
                small @ 0xe0..=0xff => signed(small, 1),
                0xcc => signed(reader.number(1)?, 8),
                0xcd => signed(reader.number(2)?, 8),
                0xce => signed(reader.number(4)?, 8),
                0xd0 => signed(reader.number(1)?, 1),
                0xd1 => signed(reader.number(2)?, 2),
                0xd2 => signed(reader.number(4)?, 4),
                0xcf | 0xd3 => signed(reader.number(8)?, 8),
                _ => return None,
            })
        })
        .collect()
}

/// Writes a job's record.
pub(super) fn write_record(record: &JobRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD + record.reason.len());
    bytes.extend_from_slice(&record.connection.bits().to_be_bytes());
    bytes.extend_from_slice(&record.mapping.bits().to_be_bytes());
    bytes.push(u8::try_from(state_code(record.state)).unwrap_or(u8::MAX));
    bytes.extend_from_slice(&record.attempts.to_be_bytes());
    bytes.extend_from_slice(&record.tries.to_be_bytes());
    for time in [record.due, record.finished] {
        bytes.extend_from_slice(&time.map_or([0; 6], time_bytes));
    }
    bytes.extend_from_slice(record.reason.as_bytes());
    bytes
}

/// Reads a job's record.
pub(super) fn read_record(bytes: &[u8]) -> Option<JobRecord> {
    let mut reader = Reader(bytes);
    let some = |time: Timestamp| Some(time).filter(|time| time.millis() > 0);
    Some(JobRecord {
        connection: ConnectionId::from_bits(reader.bits()?),
        mapping: MappingVersion::from_bits(reader.bits()?),
        state: *JobState::ALL.get(usize::try_from(reader.number(1)?).ok()?)?,
        attempts: reader.short()?,
        tries: reader.short()?,
        due: some(reader.time()?),
        finished: some(reader.time()?),
        reason: String::from_utf8_lossy(bytes.get(RECORD..)?).into_owned(),
    })
}

/// Reads a job's id.
pub(super) fn read_id(bytes: &[u8]) -> Option<JobId> {
    bytes.try_into().ok().map(|bytes| JobId::from_bits(u128::from_be_bytes(bytes)))
}

/// The job of an event and a record; what receivers know it by is its id, where no other store named it.
pub(super) fn job(base: &Base, index: u32, partition: Partition, meta: &Meta, record: &JobRecord) -> Job {
    let id = job_id(base, index, partition);
    Job {
        id,
        name: id,
        tenant: meta.tenant.clone(),
        connection: record.connection,
        event: meta.key,
        mapping: record.mapping,
        created: meta.created,
        attempts: record.attempts,
        tries: record.tries,
    }
}

/// An event out of its meta and its document.
pub(super) fn event(meta: Meta, document: Vec<u8>) -> Result<Event, StoreError> {
    let document = Object::read(&document.into())
        .ok_or_else(|| StoreError::Corrupt(format!("event {} cannot be read", meta.key)))?;
    Ok(Event {
        key: meta.key,
        id: meta.id,
        kind: meta.kind,
        tenant: meta.tenant,
        source: document.string("source"),
        received: meta.received,
        document,
    })
}

/// The number of a state in a record.
pub(super) fn state_code(state: JobState) -> usize {
    JobState::ALL.iter().position(|other| *other == state).unwrap_or(JobState::ALL.len())
}

/// An answer was not what the scripts give.
pub(super) fn strange(what: &str) -> StoreError {
    StoreError::Corrupt(format!("Redis gave a strange answer: {what}"))
}

/// A list's items.
pub(super) fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
        other => Err(strange(&format!("{other:?} is no list"))),
    }
}

/// A string's bytes; `None` where there is nothing.
pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Nil => Ok(None),
        other => Err(strange(&format!("{other:?} is no string"))),
    }
}

/// A string that has to be there.
pub(super) fn text(value: Value) -> Result<String, StoreError> {
    let bytes = bytes(value)?.ok_or_else(|| strange("nothing where a text should be"))?;
    String::from_utf8(bytes).map_err(|_| strange("a text that is no UTF-8"))
}

/// A whole number.
pub(super) fn number(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| strange("a text that is no number")),
        other => Err(strange(&format!("{other:?} is no number"))),
    }
}

/// A number that is never negative; a negative one counts as zero.
pub(super) fn count(value: &Value) -> Result<u64, StoreError> {
    Ok(u64::try_from(number(value)?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_reads_back() {
        let event = Event {
            key: EventKey::from_bits(7 << 80),
            id: "lead ü".to_owned(),
            kind: "lead.captured".to_owned(),
            tenant: "acme".parse().unwrap(),
            source: None,
            received: Timestamp::from_millis(1_700_000_000_123),
            document: serde_json::json!({}).into(),
        };
        let created = Timestamp::from_millis(5);
        let mut bytes = vec![0, 1, 2];
        bytes.extend(write_meta(&event, created));
        let meta = read_meta(&bytes).unwrap();
        assert_eq!((meta.jobs, meta.key, meta.created), (258, event.key, created));
        assert_eq!((meta.id, meta.kind, meta.tenant), (event.id, event.kind, event.tenant));
        assert_eq!(meta.received, event.received);
        assert_eq!(read_meta(&bytes[..20]), None);
    }

    #[test]
    fn counters_read_as_they_are_packed() {
        let packed =
            [&[0x95, 0x07, 0xff, 0xcc, 200][..], &[0xd1, 0xff, 0x00, 0xcf, 0, 0, 1, 0, 0, 0, 0, 0]].concat();
        assert_eq!(read_counters(&packed), Some(vec![7, -1, 200, -256, 1 << 40]));
        assert_eq!(read_counters(&packed[..6]), None);
        assert_eq!(read_counters(b""), None);
    }

    #[test]
    fn records_read_back() {
        let record = JobRecord {
            connection: ConnectionId::from_bits(1 << 100),
            mapping: MappingVersion::from_bits(7),
            state: JobState::Dead,
            attempts: 3,
            tries: 70_000,
            due: None,
            finished: Some(Timestamp::from_millis(1_700_000_000_123)),
            reason: "because".to_owned(),
        };
        assert_eq!(read_record(&write_record(&record)), Some(record));
    }

    #[test]
    fn records_that_are_cut_off_are_refused() {
        assert_eq!(read_record(&[0; RECORD - 1]), None);
        let record = read_record(&[0; RECORD]).unwrap();
        assert_eq!((record.state, record.due, record.reason.as_str()), (JobState::Queued, None, ""));
    }
}
