//! Leases: who holds which job until when, and what becomes of a job that comes back.

use crate::domain::id::JobId;
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::store::types::LeaseRef;

use super::Lanes;
use super::types::Slot;

#[derive(Debug)]
pub(super) struct LeaseEntry {
    slot: Slot,
    token: u64,
    deadline: Timestamp,
    /// Its settlement is being written: it can't expire.
    settling: bool,
    /// Its endpoint has answered and may have the next job; see [`Lane::freed`](super::lane::Lane::freed).
    freed: bool,
}

impl LeaseEntry {
    pub fn new(slot: Slot, token: u64, deadline: Timestamp) -> Self {
        Self { slot, token, deadline, settling: false, freed: false }
    }

    pub fn created(&self) -> Timestamp {
        self.slot.job.created
    }

    #[cfg(test)]
    pub fn connection(&self) -> crate::domain::id::ConnectionId {
        self.slot.job.connection
    }
}

impl Lanes {
    /// Whether a job is leased.
    pub fn is_leased(&self, job: JobId) -> bool {
        self.leases.contains_key(&job)
    }

    /// Claims a lease for its settlement; `None` when it was lost. A claimed lease can't expire. `freed` where its lane may
    /// give another job before the settlement is written.
    pub fn claim(&mut self, lease: &LeaseRef, freed: bool, now: Timestamp) -> Option<Job> {
        let entry = self.leases.get_mut(&lease.job)?;
        if entry.token != lease.token || entry.settling {
            return None;
        }
        entry.settling = true;
        entry.freed = freed;
        self.deadlines.remove(&(entry.deadline, lease.job));
        let job = entry.slot.job.clone();
        if freed {
            self.lane(job.connection).freed += 1;
            self.wake(job.connection, now);
        }
        Some(job)
    }

    /// The settlement was not written: the lease runs on. Answers whether it does.
    pub fn unclaim(&mut self, lease: &LeaseRef) -> bool {
        let Some(entry) = self.leases.get_mut(&lease.job).filter(|entry| entry.token == lease.token) else {
            return false;
        };
        entry.settling = false;
        let (deadline, connection, freed) =
            (entry.deadline, entry.slot.job.connection, std::mem::take(&mut entry.freed));
        self.deadlines.insert((deadline, lease.job));
        self.lane(connection).freed -= u32::from(freed);
        true
    }

    /// Moves a lease's deadline.
    pub fn renew(&mut self, lease: &LeaseRef, deadline: Timestamp) {
        if let Some(entry) = self.leases.get_mut(&lease.job)
            && entry.token == lease.token
            && !entry.settling
        {
            self.deadlines.remove(&(entry.deadline, lease.job));
            entry.deadline = deadline;
            self.deadlines.insert((deadline, lease.job));
        }
    }

    /// Takes a lease back untried.
    pub fn release(&mut self, lease: &LeaseRef, now: Timestamp) {
        let held =
            self.leases.get(&lease.job).is_some_and(|entry| entry.token == lease.token && !entry.settling);
        if let Some(slot) = held.then(|| self.end_lease(lease.job)).flatten() {
            self.put_back(slot, now);
        }
    }

    /// Takes a job out of the leases; the caller says where it goes and wakes its lane.
    pub(super) fn end_lease(&mut self, job: JobId) -> Option<Slot> {
        let entry = self.leases.remove(&job)?;
        self.deadlines.remove(&(entry.deadline, job));
        let lane = self.lane(entry.slot.job.connection);
        lane.leased = lane.leased.saturating_sub(1);
        lane.freed -= u32::from(entry.freed);
        Some(entry.slot)
    }

    /// Puts a known job back to where it stood.
    pub(super) fn put_back(&mut self, slot: Slot, now: Timestamp) {
        let connection = slot.job.connection;
        let lane = self.lane(connection);
        if lane.keeps_nothing() {
            lane.leave_on_disk(&slot);
            self.known.remove(&slot.job.id);
        } else {
            let bytes = slot.bytes();
            lane.window.insert(slot);
            self.window_bytes += bytes;
        }
        self.wake(connection, now);
    }
}
