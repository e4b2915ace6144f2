//! Holds the code to the floors that `src/lib.rs` draws: a module uses only those below it, and what reaches outside
//! (HTTP servers and clients, SQL, the environment, the clock) does so in one place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules and what each may use of the others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("mapping", &["domain"]),
    ("signature", &["domain"]),
    ("spec", &["domain", "mapping", "signature"]),
    ("store", &["domain", "clock"]),
    ("egress", &["domain", "clock"]),
    ("connector", &["domain", "mapping", "signature", "spec", "egress"]),
    ("service", &["domain", "clock", "mapping", "signature", "spec", "store", "egress", "connector"]),
    ("worker", &["domain", "clock", "store", "service"]),
    ("api", &["domain", "clock", "mapping", "signature", "spec", "store", "egress", "connector", "service"]),
];

/// Modules at the top, which may use everything.
const TOP: &[&str] = &["app", "cli", "config", "telemetry", "main", "lib"];

/// What only some modules may name, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("axum", &["api", "app", "cli"], "HTTP servers live in `api`"),
    ("rusqlite", &["store::sqlite"], "SQL lives in its store"),
    ("use redis", &["store::redis"], "Redis lives in its store"),
    ("hyper_util::client", &["egress"], "the only HTTP client is `egress`"),
    ("std::env", &["config", "main"], "the environment is read in `config`"),
    ("SystemTime::now", &["clock"], "time is read in `clock`, so that tests can inject it"),
    ("rand::", &["clock"], "randomness comes from `clock::Entropy`, so that tests can inject it"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `store/sqlite/mod.rs` is `store::sqlite`.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap().with_extension("");
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

/// The code of a file up to its unit tests, without comments.
fn code(text: &str) -> String {
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        part.to_string_lossy().starts_with("tests") || part == "conformance" || part == "golden.rs"
    })
}

#[test]
fn modules_use_only_lower_floors() {
    let floors: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 20, "the test must run at the project's root");
    let mut broken = Vec::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let module = module_of(path);
        let top = module.split("::").next().unwrap().to_owned();
        if TOP.contains(&top.as_str()) {
            continue;
        }
        let Some(allowed) = floors.get(top.as_str()) else {
            broken
                .push(format!("{}: `{top}` has no floor: give it one in tests/it/floors.rs", path.display()));
            continue;
        };
        for line in code(&fs::read_to_string(path).unwrap()).lines() {
            for (at, _) in line.match_indices("crate::") {
                let used: String = line[at + 7..]
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect();
                if !used.is_empty() && used != top && !allowed.contains(&used.as_str()) {
                    broken.push(format!(
                        "{}: `{top}` must not use `{used}`: {}",
                        path.display(),
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn what_reaches_outside_has_one_place() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut broken = Vec::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let module = module_of(path);
        let text = code(&fs::read_to_string(path).unwrap());
        for (name, places, reason) in RESERVED {
            let allowed =
                places.iter().any(|place| module == *place || module.starts_with(&format!("{place}::")));
            if !allowed && text.contains(name) {
                broken.push(format!("{}: names `{name}`: {reason}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
