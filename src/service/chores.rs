//! Chores: replays and erasures, each a record that one process at a time works on.
//!
//! # Theory of operation
//!
//! Every process takes a turn at every running chore each second; whoever has the chore's hold does something of it,
//! a bounded step, and writes into the record how far it came. So a chore goes on in another process when one dies: seconds
//! later, when the hold has ended. What was done after the record was last written is done again, which each kind of work
//! makes harmless: the store puts a job back once for each replay, and what is erased stays erased. Only counts of the turn
//! that broke off may be missing.
//!
//! Whoever cancels a chore changes its record; the turn under way ends at its next page.

use std::sync::Arc;
use std::time::Duration;

use super::directory::LiveChore;
use super::{Gateway, ServiceError};
use crate::domain::chore::{Chore, ChoreState, Progress, Work};
use crate::domain::fault::Faults;
use crate::domain::id::{ChoreId, TenantId};
use crate::store::{Expected, Record, RecordId, StoreError};

/// Chores of one tenant that run at once.
pub const MAX_RUNNING: usize = 10;
/// Ended chores of one tenant that are kept, the newest.
pub const KEPT_ENDED: usize = 100;
/// How long ended chores are kept.
pub const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// Between two turns.
const TURN: Duration = Duration::from_secs(1);
/// How long a process that fell silent keeps others from a chore.
const HOLD: Duration = Duration::from_secs(15);
/// How often a record is written again that someone else changed.
const ROUNDS: usize = 4;

/// How a chore ended in a turn.
pub(super) type Ended = Option<(ChoreState, String)>;

impl Gateway {
    /// Works on chores until it is dropped.
    pub async fn tend_chores_forever(&self) {
        let owner = u128::from_be_bytes(self.entropy.bytes());
        loop {
            self.tend_chores(owner).await;
            tokio::select! {
                () = self.chores_changed.notified() => {}
                () = self.clock.sleep(TURN) => {}
            }
        }
    }

    /// One turn at each running chore, and forgets old ones; `owner` names this process.
    pub async fn tend_chores(&self, owner: u128) {
        let running = self.directory.chores(Chore::is_running);
        let turns = running.iter().map(|live| async move {
            let id = live.record.id;
            if let Err(error) = self.turn(id, owner).await {
                tracing::warn!(chore = %id, %error, "a replay or an erasure could not go on; trying again");
            }
        });
        futures::future::join_all(turns).await;
        if let Err(error) = self.forget_chores().await {
            tracing::warn!(%error, "ended replays and erasures could not be forgotten; trying again");
        }
    }

    async fn turn(&self, id: ChoreId, owner: u128) -> Result<(), ServiceError> {
        let name = format!("chore:{id}");
        if !self.store.hold(&name, owner, HOLD).await? {
            return Ok(());
        }
        // Whoever had the hold before may have done more than this process heard of.
        self.directory.catch_up(self.store.as_ref()).await?;
        let Some(live) = self.directory.chore(id).filter(|live| live.record.is_running()) else {
            return Ok(self.store.let_go(&name, owner).await?);
        };
        let (mut chore, before) = (live.record.clone(), live.record.progress.clone());
        let work = chore.work.clone();
        let turned = match &work {
            Work::Replay(replay) => self.replay_turn(&mut chore, replay).await,
            Work::Erasure(erasure) => self.erasure_turn(&mut chore, erasure).await,
            Work::Purge { of } => self.purge_turn(&mut chore, of).await,
        };
        if let Ok(Some((state, reason))) = &turned {
            chore.end(*state, reason.as_str(), self.clock.now());
            let kind = kind_of(&chore);
            tracing::info!(chore = %id, kind, state = ?state, done = chore.progress.done, "a chore ended");
        }
        if chore.progress != before || !chore.is_running() {
            self.write_turn(chore, live).await?;
        }
        turned.map(drop)
    }

    /// Writes what a turn came to. What someone ended meanwhile stays ended, with the counts.
    async fn write_turn(&self, chore: Chore, live: Arc<LiveChore>) -> Result<(), ServiceError> {
        let (mut chore, mut revision) = (chore, live.revision);
        for _ in 0..ROUNDS {
            let record = Record::Chore(Box::new(chore.clone()));
            let written = self.store.put(record, Expected::At(revision)).await;
            self.directory.catch_up(self.store.as_ref()).await?;
            match written {
                Err(StoreError::Conflict) => {}
                written => return written.map(drop).map_err(ServiceError::from),
            }
            // Someone deleted it, or ended it.
            let Some(now) = self.directory.chore(chore.id) else { return Ok(()) };
            chore = Chore { progress: chore.progress, ..now.record.clone() };
            revision = now.revision;
        }
        Ok(())
    }

