//! All connectors, mappings and samples, read together and checked against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::ConnectorSpec;
use super::files::{self, FileKind, Files, SourceFile};
use super::read::{self, NAME_HINT, Reference, is_name};
use crate::domain::document::Node;
use crate::domain::event::is_event_type;
use crate::domain::fault::{Fault, Faults, Place, did_you_mean};
use crate::domain::time::Timestamp;
use crate::mapping::{Mapping, check_paths};

/// What a gateway knows how to deliver, and with what.
#[derive(Debug, Default)]
pub struct Catalogue {
    connectors: BTreeMap<String, Arc<ConnectorSpec>>,
    mappings: BTreeMap<String, Arc<Mapping>>,
    samples: BTreeMap<String, Value>,
}

impl Catalogue {
    /// The files compiled in, and those of `extra`: a folder with `connectors/`, `connectors/samples/` and `mappings/`,
    /// each of which may be missing. A file there replaces the one compiled in of the same name. All faults of all
    /// files are told at once.
    pub fn load(extra: Option<&Path>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut files = files::built_in();
        if let Some(root) = extra {
            files::add_folder(&mut files, root, &mut faults);
        }
        let catalogue = Self::assemble(&files, &mut faults);
        in_reading_order(&faults).into_result(catalogue)
    }

    /// The connector of that id.
    pub fn connector(&self, id: &str) -> Option<&Arc<ConnectorSpec>> {
        self.connectors.get(id)
    }

    /// All connectors by id, in its order.
    pub fn connectors(&self) -> &BTreeMap<String, Arc<ConnectorSpec>> {
        &self.connectors
    }

    /// The mapping of that name.
    pub fn mapping(&self, name: &str) -> Option<&Arc<Mapping>> {
        self.mappings.get(name)
    }

    /// All mappings by name, in its order.
    pub fn mappings(&self) -> &BTreeMap<String, Arc<Mapping>> {
        &self.mappings
    }

    /// A realistic event document for each type that has one, by type.
    pub fn samples(&self) -> &BTreeMap<String, Value> {
        &self.samples
    }

    /// The mappings' paths that no sample has: of a mapping that connectors use, no sample of the types that they name;
    /// of any other, no sample at all. An event may have more than a sample, so these are warnings. Mappings that are
    /// as in `shipped` are passed over: nobody here can mend them.
    pub fn unseen_paths(&self, shipped: &Self) -> Vec<Fault> {
        // Those that read requests have no sample.
        let receives = |name: &str| {
            let mut inbound = self.connectors.values().filter_map(|connector| connector.inbound.as_ref());
            inbound.any(|inbound| inbound.mapping == name)
        };
        let own = self
            .mappings
            .iter()
            .filter(|(name, mapping)| shipped.mapping(name) != Some(*mapping) && !receives(name));
        let unseen = own.flat_map(|(name, mapping)| {
            let users: Vec<_> =
                self.connectors.values().filter(|connector| connector.mapping == *name).collect();
            let takes = |kind: &str| {
                users.is_empty()
                    || users.iter().any(|connector| {
                        connector.events.is_empty()
                            || connector.events.iter().any(|event| event.pattern.matches(kind))
                    })
            };
            let samples: Vec<&Value> =
                self.samples.iter().filter(|(kind, _)| takes(kind)).map(|(_, sample)| sample).collect();
            check_paths(mapping, &samples, "no sample of the event")
        });
        unseen.collect()
    }

    pub(super) fn assemble(files: &Files, faults: &mut Faults) -> Self {
        let mut catalogue = Self::default();
        // Also those that are faulty: to call them missing would hide what is wrong.
        let mut known: BTreeSet<(FileKind, &str)> = BTreeSet::new();
        for ((kind, stem), file) in files {
            known.insert((*kind, stem));
            match kind {
                FileKind::Mapping => catalogue.add_mapping(stem, file, faults),
                FileKind::Sample => catalogue.add_sample(stem, file, faults),
                FileKind::Connector => catalogue.add_connector(stem, file, &known, faults),
            }
        }
        catalogue
    }

