//! Where a row writes: the names of a dotted `to`.

use super::limits::TARGET_NESTING;
use crate::domain::document::TableReader;

pub fn read_target(to: &str, table: &mut TableReader<'_>) -> Option<Vec<String>> {
    const NAME_CHARS: usize = 200;
    if !table.has("to") {
        return None;
    }
    let names = split_names(to);
    let (message, hint) = if names.iter().any(|name| name.trim().is_empty()) {
        ("an empty name".to_owned(), "one name, or names with dots between: \"contact.name\"")
    } else if names.iter().any(|name| name.trim() != name || name.chars().any(char::is_control)) {
        (
            "a name that starts or ends with a blank, or has a control character in it".to_owned(),
            "take it away",
        )
    } else if names.len() > TARGET_NESTING || to.chars().count() > NAME_CHARS {
        (format!("more than {TARGET_NESTING} names or {NAME_CHARS} characters"), "shorten it")
    } else {
        return Some(names);
    };
    table.fault("to", message, Some(hint.to_owned()));
    None
}

/// The names of a dotted target; `\.` is a dot in a name and `\\` a backslash.
pub fn split_names(to: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = to.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = characters.next_if(|next| character == '\\' && matches!(next, '.' | '\\'));
        match (character, names.last_mut()) {
            ('.', _) => names.push(String::new()),
            (other, Some(name)) => name.push(escaped.unwrap_or(other)),
            (_, None) => {}
        }
    }
    names
}

/// A name as a dotted target writes it.
pub fn escape_name(name: &str) -> String {
    name.replace('\\', "\\\\").replace('.', "\\.")
}

/// Whether two targets write to the same place, or one inside the other.
pub fn overlap(left: &[String], right: &[String]) -> bool {
    left.iter().zip(right).all(|(left, right)| left == right)
}
