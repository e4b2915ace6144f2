//! A path: where in the event, or in what stands beside it, a value is.
//!
//! The grammar is RFC 9535. A *singular* path, names and indexes only, becomes a list of [`Step`]s that is
//! followed without parsing or allocating. Any other path becomes a [`Query`]. Beside `$`, the
//! event, there are the context's roots such as `$event.id`, and inside of an `each` there are `$parent`, which is
//! what `$` is around it, and `$index`, from 0.

use std::borrow::Cow;

use serde_json::Value;

use super::context::{self, Context, Known};
use super::limits::{PATH_CHARS, PATH_NESTING, Work};
use super::query::{Query, position, steps};
use crate::domain::fault::{Place, did_you_mean};

/// Why a path is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: Option<String>,
}

impl Refusal {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// One step of a singular path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An object's key.
    Name(Box<str>),
    /// A list's index; negative counts from the end.
    Index(i64),
}

/// What paths are followed in.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'e> {
    /// What `$` is.
    pub root: &'e Value,
    /// What the named roots read.
    pub context: &'e Context<'e>,
    /// What the run may still do.
    pub work: &'e Work,
    /// What surrounds the item that `$` is; `None` when it is the event.
    pub item: Option<&'e Item<'e>>,
}

/// An item of an `each`.
#[derive(Debug)]
pub struct Item<'e> {
    /// `$index`.
    pub index: usize,
    /// The scope around the `each`; its root is `$parent`.
    pub outer: Scope<'e>,
}

/// A compiled path with its text as written.
#[derive(Debug)]
pub struct Path {
    text: Box<str>,
    /// Where it stands in the mapping.
    pub place: Place,
    /// How often `$parent` is taken.
    up: usize,
    route: Route,
}

#[derive(Debug)]
enum Route {
    Walk(Box<[Step]>),
    Query(Query),
    Known(Known),
    Index,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found<'e> {
    /// The one value that a singular path can lead to.
    One(Option<Cow<'e, Value>>),
    /// The matches of a query, in its order.
    Many(Vec<&'e Value>),
}

impl Path {
    /// Compiles a path that `depth` `each` surround.
    pub fn parse(text: &str, depth: usize) -> Result<Self, Refusal> {
        check_size(text)?;
        let mut up = 0;
        let mut rest = text;
        while let Some(inner) =
            rest.strip_prefix("$parent").filter(|inner| inner.is_empty() || inner.starts_with(['.', '[']))
        {
            up += 1;
            // "$parent.$parent.x" goes up twice; "$parent.x" is "$.x" up there.
            match inner.strip_prefix(".$") {
                Some(further) if further.starts_with("parent") || further.starts_with("index") => {
                    rest = &inner[1..];
                }
                _ => {
                    rest = inner;
                    break;
                }
            }
        }
        let needed = up + usize::from(rest == "$index");
        if needed > depth {
            return Err(Refusal::new(
                format!("\"{text}\" leads out of {needed} `each`, and there are {depth} around it"),
                "outside of `each` the event is \"$\"",
            ));
        }
        let below = if up > 0 && !rest.starts_with('$') {
            Cow::Owned(format!("${rest}"))
        } else {
            Cow::Borrowed(rest)
        };
        let route = if rest == "$index" {
            Route::Index
        } else if let Some(known) = context::named_root(&below, depth) {
            Route::Known(known?)
        } else {
            let query = jsonpath_rust::parser::parse_json_path(&below).map_err(|_| explain(text))?;
            match steps(&query.segments) {
                Some(steps) => Route::Walk(steps),
                None => Route::Query(Query::new(&query)?),
            }
        };
        Ok(Self { text: text.into(), place: Place::default(), up, route })
    }

    /// The path with the place where it stands.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The path as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Follows the path; the error says why a query is ended.
    pub fn find<'e>(&self, scope: Scope<'e>) -> Result<Found<'e>, &'static str> {
        let scope = self.scope(scope);
        Ok(match &self.route {
            Route::Walk(steps) => Found::One(walk(scope.root, steps).map(Cow::Borrowed)),
            Route::Known(known) => Found::One(known.read(scope.context).map(Cow::Owned)),
            Route::Index => Found::One(scope.item.map(|item| Cow::Owned(Value::from(item.index)))),
            Route::Query(query) => Found::Many(query.run(scope.root, scope.work)?),
        })
    }

    /// The scope that the path starts in.
    pub fn scope<'e>(&self, scope: Scope<'e>) -> Scope<'e> {
        (0..self.up).fold(scope, |scope, _| scope.item.map_or(scope, |item| item.outer))
    }

    /// The steps of a singular path into the event or item.
    pub fn steps(&self) -> Option<&[Step]> {
        match &self.route {
            Route::Walk(steps) => Some(steps),
            _ => None,
        }
    }

    /// Whether it reads nothing of the event, or of its members this one, which is added to `members`.
    pub fn reads_member<'p>(&'p self, members: &mut Vec<&'p str>) -> bool {
        match (&self.route, self.up) {
            (Route::Known(_), _) => true,
            (Route::Walk(steps), 0) => match steps.first() {
                Some(Step::Name(name)) => {
                    members.push(name);
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The query of a path that is not singular.
    pub fn query(&self) -> Option<&Query> {
        match &self.route {
            Route::Query(query) => Some(query),
            _ => None,
        }
    }
}

/// Follows steps from `root`.
pub fn walk<'e>(root: &'e Value, steps: &[Step]) -> Option<&'e Value> {
    steps.iter().try_fold(root, |value, step| match step {
        Step::Name(name) => value.as_object()?.get(&**name),
        Step::Index(index) => {
            let items = value.as_array()?;
            items.get(position(*index, items.len())?)
        }
    })
}

