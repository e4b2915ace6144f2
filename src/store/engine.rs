//! What a store runs on, for whoever has to judge a figure: the engine, its version, its settings.

use std::collections::BTreeMap;

use serde::Serialize;

/// An engine and the settings of it that decide what a figure is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// `sqlite` or `redis`.
    pub name: &'static str,
    /// Its version; empty where it does not tell.
    pub version: String,
    /// Settings by the engine's own names; those that it does not tell are not there.
    pub settings: BTreeMap<&'static str, String>,
}
