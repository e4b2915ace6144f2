//! A subscription: a connection that a program made for itself, and how it ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection::{Connection, ConnectionState};
use super::id::KeyId;
use super::time::Timestamp;

/// How long a subscription that ended is still shown.
pub const SHOWN_AFTER_END: Duration = Duration::from_hours(7 * 24);

/// How long after each failed try the other side is told again that a subscription ended; after the last nobody is told.
const FAREWELL_DELAYS_SECS: [u64; 5] = [10, 60, 600, 3_600, 21_600];

/// What makes a connection a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The key that subscribed: it ends when the key is revoked.
    pub key: KeyId,
    /// The event as the subscriber named it.
    pub event: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// It ended, and the other side is still to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farewell: Option<Farewell>,
}

/// What is left of telling the other side that a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// Tries so far.
    pub tries: u32,
    /// When it is tried next.
    pub due: Timestamp,
}

impl Farewell {
    /// One that is due now.
    pub fn new(now: Timestamp) -> Self {
        Self { tries: 0, due: now }
    }

    /// The same after another try; `None` when that was the last.
    pub fn after_try(self, now: Timestamp) -> Option<Self> {
        let delay = FAREWELL_DELAYS_SECS.get(usize::try_from(self.tries).ok()?)?;
        Some(Self { tries: self.tries + 1, due: now.plus(Duration::from_secs(*delay)) })
    }
}

/// What of the gateway changes the state of a connection because it is a subscription.
pub const SUBSCRIPTION: &str = "subscription";

/// Why a subscription is over though it is not closed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Its time was up.
    Expired(Timestamp),
    /// The key that subscribed was revoked.
    Revoked,
}

impl Over {
    /// Why, in plain words.
    pub fn reason(self) -> String {
        match self {
            Self::Expired(at) => format!("the subscription's time was up at {at}"),
            Self::Revoked => "the key that it was made with was revoked".to_owned(),
        }
    }
}

impl Subscription {
    /// Whether it is over. `has_key` is whether the key that subscribed still exists.
    pub fn over(&self, has_key: bool, now: Timestamp) -> Option<Over> {
        if !has_key {
            return Some(Over::Revoked);
        }
        self.expires.filter(|expires| *expires <= now).map(Over::Expired)
    }
}

/// When something is to be done about a connection: about a subscription that ends, that is to be told so, or that is no
/// longer to be shown. `None` for all others.
pub fn next_upkeep(connection: &Connection, has_key: bool) -> Option<Timestamp> {
    let subscription = connection.subscription.as_ref()?;
    match &connection.state {
        ConnectionState::Closed { at, .. } => {
            Some(subscription.farewell.map_or(at.plus(SHOWN_AFTER_END), |farewell| farewell.due))
        }
        _ if !has_key => Some(Timestamp::from_millis(0)),
        _ => subscription.expires,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn it_is_over_when_its_key_is_gone_or_its_time_is_up() {
        let key = KeyId::from_bits(1);
        let mut subscription =
            Subscription { key, event: "lead.captured".to_owned(), expires: None, farewell: None };
        assert_eq!(subscription.over(true, NOW), None);
        assert_eq!(subscription.over(false, NOW), Some(Over::Revoked));
        subscription.expires = Some(NOW);
        assert_eq!(subscription.over(true, NOW), Some(Over::Expired(NOW)));
        assert_eq!(subscription.over(true, NOW.minus(Duration::from_millis(1))), None);
    }

    #[test]
    fn the_other_side_is_told_a_bounded_number_of_times() {
        let mut farewell = Some(Farewell::new(NOW));
        let mut tries = 0;
        while let Some(left) = farewell {
            tries += 1;
            farewell = left.after_try(NOW);
        }
        assert_eq!(tries, 6);
        assert_eq!(Farewell::new(NOW).after_try(NOW).unwrap().due, NOW.plus(Duration::from_secs(10)));
    }
}
