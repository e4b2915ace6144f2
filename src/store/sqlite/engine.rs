//! What the embedded engine is and how it is set.

use std::path::Path;

use super::checkpoint::Bounds;
use super::{SqliteStore, blocking, schema, unavailable};
use crate::store::StoreError;
use crate::store::engine::Engine;

/// What `PRAGMA synchronous` means by its numbers (<https://sqlite.org/pragma.html#pragma_synchronous>).
const SYNCHRONOUS: [&str; 4] = ["OFF", "NORMAL", "FULL", "EXTRA"];

impl SqliteStore {
    /// The engine, set as the writer of `folder` sets it.
    pub async fn engine(folder: &Path) -> Result<Engine, StoreError> {
        let file = folder.join("patchbay.db");
        blocking(move || {
            let connection = schema::open_writer(&file)?;
            let pragma = |name: &str| {
                connection
                    .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                    .map(|value| match value {
                        rusqlite::types::Value::Integer(number) => number.to_string(),
                        rusqlite::types::Value::Text(text) => text,
                        other => format!("{other:?}"),
                    })
                    .map_err(|error| unavailable(&error))
            };
            let synchronous = pragma("synchronous")?;
            let level = synchronous.parse().ok().and_then(|level: usize| SYNCHRONOUS.get(level));
            let bounds = Bounds::default();
            let settings = [
                ("journal_mode", pragma("journal_mode")?),
                ("synchronous", level.map_or(synchronous.clone(), |name| (*name).to_owned())),
                ("checkpoint_pages", format!("{} beside the writer, {} by it", bounds.aside, bounds.most)),
                ("cache_size", pragma("cache_size")?),
            ];
            Ok(Engine {
                name: "sqlite",
                version: rusqlite::version().to_owned(),
                settings: settings.into_iter().collect(),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_writer_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqliteStore::engine(folder.path()).await.unwrap();
        assert_eq!((engine.name, engine.settings["synchronous"].as_str()), ("sqlite", "FULL"));
        assert_eq!(engine.settings["journal_mode"], "wal");
        assert!(engine.version.starts_with("3."), "{engine:?}");
    }
}
