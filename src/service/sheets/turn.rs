//! A spreadsheet's one writer: a lock in this process, and a hold in the store over all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::api::left;
use crate::service::Gateway;
use crate::store::StoreError;

/// How long a batch waits for its turn; then its lane does.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a hold is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(150);
/// What a hold lasts beyond the deadline of the try: the clocks of two machines may differ so much.
const MARGIN: Duration = Duration::from_secs(5);
/// Spreadsheets known before idle ones are forgotten.
const MANY: usize = 1_024;

#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// The right to write to a spreadsheet until the try's deadline.
pub(super) struct Turn {
    name: String,
    owner: u128,
    _local: OwnedMutexGuard<()>,
}

impl Turns {
    fn local(&self, spreadsheet: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock();
        if turns.len() >= MANY {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(spreadsheet.to_owned()).or_default())
    }

    /// Waits for a turn; `None` when others keep it too long. `owner` is the connection's: a try after one whose request may
    /// still be under way gets the turn that was kept for it.
    pub async fn take(
        &self,
        gateway: &Gateway,
        spreadsheet: &str,
        owner: u128,
        deadline: Instant,
    ) -> Result<Option<Turn>, StoreError> {
        let until = (Instant::now() + PATIENCE).min(deadline);
        let lock = self.local(spreadsheet).lock_owned();
        let Ok(local) = tokio::time::timeout_at(until, lock).await else { return Ok(None) };
        let name = format!("google_sheets:{spreadsheet}");
        loop {
            if gateway.store.hold(&name, owner, left(deadline) + MARGIN).await? {
                return Ok(Some(Turn { name, owner, _local: local }));
            }
            if Instant::now() + ASK_EVERY >= until {
                return Ok(None);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Turn {
    /// Gives it back. One whose request may still be under way is to be dropped instead, and runs out by itself.
    pub async fn give_back(self, gateway: &Gateway) {
        if let Err(error) = gateway.store.let_go(&self.name, self.owner).await {
            tracing::warn!(%error, "cannot give back a spreadsheet; it is free again when the hold ends");
        }
    }
}
