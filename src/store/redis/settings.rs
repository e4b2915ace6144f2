//! What an operator says of the store.

use std::path::PathBuf;
use std::time::Duration;

use super::Durability;
use crate::domain::retention::Retention;

/// How the store is reached and what it keeps.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/db`, `rediss://…` for TLS; `redis+sentinel://…@host:port,host:port/name/db`;
    /// `redis+cluster://…@host:port,host:port`.
    pub url: String,
    /// Partitions, 1 to 1,024; fixed once something is stored.
    pub partitions: u16,
    /// What a stored event has survived when the gateway says so.
    pub durability: Durability,
    /// Every key begins with it.
    pub prefix: String,
    /// How long events and deliveries are kept after the last of an event's deliveries ended.
    pub retention: Retention,
    /// Certificates (PEM) by which servers are known with TLS, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for RedisSettings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("partitions", &self.partitions)
            .field("durability", &self.durability)
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// The defaults with this URL: 16 partitions, the server's own durability, prefix `pb`, 7 days.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            partitions: 16,
            durability: Durability::Server,
            prefix: "pb".to_owned(),
            retention: Duration::from_hours(7 * 24).into(),
            ca_file: None,
        }
    }
}
