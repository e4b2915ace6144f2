//! The floors that are fuzzed, under the name that they have in the gateway.

#[path = "../src/domain/mod.rs"]
pub mod domain;
#[path = "../src/mapping/mod.rs"]
pub mod mapping;
