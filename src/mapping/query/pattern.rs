//! Patterns, all of linear time: I-Regexp (RFC 9485) for `match` and `search` in a path, and the `regex` crate's own
//! for `matches` in a condition and the `extract` transform.

use regex::{Regex, RegexBuilder};

use super::super::path::Refusal;

/// Bytes of a compiled pattern.
const PATTERN_BYTES: usize = 256 * 1024;
/// Characters of a pattern.
const PATTERN_CHARS: usize = 500;
/// Characters that a backslash may stand before in I-Regexp (`SingleCharEsc`), and the properties.
const ESCAPABLE: &str = "()*+-./?[\\]^{|}nrtpP$";

/// Compiles a pattern as the `regex` crate has them.
pub fn plain(text: &str) -> Result<Regex, Refusal> {
    if text.chars().count() > PATTERN_CHARS {
        return Err(Refusal::new(
            format!("a pattern has at most {PATTERN_CHARS} characters"),
            "test for the part that matters",
        ));
    }
    RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build().map_err(|error| {
        let reason = match &error {
            regex::Error::CompiledTooBig(_) => "it is too large once compiled".to_owned(),
            _ => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        };
        Refusal::new(
            format!("not a pattern: {reason}"),
            "\"^\" and \"$\" are the ends, \"(?i)\" ignores case; no look-around",
        )
    })
}

/// Compiles an I-Regexp; `whole` when the whole text must match. What only the `regex` crate has is refused, since it
/// would mean something else, or nothing, elsewhere.
pub fn interoperable(text: &str, whole: bool) -> Result<Regex, Refusal> {
    let beyond = |what: &str, hint: &str| {
        Refusal::new(format!("{what} is not part of the patterns of JSONPath (RFC 9485)"), hint)
    };
    let mut translated = String::with_capacity(text.len() + 8);
    let mut in_class = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next().unwrap_or('\\');
                if !ESCAPABLE.contains(escaped) {
                    let hint = "write the characters: \"[0-9]\" for digits, \"[a-zA-Z0-9_]\" for words";
                    return Err(beyond(&format!("\"\\{escaped}\""), hint));
                }
                translated.push('\\');
                translated.push(escaped);
            }
            '[' if in_class => return Err(beyond("a \"[\" inside of \"[...]\"", "write \"\\[\"")),
            '[' => {
                in_class = true;
                translated.push('[');
                if characters.peek() == Some(&'^') {
                    characters.next();
                    translated.push('^');
                }
            }
            ']' => {
                in_class = false;
                translated.push(']');
            }
            // In a class the `regex` crate would take two of them for an operation on sets.
            '&' | '~' | '-' if in_class && characters.peek() == Some(&character) => {
                return Err(beyond(&format!("\"{character}{character}\" in a class"), "write it once"));
            }
            '(' if !in_class && characters.peek() == Some(&'?') => {
                return Err(beyond("\"(?\"", "groups are plain: \"(a|b)\""));
            }
            '*' | '+' | '?' | '}'
                if !in_class && characters.peek().is_some_and(|next| "?+*".contains(*next)) =>
            {
                return Err(beyond("a repetition of a repetition", "take one of them away"));
            }
            '.' if !in_class => translated.push_str("[^\\n\\r]"),
            other => translated.push(other),
        }
    }
    plain(&if whole { format!("\\A(?:{translated})\\z") } else { translated })
}
