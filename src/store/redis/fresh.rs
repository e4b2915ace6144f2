//! Events that came in here lately, for jobs of theirs that this process leases for the first time: what it was sent a
//! moment ago it need not read again.
//!
//! A job is taken from here only while its record stands as it was made, which the script that leases it says (`turn.lua`),
//! and while nothing was erased in its partition since the event was written. Each is taken once: what comes again is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::keys::{Base, Partition, place_of};
use super::lease::Given;
use crate::domain::event::Event;
use crate::domain::id::ConnectionId;
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::types::{Ingest, NewEvent, NewJob};

/// Bytes of events at the most. What comes when there are so many is read when it is leased.
const ROOM: usize = 8 << 20;
/// What an event counts beside its document, and what the document counts for once and for the tree made of it.
const OVERHEAD: usize = 1_024;
const DOCUMENT: usize = 3;
/// An event is kept for so long at least, and for twice that at the most.
const AGE: Duration = Duration::from_secs(5);

/// An event of a request, and the jobs that were made of it: all but those for connections that were closed.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub ingest: Arc<Ingest>,
    /// Which of its events.
    pub at: usize,
    pub closed: Vec<ConnectionId>,
    /// When it was written.
    pub created: Timestamp,
}

impl Made {
    fn new_event(&self) -> Option<&NewEvent> {
        self.ingest.events.get(self.at)
    }

    /// How many of its jobs wait in lanes: the others are tried by whoever triggered them.
    pub fn in_lanes(&self) -> usize {
        self.jobs().filter(|job| !job.triggered).count()
    }

    fn jobs(&self) -> impl Iterator<Item = &NewJob> {
        let jobs = self.new_event().map_or(&[][..], |new| &new.jobs);
        jobs.iter().filter(|job| !self.closed.contains(&job.connection))
    }
}

#[derive(Debug)]
struct Kept {
    made: Made,
    /// How often something had been erased in its partition when it was written.
    erasures: u64,
    /// Jobs that were not taken yet.
    left: usize,
}

impl Kept {
    fn bytes(&self) -> usize {
        let document = self.made.new_event().map_or(0, |new| new.event.document.text().len());
        OVERHEAD + DOCUMENT * document
    }
}

type Events = HashMap<(Partition, Base), Kept>;

#[derive(Debug, Default)]
struct State {
    /// Those that came since, and those that came in the span before.
    since: Option<Instant>,
    young: Events,
    old: Events,
    bytes: usize,
}

impl State {
    /// Gives what is too old: it takes its time to be dropped.
    fn age(&mut self, now: Instant) -> Events {
        let since = *self.since.get_or_insert(now);
        if now < since + AGE {
            return Events::default();
        }
        self.since = Some(now);
        let gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.bytes -= gone.values().map(Kept::bytes).sum::<usize>();
        gone
    }
}

/// Events that came in here lately.
#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<State>);

impl Fresh {
    /// Keeps an event that was written, of which so many jobs wait in their lanes, if there is room.
    pub fn keep(&self, partition: Partition, base: Base, made: Made, waiting: usize, erasures: u64) {
        let mut state = self.0.lock();
        let kept = Kept { made, erasures, left: waiting };
        let bytes = kept.bytes();
        if waiting > 0 && state.bytes + bytes <= ROOM && state.young.insert((partition, base), kept).is_none()
        {
            state.bytes += bytes;
        }
    }

    /// A job that was leased, and its event, if they are what the store has.
    pub fn take(&self, partition: Partition, given: &Given) -> Option<(Job, Arc<Event>)> {
        let erasures = given.new?;
        let (base, index) = place_of(given.job);
        let key = (partition, base);
        let mut state = self.0.lock();
        let State { young, old, .. } = &mut *state;
        let kept = young.get_mut(&key).or_else(|| old.get_mut(&key))?;
        let event = &kept.made.new_event()?.event;
        let new = kept.made.jobs().nth(usize::try_from(index).ok()?)?;
        let taken = (kept.erasures == erasures)
            .then(|| (new.of(given.job, event, kept.made.created), Arc::clone(event)));
        kept.left = kept.left.saturating_sub(1);
        if kept.left == 0 || taken.is_none() {
            let gone = state.young.remove(&key).or_else(|| state.old.remove(&key));
            state.bytes -= gone.map_or(0, |gone| gone.bytes());
        }
        taken
    }

