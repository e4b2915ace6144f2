//! Names for new events.

use parking_lot::Mutex;

use crate::clock::Ids;
use crate::domain::time::Timestamp;
use crate::store::redis::codec::time_of;
use crate::store::redis::keys::{BASE, Base};

/// Gives names to events: 6 bytes of milliseconds and 5 that rise within them by random steps.
#[derive(Debug, Default)]
pub(in super::super) struct Bases(Mutex<(u64, u64)>);

impl Bases {
    /// Every later name sorts after this one: for a store that was written under a clock that ran ahead.
    pub fn after(&self, base: &Base) {
        let millis = u64::try_from(time_of(base).millis()).unwrap_or(0);
        let rest = base[6..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut last = self.0.lock();
        *last = (*last).max((millis, rest));
    }

    pub(super) fn next(&self, now: Timestamp, ids: &Ids) -> Base {
        let random = u64::try_from(ids.next() & 0xFFFF_FFFF_FFFF).unwrap_or(0);
        let millis = u64::try_from(now.millis()).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
        let mut last = self.0.lock();
        let (mut time, mut rest) = if millis > last.0 {
            (millis, random & 0x7F_FFFF_FFFF)
        } else {
            (last.0, last.1 + 1 + (random & 0xFFFF))
        };
        if rest >> 40 > 0 {
            (time, rest) = (time + 1, random & 0x7F_FFFF_FFFF);
        }
        *last = (time, rest);
        let mut base = [0; BASE];
        base[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        base[6..].copy_from_slice(&rest.to_be_bytes()[3..]);
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Entropy};

    #[test]
    fn names_rise_even_when_the_clock_does_not() {
        let clock = Clock::manual(Timestamp::from_millis(1_777_777_777_777));
        let ids = Ids::new(clock.clone(), Entropy::seeded(3));
        let bases = Bases::default();
        let made: Vec<Base> = (0..10_000)
            .map(|at| bases.next(Timestamp::from_millis(clock.now().millis() - (at % 3)), &ids))
            .collect();
        assert!(made.is_sorted_by(|left, right| left < right));
    }
}
