//! Patchbay, an integration connector gateway: a platform hands it events, it delivers them where a tenant works.

pub mod clock;
pub mod connector;
pub mod domain;
pub mod egress;
pub mod mapping;
pub mod signature;
pub mod spec;
pub mod store;
