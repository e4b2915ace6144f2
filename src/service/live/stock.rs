//! What connections are compiled by, and how two of it differ for one of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::connection::{Connection, MappingChoice};
use crate::domain::id::MappingVersion;
use crate::domain::source::Source;
use crate::mapping::Mapping;
use crate::spec::{Catalogue, mapping_version};

/// The catalogue, and its mappings with their versions.
#[derive(Debug)]
pub struct Stock {
    /// Connectors and mappings.
    pub catalogue: Arc<Catalogue>,
    named: HashMap<String, (MappingVersion, Arc<Mapping>)>,
}

impl Stock {
    /// Of a catalogue.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        let named = catalogue
            .mappings()
            .iter()
            .map(|(name, mapping)| (name.clone(), (mapping_version(mapping), Arc::clone(mapping))))
            .collect();
        Self { catalogue, named }
    }

    /// A mapping of the catalogue, with its version.
    pub fn named(&self, name: &str) -> Option<&(MappingVersion, Arc<Mapping>)> {
        self.named.get(name)
    }

    /// Its mappings with their versions.
    pub fn mappings(&self) -> impl Iterator<Item = &(MappingVersion, Arc<Mapping>)> {
        self.named.values()
    }

    /// The version of what a choice stands for here, where `default` is the connector's; `None` for one that no catalogue
    /// changes, and for one that is not there.
    fn version(&self, choice: &MappingChoice, default: Option<&str>) -> Option<MappingVersion> {
        let name = match choice {
            MappingChoice::Inline(_) => return None,
            MappingChoice::Named(name) => name,
            MappingChoice::Default => default?,
        };
        self.named.get(name).map(|(version, _)| *version)
    }

    /// Whether a source is another one by this stock than by `other`.
    pub fn differs_for_source(&self, other: &Self, record: &Source) -> bool {
        let compiled_by = |stock: &Self| {
            let connector = stock.catalogue.connector(&record.connector);
            let inbound = connector.and_then(|connector| connector.inbound.clone());
            let default = inbound.as_ref().map(|inbound| inbound.mapping.as_str());
            (stock.version(&record.mapping, default), inbound)
        };
        compiled_by(self) != compiled_by(other)
    }

    /// Whether a connection is another one by this stock than by `other`.
    pub fn differs_for(&self, other: &Self, record: &Connection) -> bool {
        let compiled_by = |stock: &Self| {
            let connector = stock.catalogue.connector(&record.connector).cloned();
            let default = connector.as_ref().map(|connector| connector.mapping.as_str());
            (stock.version(&record.mapping, default), connector)
        };
        compiled_by(self) != compiled_by(other)
    }
}
