//! The integration tests: one binary, real parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod cli;
mod delivery;
mod floors;
mod kill;
#[path = "../mapping/mod.rs"]
mod mapping;
mod sheets;
mod store_faults;
mod support;
