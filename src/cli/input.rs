//! What a command reads: files, standard input, JSON; bounded, with a message that says which.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::failure::Failure;
use crate::app::plain;

const LIMIT_BYTES: u64 = 16 * 1_024 * 1_024;

/// A text file.
pub fn read_file(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
    read(&name, file)
}

/// Standard input to its end.
pub fn read_stdin() -> Result<String, Failure> {
    read("standard input", std::io::stdin().lock())
}

fn read(name: &str, source: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(LIMIT_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| unreadable(name, &error))?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(Failure::invalid(format!("{name}: more than {LIMIT_BYTES} bytes"), "send less"));
    }
    Ok(text)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::Invalid { message: format!("{name}: cannot be read: {}", plain(error)), hint: None }
}

/// A text as JSON; `name` is for the message.
pub fn json(name: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        let message = format!("{name}:{}:{}: not valid JSON: {what}", error.line(), error.column());
        Failure::Invalid { message, hint: None }
    })
}

/// JSON given as `@file`, as `-` for standard input, or as itself.
pub fn json_argument(text: &str) -> Result<Value, Failure> {
    match text.strip_prefix('@') {
        Some("-") => json("standard input", &read_stdin()?),
        Some(path) => json(path, &read_file(Path::new(path))?),
        None if text == "-" => json("standard input", &read_stdin()?),
        None => json("--data", text).map_err(|failure| failure.hint("@file reads a file, - standard input")),
    }
}