fn check_size(text: &str) -> Result<(), Refusal> {
    let length = text.chars().count();
    if length > PATH_CHARS {
        return Err(Refusal::new(
            format!("the path has {length} characters, {PATH_CHARS} are the most"),
            "name the keys on the way instead of testing for them",
        ));
    }
    let (mut open, mut quote, mut escaped) = (0_usize, None, false);
    for character in text.chars() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(mark), _) if mark == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '[' | '(') => open += 1,
            (None, ']' | ')') => open = open.saturating_sub(1),
            _ => {}
        }
        if open > PATH_NESTING {
            return Err(Refusal::new(
                format!("more than {PATH_NESTING} brackets are open at once"),
                "take the outer part with the path and use `when` for the test",
            ));
        }
    }
    Ok(())
}

/// Turns a syntax error into words for the mistakes that people make.
fn explain(text: &str) -> Refusal {
    let message = format!("\"{text}\" is no JSONPath");
    if text.trim() != text {
        return Refusal::new(message, "take away the blanks around it");
    }
    if !text.is_empty() && !text.starts_with('$') {
        let rest = text.trim_start_matches(['.', '@']);
        return Refusal::new(message, format!("a path starts at the event: \"$.{rest}\""));
    }
    if text.contains('|') && !text.contains('?') {
        return Refusal::new(
            message,
            "a path has no filters after \"|\"; put transforms into the row's `apply`",
        );
    }
    if let Some(odd) = text.split(['.', '[', ']']).find(|name| {
        name.contains('-')
            && name.chars().all(|character| character.is_alphanumeric() || "-_".contains(character))
    }) {
        return Refusal::new(message, format!("a name with a \"-\" stands in quotes: \"['{odd}']\""));
    }
    if text.ends_with('.') {
        return Refusal::new(message, "the last \".\" has no name after it");
    }
    Refusal::new(
        message,
        "such as \"$.data.lead.email\", \"$.data.items[0]\" or \"$.data.items[?@.kind == 'a'].name\"",
    )
}