    fn add_mapping(&mut self, stem: &str, file: &SourceFile, faults: &mut Faults) {
        check_name(stem, file, faults);
        match Mapping::from_toml(&file.path, &file.text) {
            Ok(mapping) => {
                self.mappings.insert(stem.to_owned(), Arc::new(mapping));
            }
            Err(found) => faults.extend(found),
        }
    }

    fn add_sample(&mut self, stem: &str, file: &SourceFile, faults: &mut Faults) {
        let place = |line, column, field: &str| Place {
            file: Some(Arc::clone(&file.path)),
            line,
            column,
            field: field.to_owned(),
        };
        let sample: Value = match serde_json::from_str(&file.text) {
            Ok(sample) => sample,
            Err(error) => {
                let as_u32 = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let place = place(as_u32(error.line()), as_u32(error.column()), "");
                let text = error.to_string();
                let message = text.split(" at line ").next().unwrap_or_default();
                faults.push(Fault { place, message: format!("not valid JSON: {message}"), hint: None });
                return;
            }
        };
        let before = faults.len();
        let text = |key: &str| sample.get(key).and_then(Value::as_str);
        let mut wrong = |field: &str, message: &str, hint: Option<String>| {
            faults.push(Fault { place: place(1, 1, field), message: message.to_owned(), hint });
        };
        if text("type").is_none_or(|kind| kind != stem || !is_event_type(kind)) {
            let hint = format!("write \"type\": \"{stem}\", or rename the file");
            wrong("type", "is not the file's name", Some(hint));
        }
        if text("id").is_none_or(str::is_empty) {
            wrong("id", "missing", Some("an event has an id of its own".to_owned()));
        }
        if text("time").is_none_or(|time| time.parse::<Timestamp>().is_err()) {
            wrong("time", "no RFC 3339 time", Some("such as 2026-05-03T14:22:08Z".to_owned()));
        }
        if !sample.get("data").is_some_and(Value::is_object) {
            wrong("data", "missing", Some("what happened, as an object".to_owned()));
        }
        if faults.len() == before {
            self.samples.insert(stem.to_owned(), sample);
        }
    }

    fn add_connector(
        &mut self,
        stem: &str,
        file: &SourceFile,
        known: &BTreeSet<(FileKind, &str)>,
        faults: &mut Faults,
    ) {
        check_name(stem, file, faults);
        let node = match Node::from_toml(&file.path, &file.text) {
            Ok(node) => node,
            Err(found) => return faults.extend(found),
        };
        let Some((spec, references)) = read::parse(&node, stem, faults) else { return };
        for Reference { kind, name, place } in references {
            if known.contains(&(kind, name.as_str())) {
                continue;
            }
            let names = || known.iter().filter(|(of, _)| *of == kind).map(|(_, name)| *name);
            let hint = did_you_mean(&name, names())
                .or_else(|| Some(format!("known: {}", names().collect::<Vec<_>>().join(", "))));
            faults.push(Fault { place, message: format!("there is no {} \"{name}\"", kind.word()), hint });
        }
        if let Some(mapping) = self.mappings.get(&spec.mapping)
            && let Err(found) = spec.check_mapping(mapping)
        {
            faults.extend(found);
        }
        if let Some(inbound) = &spec.inbound
            && let Some(mapping) = self.mappings.get(&inbound.mapping)
            && let Err(found) = inbound.check_mapping(stem, mapping)
        {
            faults.extend(found);
        }
        self.connectors.insert(stem.to_owned(), Arc::new(spec));
    }
}

/// File by file, from the top down.
fn in_reading_order(faults: &Faults) -> Faults {
    let mut list = faults.list().to_vec();
    list.sort_by(|left, right| {
        let place = |fault: &Fault| (fault.place.file.clone(), fault.place.line, fault.place.column);
        place(left).cmp(&place(right))
    });
    let mut sorted = Faults::default();
    for fault in list {
        sorted.push(fault);
    }
    sorted
}

fn check_name(stem: &str, file: &SourceFile, faults: &mut Faults) {
    if !is_name(stem) {
        faults.push(Fault {
            place: Place { file: Some(Arc::clone(&file.path)), line: 1, column: 1, field: String::new() },
            message: format!("\"{stem}\" is no name for a file here"),
            hint: Some(NAME_HINT.to_owned()),
        });
    }
}
