//! A text with paths in it: `{{$.data.lead.name}} asked about {{$.data.intent}}`.
//!
//! A path that gives nothing or null stands for an empty text; when no path of the template gives anything, the
//! template gives nothing. A path with several matches gives the first. `\{{` is two plain braces.

use serde_json::Value;

use super::limits::{PATHS, VALUE_BYTES};
use super::path::{Found, Path, Refusal, Scope};
use super::value::{kind, scalar_text};

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

impl Template {
    /// Compiles a template; all that is wrong with it is told.
    pub fn parse(text: &str) -> Result<Self, Vec<Refusal>> {
        let mut parts = Vec::new();
        let mut refusals = Vec::new();
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
                refusals.push(Refusal::new(
                    "\"{{\" is not closed",
                    "close it with \"}}\", or write \"\\{{\" for plain braces",
                ));
                return Err(refusals);
            };
            match Path::parse(rest[at + 2..at + end].trim()) {
                Ok(path) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Path(path));
                }
                Err(refusal) => refusals.push(refusal),
            }
            rest = &rest[at + end + 2..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
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

fn fill_in(filled: &mut String, path: &Path, scope: Scope<'_>) -> Result<bool, String> {
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
        let context = sample();
        let template = Template::parse(template).unwrap();
        template
            .fill(Scope { root: &event, context: &context })
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
        let refusals = Template::parse("{{name}} {{$.a..b..c}} {{$.ok}}").unwrap_err();
        assert_eq!(refusals.len(), 2, "{refusals:?}");
        assert!(Template::parse("plain").is_err());
        assert!(Template::parse("{{$.a").is_err());
    }
}
