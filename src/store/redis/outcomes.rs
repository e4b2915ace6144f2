//! The call that writes outcomes, as `settle.lua` reads it.
//!
//! Most jobs are taken by their endpoint at the first try. Of such a *plain* one the process that tried it knows all that is to be
//! written, and puts it together, so that the script has little to do for it: what Lua does costs more than what Redis does.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::Core;
use super::codec::{JobRecord, state_code, time_bytes, write_record};
use super::keys::{Base, Partition, place_of};
use super::script::Call;
use super::settle::{effect_of, health_of, unwritable};
use crate::domain::id::{ConnectionId, MappingVersion};
use crate::domain::job::{Attempt, JobState};
use crate::domain::settle::Next;
use crate::domain::time::Timestamp;
use crate::store::types::{LeaseRef, Settlement};
use crate::store::{StoreError, log};

/// Where in `ARGV` the first word of a plain outcome is.
const FIRST_WORD: usize = 5;
/// Bytes of its head; `PLAIN_BYTES` in `settle.lua`.
const PLAIN: usize = 27;
/// In place of a slot where there was no attempt.
const NO_SLOT: u8 = 255;

/// An outcome of a job whose record stands as it was made, and which an endpoint took at the first try.
struct Plain<'a> {
    settlement: &'a Settlement,
    attempt: &'a Attempt,
    mapping: MappingVersion,
}

impl<'a> Plain<'a> {
    fn of(settlement: &'a Settlement, mapping: Option<MappingVersion>) -> Option<Self> {
        let Settlement { attempt: Some(attempt), next: Next::Done(JobState::Delivered), effect, .. } =
            settlement
        else {
            return None;
        };
        let is_plain =
            effect.is_welcome() && attempt.number == 1 && !log::slots_of(attempt).1 && !settlement.forget;
        Some(Self { settlement, attempt, mapping: mapping? }).filter(|_| is_plain)
    }

    /// What becomes of its record.
    fn record(&self, now: Timestamp) -> Vec<u8> {
        write_record(&JobRecord {
            connection: self.settlement.lease.connection,
            mapping: self.mapping,
            state: JobState::Delivered,
            attempts: 1,
            tries: 1,
            due: None,
            finished: Some(now),
            reason: self.settlement.reason.clone(),
        })
    }
}

/// Splits outcomes into plain ones and the others, with their mappings, each in order. Those of a lane are written in their
/// order: what follows one that is not plain counts as such.
fn split<'a>(
    settlements: &[&'a Settlement],
    mappings: Vec<Option<MappingVersion>>,
) -> (Vec<Plain<'a>>, Vec<(&'a Settlement, Option<MappingVersion>)>) {
    let (mut plain, mut others) = (Vec::new(), Vec::new());
    let mut lanes = HashSet::new();
    for (settlement, mapping) in settlements.iter().zip(mappings) {
        let lane = settlement.lease.connection;
        if let Some(one) = Plain::of(settlement, mapping).filter(|_| !lanes.contains(&lane)) {
            plain.push(one);
        } else {
            lanes.insert(lane);
            others.push((*settlement, mapping));
        }
    }
    (plain, others)
}

impl Core {
    /// The call that writes outcomes, but for the room and the deadline.
    pub(super) fn settle_call(
        &self,
        partition: Partition,
        settlements: &[&Settlement],
    ) -> Result<Call, StoreError> {
        let now = self.clock.now();
        let mut call = self.call(partition);
        let leases: Vec<LeaseRef> = settlements.iter().map(|settlement| settlement.lease).collect();
        let (plain, others) = split(settlements, self.held.new_mappings(&leases));
        for (settlement, _) in &others {
            call.key(self.keys.event(partition, &place_of(settlement.lease.job).0));
        }
        let mut totals: HashMap<ConnectionId, usize> = HashMap::new();
        let mut totals_of = |call: &mut Call, connection| {
            *totals
                .entry(connection)
                .or_insert_with(|| call.key(self.keys.tally(partition, connection, log::day_of(now))))
        };
        let mut heads = Vec::with_capacity(PLAIN * plain.len());
        let mut events: HashMap<Base, usize> = HashMap::new();
        for one in &plain {
            let LeaseRef { job, token, connection, .. } = one.settlement.lease;
            let base = place_of(job).0;
            let event = *events.entry(base).or_insert_with(|| call.key(self.keys.event(partition, &base)));
            heads.extend_from_slice(&job.bits().to_be_bytes());
            heads.extend_from_slice(&token.to_be_bytes()[2..]);
            push_place(&mut heads, event);
            push_place(&mut heads, totals_of(&mut call, connection));
            heads.push(log::slots_of(one.attempt).0);
        }
        call.value(heads);
        for one in &plain {
            let attempt = serde_json::to_vec(one.attempt).map_err(|error| unwritable(&error))?;
            call.value(one.record(now)).value(attempt);
        }
        call.number(others.len());
        let first = FIRST_WORD + 2 * plain.len() + 1 + others.len();
        let mut texts = Texts { first, ..Texts::default() };
        for (settlement, mapping) in others {
            let totals = totals_of(&mut call, settlement.lease.connection);
            call.value(head_of(settlement, totals, mapping, &mut texts, now)?);
        }
        for text in texts.all {
            call.value(text);
        }
        Ok(call)
    }
}

