//! Runs the rows on one event. The one evaluator: `apply` runs it in silence, `preview` with an [`Observer`].
//!
//! A row goes through the same stations each time: `when`, source, `blank`, transforms, `blank`, `default`,
//! `absent`, `required`, and into the output. Values are borrowed from the event until they are put there.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::MappingError;
use super::limits::{OUTPUT_NESTING, RESULT_NODES, VALUE_BYTES, measure, within_nesting};
use super::path::{Found, Item, Path, Scope};
use super::rows::{OnError, Row, Source, Take};
use super::value::kind;

/// Listens to the evaluator.
pub trait Observer {
    /// An item of the `each` of a row begins.
    fn enter(&mut self, _row: &Row, _index: usize) {}
    /// The item ends.
    fn leave(&mut self) {}
    /// A row begins.
    fn begin(&mut self, _row: &Row) {}
    /// The row's source gave a value, or nothing.
    fn source(&mut self, _name: &str, _raw: Option<&Value>) {}
    /// A transform ran.
    fn step(&mut self, _name: &str, _result: Option<&Value>) {}
    /// The row ends with a value, or without one.
    fn end(&mut self, _ended: End<'_>) {}
    /// Whether the rows after a failed one are of interest.
    fn goes_on(&self) -> bool {
        false
    }
}

/// How a row ended.
#[derive(Default)]
pub struct End<'a> {
    /// What goes into the output.
    pub value: Option<&'a Value>,
    /// Why there is no value, or why it is the default.
    pub note: Option<&'static str>,
    /// What went wrong.
    pub error: Option<&'a MappingError>,
}

/// Listens to nothing.
pub struct Silence;

impl Observer for Silence {}

/// One run of a mapping over one event.
pub struct Run<'e, 'o, O> {
    scope: Scope<'e>,
    observer: &'o mut O,
    bytes_left: usize,
}

type Produced<'e> = Result<Option<Cow<'e, Value>>, MappingError>;

impl<'e, 'o, O: Observer> Run<'e, 'o, O> {
    /// A run on what `scope` holds.
    pub fn new(scope: Scope<'e>, observer: &'o mut O) -> Self {
        Self { scope, observer, bytes_left: VALUE_BYTES }
    }

