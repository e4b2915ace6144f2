//! `patchbay path`: what one path of the mapping language finds in a document.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::input;
use super::output::Output;
use crate::mapping::evaluate_path;

/// What to look for, and where.
#[derive(Debug, Clone, Args)]
pub struct PathArgs {
    /// The path, such as "$.data.items[0].name" (RFC 9535)
    query: String,
    /// A JSON file, "-" for standard input
    #[arg(default_value = "-", value_name = "FILE")]
    document: String,
}

/// Prints the matches as a JSON array.
pub fn run(args: &PathArgs, output: Output) -> Result<(), Failure> {
    let document = match args.document.as_str() {
        "-" => input::json("standard input", &input::read_stdin()?)?,
        file => input::json(file, &input::read_file(Path::new(file))?)?,
    };
    let matches = evaluate_path(&args.query, &document)
        .map_err(|fault| Failure::Invalid { message: fault.message, hint: fault.hint })?;
    output.value(&Value::Array(matches));
    Ok(())
}