    /// Forgets what is too old now.
    pub fn age(&self, now: Instant) {
        let gone = self.0.lock().age(now);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::breaker::Failing;
    use crate::domain::id::{EventKey, JobId, MappingVersion};
    use crate::store::redis::keys::job_id;

    const PARTITION: Partition = 3;

    /// An event of so many bytes and jobs.
    fn made(bytes: usize, jobs: u8) -> Made {
        let event = Event {
            key: EventKey::from_bits(1),
            id: "1".to_owned(),
            kind: "lead.captured".to_owned(),
            tenant: "acme".parse().unwrap(),
            source: None,
            received: Timestamp::from_millis(1),
            document: serde_json::json!({ "data": "x".repeat(bytes) }).into(),
        };
        let job = |at| NewJob {
            connection: ConnectionId::from_bits(at),
            mapping: MappingVersion::from_bits(at),
            triggered: false,
        };
        let jobs = (0..u128::from(jobs)).map(job).collect();
        let events = vec![NewEvent { event: Arc::new(event), dedupe: None, jobs }];
        let ingest = Arc::new(Ingest { idempotency: None, events });
        Made { ingest, at: 0, closed: vec![ConnectionId::from_bits(0)], created: Timestamp::from_millis(2) }
    }

    fn given(job: JobId, new: Option<u64>) -> Given {
        Given { job, token: 1, batch: false, first: false, doubtful: false, new, failing: Failing::default() }
    }

    fn base(number: u32) -> Base {
        let mut base = [0; 11];
        base[7..].copy_from_slice(&number.to_be_bytes());
        base
    }

    #[test]
    fn a_job_is_taken_once_and_only_as_the_store_has_it() {
        let fresh = Fresh::default();
        let take = |index, new| fresh.take(PARTITION, &given(job_id(&base(1), index, PARTITION), new));
        let made = made(10, 3);
        assert_eq!(made.in_lanes(), 2, "one connection was closed");
        fresh.keep(PARTITION, base(1), made.clone(), 2, 7);
        assert!(take(0, None).is_none(), "its record was written since");
        let (job, event) = take(1, Some(7)).unwrap();
        assert_eq!((job.connection, job.created), (ConnectionId::from_bits(2), Timestamp::from_millis(2)));
        assert_eq!(event.id, "1");
        assert!(take(0, Some(7)).is_some());
        assert!(take(0, Some(7)).is_none() && fresh.0.lock().bytes == 0, "all were taken");
        fresh.keep(PARTITION, base(1), made, 2, 7);
        assert!(take(0, Some(8)).is_none(), "something was erased since");
        assert!(take(1, Some(7)).is_none() && fresh.0.lock().bytes == 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_grows_old() {
        let fresh = Fresh::default();
        let kept = || {
            let state = fresh.0.lock();
            state.young.len() + state.old.len()
        };
        for number in 0..1_000 {
            fresh.keep(PARTITION, base(number), made(100_000, 2), 1, 0);
        }
        assert!((20..40).contains(&kept()), "{}", kept());
        assert!(fresh.0.lock().bytes <= ROOM);
        fresh.keep(PARTITION, base(2_000), made(1, 1), 0, 0);
        let now = Instant::now();
        fresh.age(now);
        fresh.age(now + AGE);
        assert!(kept() > 0);
        fresh.age(now + 2 * AGE);
        assert_eq!((kept(), fresh.0.lock().bytes), (0, 0));
    }
}