    /// The object that the rows make; `depth` objects hold it.
    pub fn object(&mut self, rows: &'e [Row], depth: usize) -> Result<Map<String, Value>, MappingError> {
        let mut object = Map::with_capacity(rows.len());
        let mut first_error = None;
        for row in rows {
            match self.row(row, depth) {
                Ok(Some(value)) => insert(&mut object, &row.names, value.into_owned()),
                Ok(None) => {}
                Err(error) if self.observer.goes_on() => first_error = first_error.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        first_error.map_or(Ok(object), Err)
    }

    fn row(&mut self, row: &'e Row, depth: usize) -> Produced<'e> {
        self.observer.begin(row);
        let bytes_left = self.bytes_left;
        if let Err(reason) = self.scope.work.spend(1) {
            return self.fail(error_of(row, None, reason));
        }
        let produced = match row.when.as_ref().map(|when| when.holds(self.scope)) {
            Some(Ok(false)) => {
                self.observer.end(End { note: Some("the condition in `when` is not met"), ..End::default() });
                return Ok(None);
            }
            Some(Err(reason)) => Err(error_of(row, None, format!("when: {reason}"))),
            None | Some(Ok(true)) => self.produce(row, depth),
        };
        // What inner rows took is given back: the row's own value, which may hold theirs, is counted as a whole.
        self.bytes_left = bytes_left;
        let (value, failure) = match produced {
            Ok(value) => (value, None),
            Err(error) => match row.on_error {
                OnError::Fail => return self.fail(error),
                OnError::Skip => {
                    let note = Some("an error, and `on_error` is \"skip\"");
                    self.observer.end(End { note, error: Some(&error), value: None });
                    return Ok(None);
                }
                OnError::Default => (None, Some(error)),
            },
        };
        let missing = is_missing(value.as_deref());
        let (value, note) = match (&row.default, &value) {
            (Some(default), _) if missing => {
                (Some(Cow::Borrowed(default)), Some(reason(failure.is_some(), value.as_deref())))
            }
            (None, None) if row.absent_is_null => {
                (Some(Cow::Owned(Value::Null)), Some("null, since the source gave nothing"))
            }
            (None, None) => (None, Some("the source gave nothing")),
            _ => (value, None),
        };
        if row.required && is_missing(value.as_deref()) {
            let reason = "the field is required, and there is no value for it";
            return self.fail(MappingError { path: row.source.paths(), ..error_of(row, None, reason) });
        }
        if let Some(value) = value.as_deref()
            && let Err(reason) = self.charge(row, value, depth)
        {
            return self.fail(error_of(row, None, reason));
        }
        self.observer.end(End { value: value.as_deref(), note, error: failure.as_ref() });
        Ok(value)
    }

    fn fail(&mut self, error: MappingError) -> Produced<'e> {
        self.observer.end(End { error: Some(&error), ..End::default() });
        Err(error)
    }

    fn produce(&mut self, row: &'e Row, depth: usize) -> Produced<'e> {
        let (raw, path) = self.raw(row, depth)?;
        let keep = |value: &Cow<'e, Value>| !(row.blank_is_absent && value.as_str() == Some(""));
        let mut value = raw.filter(keep);
        for applied in &row.apply {
            let Some(before) = value.take_if(|value| !value.is_null()) else { break };
            value = applied.run(before, self.scope).map_err(|reason| {
                self.observer.step(applied.name, None);
                error_of(row, path, format!("{}: {reason}", applied.name))
            })?;
            self.observer.step(applied.name, value.as_deref());
        }
        Ok(value.filter(keep))
    }

    /// What the source gives, and the path that gave it.
    fn raw(
        &mut self,
        row: &'e Row,
        depth: usize,
    ) -> Result<(Option<Cow<'e, Value>>, Option<&'e Path>), MappingError> {
        let (name, raw, path) = match &row.source {
            Source::Value(value) => ("value", Some(Cow::Borrowed(value)), None),
            Source::Template(template) => {
                let filled =
                    template.fill(self.scope).map_err(|(path, reason)| error_of(row, Some(path), reason))?;
                ("template", filled.map(|text| Cow::Owned(Value::String(text))), None)
            }
            Source::Fields(rows) => {
                let object = self.object(rows, depth + row.names.len())?;
                ("fields", (!object.is_empty()).then_some(Cow::Owned(Value::Object(object))), None)
            }
            Source::Each { paths, rows } => {
                let (list, path) = self.each(row, paths, rows, depth)?;
                (path.map_or("each", Path::text), list.map(Cow::Owned), path)
            }
            Source::Transcript(transcript) => {
                let (messages, path) = self.items(row, &transcript.messages)?;
                let text = match messages {
                    Some(messages) => transcript
                        .render(&messages, self.scope)
                        .map_err(|reason| error_of(row, path, reason))?
                        .map(|text| Cow::Owned(Value::String(text))),
                    None => None,
                };
                (path.map_or("transcript", Path::text), text, path)
            }
            Source::From { paths, take } => {
                let (raw, path) = self.first_present(row, paths, *take)?;
                (path.text(), raw, Some(path))
            }
        };
        self.observer.source(name, raw.as_deref());
        Ok((raw, path))
    }

    /// What the rows make of each item of the first list.
    fn each(
        &mut self,
        row: &'e Row,
        paths: &'e [Path],
        rows: &'e [Row],
        depth: usize,
    ) -> Result<(Option<Value>, Option<&'e Path>), MappingError> {
        let (items, path) = self.items(row, paths)?;
        let Some(items) = items else { return Ok((None, path)) };
        if items.len() > RESULT_NODES {
            let reason = format!("{} items, {RESULT_NODES} are the most", items.len());
            return Err(error_of(row, path, reason));
        }
        let outer = self.scope;
        let mut list = Vec::with_capacity(items.len());
        let mut first_error = None;
        for (index, root) in items.into_iter().enumerate() {
            let item = Item { index, outer };
            self.observer.enter(row, index);
            let mut inner = Run {
                scope: Scope { root, item: Some(&item), ..outer },
                observer: &mut *self.observer,
                bytes_left: self.bytes_left,
            };
            let object = inner.object(rows, depth + row.names.len() + 1);
            self.bytes_left = inner.bytes_left;
            self.observer.leave();
            match object {
                Ok(object) if object.is_empty() => {}
                Ok(object) => list.push(Value::Object(object)),
                Err(mut error) => {
                    if let Some(below) = error.field.strip_prefix(&row.to) {
                        error.field = format!("{}[{index}]{below}", row.to);
                    }
                    first_error = first_error.or(Some(error));
                    if !self.observer.goes_on() {
                        break;
                    }
                }
            }
        }
        first_error.map_or(Ok((Some(Value::Array(list)), path)), Err)
    }

    /// The items of the first path that gives a list or matches, with that path; no path that gave nothing is told.
    fn items(
        &self,
        row: &Row,
        paths: &'e [Path],
    ) -> Result<(Option<Vec<&'e Value>>, Option<&'e Path>), MappingError> {
        for path in paths {
            let found = path.find(self.scope).map_err(|reason| error_of(row, Some(path), reason))?;
            match found {
                Found::One(None) => {}
                Found::One(Some(value)) if value.is_null() => {}
                Found::One(Some(Cow::Borrowed(Value::Array(items)))) => {
                    return Ok((Some(items.iter().collect()), Some(path)));
                }
                Found::One(Some(other)) => {
                    let reason = format!("expected a list, found {}", kind(&other));
                    return Err(error_of(row, Some(path), reason));
                }
                Found::Many(values) if values.is_empty() => {}
                Found::Many(values) => return Ok((Some(values), Some(path))),
            }
        }
        Ok((None, None))
    }

    /// The first path with a value; else one that gave null; else nothing, told of the last path.
    fn first_present(
        &self,
        row: &Row,
        paths: &'e [Path],
        take: Take,
    ) -> Result<(Option<Cow<'e, Value>>, &'e Path), MappingError> {
        let mut fallback: Option<(Option<Cow<'e, Value>>, &'e Path)> = None;
        for path in paths {
            let taken = path
                .find(self.scope)
                .map_err(str::to_owned)
                .and_then(|found| taken(found, take))
                .map_err(|reason| error_of(row, Some(path), reason))?;
            let passed_over = match taken.as_deref() {
                None | Some(Value::Null) => true,
                Some(Value::String(text)) => row.blank_is_absent && text.is_empty(),
                Some(Value::Number(count)) => take == Take::Count && count.as_u64() == Some(0),
                Some(_) => false,
            };
            if !passed_over {
                return Ok((taken, path));
            }
            if fallback.as_ref().is_none_or(|(kept, _)| kept.is_none()) {
                fallback = Some((taken, path));
            }
        }
        fallback.ok_or_else(|| error_of(row, None, "no path"))
    }

    /// Counts a value towards the output's bounds.
    fn charge(&mut self, row: &Row, value: &Value, depth: usize) -> Result<(), String> {
        let levels = OUTPUT_NESTING.saturating_sub(depth + row.names.len());
        if !within_nesting(value, levels) {
            return Err(format!(
                "the output would have more than {OUTPUT_NESTING} lists and objects inside one another"
            ));
        }
        let punctuation = row.names.iter().map(|name| name.len() + 6).sum::<usize>();
        self.bytes_left = measure(value, self.bytes_left)
            .and_then(|bytes| self.bytes_left.checked_sub(bytes + punctuation))
            .ok_or_else(|| format!("the output would be above {VALUE_BYTES} bytes"))?;
        Ok(())
    }
}

fn taken(found: Found<'_>, take: Take) -> Result<Option<Cow<'_, Value>>, String> {
    let matches = match found {
        Found::One(value) => {
            return Ok(match take {
                Take::First | Take::Last | Take::One => value,
                Take::All => value.map(|value| Cow::Owned(Value::Array(vec![value.into_owned()]))),
                Take::Count => Some(Cow::Owned(Value::from(usize::from(value.is_some())))),
            });
        }
        Found::Many(matches) => matches,
    };
    if matches.len() > RESULT_NODES {
        return Err(format!("{} matches, {RESULT_NODES} are the most", matches.len()));
    }
    Ok(match take {
        Take::First => matches.first().map(|value| Cow::Borrowed(*value)),
        Take::Last => matches.last().map(|value| Cow::Borrowed(*value)),
        Take::Count => Some(Cow::Owned(Value::from(matches.len()))),
        Take::One => match matches.as_slice() {
            [] => None,
            [value] => Some(Cow::Borrowed(*value)),
            several => return Err(format!("{} matches where one was declared", several.len())),
        },
        Take::All => {
            let mut left = VALUE_BYTES;
            for value in &matches {
                left = measure(value, left)
                    .map(|bytes| left - bytes)
                    .ok_or_else(|| format!("the matches are above {VALUE_BYTES} bytes"))?;
            }
            let copied = || Cow::Owned(matches.iter().map(|value| (*value).clone()).collect());
            (!matches.is_empty()).then(copied)
        }
    })
}

fn is_missing(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

fn reason(failed: bool, value: Option<&Value>) -> &'static str {
    match (failed, value) {
        (true, _) => "the default, since there was an error",
        (false, None) => "the default, since there is no value",
        (false, Some(_)) => "the default, since the value is null",
    }
}

fn error_of(row: &Row, path: Option<&Path>, reason: impl Into<String>) -> MappingError {
    MappingError {
        field: row.to.clone(),
        path: path.map(|path| path.text().to_owned()),
        reason: reason.into(),
    }
}

/// Puts a value under its names. Two rows never write to the same place: that is checked when they are read.
fn insert(object: &mut Map<String, Value>, names: &[String], value: Value) {
    match names {
        [] => {}
        [name] => {
            object.insert(name.clone(), value);
        }
        [name, inner @ ..] => {
            let holder = object.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(holder) = holder {
                insert(holder, inner, value);
            }
        }
    }
}
