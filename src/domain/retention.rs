//! For how long events and their finished deliveries are kept: so long, and some types shorter.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::EventPattern;
use super::time::Timestamp;

/// The most types with a retention of their own.
pub const MAX_TYPES: usize = 50;

/// How long each type is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    all: Duration,
    types: Vec<(EventPattern, Duration)>,
}

impl From<Duration> for Retention {
    /// The same for every type.
    fn from(all: Duration) -> Self {
        Self { all, types: Vec::new() }
    }
}

impl Retention {
    /// `all`, but for the types that match; of several patterns the first one counts. None is kept longer than `all`.
    pub fn new(all: Duration, types: Vec<(EventPattern, Duration)>) -> Self {
        let types = types.into_iter().map(|(pattern, span)| (pattern, span.min(all))).collect();
        Self { all, types }
    }

    /// How long the types are kept that have no retention of their own.
    pub fn all(&self) -> Duration {
        self.all
    }

    /// How long events of this type are kept.
    pub fn of(&self, kind: &str) -> Duration {
        self.types.iter().find(|(pattern, _)| pattern.matches(kind)).map_or(self.all, |(_, span)| *span)
    }

    /// What ended before this time is no longer kept.
    pub fn cutoff(&self, kind: &str, now: Timestamp) -> Timestamp {
        now.minus(self.of(kind))
    }

    /// The spans that are shorter than `all`, each once, the shortest first.
    pub fn shorter(&self) -> BTreeSet<Duration> {
        self.types.iter().map(|(_, span)| *span).filter(|span| *span < self.all).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_counts_and_none_is_longer() {
        let day = Duration::from_hours(24);
        let types = [("conversation.rated", 3), ("conversation.*", 1), ("audit.*", 900)];
        let types = types.map(|(pattern, days)| (pattern.parse().unwrap(), day * days)).to_vec();
        let retention = Retention::new(day * 7, types);
        for (kind, days) in
            [("conversation.rated", 3), ("conversation.ended", 1), ("audit.login", 7), ("lead.captured", 7)]
        {
            assert_eq!(retention.of(kind), day * days, "{kind}");
        }
        assert_eq!(retention.shorter().into_iter().collect::<Vec<_>>(), [day, day * 3]);
        assert!(Retention::from(day).shorter().is_empty());
    }
}
