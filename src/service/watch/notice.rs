//! What of an attempt is worth telling.

use super::alert::{Matter, Occasion};
use crate::domain::breaker::{BREAKER, BreakerPolicy, Failing, progress};
use crate::domain::event::is_reserved;
use crate::domain::history::GONE;
use crate::domain::id::{ConnectionId, JobId};
use crate::domain::job::{JobState, Outcome};
use crate::domain::settle::{LaneEffect, Next};
use crate::service::Gateway;

/// From so many percent of the way to a pause on a run of failures is told; each of these levels once.
const LEVELS: [u32; 4] = [100, 90, 70, 50];

/// One attempt, as far as an alert speaks of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::service) struct Tried<'a> {
    pub job: JobId,
    pub connection: ConnectionId,
    /// Its event's type.
    pub kind: &'a str,
    pub outcome: Outcome,
    pub status: Option<u16>,
    /// Its reason for the delivery log.
    pub reason: &'a str,
    /// The lane's failures in a row before it.
    pub failing: Failing,
    pub breaker: &'a BreakerPolicy,
    /// Whether its connection was resumed and has delivered nothing since.
    pub unproven: bool,
}

impl Gateway {
    /// Notes what is worth telling of an attempt, by what it does to its job and its lane.
    pub(in crate::service) fn notice(&self, tried: &Tried<'_>, next: &Next, effect: &LaneEffect) {
        // Where all is well nothing more is looked at.
        if effect.healthy == Some(true) && tried.failing.count == 0 && !tried.unproven {
            return;
        }
        let occasion = || {
            let Tried { job, kind, outcome, status, reason, .. } = *tried;
            Some(Occasion::new(job, kind, outcome, status, reason))
        };
        let note = |matter: Matter| self.note(Some(tried.connection), matter, occasion());
        let now = self.clock.now();
        match effect.healthy {
            Some(false) => {
                let since = if tried.failing.count == 0 { now } else { tried.failing.since };
                let failures = tried.failing.count.saturating_add(1);
                let percent = progress(tried.breaker, Failing { count: failures, since }, now);
                if let Some(percent) = LEVELS.into_iter().find(|level| *level <= percent) {
                    note(Matter::Failing { percent, failures, since, policy: *tried.breaker });
                }
            }
            Some(true) => {
                let failures = tried.failing.count;
                let was_told = failures > 0 && progress(tried.breaker, tried.failing, now) >= LEVELS[3];
                if was_told || tried.unproven {
                    note(Matter::Recovered { failures });
                }
            }
            None => {}
        }
        if effect.close.is_some() {
            note(Matter::Stopped { by: GONE, closed: true, given_up: true });
        } else if let Some((by, _)) = effect.pause {
            note(Matter::Stopped { by, closed: false, given_up: by == BREAKER });
        }
        // An alert that can't be delivered is no matter for another one.
        if let Next::Done(state @ (JobState::Dead | JobState::Rejected | JobState::MappingFailed)) = *next
            && !is_reserved(tried.kind)
        {
            note(Matter::DeadLetter { state });
        }
    }
}
