//! The reference of the language as Markdown, out of the tables that the language itself is read with.

use std::fmt::Write;

use super::condition::ops;
use super::context::roots;
use super::keys::{KeyShown, MAPPING_KEYS, ROW_KEYS};
use super::limits;
use super::transcript::SETTINGS;
use super::transform::{GROUPS, Shown, Transform};

const INTRODUCTION: &str = "\
# The mapping language: reference

This page is written by the gateway itself (`patchbay map --list`) and held to the code by a test.

A mapping is a list of rows; each row writes one field. A file is TOML; the API takes the same as JSON, or a JSON object
in the shape of the output with paths where values go (`{\"contact\": {\"email\": \"$.data.email\"}}`), which is shown as rows.

Paths are JSONPath (RFC 9535) over the event: `{\"id\", \"type\", \"time\", \"tenant\", \"source\", \"data\"}`.

*Absent*, *null* and *empty* are three things. An absent row leaves no key, a null stays `null`, and `\"\"`, `0`, `false` and
`[]` are values. Only what is absent or null takes the `default` or fails `required`.
";

/// All directives, conditions and transforms, with examples, as Markdown.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    // Writing to a text does not fail.
    let _ = fill(&mut page);
    page
}

fn fill(page: &mut String) -> std::fmt::Result {
    keys(page, "A mapping", MAPPING_KEYS)?;
    keys(page, "A row", ROW_KEYS)?;
    page.push_str(
        "\nA row has exactly one of `from`, `value`, `template`, `fields`, `transcript` and `each`.\n",
    );
    pairs(page, "Beside the event", "name", roots())?;
    pairs(page, "Transcripts", "setting", SETTINGS.iter().copied())?;
    pairs(page, "Conditions", "op", ops())?;
    page.push_str(
        "\nA test is `{ path, op, value }`. Tests are joined by `{ all = [...] }`, `{ any = [...] }` and `{ not = ... }`. When a path has\n\
         several matches, one that passes is enough.\n",
    );
    page.push_str(
        "\n## Transforms\n\nAn entry of `apply` is a transform's name, `{ name = { settings } }`, or `{ name = value }` for its first setting.\n\
         The examples are JSON, and a test runs each of them.\n",
    );
    for (group, tables) in GROUPS {
        write!(page, "\n### {group}\n")?;
        for transform in tables.iter().copied().flatten() {
            describe(page, transform)?;
        }
    }
    bounds(page)
}

fn keys(page: &mut String, title: &str, keys: &[KeyShown]) -> std::fmt::Result {
    write!(page, "\n## {title}\n\n| key | takes | what it does |\n|---|---|---|\n")?;
    for (key, takes, summary) in keys {
        writeln!(page, "| `{key}` | {} | {} |", cell(takes), cell(summary))?;
    }
    Ok(())
}

fn pairs(
    page: &mut String,
    title: &str,
    head: &str,
    rows: impl Iterator<Item = (&'static str, &'static str)>,
) -> std::fmt::Result {
    write!(page, "\n## {title}\n\n| {head} | what it is |\n|---|---|\n")?;
    for (name, summary) in rows {
        writeln!(page, "| `{name}` | {} |", cell(summary))?;
    }
    Ok(())
}

fn describe(page: &mut String, transform: &Transform) -> std::fmt::Result {
    write!(page, "\n#### `{}`\n\n{}\n", transform.name, transform.summary)?;
    if !transform.settings.is_empty() {
        page.push('\n');
    }
    for setting in transform.settings {
        let needed = if setting.required { " (needed)" } else { "" };
        writeln!(page, "- `{}`{needed}: {}", setting.name, setting.summary)?;
    }
    page.push_str("\n| apply | before | after |\n|---|---|---|\n");
    for example in transform.examples {
        let after = match example.output {
            Shown::Value(value) => format!("`{}`", cell(value)),
            Shown::Absent => "*absent*".to_owned(),
            Shown::Error => "*error*".to_owned(),
        };
        writeln!(page, "| `{}` | `{}` | {after} |", cell(example.apply), cell(example.input))?;
    }
    Ok(())
}

fn bounds(page: &mut String) -> std::fmt::Result {
    page.push_str("\n## Bounds\n\n| what | at most |\n|---|---|\n");
    for (what, most) in [
        ("characters of a path", limits::PATH_CHARS),
        ("brackets of a path open at once", limits::PATH_NESTING),
        ("matches of a path, items of `each`", limits::RESULT_NODES),
        ("bytes of the output as JSON", limits::VALUE_BYTES),
        ("lists and objects inside one another in the output", limits::OUTPUT_NESTING),
        ("bytes of a mapping as JSON", limits::MAPPING_BYTES),
        ("rows of a mapping", limits::ROWS),
        ("transforms of a row", limits::STEPS),
        ("paths of a `from` list or a template", limits::PATHS),
        ("names in a `to`, `fields` inside one another", limits::TARGET_NESTING),
        ("tests in a condition", limits::CONDITION_TESTS),
        ("bytes of a text that a pattern is run on", limits::PATTERN_TEXT_BYTES),
        ("units of work of a run: nodes a query looks at, or 16 bytes through a transform", limits::WORK),
    ] {
        writeln!(page, "| {what} | {most} |")?;
    }
    Ok(())
}

/// A text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;
    use serde_json::json;

    /// The keys that the reader knows, as its own fault for an unknown key tells them.
    fn known(mapping: &serde_json::Value, at: &str) -> Vec<String> {
        let faults = Mapping::from_json(mapping).unwrap_err();
        let fault = faults.list().iter().find(|fault| fault.place.field == at).unwrap();
        let hint = fault.hint.as_deref().unwrap();
        let mut keys: Vec<String> =
            hint.strip_prefix("known here: ").unwrap().split(", ").map(str::to_owned).collect();
        keys.sort();
        keys
    }

    fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn the_reference_has_every_key_that_the_reader_knows() {
        let row = |row: serde_json::Value| json!({"version": 1, "fields": [row]});
        let mapping = json!({"version": 1, "fields": [], "§§": 1});
        assert_eq!(known(&mapping, "§§"), sorted(MAPPING_KEYS.iter().map(|(key, ..)| *key)));
        let mapping = row(json!({"to": "a", "value": 1, "§§": 1}));
        assert_eq!(known(&mapping, "fields[0].§§"), sorted(ROW_KEYS.iter().map(|(key, ..)| *key)));
        let mapping = row(json!({"to": "a", "transcript": {"messages": "$.m", "§§": 1}}));
        assert_eq!(known(&mapping, "fields[0].transcript.§§"), sorted(SETTINGS.iter().map(|(key, _)| *key)));
    }
}
