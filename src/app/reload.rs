//! Reads the operator's connector and mapping files again: when asked to, and when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::service::Gateway;
use crate::spec::Stamp;

/// How often a watched folder is looked at. Only names, lengths and times are read, so it costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads the catalogue again.
#[derive(Clone)]
pub struct Reloader {
    gateway: Arc<Gateway>,
    folder: Option<PathBuf>,
    /// Of the files that the gateway started with, from before they were read: what changed since then counts as changed.
    read: Stamp,
}

impl Reloader {
    /// For the gateway whose own files lie in `folder`; `read` is their stamp from before they were read.
    pub(super) fn new(gateway: Arc<Gateway>, folder: Option<PathBuf>, read: Stamp) -> Self {
        Self { gateway, folder, read }
    }

    /// Reads the files again; what came of it is in the log.
    pub async fn reload(&self) {
        if self.folder.is_none() {
            tracing::warn!("there is nothing to read again: catalogue_dir is not set");
            return;
        }
        // The log has it.
        let _ = self.gateway.reload(self.folder.as_deref()).await;
    }

    /// Reads the files again whenever they changed and stand still: half a file that is being written is not read.
    pub async fn watch(self) {
        let Some(folder) = self.folder.clone() else {
            tracing::warn!("there is nothing to watch: catalogue_dir is not set");
            return;
        };
        let look = || {
            let folder = folder.clone();
            async move { tokio::task::spawn_blocking(move || Stamp::of(&folder)).await.unwrap_or_default() }
        };
        let mut in_force = self.read.clone();
        let mut before = in_force.clone();
        loop {
            self.gateway.clock.sleep(LOOK_EVERY).await;
            let now = look().await;
            if now == before && now != in_force {
                self.reload().await;
                in_force = now.clone();
            }
            before = now;
        }
    }
}
