//! Texts of a connector file with `{placeholders}`: a delivery's names, and the connection's options.
//!
//! `{{` and `}}` are the braces themselves. Options are the same for all of a connection's requests, so they are put in
//! once ([`Template::bind`]); what names a delivery is put in each time ([`Template::text`]).

use std::collections::BTreeMap;

use super::option::OptionSpec;
use crate::domain::fault::did_you_mean;

/// What a text may show of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// `{event_type}`, such as `lead.captured`.
    pub event_type: &'a str,
    /// `{event_id}`, as the platform gave it.
    pub event_id: &'a str,
    /// `{job_id}`, stable over all attempts.
    pub job_id: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Var {
    EventType,
    EventId,
    JobId,
}

/// The names of a delivery that a text may show.
pub(super) const VARS: &[(&str, Var)] =
    &[("event_type", Var::EventType), ("event_id", Var::EventId), ("job_id", Var::JobId)];

/// The name under which a URL's text has the connection's own target.
pub(super) const TARGET: &str = "url";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Name(Var),
    Option(String),
}

/// A checked text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a text is no template, and what would mend it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// What the placeholders of a text may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// The names of a delivery.
    pub(super) names: bool,
    /// `{url}`, the connection's own target.
    pub(super) target: bool,
    /// The connector's options.
    pub(super) options: &'a [OptionSpec],
    /// Whether secret options are among them.
    pub(super) secrets: bool,
}

impl Known<'_> {
    fn words(&self) -> Vec<&str> {
        let names = VARS.iter().filter(|_| self.names).map(|(name, _)| *name);
        let target = self.target.then_some(TARGET);
        let options = self.options.iter().filter(|option| self.secrets || !option.secret);
        names.chain(target).chain(options.map(|option| option.name.as_str())).collect()
    }
}

impl Template {
    pub(super) fn parse(source: &str, known: Known<'_>) -> Result<Self, Mistake> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(further) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = further;
                continue;
            }
            let Some((name, further)) = (brace == "{").then(|| after.split_once('}')).flatten() else {
                return Err(Mistake {
                    message: format!("a lone \"{brace}\""),
                    hint: Some(format!("write \"{brace}{brace}\" for the brace itself")),
                });
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part(name, known)?);
            rest = further;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// A text of nothing.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Whether it is the option, or the target, of that name and nothing else.
    pub(super) fn is_only(&self, name: &str) -> bool {
        matches!(self.0.as_slice(), [Part::Option(shown)] if shown == name)
    }

    /// Whether it shows the option, or the target, of that name.
    pub fn shows(&self, name: &str) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Option(shown) if shown == name))
    }

    /// The options that it shows.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Option(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The text with the options in their places, each written by `write`, which is also told whether it stands at the
    /// very start. The error is the name of an option that has no value.
    pub(crate) fn bind<'t>(
        &'t self,
        values: &BTreeMap<String, String>,
        write: impl Fn(&str, bool) -> String,
    ) -> Result<Self, &'t str> {
        let mut bound: Vec<Part> = Vec::with_capacity(self.0.len());
        for (index, part) in self.0.iter().enumerate() {
            let text = match part {
                Part::Name(_) => {
                    bound.push(part.clone());
                    continue;
                }
                Part::Literal(text) => text.clone(),
                Part::Option(name) => write(values.get(name).ok_or(name.as_str())?, index == 0),
            };
            match bound.last_mut() {
                Some(Part::Literal(last)) => last.push_str(&text),
                _ => bound.push(Part::Literal(text)),
            }
        }
        Ok(Self(bound))
    }

    /// The text when it shows nothing of a delivery, so that it can be made once.
    pub fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one delivery, each of its names written by `write`. An option that was not bound shows nothing.
    pub(crate) fn text(&self, names: &Names<'_>, write: impl Fn(&str, &mut String)) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Name(Var::EventType) => write(names.event_type, &mut text),
                Part::Name(Var::EventId) => write(names.event_id, &mut text),
                Part::Name(Var::JobId) => write(names.job_id, &mut text),
                Part::Option(_) => {}
            }
        }
        text
    }
}

fn part(name: &str, known: Known<'_>) -> Result<Part, Mistake> {
    if let Some((_, var)) = VARS.iter().find(|(word, _)| known.names && *word == name) {
        return Ok(Part::Name(*var));
    }
    let words = known.words();
    if words.contains(&name) {
        return Ok(Part::Option(name.to_owned()));
    }
    let braced = || words.iter().map(|word| format!("{{{word}}}")).collect::<Vec<_>>().join(", ");
    let hint = match known.options.iter().any(|option| option.name == name) {
        true => Some("a secret option is not shown here; a header or a query parameter may".to_owned()),
        false if words.is_empty() => {
            Some("nothing can be put in here; declare it under [[options]]".to_owned())
        }
        false => {
            did_you_mean(name, words.iter().copied()).or_else(|| Some(format!("known here: {}", braced())))
        }
    };
    Err(Mistake { message: format!("unknown placeholder \"{{{name}}}\""), hint })
}
