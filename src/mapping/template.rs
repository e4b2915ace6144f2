//! A text with paths in it: `{{$.data.lead.name}} asked about {{$.data.intent}}`.
//!
//! A path that gives nothing or null stands for an empty text; when no path of the template gives anything, the
//! template gives nothing. A path with several matches gives the first. `\{{` is two plain braces.

use serde_json::Value;

use super::limits::{PATHS, VALUE_BYTES};
use super::path::{Found, Path, Refusal, Scope};
use super::value::{kind, scalar_text};
use crate::domain::fault::Place;

/// A compiled template.
#[derive(Debug)]
pub struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Path(Path),
}

/// Why a template could not be filled: the path and the reason.
pub type Unfilled<'t> = (&'t Path, String);

/// A piece of a text with slots.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Plain text.
    Text(String),
    /// What stands between `{{` and `}}`, without the blanks around it.
    Slot(&'t str),
}

/// Splits a text at its `{{...}}`; `\{{` is two plain braces.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Refusal> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        if let Some(before) = rest[..at].strip_suffix('\\') {
            plain.push_str(before);
            plain.push_str("{{");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let Some(end) = rest[at..].find("}}") else {
            return Err(Refusal::new(
                "\"{{\" is not closed",
                "close it with \"}}\", or write \"\\{{\" for plain braces",
            ));
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Slot(rest[at + 2..at + end].trim()));
        rest = &rest[at + end + 2..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

impl Template {
    /// Compiles a template that `depth` `each` surround; all that is wrong with it is told.
    pub fn parse(text: &str, depth: usize) -> Result<Self, Vec<Refusal>> {
        let mut parts = Vec::new();
        let mut refusals = Vec::new();
        for piece in pieces(text).map_err(|refusal| vec![refusal])? {
            match piece {
                Piece::Text(text) => parts.push(Part::Text(text)),
                Piece::Slot(path) => match Path::parse(path, depth) {
                    Ok(path) => parts.push(Part::Path(path)),
                    Err(refusal) => refusals.push(refusal),
                },
            }
        }
        match parts.iter().filter(|part| matches!(part, Part::Path(_))).count() {
            0 if refusals.is_empty() => {
                refusals.push(Refusal::new(
                    "the template has no \"{{path}}\"",
                    "use `value` for a text that never changes",
                ));
            }
            count if count > PATHS => {
                refusals.push(Refusal::new(
                    format!("{count} paths, {PATHS} are the most"),
                    "split it into several rows",
                ));
            }
            _ => {}
        }
        if refusals.is_empty() { Ok(Self(parts)) } else { Err(refusals) }
    }

    /// The template with the place where it stands, for its paths.
    #[must_use]
    pub fn at(self, place: &Place) -> Self {
        Self(
            self.0
                .into_iter()
                .map(|part| match part {
                    Part::Path(path) => Part::Path(path.at(place.clone())),
                    Part::Text(text) => Part::Text(text),
                })
                .collect(),
        )
    }

    /// Every path of the template.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|part| match part {
            Part::Path(path) => Some(path),
            Part::Text(_) => None,
        })
    }

    /// The text, or `None` when no path gave anything.
    pub fn fill<'t>(&'t self, scope: Scope<'_>) -> Result<Option<String>, Unfilled<'t>> {
        let mut filled = String::new();
        let mut any = false;
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Path(path) => {
                    any |= fill_in(&mut filled, path, scope).map_err(|reason| (path, reason))?;
                }
            }
        }
        Ok(any.then_some(filled))
    }
}

/// Appends what the path leads to; answers whether it led to anything.
pub fn fill_in(filled: &mut String, path: &Path, scope: Scope<'_>) -> Result<bool, String> {
    let found = path.find(scope)?;
    let value: &Value = match &found {
        Found::One(Some(value)) => value,
        Found::Many(values) => match values.first() {
            Some(value) => value,
            None => return Ok(false),
        },
        Found::One(None) => return Ok(false),
    };
    if value.is_null() {
        return Ok(false);
    }
    let text = scalar_text(value).ok_or_else(|| format!("{} has no place in a text", kind(value)))?;
    if filled.len() + text.len() > VALUE_BYTES {
        return Err(format!("the text is above {VALUE_BYTES} bytes"));
    }
    scope.work.spend(text.len() / 16)?;
    filled.push_str(&text);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::context::sample;
    use serde_json::json;

    fn fill(template: &str) -> Result<Option<String>, String> {
        let event =
            json!({"name": "Ada", "n": 3, "yes": true, "null": null, "list": ["x", "y"], "empty": ""});
        let (context, work) = (sample(), crate::mapping::limits::Work::new());
        let template = Template::parse(template, 0).unwrap();
        template
            .fill(Scope { root: &event, context: &context, work: &work, item: None })
            .map_err(|(path, reason)| format!("{} {reason}", path.text()))
    }

    #[test]
    fn paths_are_filled_in() {
        for (template, text) in [
            ("{{$.name}} has {{ $.n }}", Ok(Some("Ada has 3"))),
            ("{{$.yes}}{{$.missing}}{{$.null}}.", Ok(Some("true."))),
            ("{{$.missing}} {{$.null}}", Ok(None)),
            ("<{{$.empty}}>", Ok(Some("<>"))),
            ("\\{{x}} {{$.name}} }}", Ok(Some("{{x}} Ada }}"))),
            ("{{$.list[*]}}", Ok(Some("x"))),
            ("{{$job.id}}", Ok(Some("job_1"))),
            ("a {{$.list}}", Err("$.list a list has no place in a text".to_owned())),
        ] {
            assert_eq!(fill(template), text.map(|text| text.map(str::to_owned)), "{template}");
        }
    }

    #[test]
    fn every_wrong_path_is_told() {
        let refusals = Template::parse("{{name}} {{$.a..}} {{$.ok}}", 0).unwrap_err();
        assert_eq!(refusals.len(), 2, "{refusals:?}");
        assert!(Template::parse("plain", 0).is_err());
        assert!(Template::parse("{{$.a", 0).is_err());
    }
}
