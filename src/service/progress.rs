//! Whether the workers get on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::time::Timestamp;

/// When the workers last showed that they get on: for readiness.
#[derive(Debug)]
pub struct Progress(AtomicI64);

impl Default for Progress {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Progress {
    /// Workers that were not heard of for so long are stuck. They beat a few times as often, idle or not.
    pub const STALE: Duration = Duration::from_secs(15);

    /// A worker's lease loop came round.
    pub fn beat(&self, now: Timestamp) {
        self.0.fetch_max(now.millis(), Ordering::Relaxed);
    }

    /// This process has no workers, so that nothing is expected of them.
    pub fn expect_nothing(&self) {
        self.0.store(i64::MAX, Ordering::Relaxed);
    }

    /// Whether the workers were heard of lately.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed)) >= now.minus(Self::STALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_fresh_only_for_a_while_after_a_beat() {
        let progress = Progress::default();
        let now = Timestamp::from_millis(1_000_000);
        assert!(!progress.is_fresh(now), "nothing was heard yet");
        progress.beat(now);
        assert!(progress.is_fresh(now.plus(Progress::STALE)));
        assert!(!progress.is_fresh(now.plus(Progress::STALE + Duration::from_millis(1))));
        progress.expect_nothing();
        assert!(progress.is_fresh(now.plus(Duration::from_hours(1))));
    }
}
