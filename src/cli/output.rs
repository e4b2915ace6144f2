//! What a command prints: a table on a terminal, tab-separated lines in a pipe, JSON where it was asked for.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// Where and how a command's results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    /// Standard output.
    pub fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stdout().is_terminal() }
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints lines. A reader that went away early (`| head`) is no error.
    pub fn lines(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Prints a value: indented on a terminal, else on one line.
    pub fn value(self, value: &Value) {
        let text =
            if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.lines(&text.unwrap_or_default());
    }

    /// Prints `value` where JSON was asked for, else `text`.
    pub fn either(self, value: &Value, text: impl FnOnce() -> String) {
        if self.json {
            self.value(value);
        } else {
            self.lines(&text());
        }
    }

    /// Prints rows under their headers.
    pub fn rows(self, headers: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            if self.terminal {
                self.lines("(none)");
            }
            return;
        }
        if !self.terminal {
            let lines: Vec<String> = rows.iter().map(|row| row.join("\t")).collect();
            return self.lines(&lines.join("\n"));
        }
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headers.iter().map(|header| header.to_uppercase()));
        for row in rows {
            // Never wrapped: a line that is too long for the window is still one to copy from.
            table.add_row(row);
        }
        self.lines(&table.to_string());
    }

    /// Prints a list: as JSON where that was asked for, else as [`Output::objects`].
    pub fn list(self, objects: &[Value], columns: &[&str]) {
        if self.json {
            self.value(&Value::from(objects));
        } else {
            self.objects(objects, columns);
        }
    }

    /// Prints objects: those keys of each that `columns` names (`a.b` goes down), under the same names.
    pub fn objects(self, objects: &[Value], columns: &[&str]) {
        let rows: Vec<Vec<String>> = objects
            .iter()
            .map(|object| columns.iter().map(|column| cell(object, column)).collect())
            .collect();
        let headers: Vec<&str> =
            columns.iter().map(|column| column.rsplit('.').next().unwrap_or(column)).collect();
        self.rows(&headers, &rows);
    }
}

/// What stands under a dotted name, as text that breaks no line.
pub fn cell(object: &Value, column: &str) -> String {
    let mut value = object;
    for part in column.split('.') {
        value = value.get(part).unwrap_or(&Value::Null);
    }
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    };
    one_line(&text)
}

/// The text without characters that would move a terminal's cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_one_line_each() {
        let object = serde_json::json!({"a": {"b": "x\n\u{1b}[31my"}, "list": ["p", 2], "n": null});
        assert_eq!(cell(&object, "a.b"), "x  [31my");
        assert_eq!(cell(&object, "list"), "p, 2");
        assert_eq!(cell(&object, "n"), "");
        assert_eq!(cell(&object, "no.such"), "");
    }
}
