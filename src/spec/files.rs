//! Where catalogue files come from: those compiled in, and a folder of the operator's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::fault::{Fault, Faults, Place};

/// Most bytes of one file.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;
/// Most files of the operator's folder.
pub(super) const MAX_FILES: usize = 2_000;

/// Folder, file name and text of everything in the source's own folders; made by `build.rs`.
const BUILT_IN: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// What a file holds. Mappings and samples come first, because connectors refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    Mapping,
    Sample,
    Connector,
}

impl FileKind {
    const ALL: [Self; 3] = [Self::Mapping, Self::Sample, Self::Connector];

    fn folder(self) -> &'static str {
        match self {
            Self::Mapping => "mappings",
            Self::Sample => "connectors/samples",
            Self::Connector => "connectors",
        }
    }

    /// What a person calls such a file.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Mapping => "mapping",
            Self::Sample => "sample",
            Self::Connector => "connector",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Mapping | Self::Connector => "toml",
            Self::Sample => "json",
        }
    }
}

/// A file as it was found.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// Its path for messages.
    pub(super) path: Arc<str>,
    pub(super) text: String,
}

/// Files by kind and by name without the extension; a later one of the same name replaces an earlier one.
pub(super) type Files = BTreeMap<(FileKind, String), SourceFile>;

/// What is compiled in.
pub(super) fn built_in() -> Files {
    let mut files = Files::new();
    for (folder, name, text) in BUILT_IN {
        let kind = FileKind::ALL.into_iter().find(|kind| kind.folder() == *folder);
        if let Some((kind, stem)) = kind.and_then(|kind| Some((kind, stem(name, kind)?))) {
            let path = format!("{folder}/{name}").into();
            files.insert((kind, stem.to_owned()), SourceFile { path, text: (*text).to_owned() });
        }
    }
    files
}

/// What tells that a folder's files changed, without reading them: name, length and time of change of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(String, u64, Option<SystemTime>)>);

impl Stamp {
    /// Of the operator's folder as it is now. What can't be looked at counts as not there.
    pub fn of(root: &Path) -> Self {
        let mut stamps = Vec::new();
        for kind in FileKind::ALL {
            let Ok(entries) = fs::read_dir(root.join(kind.folder())) else { continue };
            for entry in entries.flatten().take(MAX_FILES) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if stem(&name, kind).is_none() {
                    continue;
                }
                // Through links: some replace the link of a whole folder.
                if let Ok(found) = fs::metadata(entry.path()) {
                    stamps.push((format!("{}/{name}", kind.folder()), found.len(), found.modified().ok()));
                }
            }
        }
        stamps.sort();
        Self(stamps)
    }
}

/// Adds the files of the operator's folder. Hidden files and those of another extension are passed over; a missing
/// subfolder is as good as an empty one.
pub(super) fn add_folder(files: &mut Files, root: &Path, faults: &mut Faults) {
    if !root.is_dir() {
        faults.push(at(root, "is no folder", Some("make it, or leave the setting out".to_owned())));
        return;
    }
    let mut count = 0;
    for kind in FileKind::ALL {
        let folder = root.join(kind.folder());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                faults.push(at(&folder, format!("can't be read: {error}"), None));
                continue;
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => faults.push(at(&folder, format!("can't be read: {error}"), None)),
            }
        }
        names.sort();
        for name in names {
            let Some((name, stem)) = name.to_str().and_then(|name| Some((name, stem(name, kind)?))) else {
                continue;
            };
            count += 1;
            if count > MAX_FILES {
                faults.push(at(root, format!("holds more than {MAX_FILES} files"), None));
                return;
            }
            let path = folder.join(name);
            match read(&path) {
                Ok(text) => {
                    let path = path.display().to_string().into();
                    files.insert((kind, stem.to_owned()), SourceFile { path, text });
                }
                Err(message) => faults.push(at(&path, message, None)),
            }
        }
    }
}

/// Where the cases of the operator's connectors lie, beside their folder.
const CASES: &str = "tests/connectors";

/// The files of cases in the operator's folder: connector, path for messages and text of each. What can't be read is a fault.
pub fn case_files(root: &Path, faults: &mut Faults) -> Vec<(String, String, String)> {
    let folder = root.join(CASES);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            faults.push(at(&folder, format!("can't be read: {error}"), None));
            return Vec::new();
        }
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).take(MAX_FILES).collect();
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let Some((name, stem)) =
            name.to_str().and_then(|name| Some((name, stem(name, FileKind::Connector)?)))
        else {
            continue;
        };
        let path = folder.join(name);
        match read(&path) {
            Ok(text) => files.push((stem.to_owned(), path.display().to_string(), text)),
            Err(message) => faults.push(at(&path, message, None)),
        }
    }
    files
}

fn stem(name: &str, kind: FileKind) -> Option<&str> {
    let stem = name.strip_suffix(kind.extension())?.strip_suffix('.')?;
    (!stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("can't be read: {error}");
    // Asked before opening: to open a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    File::open(path).map_err(unreadable)?.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err("is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// A fault of a file as a whole.
fn at(path: &Path, message: impl Into<String>, hint: Option<String>) -> Fault {
    let file = Some(path.display().to_string().into());
    Fault { place: Place { file, line: 1, column: 1, field: String::new() }, message: message.into(), hint }
}
