//! The part of a lane that is in memory: unleased jobs in the order of their ids.

use std::collections::VecDeque;

use super::types::Slot;
use crate::domain::id::JobId;

/// Room that an emptied window may keep.
const KEPT_CAPACITY: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    retries: usize,
    bytes: usize,
}

impl Window {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of its jobs failed before.
    pub fn retries(&self) -> usize {
        self.retries
    }

    /// What its jobs count against the budget.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn front(&self) -> Option<&Slot> {
        self.slots.front()
    }

    /// Puts a job where it belongs; at either end this costs nothing.
    pub fn insert(&mut self, slot: Slot) {
        self.retries += usize::from(slot.due.is_some());
        self.bytes += slot.bytes();
        let place = self.slots.partition_point(|other| other.job.id < slot.job.id);
        self.slots.insert(place, slot);
    }

    pub fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.count_out(&slot);
        if self.slots.is_empty() && self.slots.capacity() > KEPT_CAPACITY {
            self.slots = VecDeque::new();
        }
        Some(slot)
    }

    pub fn remove(&mut self, job: JobId) -> Option<Slot> {
        let place = self.slots.binary_search_by_key(&job, |slot| slot.job.id).ok()?;
        let slot = self.slots.remove(place)?;
        self.count_out(&slot);
        Some(slot)
    }

    fn count_out(&mut self, slot: &Slot) {
        self.retries -= usize::from(slot.due.is_some());
        self.bytes -= slot.bytes();
    }

    /// Empties it.
    pub fn take(&mut self) -> VecDeque<Slot> {
        std::mem::take(self).slots
    }
}
