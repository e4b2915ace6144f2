//! The integration tests: one binary, real parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alerts;
mod backup;
mod bench;
mod bounds;
mod canaries;
mod cli;
mod delivery;
mod fleet;
mod floors;
mod hooks;
mod hooks_race;
mod kill;
mod limits;
mod load;
#[path = "../mapping/mod.rs"]
mod mapping;
mod migrate;
mod packaging;
mod redis_faults;
mod replays;
#[cfg(unix)]
mod restart;
mod sheets;
mod soak;
mod store_faults;
mod support;
mod traces;
mod zapier;
