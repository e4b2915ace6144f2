//! Takes out of a script the functions that it does not call.
//!
//! What scripts share is put before each of them, and a script makes all of its functions anew each time it runs: those that it
//! never calls cost as much to make as the others.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use super::constants::pieces;

/// The same script without each `local function` at the beginning of a line, up to the `end` at the beginning of another,
/// that nothing which is left names. The lines keep their numbers, which errors tell.
pub(super) fn take_out(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let functions = functions(&lines);
    let inside: HashSet<usize> = functions.values().flat_map(Clone::clone).collect();
    let mut used = HashSet::new();
    let mut look: Vec<usize> = (0..lines.len()).filter(|line| !inside.contains(line)).collect();
    while let Some(line) = look.pop() {
        for name in pieces(lines[line]).filter(|piece| functions.contains_key(piece)) {
            if used.insert(name) {
                look.extend(functions[name].clone());
            }
        }
    }
    let unused: HashSet<usize> = functions
        .iter()
        .filter(|(name, _)| !used.contains(*name))
        .flat_map(|(_, lines)| lines.clone())
        .collect();
    let kept = |(number, line)| if unused.contains(&number) { "" } else { line };
    lines.into_iter().enumerate().map(kept).flat_map(|line| [line, "\n"]).collect()
}

/// The lines of each function, by its name.
fn functions<'a>(lines: &[&'a str]) -> HashMap<&'a str, RangeInclusive<usize>> {
    let mut found = HashMap::new();
    for (first, line) in lines.iter().enumerate() {
        let Some((name, _)) = line.strip_prefix("local function ").and_then(|rest| rest.split_once('('))
        else {
            continue;
        };
        let length = lines[first..].iter().position(|line| *line == "end").unwrap_or_default();
        found.insert(name, first..=first + length);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_calls_is_taken_out() {
        let script = "local function a()\n  return 1\nend\nlocal function b()\n  return a()\nend\n\
                      local function c(x)\n  return c(x) -- d()\nend\nlocal function d()\nend\nreturn b(), 'c'\n";
        let wanted = "local function a()\n  return 1\nend\nlocal function b()\n  return a()\nend\n\n\n\n\n\nreturn b(), 'c'\n";
        assert_eq!(take_out(script), wanted);
        assert_eq!(take_out(wanted), wanted);
    }
}
