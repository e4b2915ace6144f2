//! Room for attempts: the usual one, and one aside for those that wait long for their answer.
//!
//! An attempt begins in the usual room. One that has no answer after [`SLOW_AFTER`] moves aside, if there is room, and its
//! usual place is free for another lane. So endpoints that take requests and never answer hold a worker's places for a
//! second and not until their timeouts, and what is under way altogether stays bounded: when there is no room aside
//! either, the slow ones stay where they are and hold back the leasing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

/// An attempt that takes longer moves aside.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(1);

/// So many times as many attempts as the usual room holds may wait aside.
const ASIDE_TO_USUAL: usize = 3;

/// The rooms of a process.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    /// Permits to begin an attempt; only the feed takes them, for good, and [`Place::leave`] gives them back.
    pub usual: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    all: usize,
}

impl Rooms {
    /// Rooms for so many usual attempts, and those aside.
    pub fn new(usual: usize) -> Self {
        let aside = usual.saturating_mul(ASIDE_TO_USUAL).min(Semaphore::MAX_PERMITS / 2);
        Self {
            usual: Arc::new(Semaphore::new(usual)),
            aside: Arc::new(Semaphore::new(aside)),
            all: usual + aside,
        }
    }

    /// How many attempts both rooms hold.
    pub fn all(&self) -> usize {
        self.all
    }

    /// A place in the usual room; `None` when there is none.
    pub fn enter(&self) -> Option<Place> {
        let permit = self.usual.try_acquire().ok()?;
        permit.forget();
        Some(Place { rooms: self.clone(), is_aside: Arc::default() })
    }
}

/// An attempt's place. Clones are the same place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    rooms: Rooms,
    is_aside: Arc<AtomicBool>,
}

impl Place {
    /// Moves aside, if there is room.
    pub fn move_aside(&self) {
        let Ok(permit) = self.rooms.aside.try_acquire() else { return };
        if self.is_aside.swap(true, Ordering::AcqRel) {
            return;
        }
        permit.forget();
        self.rooms.usual.add_permits(1);
    }

    /// Gives the place back; to be called once.
    pub fn leave(&self) {
        let room = if self.is_aside.load(Ordering::Acquire) { &self.rooms.aside } else { &self.rooms.usual };
        room.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_aside_makes_room_until_there_is_none_aside() {
        let rooms = Rooms::new(2);
        assert_eq!(rooms.all(), 8);
        let mut places = Vec::new();
        for _ in 0..6 {
            let place = rooms.enter().unwrap();
            place.move_aside();
            place.move_aside();
            places.push(place);
        }
        assert_eq!(rooms.usual.available_permits(), 2, "six wait aside");
        for _ in 0..2 {
            let place = rooms.enter().unwrap();
            place.move_aside();
            places.push(place);
        }
        assert!(rooms.enter().is_none(), "both rooms are full");
        places.iter().for_each(Place::leave);
        assert_eq!((rooms.usual.available_permits(), rooms.aside.available_permits()), (2, 6));
    }
}
