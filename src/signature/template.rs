//! Texts with `{placeholders}`: cut into parts once, then filled when sending and read back when receiving.

use crate::domain::fault::did_you_mean;

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Var {
    Id,
    Timestamp,
    TimestampMs,
    Body,
    Url,
    Method,
    EventType,
    Secret,
    Signature,
    Digest,
    /// The digest's place in a signature by ed25519.
    Ed25519,
}

impl Var {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Timestamp => "timestamp",
            Self::TimestampMs => "timestamp_ms",
            Self::Body => "body",
            Self::Url => "url",
            Self::Method => "method",
            Self::EventType => "event_type",
            Self::Secret => "secret",
            Self::Signature => "signature",
            Self::Digest | Self::Ed25519 => "digest",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Value(Var),
}

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Literals and placeholders in order; no two literals side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// Cuts `source`. `{{` and `}}` stand for the braces themselves.
    pub(super) fn parse(source: &str, known: &[Var]) -> Result<Self, Mistake> {
        let mut template = Self::default();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            template.push_literal(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(further) = after.strip_prefix(brace) {
                template.push_literal(brace);
                rest = further;
                continue;
            }
            let inside = (brace == "{").then(|| after.split_once('}')).flatten();
            let Some((name, further)) = inside else {
                return Err(Mistake {
                    message: format!("a lone \"{brace}\""),
                    hint: Some(format!("write \"{brace}{brace}\" for the brace itself")),
                });
            };
            let Some(var) = known.iter().find(|var| var.name() == name) else {
                let names: Vec<String> = known.iter().map(|var| format!("{{{}}}", var.name())).collect();
                return Err(Mistake {
                    message: format!("unknown placeholder \"{{{name}}}\""),
                    hint: did_you_mean(name, known.iter().map(|var| var.name()))
                        .or_else(|| Some(format!("known here: {}", names.join(", ")))),
                });
            };
            template.0.push(Part::Value(*var));
            rest = further;
        }
        template.push_literal(rest);
        Ok(template)
    }

    fn push_literal(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Part::Literal(last)) = self.0.last_mut() {
            last.push_str(text);
        } else {
            self.0.push(Part::Literal(text.to_owned()));
        }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// How often `var` occurs.
    pub(super) fn count(&self, var: Var) -> usize {
        self.vars().filter(|found| *found == var).count()
    }

    pub(super) fn has(&self, var: Var) -> bool {
        self.count(var) > 0
    }

    pub(super) fn vars(&self) -> impl Iterator<Item = Var> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Value(var) => Some(*var),
        })
    }

    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Value(_) => None,
        })
    }

    /// Whether two placeholders touch, so that no reader could tell where one ends.
    pub(super) fn runs_together(&self) -> bool {
        self.0.windows(2).any(|pair| matches!(pair, [Part::Value(_), Part::Value(_)]))
    }

    /// The first characters of the literals that follow `var`: where a reader takes its value to end.
    pub(super) fn stops_after(&self, var: Var) -> impl Iterator<Item = char> {
        self.0.windows(2).filter_map(move |pair| match pair {
            [Part::Value(found), Part::Literal(text)] if *found == var => text.chars().next(),
            _ => None,
        })
    }

    /// This template with `one` in place of each `other`.
    pub(super) fn renamed(&self, other: Var, one: Var) -> Self {
        self.with(other, &Self(vec![Part::Value(one)]))
    }

    /// This template with every `var` replaced by the parts of `inner`.
    pub(super) fn with(&self, var: Var, inner: &Self) -> Self {
        let mut out = Self::default();
        for part in &self.0 {
            let parts = if *part == Part::Value(var) { inner.parts() } else { std::slice::from_ref(part) };
            for part in parts {
                match part {
                    Part::Literal(text) => out.push_literal(text),
                    Part::Value(_) => out.0.push(part.clone()),
                }
            }
        }
        out
    }

    /// Reads `text` back: what stands where the placeholders are, never empty; `None` when it has another
    /// form. A value ends where the literal after it first occurs. `any_case` is about the literals' ASCII letters.
    pub(super) fn read<'t>(&self, text: &'t str, any_case: bool) -> Option<Vec<(Var, &'t str)>> {
        let mut found = Vec::new();
        let mut rest = text;
        let mut pending = None;
        for part in &self.0 {
            match part {
                Part::Value(var) => pending = Some(*var),
                Part::Literal(literal) => {
                    let at = match pending {
                        None => 0,
                        Some(_) => rest.find(literal.as_str())?,
                    };
                    let here = rest.get(at..at + literal.len())?;
                    if here != literal && !(any_case && here.eq_ignore_ascii_case(literal)) {
                        return None;
                    }
                    if let Some(var) = pending.take() {
                        found.push((var, &rest[..at]));
                    }
                    rest = &rest[at + literal.len()..];
                }
            }
        }
        match pending {
            Some(var) => found.push((var, rest)),
            None if !rest.is_empty() => return None,
            None => {}
        }
        found.iter().all(|(_, value)| !value.is_empty()).then_some(found)
    }

    /// The template for a person: `t=<timestamp>,v1=<hex digest>`.
    pub(super) fn shape(&self, digest: &str) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                Part::Value(Var::Digest | Var::Ed25519) => format!("<{digest}>"),
                Part::Value(var) => format!("<{}>", var.name()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Var] = &[Var::Id, Var::Timestamp, Var::Digest];

    fn template(source: &str) -> Template {
        Template::parse(source, KNOWN).unwrap()
    }

    #[test]
    fn mistakes_are_told_with_a_hint() {
        for (source, message, hint) in [
            ("{timestmp}", "unknown placeholder \"{timestmp}\"", "did you mean \"timestamp\"?"),
            ("{xyz}", "unknown placeholder \"{xyz}\"", "known here: {id}, {timestamp}, {digest}"),
            ("a{id", "a lone \"{\"", "write \"{{\" for the brace itself"),
            ("a}", "a lone \"}\"", "write \"}}\" for the brace itself"),
        ] {
            let mistake = Template::parse(source, KNOWN).unwrap_err();
            assert_eq!(mistake, Mistake { message: message.to_owned(), hint: Some(hint.to_owned()) });
        }
    }

    #[test]
    fn reads_back_what_stands_in_the_place_of_placeholders() {
        for (source, text, found) in [
            ("t={timestamp}", "t=12", Some(vec![(Var::Timestamp, "12")])),
            ("t={timestamp}", "t=", None),
            ("t={timestamp}", "T=12", None),
            ("{{{id}}}", "{x}", Some(vec![(Var::Id, "x")])),
            ("{id}.{timestamp}", "a.b.c", Some(vec![(Var::Id, "a"), (Var::Timestamp, "b.c")])),
            ("{id};", "a;b", None),
            ("{id};", "a;", Some(vec![(Var::Id, "a")])),
            ("only", "only", Some(vec![])),
            ("{id}", "é", Some(vec![(Var::Id, "é")])),
            ("ab{id}", "aé", None),
        ] {
            assert_eq!(template(source).read(text, false), found, "{source} on {text}");
        }
        assert_eq!(template("Bearer {id}").read("bearer x", true), Some(vec![(Var::Id, "x")]));
    }

    #[test]
    fn one_template_fills_the_place_of_another() {
        let inner = template("v1={digest}");
        let outer = Template::parse("s: {signature};", &[Var::Signature]).unwrap();
        assert_eq!(outer.with(Var::Signature, &inner).shape("hex digest"), "s: v1=<hex digest>;");
    }
}
