//! What may happen to a store, at random.

use proptest::prelude::*;

use super::{TENANTS, WIDTHS};
use crate::domain::job::Outcome;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect {
        tenant: usize,
        width: usize,
    },
    Ingest {
        tenant: usize,
        lanes: u16,
        events: u8,
        dedupe: Option<u8>,
        content: u8,
        idempotency: Option<u8>,
    },
    Lease {
        room: usize,
        span_secs: u64,
    },
    /// Settles up to `count` of what is leased from `first` on.
    Settle {
        first: usize,
        count: usize,
        outcome: Outcome,
        retry_after: Option<u64>,
    },
    /// Settles a lease that was ever given.
    SettleOld {
        pick: usize,
        outcome: Outcome,
    },
    Renew {
        pick: usize,
        span_secs: u64,
    },
    Release {
        pick: usize,
    },
    Pause {
        pick: usize,
    },
    Resume {
        pick: usize,
    },
    Close {
        pick: usize,
    },
    Delete {
        pick: usize,
    },
    Cap {
        pick: usize,
        width: usize,
    },
    Retry {
        pick: usize,
    },
    Crash,
    Forward {
        millis: u64,
    },
    Back {
        millis: u64,
    },
    Sweep,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let pick = 0_usize..1_000;
    let outcome = prop_oneof![
        8 => Just(Outcome::Delivered),
        8 => Just(Outcome::Retry),
        1 => Just(Outcome::Ambiguous),
        2 => Just(Outcome::Throttled),
        1 => Just(Outcome::AuthFailed),
        2 => Just(Outcome::Rejected),
        1 => Just(Outcome::MappingFailed),
    ];
    let with_gone = prop_oneof![40 => outcome.clone(), 1 => Just(Outcome::Gone)];
    let retry_after = prop::option::weighted(0.15, 1_u64..200);
    let few = prop::option::weighted(0.3, 0_u8..4);
    prop_oneof![
        2 => (0..TENANTS.len(), 0..WIDTHS.len())
            .prop_map(|(tenant, width)| Op::Connect { tenant, width }),
        12 => (0..TENANTS.len(), any::<u16>(), 1_u8..4, few.clone(), 0_u8..2, few).prop_map(
            |(tenant, lanes, events, dedupe, content, idempotency)| Op::Ingest {
                tenant, lanes, events, dedupe, content, idempotency
            }
        ),
        14 => (0_usize..24, 1_u64..90).prop_map(|(room, span_secs)| Op::Lease { room, span_secs }),
        14 => (pick.clone(), 1_usize..8, with_gone, retry_after)
            .prop_map(|(first, count, outcome, retry_after)| Op::Settle { first, count, outcome, retry_after }),
        2 => (pick.clone(), outcome).prop_map(|(pick, outcome)| Op::SettleOld { pick, outcome }),
        2 => (pick.clone(), 1_u64..90).prop_map(|(pick, span_secs)| Op::Renew { pick, span_secs }),
        2 => pick.clone().prop_map(|pick| Op::Release { pick }),
        2 => pick.clone().prop_map(|pick| Op::Pause { pick }),
        4 => pick.clone().prop_map(|pick| Op::Resume { pick }),
        1 => pick.clone().prop_map(|pick| Op::Close { pick }),
        1 => pick.clone().prop_map(|pick| Op::Delete { pick }),
        2 => (pick.clone(), 0..WIDTHS.len())
            .prop_map(|(pick, width)| Op::Cap { pick, width }),
        3 => pick.prop_map(|pick| Op::Retry { pick }),
        1 => Just(Op::Crash),
        6 => prop_oneof![1_u64..3_000, 3_000_u64..60_000, 60_000_u64..8_000_000, Just(40 * 3_600_000)]
            .prop_map(|millis| Op::Forward { millis }),
        1 => (1_u64..2_000).prop_map(|millis| Op::Back { millis }),
        1 => Just(Op::Sweep),
    ]
}