/// `did you mean`, or the list of what is known.
pub fn nearest_or_list<'a>(written: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    did_you_mean(written, known.clone())
        .unwrap_or_else(|| format!("known here: {}", known.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::context::sample;
    use serde_json::json;

    fn one(path: &str, event: &Value) -> Option<Value> {
        let (context, work) = (sample(), Work::new());
        let scope = Scope { root: event, context: &context, work: &work, item: None };
        match Path::parse(path, 0).unwrap().find(scope).unwrap() {
            Found::One(value) => value.map(Cow::into_owned),
            Found::Many(values) => panic!("{path} is not singular: {values:?}"),
        }
    }

    #[test]
    fn a_singular_path_is_walked() {
        let event = json!({"data": {"a b": [10, 20, 30], "nothing": null, "é": {"0": "zero"}}});
        for (path, value) in [
            ("$", Some(event.clone())),
            ("$.data['a b'][0]", Some(json!(10))),
            ("$.data['a b'][-1]", Some(json!(30))),
            ("$.data['a b'][-3]", Some(json!(10))),
            ("$.data['a b'][-4]", None),
            ("$.data['a b'][3]", None),
            ("$[\"data\"].nothing", Some(Value::Null)),
            ("$.data.nothing.more", None),
            ("$.data.é['0']", Some(json!("zero"))),
            ("$.data.é[0]", None),
            ("$.data.missing", None),
        ] {
            assert_eq!(one(path, &event), value, "{path}");
        }
    }

    #[test]
    fn the_walk_agrees_with_the_engine() {
        use jsonpath_rust::JsonPath;
        let event = json!({"a": [{"b": 1}, {"b": [2, 3]}], "c": {"d": null}});
        for path in [
            "$",
            "$.a",
            "$.a[0].b",
            "$.a[-1].b[-2]",
            "$.c.d",
            "$.c.d.e",
            "$.a.b",
            "$.c[0]",
            "$['a'][1]['b'][1]",
        ] {
            let engine = event.query(path).unwrap().first().map(|value| (*value).clone());
            assert_eq!(one(path, &event), engine, "{path}");
        }
    }

    #[test]
    fn the_context_stands_beside_the_event() {
        let event = json!({"event": {"id": "not this"}});
        assert_eq!(one("$event.id", &event), Some(json!("evt_1")));
        assert_eq!(one("$job.attempt", &event), Some(json!(1)));
        assert_eq!(one("$event.source", &event), None);
        assert_eq!(one("$.event.id", &event), Some(json!("not this")));
    }

    #[test]
    fn an_item_sees_what_surrounds_it() {
        let event = json!({"id": "e", "orders": [{"id": "o", "lines": [{"id": "l"}]}]});
        let (context, work) = (sample(), Work::new());
        let outer = Scope { root: &event, context: &context, work: &work, item: None };
        let order = Item { index: 0, outer };
        let middle = Scope { root: &event["orders"][0], item: Some(&order), ..outer };
        let line = Item { index: 7, outer: middle };
        let inner = Scope { root: &event["orders"][0]["lines"][0], item: Some(&line), ..outer };
        for (path, value) in [
            ("$.id", json!("l")),
            ("$parent.id", json!("o")),
            ("$parent['id']", json!("o")),
            ("$parent.$parent.id", json!("e")),
            ("$parent.$parent", event.clone()),
            ("$index", json!(7)),
            ("$parent.$index", json!(0)),
            ("$event.id", json!("evt_1")),
        ] {
            let path = Path::parse(path, 2).unwrap();
            match path.find(inner).unwrap() {
                Found::One(Some(found)) => assert_eq!(*found, value, "{}", path.text()),
                other => panic!("{}: {other:?}", path.text()),
            }
        }
        assert!(Path::parse("$parent.$parent.id", 1).is_err());
        assert!(Path::parse("$parent.$index", 1).is_err());
        assert!(Path::parse("$parents.id", 1).is_err());
    }

    #[test]
    fn a_mistake_gets_a_hint() {
        for (path, hint) in [
            ("data.lead", "\"$.data.lead\""),
            (" $.data", "blanks"),
            ("$.data.first-name", "['first-name']"),
            ("$.data.", "no name after"),
            ("$.name | upper", "`apply`"),
            ("", "such as"),
            ("$evnt.id", "did you mean \"$event.id\"?"),
            ("$event.data.x", "\"$.data.x\""),
            ("$secret.key", "known here: $event.id"),
            ("$.a[(((((((((1)))))))))]", "`when`"),
            ("$parent.a", "outside of `each`"),
            ("$index", "outside of `each`"),
        ] {
            let refusal = Path::parse(path, 0).unwrap_err();
            assert!(refusal.hint.as_deref().is_some_and(|text| text.contains(hint)), "{path}: {refusal:?}");
        }
        assert!(Path::parse(&format!("$.{}", "a".repeat(600)), 0).is_err());
        assert!(Path::parse("$['[[[[[[[[[[(((']", 0).is_ok());
    }
}
