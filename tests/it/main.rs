//! The integration tests: one binary, real parts.

mod floors;
