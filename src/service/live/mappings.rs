//! Mappings that connections and jobs share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::domain::id::MappingVersion;
use crate::mapping::Mapping;
use crate::spec::mapping_version;

/// How many mappings that no connection uses any more are kept for the jobs that are pinned to them.
const KEPT_MAPPINGS: usize = 256;

/// Compiled mappings by version: all that someone holds, and the last few that were read from the store.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    shared: HashMap<MappingVersion, Weak<Mapping>>,
    kept: VecDeque<Arc<Mapping>>,
    /// The dead entries of `shared` are removed when it has grown to this.
    clean_at: usize,
}

impl Mappings {
    /// Knows one that someone else holds.
    pub fn know(&mut self, version: MappingVersion, mapping: &Arc<Mapping>) {
        self.shared.insert(version, Arc::downgrade(mapping));
    }

    /// The one of a version, while anyone holds it.
    pub fn get(&self, version: MappingVersion) -> Option<Arc<Mapping>> {
        self.shared.get(&version).and_then(Weak::upgrade)
    }

    /// The one of its version that is in use, else this one.
    pub fn share(&mut self, mapping: Mapping) -> (MappingVersion, Arc<Mapping>) {
        let version = mapping_version(&mapping);
        if let Some(shared) = self.get(version) {
            return (version, shared);
        }
        if self.shared.len() >= self.clean_at {
            self.shared.retain(|_, mapping| mapping.strong_count() > 0);
            self.clean_at = (self.shared.len() * 2).max(KEPT_MAPPINGS);
        }
        let mapping = Arc::new(mapping);
        self.shared.insert(version, Arc::downgrade(&mapping));
        (version, mapping)
    }

    /// Holds one for a while though nobody else does.
    pub fn keep(&mut self, mapping: Arc<Mapping>) {
        if self.kept.len() >= KEPT_MAPPINGS {
            self.kept.pop_front();
        }
        self.kept.push_back(mapping);
    }
}
