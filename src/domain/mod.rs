//! The words of the house as types and pure rules: no clock, no network, no store.

pub mod document;
pub mod fault;
pub mod time;
