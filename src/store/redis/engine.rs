//! What the server is and how it is set, and the removal of all that was stored under a prefix, for measurements.

use std::time::Duration;

use super::link::Link;
use super::{RedisSettings, RedisStore, codec, server};
use crate::store::StoreError;
use crate::store::engine::Engine;

/// How long one step of these may take.
const STEP: Duration = Duration::from_secs(10);
/// From what size on the append-only file is rewritten.
const REWRITES: &str = "auto-aof-rewrite-min-size";
/// Keys that are looked at in one step: few, as the server may serve others too.
const LOOKS: u32 = 200;

impl RedisStore {
    /// The server and its settings.
    pub async fn engine(settings: &RedisSettings) -> Result<Engine, StoreError> {
        let link = Link::of(settings).await?;
        let told = server::read(&link).await?;
        let rewrites = server::setting(&link, REWRITES).await?;
        let settings = [
            ("appendonly", told.append_only.map(|on| if on { "yes" } else { "no" }.to_owned())),
            ("appendfsync", told.fsync),
            // In bytes: below that the append-only file is not rewritten, which takes a processor for a while.
            (REWRITES, rewrites),
            ("maxmemory-policy", told.policy),
        ];
        Ok(Engine {
            name: "redis",
            version: told.version,
            settings: settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        })
    }

    /// Removes every key that begins with the settings' prefix, step by step; how many. On a cluster it removes nothing.
    pub async fn erase(settings: &RedisSettings) -> Result<usize, StoreError> {
        let link = Link::of(settings).await?;
        let (mut removed, mut cursor) = (0, b"0".to_vec());
        while !link.is_cluster() {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{}:*", settings.prefix)).arg("COUNT").arg(LOOKS);
            let mut page = codec::list(link.plain(scan, STEP).await?)?.into_iter();
            let next = page.next().map(codec::bytes).transpose()?.flatten().unwrap_or_default();
            let keys = page.next().map(codec::list).transpose()?.unwrap_or_default();
            if !keys.is_empty() {
                removed += keys.len();
                let mut unlink = redis::cmd("UNLINK");
                for key in keys {
                    unlink.arg(codec::bytes(key)?);
                }
                link.plain(unlink, STEP).await?;
            }
            if next.is_empty() || next == b"0" {
                break;
            }
            cursor = next;
        }
        Ok(removed)
    }
}