    /// Whether a chore is to go on, as far as this process knows.
    pub(super) fn goes_on(&self, id: ChoreId) -> bool {
        self.directory.chore(id).is_some_and(|live| live.record.is_running())
    }

    /// Makes a chore; the next turn begins it.
    pub(super) async fn make_chore(&self, chore: Chore) -> Result<Chore, ServiceError> {
        let owner = &chore.tenant;
        let running = self.directory.chores(|other| other.is_running() && other.tenant == *owner).len();
        if running >= MAX_RUNNING && owner.is_some() {
            let mut faults = Faults::default();
            let hint = format!("at most {MAX_RUNNING} at once; wait for one, or cancel it");
            faults.at_field("", "as many replays and erasures as may run at once are running", Some(hint));
            return Err(ServiceError::Limit(faults));
        }
        self.store.put(Record::Chore(Box::new(chore.clone())), Expected::Absent).await?;
        self.directory.catch_up(self.store.as_ref()).await?;
        self.chores_changed.notify_one();
        Ok(chore)
    }

    /// A chore that is about to be made.
    pub(super) fn new_chore(&self, tenant: Option<TenantId>, work: Work, by: &str) -> Chore {
        Chore {
            id: ChoreId::from_bits(self.ids.next()),
            tenant,
            work,
            by: by.to_owned(),
            created: self.clock.now(),
            ended: None,
            state: ChoreState::Running,
            reason: String::new(),
            progress: Progress::default(),
        }
    }

    /// A tenant's chore, or any; only one whose work is such.
    pub fn owned_chore(
        &self,
        tenant: Option<&TenantId>,
        id: ChoreId,
        is_such: fn(&Work) -> bool,
        what: &'static str,
    ) -> Result<Arc<LiveChore>, ServiceError> {
        self.directory
            .chore(id)
            .filter(|live| tenant.is_none() || live.record.tenant.as_ref() == tenant)
            .filter(|live| is_such(&live.record.work))
            .ok_or(ServiceError::Missing(what))
    }

    /// Ends a chore that runs; one that has ended stays as it is.
    pub async fn cancel_chore(&self, live: Arc<LiveChore>, by: &str) -> Result<Chore, ServiceError> {
        let mut live = live;
        for _ in 0..ROUNDS * ROUNDS {
            let mut chore = live.record.clone();
            if !chore.is_running() {
                return Ok(chore);
            }
            chore.end(ChoreState::Cancelled, format!("cancelled by {by}"), self.clock.now());
            let record = Record::Chore(Box::new(chore.clone()));
            let written = self.store.put(record, Expected::At(live.revision)).await;
            self.directory.catch_up(self.store.as_ref()).await?;
            match written {
                Ok(_) => return Ok(chore),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            live = self.directory.chore(chore.id).ok_or(ServiceError::Conflict)?;
        }
        Err(ServiceError::Conflict)
    }

    /// Deletes ended chores that are old, or too many. Several processes may do it at once.
    async fn forget_chores(&self) -> Result<(), ServiceError> {
        let before = self.clock.now().minus(KEPT_FOR);
        let mut seen: std::collections::HashMap<Option<TenantId>, usize> = std::collections::HashMap::new();
        for live in self.directory.chores(|chore| !chore.is_running()) {
            let chore = &live.record;
            let newer = seen.entry(chore.tenant.clone()).or_default();
            *newer += 1;
            if *newer > KEPT_ENDED || chore.ended.is_some_and(|ended| ended < before) {
                self.store.delete(RecordId::Chore(chore.id)).await?;
                self.directory.catch_up(self.store.as_ref()).await?;
            }
        }
        Ok(())
    }
}

/// What a chore is called.
fn kind_of(chore: &Chore) -> &'static str {
    match chore.work {
        Work::Replay(_) => "replay",
        Work::Erasure(_) => "erasure",
        Work::Purge { .. } => "purge",
    }
}
