//! How much may be under way in a process at once: requests, and bytes of their bodies. Who finds it full is turned away
//! at once, before anything is done for him; so neither memory nor the time of an answer grows with what comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is under way.
#[derive(Debug)]
pub struct Door {
    requests: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    most_requests: usize,
    most_bytes: usize,
}

/// A place at the door, or bytes in memory, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<AtomicUsize>,
    size: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.size, Ordering::AcqRel);
    }
}

impl Door {
    /// At most so many requests and bytes at once.
    pub fn new(most_requests: usize, most_bytes: usize) -> Self {
        Self { requests: Arc::default(), bytes: Arc::default(), most_requests, most_bytes }
    }

    /// Lets a request in, unless as many as may are under way.
    pub fn enter(&self) -> Option<Share> {
        let taken = self.requests.fetch_add(1, Ordering::AcqRel);
        let place = Share { of: Arc::clone(&self.requests), size: 1 };
        (taken < self.most_requests).then_some(place)
    }

    /// Room for a body of which nothing has come yet.
    pub fn hold(&self) -> Share {
        Share { of: Arc::clone(&self.bytes), size: 0 }
    }

    /// Makes room for so many more bytes of a body; `false` where there is not as much.
    pub fn grow(&self, held: &mut Share, bytes: usize) -> bool {
        let taken = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        held.size += bytes;
        taken.saturating_add(bytes) <= self.most_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_it_full_leaves_nothing_behind() {
        let door = Door::new(2, 100);
        let (first, _second) = (door.enter().unwrap(), door.enter().unwrap());
        assert!(door.enter().is_none());
        let mut held = door.hold();
        assert!(door.grow(&mut held, 40) && door.grow(&mut held, 20));
        assert!(!door.grow(&mut door.hold(), 41));
        let load = || (door.requests.load(Ordering::Acquire), door.bytes.load(Ordering::Acquire));
        assert_eq!(load(), (2, 60));
        drop((first, held));
        assert_eq!(load(), (1, 0));
        assert!(door.enter().is_some() && door.grow(&mut door.hold(), 100));
    }
}
