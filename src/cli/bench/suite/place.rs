//! Where a part runs: a folder and a prefix of its own, and what is removed when it is done.

use std::path::Path;

use super::super::process::Gateway;
use super::super::write_config;
use crate::cli::failure::Failure;
use crate::cli::scratch::Scratch;
use crate::clock::Entropy;
use crate::config::{Config, Environment, StoreConfig};
use crate::store::engine::Engine;
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;

/// Attempts at a dead endpoint are not waited for when its gateway stops.
const SETTINGS: &str = "[delivery]\ndrain_secs = 1\n";

/// A store of a part's own.
#[derive(Debug)]
pub struct Place {
    folder: Scratch,
    config: Config,
}

impl Place {
    /// An empty one on `store`.
    pub fn new(store: &str) -> Result<Self, Failure> {
        let folder = Scratch::new("bench", &Entropy::system())?;
        let (file, _) = write_config(folder.path(), store, SETTINGS)?;
        let config = Config::load(Some(&file), &Environment::default(), &[])?;
        Ok(Self { folder, config })
    }

    /// The folder with the embedded store's files.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// Starts a gateway on it.
    pub fn start(&self) -> Result<Gateway, Failure> {
        let folder = self.folder.path();
        Gateway::start(&folder.join("patchbay.toml"), &folder.join("gateway.log"))
    }

    /// The engine and its settings, as a gateway here has them.
    pub async fn engine(&self) -> Result<Engine, Failure> {
        let engine = match &self.config.store {
            StoreConfig::Sqlite => {
                std::fs::create_dir_all(self.data_dir())?;
                SqliteStore::engine(self.data_dir()).await
            }
            StoreConfig::Redis(settings) => RedisStore::engine(settings).await,
        };
        engine.map_err(Failure::failed)
    }

    /// Removes what lies outside of the folder, which goes by itself.
    pub async fn clear(&self) -> Result<(), Failure> {
        if let StoreConfig::Redis(settings) = &self.config.store {
            RedisStore::erase(settings).await.map_err(Failure::failed)?;
        }
        Ok(())
    }
}
