//! Leases under settlement: claimed before the write, and given back should it come to nothing.

use std::sync::Arc;

use super::settle::Claimed;
use super::writer::Shared;
use crate::domain::time::Timestamp;
use crate::store::types::Settlement;

/// Settlements whose leases were claimed. Dropped after the write; leases that have not ended by then run on.
pub(super) struct Claims {
    shared: Arc<Shared>,
    claimed: Vec<Claimed>,
}

impl Claims {
    /// Claims what is still held; what an endpoint took makes room in its lane at once.
    pub fn new(shared: &Arc<Shared>, settlements: Vec<Settlement>, now: Timestamp) -> Self {
        let mut lanes = shared.lanes.lock();
        let claimed = settlements
            .into_iter()
            .filter_map(|settlement| {
                let job = lanes.claim(&settlement.lease, settlement.effect.is_welcome(), now)?;
                Some(Claimed { settlement, job })
            })
            .collect();
        let gives = lanes.has_work();
        drop(lanes);
        if gives {
            shared.work.notify_one();
        }
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
        let held = self.claimed.iter().filter(|one| lanes.unclaim(&one.settlement.lease)).count();
        drop(lanes);
        // Their deadlines count again: whoever waits has to look at them.
        if held > 0 {
            self.shared.work.notify_one();
        }
    }
}
