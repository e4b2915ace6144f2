//! `patchbay schema`: the JSON Schemas of the catalogue's files, for editors.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::output::Output;
use crate::spec::schemas;

/// Which schema to print.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// The kind of file; without it, both schemas in one object by kind
    kind: Option<FileKind>,
}

/// A kind of file in the catalogue.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileKind {
    /// A file of connectors/
    Connector,
    /// A file of mappings/
    Mapping,
}

/// Prints one schema, or all by kind.
pub fn run(args: &SchemaArgs, output: Output) -> Result<(), Failure> {
    let mut by_kind: Map<String, Value> = schemas()
        .into_iter()
        .map(|(file, schema)| (file.split('.').next().unwrap_or(file).to_owned(), schema))
        .collect();
    let Some(kind) = args.kind else {
        output.value(&Value::Object(by_kind));
        return Ok(());
    };
    let name = match kind {
        FileKind::Connector => "connector",
        FileKind::Mapping => "mapping",
    };
    let schema = by_kind.remove(name).ok_or_else(|| Failure::failed(format!("no schema of a {name}")))?;
    output.value(&schema);
    Ok(())
}
