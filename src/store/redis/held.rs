//! Jobs that this process holds leases of, as far as it knows.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::domain::id::{JobId, MappingVersion};
use crate::domain::time::Timestamp;
use crate::store::types::{Lease, LeaseRef};

#[derive(Debug, Clone, Copy)]
struct Known {
    deadline: Timestamp,
    /// The token, and the mapping of a job whose record stands as it was made: nobody else writes it while it is leased.
    new: Option<(u64, MappingVersion)>,
}

/// Jobs that this process holds.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<JobId, Known>>);

impl Held {
    /// Notes jobs that were leased until then.
    pub fn note(&self, jobs: impl IntoIterator<Item = JobId>, deadline: Timestamp) {
        self.0.lock().extend(jobs.into_iter().map(|job| (job, Known { deadline, new: None })));
    }

    /// Notes that the records of these jobs stand as they were made.
    pub fn note_new<'a>(&self, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut held = self.0.lock();
        for lease in leases {
            if let Some(known) = held.get_mut(&lease.job.id) {
                known.new = Some((lease.token, lease.job.mapping));
            }
        }
    }

    /// Jobs are not held any more.
    pub fn forget(&self, jobs: impl IntoIterator<Item = JobId>) {
        let mut held = self.0.lock();
        for job in jobs {
            held.remove(&job);
        }
    }

    /// Those of these jobs that are held are held until then.
    pub fn renew(&self, jobs: impl IntoIterator<Item = JobId>, deadline: Timestamp) {
        let mut held = self.0.lock();
        for job in jobs {
            held.entry(job).and_modify(|known| known.deadline = deadline);
        }
    }

    /// The mappings of these leases' jobs, where their records stand as they were made.
    pub fn new_mappings(&self, leases: &[LeaseRef]) -> Vec<Option<MappingVersion>> {
        let held = self.0.lock();
        let mapping = |lease: &LeaseRef| {
            let (token, mapping) = held.get(&lease.job)?.new?;
            (token == lease.token).then_some(mapping)
        };
        leases.iter().map(mapping).collect()
    }

    /// Forgets those whose leases ended before now.
    pub fn expire(&self, now: Timestamp) {
        self.0.lock().retain(|_, known| known.deadline > now);
    }

    /// All of them.
    pub fn jobs(&self) -> Vec<JobId> {
        self.0.lock().keys().copied().collect()
    }
}
