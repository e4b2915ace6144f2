//! The words of the house as types and pure rules: no clock, no network, no store.

pub mod account;
pub mod breaker;
pub mod chore;
pub mod connection;
pub mod document;
pub mod event;
pub mod fault;
pub mod history;
pub mod id;
pub mod job;
pub mod json;
pub mod policy;
pub mod retention;
pub mod secret;
pub mod settle;
pub mod source;
pub mod subscription;
pub mod time;
pub mod trace;
