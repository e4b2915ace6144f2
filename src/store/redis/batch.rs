//! Batches, cut to what may be held in memory and to what could be read: the rest goes back to its lane, which keeps it
//! until the batch is settled.

use std::collections::{HashMap, HashSet};

use redis::Value;

use super::keys::place_of;
use super::lease::Given;
use super::link::Step;
use super::{Core, REPLY, codec};
use crate::domain::id::JobId;
use crate::store::BATCH_BYTES;
use crate::store::types::Lease;

impl Core {
    /// Without what makes a batch larger than [`BATCH_BYTES`]; sizes are asked for before anything is read.
    pub(super) async fn cut_batches(&self, given: Vec<Given>) -> Vec<Given> {
        let batched: Vec<&Given> = given.iter().filter(|one| one.batch).collect();
        if batched.len() < 2 {
            return given;
        }
        let mut groups = Vec::with_capacity(batched.len());
        for one in &batched {
            let (base, index) = place_of(one.job);
            let event = self.keys.event(self.keys.partition_of(one.job).unwrap_or_default(), &base);
            let length = |field: String| {
                let mut command = redis::cmd("HSTRLEN");
                command.arg(&event[..]).arg(field);
                Step::Plain(command)
            };
            groups.push(vec![length("d".to_owned()), length(format!("b{index}"))]);
        }
        let answers = self.link.run_groups(groups, REPLY).await;
        let mut sizes = HashMap::with_capacity(batched.len());
        for (one, answer) in batched.iter().zip(answers) {
            // What can't be sized can't be read either, and reading it says so.
            let parts: Vec<Value> = answer.into_iter().flatten().flatten().collect();
            let bytes: u64 = parts.iter().filter_map(|size| codec::count(size).ok()).sum();
            sizes.insert(one.job, usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        let mut total = 0_usize;
        let (kept, over): (Vec<Given>, Vec<Given>) = given.into_iter().partition(|one| {
            total = if one.first { 0 } else { total };
            total = total.saturating_add(sizes.get(&one.job).copied().unwrap_or_default());
            !one.batch || one.first || total <= BATCH_BYTES
        });
        self.give_over(&over).await;
        kept
    }

    /// Without what stands in a batch behind a job that could not be read: it must not pass that one.
    pub(super) async fn cut_torn(&self, given: &[Given], leases: Vec<Lease>) -> Vec<Lease> {
        let read: HashSet<JobId> = leases.iter().map(|lease| lease.job.id).collect();
        let mut torn = false;
        let mut over = Vec::new();
        for one in given.iter().filter(|one| one.batch) {
            torn = (torn && !one.first) || !read.contains(&one.job);
            if torn && read.contains(&one.job) {
                over.push(*one);
            }
        }
        self.give_over(&over).await;
        let over: HashSet<JobId> = over.iter().map(|one| one.job).collect();
        leases.into_iter().filter(|lease| !over.contains(&lease.job.id)).collect()
    }

    async fn give_over(&self, over: &[Given]) {
        if over.is_empty() {
            return;
        }
        let named: Vec<(JobId, u64)> = over.iter().map(|one| (one.job, one.token)).collect();
        if let Err(error) = self.hold(&named, None).await {
            tracing::warn!(%error, jobs = over.len(), "cannot give back the end of a batch; trying again");
            self.doubt(over.iter().filter_map(|one| self.keys.partition_of(one.job)));
        }
    }
}
