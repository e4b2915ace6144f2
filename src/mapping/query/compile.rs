//! From the parser's tree to the compiled query: checks the types that RFC 9535 §2.4 asks for, and compiles patterns.

use jsonpath_rust::parser::model as parsed;
use serde_json::Value;

use super::super::path::{Refusal, Step};
use super::{Logical, Origin, Query, Relation, Segment, Selector, Side, pattern};

/// Compiles the segments of a query.
pub fn query(segments: &[parsed::Segment]) -> Result<Query, Refusal> {
    segments.iter().map(segment).collect::<Result<_, _>>().map(Query)
}

/// The steps of a path that names one place; `None` when it may lead to several.
pub fn steps(segments: &[parsed::Segment]) -> Option<Box<[Step]>> {
    segments
        .iter()
        .map(|segment| match segment {
            parsed::Segment::Selector(parsed::Selector::Name(name)) => Some(Step::Name(name.as_str().into())),
            parsed::Segment::Selector(parsed::Selector::Index(index)) => Some(Step::Index(*index)),
            _ => None,
        })
        .collect()
}

fn segment(segment: &parsed::Segment) -> Result<Segment, Refusal> {
    Ok(match segment {
        parsed::Segment::Descendant(inner) => Segment { descendant: true, ..self::segment(inner)? },
        parsed::Segment::Selector(one) => Segment { descendant: false, selectors: vec![selector(one)?] },
        parsed::Segment::Selectors(several) => {
            Segment { descendant: false, selectors: several.iter().map(selector).collect::<Result<_, _>>()? }
        }
    })
}

fn selector(selector: &parsed::Selector) -> Result<Selector, Refusal> {
    Ok(match selector {
        parsed::Selector::Name(name) => Selector::Name(name.as_str().into()),
        parsed::Selector::Wildcard => Selector::Wildcard,
        parsed::Selector::Index(index) => Selector::Index(*index),
        parsed::Selector::Slice(start, end, step) => {
            Selector::Slice { start: *start, end: *end, step: step.unwrap_or(1) }
        }
        parsed::Selector::Filter(test) => Selector::Filter(logical(test)?),
    })
}

fn logical(filter: &parsed::Filter) -> Result<Logical, Refusal> {
    let several = |parts: &[parsed::Filter]| parts.iter().map(logical).collect::<Result<Vec<_>, _>>();
    let negated = |inner, not| if not { Logical::Not(Box::new(inner)) } else { inner };
    Ok(match filter {
        parsed::Filter::Or(parts) => Logical::Any(several(parts)?),
        parsed::Filter::And(parts) => Logical::All(several(parts)?),
        parsed::Filter::Atom(parsed::FilterAtom::Filter { expr, not }) => negated(logical(expr)?, *not),
        parsed::Filter::Atom(parsed::FilterAtom::Test { expr, not }) => negated(test(expr)?, *not),
        parsed::Filter::Atom(parsed::FilterAtom::Comparison(comparison)) => {
            use parsed::Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
            let (left, relation, right) = match &**comparison {
                Eq(left, right) => (left, Relation::Equal, right),
                Ne(left, right) => (left, Relation::NotEqual, right),
                Gt(left, right) => (left, Relation::Greater, right),
                Gte(left, right) => (left, Relation::GreaterOrEqual, right),
                Lt(left, right) => (left, Relation::Less, right),
                Lte(left, right) => (left, Relation::LessOrEqual, right),
            };
            Logical::Compare(side(left)?, relation, side(right)?)
        }
    })
}

fn test(test: &parsed::Test) -> Result<Logical, Refusal> {
    Ok(match test {
        parsed::Test::RelQuery(segments) => matches(Origin::Current, segments)?,
        parsed::Test::AbsQuery(query) => matches(Origin::Root, &query.segments)?,
        parsed::Test::Function(function) => match &**function {
            parsed::TestFunction::Match(subject, wanted) => {
                Logical::Pattern(value("match", subject)?, fixed("match", wanted)?)
            }
            parsed::TestFunction::Search(subject, wanted) => {
                Logical::Pattern(value("search", subject)?, fixed("search", wanted)?)
            }
            parsed::TestFunction::Length(_)
            | parsed::TestFunction::Count(_)
            | parsed::TestFunction::Value(_) => {
                return Err(Refusal::new(
                    "a number or value is no test",
                    "compare it: \"[?length(@.name) > 0]\"",
                ));
            }
            parsed::TestFunction::Custom(name, _) => return Err(unknown(name)),
        },
    })
}

