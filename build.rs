//! Compiles in what lies in `connectors/` and `mappings/`: a new file there needs no edit here. And which compiler it was.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

type Failure = Box<dyn std::error::Error>;

/// Folder, and what its files end in.
const FOLDERS: &[(&str, &str)] =
    &[("connectors", "toml"), ("mappings", "toml"), ("connectors/samples", "json")];

fn main() -> Result<(), Failure> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let mut table = String::from("&[\n");
    for (folder, ending) in FOLDERS {
        println!("cargo::rerun-if-changed={folder}");
        for file in files(&root.join(folder), ending)? {
            let name = file.file_name().and_then(|name| name.to_str()).ok_or("a file name is no UTF-8")?;
            let path = file.to_str().ok_or("the path to the sources is no UTF-8")?;
            writeln!(table, "({folder:?}, {name:?}, include_str!({path:?})),")?;
        }
    }
    table.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("built_in.rs"), table)?;
    // Cargo runs this again when the compiler changes.
    let told = Command::new(env::var("RUSTC")?).arg("--version").output()?;
    println!("cargo::rustc-env=BUILD_RUSTC={}", String::from_utf8_lossy(&told.stdout).trim());
    Ok(())
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
