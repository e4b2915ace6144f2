//! Leases under settlement: claimed before the write, and given back should it come to nothing.

use std::sync::Arc;

use super::settle::Claimed;
use super::writer::Shared;
use crate::store::types::Settlement;

/// Settlements whose leases were claimed. Dropped after the write; leases that have not ended by then run on.
pub(super) struct Claims {
    shared: Arc<Shared>,
    claimed: Vec<Claimed>,
}

impl Claims {
    /// Claims what is still held.
    pub fn new(shared: &Arc<Shared>, settlements: Vec<Settlement>) -> Self {
        let mut lanes = shared.lanes.lock();
        let claimed = settlements
            .into_iter()
            .filter_map(|settlement| {
                let job = lanes.claim(&settlement.lease)?;
                Some(Claimed { settlement, job })
            })
            .collect();
        Self { shared: Arc::clone(shared), claimed }
    }

    /// What was claimed.
    pub fn claimed(&self) -> &[Claimed] {
        &self.claimed
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut lanes = self.shared.lanes.lock();
        for one in &self.claimed {
            lanes.unclaim(&one.settlement.lease);
        }
        drop(lanes);
        // Its deadline counts again: whoever waits has to look at it.
        self.shared.work.notify_one();
    }
}