fn matches(origin: Origin, segments: &[parsed::Segment]) -> Result<Logical, Refusal> {
    Ok(match steps(segments) {
        Some(steps) => Logical::Leads(origin, steps),
        None => Logical::Matches(origin, query(segments)?),
    })
}

fn side(side: &parsed::Comparable) -> Result<Side, Refusal> {
    Ok(match side {
        parsed::Comparable::Literal(literal) => Side::Literal(self::literal(literal)),
        parsed::Comparable::SingularQuery(query) => {
            let (origin, segments) = match query {
                parsed::SingularQuery::Current(segments) => (Origin::Current, segments),
                parsed::SingularQuery::Root(segments) => (Origin::Root, segments),
            };
            let steps = segments.iter().map(|segment| match segment {
                parsed::SingularQuerySegment::Index(index) => Step::Index(*index),
                parsed::SingularQuerySegment::Name(name) => Step::Name(name.as_str().into()),
            });
            Side::Singular(origin, steps.collect())
        }
        parsed::Comparable::Function(function) => self::function(function)?,
    })
}

/// A function that gives a value.
fn function(function: &parsed::TestFunction) -> Result<Side, Refusal> {
    Ok(match function {
        parsed::TestFunction::Length(argument) => Side::Length(Box::new(value("length", argument)?)),
        parsed::TestFunction::Count(argument) => {
            let (origin, query) = nodes("count", argument)?;
            Side::Count(origin, query)
        }
        parsed::TestFunction::Value(argument) => {
            let (origin, query) = nodes("value", argument)?;
            Side::Only(origin, query)
        }
        parsed::TestFunction::Match(..) | parsed::TestFunction::Search(..) => {
            return Err(Refusal::new("a test is no value", "take away the comparison"));
        }
        parsed::TestFunction::Custom(name, _) => return Err(unknown(name)),
    })
}

/// An argument that is one value: a literal, a path to one place, or a function that gives a value.
fn value(name: &str, argument: &parsed::FnArg) -> Result<Side, Refusal> {
    let wrong = || {
        Refusal::new(
            format!("{name}() takes one value, not the matches of a query or a test"),
            format!("name the place: {name}(@.name ...)"),
        )
    };
    match argument {
        parsed::FnArg::Literal(literal) => Ok(Side::Literal(self::literal(literal))),
        parsed::FnArg::Filter(_) => Err(wrong()),
        parsed::FnArg::Test(test) => match &**test {
            parsed::Test::RelQuery(segments) => {
                steps(segments).map(|steps| Side::Singular(Origin::Current, steps)).ok_or_else(wrong)
            }
            parsed::Test::AbsQuery(query) => {
                steps(&query.segments).map(|steps| Side::Singular(Origin::Root, steps)).ok_or_else(wrong)
            }
            parsed::Test::Function(inner) => function(inner),
        },
    }
}

/// An argument that is a query.
fn nodes(name: &str, argument: &parsed::FnArg) -> Result<(Origin, Query), Refusal> {
    if let parsed::FnArg::Test(test) = argument {
        match &**test {
            parsed::Test::RelQuery(segments) => return Ok((Origin::Current, query(segments)?)),
            parsed::Test::AbsQuery(inner) => return Ok((Origin::Root, query(&inner.segments)?)),
            parsed::Test::Function(_) => {}
        }
    }
    Err(Refusal::new(format!("{name}() takes a query"), format!("such as {name}(@.items[*])")))
}

/// A pattern that is known now.
fn fixed(name: &str, argument: &parsed::FnArg) -> Result<regex::Regex, Refusal> {
    let parsed::FnArg::Literal(parsed::Literal::String(text)) = argument else {
        return Err(Refusal::new(
            format!("the pattern of {name}() is no text in quotes"),
            format!("write it there: {name}(@.name, 'A.*'); a pattern can't come from the event"),
        ));
    };
    pattern::interoperable(text, name == "match")
}

fn literal(literal: &parsed::Literal) -> Value {
    match literal {
        parsed::Literal::Int(number) => Value::from(*number),
        parsed::Literal::Float(number) => Value::from(*number),
        parsed::Literal::String(text) => Value::from(text.as_str()),
        parsed::Literal::Bool(flag) => Value::from(*flag),
        parsed::Literal::Null => Value::Null,
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(
        format!("{name}() is not part of JSONPath (RFC 9535)"),
        "known are length, count, value, match and search; or compare with \"==\" and \"||\"",
    )
}
