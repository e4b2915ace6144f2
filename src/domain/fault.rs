//! What is wrong with something a person wrote, where, and what would mend it; all of it at once.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Where something stands in what a person wrote. Lines and columns count from 1; 0 means "not a file" (JSON
/// over the API), in which case `field` is all there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file's name as it was given; `None` for JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: u32,
    /// Column in characters, from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub column: u32,
    /// The field's path, such as `fields[2].apply[0]`.
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Place {
    /// A place known by its field alone.
    pub fn field(field: impl Into<String>) -> Self {
        Self { field: field.into(), ..Self::default() }
    }

    /// The field as a JSON pointer (RFC 6901): `fields[2].to` is `/fields/2/to`, `headers.a\.b` is `/headers/a.b`.
    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        let mut begins = true;
        let mut characters = self.field.chars().peekable();
        while let Some(character) = characters.next() {
            let escaped =
                characters.next_if(|next| character == '\\' && matches!(next, '\\' | '.' | '[' | ']'));
            let character = match (escaped, character) {
                (None, '.' | '[') => {
                    begins = true;
                    continue;
                }
                (None, ']') if characters.peek().is_none_or(|next| matches!(next, '.' | '[')) => continue,
                (escaped, character) => escaped.unwrap_or(character),
            };
            if std::mem::take(&mut begins) {
                pointer.push('/');
            }
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                character => pointer.push(character),
            }
        }
        pointer
    }
}

/// A key that a person wrote, as a part of a [`Place::field`]: `a.b` is `a\.b`, and nothing in it breaks a line.
pub fn key_in_field(key: &str) -> String {
    let mut shown = String::with_capacity(key.len());
    for character in key.chars() {
        match character {
            '\\' | '.' | '[' | ']' => shown.extend(['\\', character]),
            character if character.is_control() => shown.extend(character.escape_debug()),
            character => shown.push(character),
        }
    }
    shown
}

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault known by its field alone.
    pub fn at_field(field: impl Into<String>, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { place: Place::field(field), message: message.into(), hint }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.place.file {
            write!(f, "{file}:{}:{}: ", self.place.line, self.place.column)?;
        }
        if !self.place.field.is_empty() {
            write!(f, "{}: ", self.place.field)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// All that is wrong, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl Faults {
    /// Adds a fault.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Adds a fault that is known by its field alone.
    pub fn at_field(&mut self, field: impl Into<String>, message: impl Into<String>, hint: Option<String>) {
        self.0.push(Fault::at_field(field, message, hint));
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The faults so far.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `value` when nothing is wrong, else the faults.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// `did you mean "x"?` for the nearest of `known`, when one is near enough.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    const NEAR: f64 = 0.75;
    let written = written.to_lowercase();
    // A few letters are in many a long name, in their order and not meant.
    let alike = |name: &str| {
        let (short, long) = if written.len() < name.len() { (&*written, name) } else { (name, &*written) };
        short.len() * 2 > long.len() || long.starts_with(short)
    };
    known
        .into_iter()
        .map(|name| (name.to_lowercase(), name))
        .filter(|(lower, _)| alike(lower))
        .map(|(lower, name)| (strsim::jaro_winkler(&written, &lower), name))
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| format!("did you mean \"{name}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_path_is_a_json_pointer() {
        assert_eq!(Place::field("fields[2].apply[0].phone").pointer(), "/fields/2/apply/0/phone");
        assert_eq!(Place::field("").pointer(), "");
    }

    #[test]
    fn what_was_meant_is_near_and_of_like_length() {
        for (written, known, meant) in [
            ("lisen", &["listen", "data_dir"][..], Some("listen")),
            ("URL", &["store", "durability", "url"], Some("url")),
            ("url", &["store", "durability", "max_bytes"], None),
            ("desc", &["description", "name"], Some("description")),
            ("emails", &["email", "name"], Some("email")),
            ("", &["name"], None),
        ] {
            let meant = meant.map(|name| format!("did you mean \"{name}\"?"));
            assert_eq!(did_you_mean(written, known.iter().copied()), meant, "{written}");
        }
    }

    #[test]
    fn a_key_with_dots_is_one_part_of_a_pointer() {
        for (key, pointer) in [
            ("a.b", "/x/a.b/0"),
            ("a[0].b]", "/x/a[0].b]/0"),
            ("a/b~c", "/x/a~1b~0c/0"),
            ("back\\slash\\.", "/x/back\\slash\\./0"),
            ("é x", "/x/é x/0"),
        ] {
            let field = format!("x.{}[0]", key_in_field(key));
            assert_eq!(Place::field(&field).pointer(), pointer, "{field}");
        }
        assert_eq!(key_in_field("a\nb"), "a\\nb");
    }
}
