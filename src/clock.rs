//! The only place that reads the wall clock or asks for randomness; tests inject their own.
//!
//! [`Clock::manual`] stands still until a test advances it, and wakes whoever sleeps on it. [`Entropy::seeded`]
//! gives the same bytes every time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::watch;

use crate::domain::time::Timestamp;

/// Tells the time and sleeps.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that moves only by [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(start))))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(now) => *now.borrow(),
        }
    }

    /// Now, in nanoseconds since 1970, for spans that last less than a millisecond.
    pub fn nanos(&self) -> u64 {
        let nanos = match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
            Source::Manual(now) => u128::try_from(now.borrow().millis()).unwrap_or(0) * 1_000_000,
        };
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Moves a manual clock on; the machine's clock does not listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.send_modify(|time| *time = time.plus(by));
        }
    }

    /// Sets a manual clock, be it back; the machine's clock does not listen.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(now) = &self.0 {
            now.send_replace(to);
        }
    }

    /// Waits until the clock shows `when` or later.
    pub async fn sleep_until(&self, when: Timestamp) {
        match &self.0 {
            Source::System => tokio::time::sleep(when.since(self.now())).await,
            Source::Manual(now) => {
                let mut seen = now.subscribe();
                // An error means that the clock is gone, and with it the test that held it.
                let _ = seen.wait_for(|time| *time >= when).await;
            }
        }
    }

    /// Waits for `span` of this clock's time.
    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now().plus(span)).await;
    }
}

/// Gives random bytes.
#[derive(Debug, Clone)]
pub struct Entropy(Option<Arc<Mutex<SmallRng>>>);

impl Entropy {
    /// The operating system's generator, by way of a thread-local one seeded from it; fit for secrets.
    pub fn system() -> Self {
        Self(None)
    }

    /// The same bytes for the same seed; for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed)))))
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            None => rand::rng().fill_bytes(&mut bytes),
            Some(seeded) => seeded.lock().fill_bytes(&mut bytes),
        }
        bytes
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&self) -> f64 {
        match &self.0 {
            None => rand::rng().random(),
            Some(seeded) => seeded.lock().random(),
        }
    }
}

/// Gives 128-bit identifiers that sort by time and, within one process, by the order in which they were asked for.
#[derive(Debug, Clone)]
pub struct Ids {
    clock: Clock,
    entropy: Entropy,
    last: Arc<Mutex<u128>>,
}

impl Ids {
    /// A source of identifiers.
    pub fn new(clock: Clock, entropy: Entropy) -> Self {
        Self { clock, entropy, last: Arc::default() }
    }

    /// Makes every later identifier sort after `id`: for a store that was written under a clock that ran ahead.
    pub fn after(&self, id: u128) {
        let mut last = self.last.lock();
        *last = id.max(*last);
    }

    /// The next identifier: 48 bits of milliseconds and 80 of randomness; within a millisecond, the last one plus a
    /// random step of up to 2^32, so that they rise and yet can't be guessed from one another.
    pub fn next(&self) -> u128 {
        let millis = u128::try_from(self.clock.now().millis()).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
        let random = u128::from_be_bytes(self.entropy.bytes());
        let fresh = millis << 80 | random >> 48;
        let mut last = self.last.lock();
        *last = if fresh >> 80 > *last >> 80 { fresh } else { *last + 1 + (random & 0xFFFF_FFFF) };
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_passes_their_time() {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(5)).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), Timestamp::from_millis(6_000));
    }

    #[test]
    fn identifiers_rise_even_when_the_clock_stands_still() {
        let ids = Ids::new(Clock::manual(Timestamp::from_millis(5)), Entropy::seeded(1));
        let made: Vec<u128> = (0..1_000).map(|_| ids.next()).collect();
        assert!(made.is_sorted_by(|left, right| left < right));
        ids.after(9 << 80);
        assert!(ids.next() > 9 << 80);
    }

    #[test]
    fn seeded_entropy_repeats() {
        assert_eq!(Entropy::seeded(7).bytes::<16>(), Entropy::seeded(7).bytes::<16>());
        assert_ne!(Entropy::system().bytes::<16>(), Entropy::system().bytes::<16>());
    }
}
