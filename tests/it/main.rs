//! The integration tests: one binary, real parts.

mod delivery;
mod floors;
mod support;
