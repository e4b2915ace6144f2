//! The integration tests: one binary, real parts.

mod floors;
#[path = "../mapping/mod.rs"]
mod mapping;