/// What heads name: reasons, which many have in common, once.
#[derive(Debug, Default)]
struct Texts<'a> {
    /// Where in `ARGV` the first is.
    first: usize,
    all: Vec<Cow<'a, [u8]>>,
    reasons: HashMap<&'a str, usize>,
}

impl<'a> Texts<'a> {
    /// Where one is; 0 for nothing.
    fn place(&mut self, text: impl Into<Cow<'a, [u8]>>) -> usize {
        let text = text.into();
        if text.is_empty() {
            return 0;
        }
        self.all.push(text);
        self.first + self.all.len() - 1
    }

    fn place_reason(&mut self, reason: &'a str) -> usize {
        if let Some(place) = self.reasons.get(reason) {
            return *place;
        }
        let place = self.place(reason.as_bytes());
        self.reasons.insert(reason, place);
        place
    }
}

/// What `HEAD` of `settle.lua` reads of a settlement; `totals` is the index of its connection's totals, `mapping` that of a job
/// whose record stands as it was made.
fn head_of<'a>(
    settlement: &'a Settlement,
    totals: usize,
    mapping: Option<MappingVersion>,
    texts: &mut Texts<'a>,
    now: Timestamp,
) -> Result<Vec<u8>, StoreError> {
    let Settlement { lease, attempt, effect, .. } = settlement;
    let (next, value) = match &settlement.next {
        Next::Done(state) => (0, [0, 0, 0, 0, 0, u8::try_from(state_code(*state)).unwrap_or(u8::MAX)]),
        Next::Due(due) => (1, time_bytes(*due)),
        Next::Requeue => (2, [0; 6]),
    };
    let rendered = match &settlement.next {
        Next::Done(_) if settlement.forget => b"1",
        Next::Done(_) => &b""[..],
        Next::Due(_) | Next::Requeue => settlement.rendered.as_deref().unwrap_or_default(),
    };
    let (latency, failed) = attempt.as_ref().map_or((NO_SLOT, false), log::slots_of);
    let (opens_after, probe_at) =
        effect.opening.map_or((0, [0; 6]), |opening| (opening.after, time_bytes(opening.probe_at)));
    let number = attempt.as_ref().map_or(0, |attempt| attempt.number);
    let written = attempt.as_ref().map(serde_json::to_vec).transpose().map_err(|error| unwritable(&error))?;
    let places = [
        texts.place(written.unwrap_or_default()),
        texts.place_reason(&settlement.reason),
        texts.place(effect_of(effect, now)?),
        texts.place(rendered),
    ];
    let index = place_of(lease.job).1.to_string();
    let field = format!("a{index}.{number}");
    let mut head = Vec::with_capacity(96 + index.len() + field.len());
    head.extend_from_slice(&lease.job.bits().to_be_bytes());
    head.extend_from_slice(&lease.token.to_be_bytes()[2..]);
    head.extend_from_slice(&number.to_be_bytes());
    head.push(next);
    head.extend_from_slice(&value);
    head.push(health_of(effect));
    head.extend_from_slice(&effect.wait_until.map_or([0; 6], time_bytes));
    head.push(u8::from(effect.close.is_some()));
    head.extend_from_slice(&opens_after.to_be_bytes());
    head.extend_from_slice(&probe_at);
    head.extend_from_slice(&[latency, u8::from(failed)]);
    push_place(&mut head, totals);
    head.push(u8::from(mapping.is_some()));
    head.extend_from_slice(&mapping.map_or(0, MappingVersion::bits).to_be_bytes());
    for place in places {
        push_place(&mut head, place);
    }
    for name in [index, field] {
        // Both names are short.
        head.push(u8::try_from(name.len()).unwrap_or(0));
        head.extend_from_slice(name.as_bytes());
    }
    Ok(head)
}

/// A call has far fewer keys and values than two bytes count.
fn push_place(head: &mut Vec<u8>, place: usize) {
    head.extend_from_slice(&u16::try_from(place).unwrap_or(u16::MAX).to_be_bytes());
}
