//! Patchbay, an integration connector gateway: a platform hands it events, it delivers them where a tenant works.

pub mod clock;
pub mod domain;
pub mod signature;
pub mod store;
