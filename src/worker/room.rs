//! Room for attempts: the usual one, and one aside for those that wait long for their answer.
//!
//! An attempt begins in the usual room. One that has no answer after [`SLOW_AFTER`] moves aside, if there is room, and its
//! usual place is free for another lane. So endpoints that take requests and never answer hold a worker's places for a
//! second and not until their timeouts, and what is under way altogether stays bounded: when there is no room aside
//! either, the slow ones stay where they are and hold back the leasing.
//!
//! So that it does not come to that by one tenant's endpoints, a tenant begins attempts only while it has fewer aside than
//! are free there (a dynamic threshold, as of buffers in switches): one alone may fill half of the room, two a
//! third each, and there is always some left for the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::domain::id::TenantId;

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
    /// How many each tenant has aside.
    slow: Arc<Mutex<HashMap<TenantId, usize>>>,
    usual_size: usize,
    aside_size: usize,
}

impl Rooms {
    /// Rooms for so many usual attempts, and those aside.
    pub fn new(usual: usize) -> Self {
        let aside = usual.saturating_mul(ASIDE_TO_USUAL).min(Semaphore::MAX_PERMITS / 2);
        Self {
            usual: Arc::new(Semaphore::new(usual)),
            aside: Arc::new(Semaphore::new(aside)),
            slow: Arc::default(),
            usual_size: usual,
            aside_size: aside,
        }
    }

    /// How many attempts both rooms hold.
    pub fn all(&self) -> usize {
        self.usual_size + self.aside_size
    }

    /// A place in the usual room; `None` when there is none.
    pub fn enter(&self) -> Option<Place> {
        let permit = self.usual.try_acquire().ok()?;
        permit.forget();
        Some(Place { rooms: self.clone(), aside: Arc::default() })
    }
}

/// An attempt's place. Clones are the same place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    rooms: Rooms,
    /// Whose attempt is aside.
    aside: Arc<Mutex<Option<TenantId>>>,
}

impl Place {
    /// Whether a tenant may begin one more attempt. Costs nothing while nobody is slow.
    pub fn may_begin(&self, tenant: &TenantId) -> bool {
        let free = self.rooms.aside.available_permits();
        free == self.rooms.aside_size || self.rooms.slow.lock().get(tenant).is_none_or(|own| *own < free)
    }

    /// Moves a tenant's attempt aside, if there is room.
    pub fn move_aside(&self, tenant: &TenantId) {
        let Ok(permit) = self.rooms.aside.try_acquire() else { return };
        let mut aside = self.aside.lock();
        if aside.is_some() {
            return;
        }
        permit.forget();
        *aside = Some(tenant.clone());
        *self.rooms.slow.lock().entry(tenant.clone()).or_default() += 1;
        self.rooms.usual.add_permits(1);
    }

    /// Gives the place back; to be called once.
    pub fn leave(&self) {
        let Some(tenant) = self.aside.lock().take() else { return self.rooms.usual.add_permits(1) };
        let mut slow = self.rooms.slow.lock();
        if let Some(own) = slow.get_mut(&tenant) {
            *own -= 1;
            if *own == 0 {
                slow.remove(&tenant);
            }
        }
        drop(slow);
        self.rooms.aside.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    #[test]
    fn a_tenant_leaves_room_for_others() {
        let rooms = Rooms::new(4);
        let globex: TenantId = "globex".parse().unwrap();
        let mut places = Vec::new();
        let mut fill = |tenant: &TenantId| {
            let before = places.len();
            while let Some(place) = rooms.enter() {
                if !place.may_begin(tenant) {
                    place.leave();
                    break;
                }
                place.move_aside(tenant);
                places.push(place);
            }
            places.len() - before
        };
        assert_eq!((fill(&acme()), fill(&acme())), (6, 0), "half of the twelve aside");
        assert_eq!((fill(&globex), fill(&acme())), (3, 0), "half of what is left");
        places.iter().for_each(Place::leave);
        assert!(rooms.slow.lock().is_empty());
        assert_eq!((rooms.usual.available_permits(), rooms.aside.available_permits()), (4, 12));
    }

    #[test]
    fn who_moves_aside_makes_room_until_there_is_none_aside() {
        let rooms = Rooms::new(2);
        assert_eq!(rooms.all(), 8);
        let mut places = Vec::new();
        for _ in 0..6 {
            let place = rooms.enter().unwrap();
            place.move_aside(&acme());
            place.move_aside(&acme());
            places.push(place);
        }
        assert_eq!(rooms.usual.available_permits(), 2, "six wait aside");
        for _ in 0..2 {
            let place = rooms.enter().unwrap();
            place.move_aside(&acme());
            places.push(place);
        }
        assert!(rooms.enter().is_none(), "both rooms are full");
        places.iter().for_each(Place::leave);
        assert_eq!((rooms.usual.available_permits(), rooms.aside.available_permits()), (2, 6));
    }
}
