//! A list of messages as one text, a line a message.
//!
//! The messages are taken as they come, oldest first, or are put in the order of their times. Each that has a text or
//! an attachment is rendered by `line`. When the text is above `max_chars`, whole messages are left out at the end that
//! is not kept, and a note tells how many; a message is only cut when it alone is too long. Nothing of a message is
//! copied but into the result.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::limits::VALUE_BYTES;
use super::path::{Found, Item, Path, Scope};
use super::template::fill_in;
use super::transform::text::first_characters;
use super::transform::time::{Form, read};
use super::value::{kind, scalar_text};

mod settings;

pub use settings::SETTINGS;

/// A compiled transcript.
pub struct Transcript {
    /// Where the messages are.
    pub messages: Vec<Path>,
    text: Vec<Path>,
    role: Vec<Path>,
    name: Vec<Path>,
    time: Vec<Path>,
    files: Vec<Path>,
    /// The paths that somebody wrote, for checks.
    written: Vec<&'static str>,
    line: Vec<Slot>,
    separator: String,
    roles: Vec<(String, String)>,
    skip_roles: Vec<String>,
    form: Form,
    order: Order,
    attachments: Attachments,
    most: Option<usize>,
    keep_latest: bool,
    note: Vec<NotePart>,
}

enum Slot {
    Text(String),
    Time,
    Speaker,
    Role,
    Message,
    Number,
    Path(Path),
}

enum NotePart {
    Text(String),
    Count,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Given,
    Oldest,
    Newest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attachments {
    Names,
    Urls,
    Count,
    None,
}

/// Messages of one transcript.
const MESSAGES: usize = 10_000;

impl Transcript {
    /// The paths into a message that somebody wrote.
    pub fn message_paths(&self) -> impl Iterator<Item = &Path> {
        let lists = [("text", &self.text), ("role", &self.role), ("name", &self.name), ("time", &self.time)];
        let written =
            lists.into_iter().filter(|(name, _)| self.written.contains(name)).flat_map(|(_, paths)| paths);
        written.chain(self.line.iter().filter_map(|slot| match slot {
            Slot::Path(path) => Some(path),
            _ => None,
        }))
    }

    /// The text, or nothing when no message has any.
    pub fn render(&self, messages: &[&Value], scope: Scope<'_>) -> Result<Option<String>, String> {
        if messages.len() > MESSAGES {
            return Err(format!("{} messages, {MESSAGES} are the most", messages.len()));
        }
        scope.work.spend(messages.len())?;
        let ordered = self.ordered(messages, scope)?;
        let mut all = String::with_capacity(messages.len() * 96);
        let mut lines: Vec<Range<usize>> = Vec::with_capacity(messages.len());
        let mut number = 0;
        for (index, message) in ordered {
            let start = all.len();
            let separated = if lines.is_empty() { start } else { start + self.separator.len() };
            if !lines.is_empty() {
                all.push_str(&self.separator);
            }
            let item = Item { index, outer: scope };
            let inner = Scope { root: message, item: Some(&item), ..scope };
            if self.write(&mut all, message, inner, number + 1)? {
                number += 1;
                scope.work.spend((all.len() - start) / 16)?;
                lines.push(separated..all.len());
            } else {
                all.truncate(start);
            }
            if all.len() > VALUE_BYTES {
                return Err(format!(
                    "the text is above {VALUE_BYTES} bytes; set `max_chars`, or take fewer messages"
                ));
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.most {
            Some(most) if all.len() > most && all.chars().count() > most => self.cut(&all, &lines, most),
            _ => all,
        }))
    }

    /// The messages in the order in which they are written, each with its index in the list.
    fn ordered<'m>(
        &self,
        messages: &[&'m Value],
        scope: Scope<'_>,
    ) -> Result<Vec<(usize, &'m Value)>, String> {
        let mut ordered: Vec<(usize, &Value)> = messages.iter().copied().enumerate().collect();
        if self.order == Order::Given {
            return Ok(ordered);
        }
        // A message without a time stays behind the one before it.
        let mut last = jiff::Timestamp::MIN;
        let mut times = Vec::with_capacity(messages.len());
        for (index, message) in &ordered {
            let item = Item { index: *index, outer: scope };
            let inner = Scope { root: message, item: Some(&item), ..scope };
            if let Some(time) = first(&self.time, inner)?.and_then(|time| read(&time).ok()) {
                last = time;
            }
            times.push(last);
        }
        ordered.sort_by_key(|(index, _)| times.get(*index).copied());
        if self.order == Order::Newest {
            ordered.reverse();
        }
        Ok(ordered)
    }

    /// Writes one message; answers whether there was anything to write.
    fn write(
        &self,
        out: &mut String,
        message: &Value,
        scope: Scope<'_>,
        number: usize,
    ) -> Result<bool, String> {
        let role = first(&self.role, scope)?;
        let role = role.as_deref().and_then(scalar_text);
        if role.as_deref().is_some_and(|role| self.skip_roles.iter().any(|skipped| skipped == role)) {
            return Ok(false);
        }
        let text = match message {
            Value::String(text) => Some(Cow::Borrowed(text.trim())),
            _ => match first(&self.text, scope)? {
                Some(Cow::Borrowed(text)) => text_of(text)?,
                Some(Cow::Owned(text)) => text_of(&text)?.map(|text| Cow::Owned(text.into_owned())),
                None => None,
            },
        };
        let files = match (self.attachments, message) {
            (Attachments::None, _) | (_, Value::String(_)) => None,
            _ => first(&self.files, scope)?.and_then(|files| self.attached(&files)),
        };
        if text.as_deref().is_none_or(str::is_empty) && files.is_none() {
            return Ok(false);
        }
        let start = out.len();
        for slot in &self.line {
            match slot {
                Slot::Text(text) => out.push_str(text),
                Slot::Number => out.push_str(&number.to_string()),
                Slot::Role => out.push_str(role.as_deref().unwrap_or_default()),
                Slot::Speaker => self.write_speaker(out, role.as_deref(), scope)?,
                Slot::Time => self.write_time(out, scope)?,
                Slot::Path(path) => {
                    fill_in(out, path, scope).map_err(|reason| format!("{}: {reason}", path.text()))?;
                }
                Slot::Message => {
                    out.push_str(text.as_deref().unwrap_or_default());
                    if let Some(files) = &files {
                        if text.as_deref().is_some_and(|text| !text.is_empty()) {
                            out.push(' ');
                        }
                        out.push_str(files);
                    }
                }
            }
        }
        // What a missing time or name leaves behind at the ends.
        let end = out.trim_end().len().max(start);
        out.truncate(end);
        let blanks = out.get(start..).map_or(0, |line| line.len() - line.trim_start().len());
        out.replace_range(start..start + blanks, "");
        Ok(true)
    }

    fn write_speaker(&self, out: &mut String, role: Option<&str>, scope: Scope<'_>) -> Result<(), String> {
        let name = first(&self.name, scope)?;
        if let Some(name) = name.as_deref().and_then(Value::as_str).filter(|name| !name.trim().is_empty()) {
            out.push_str(name.trim());
            return Ok(());
        }
        let Some(role) = role else {
            out.push_str("Unknown");
            return Ok(());
        };
        if let Some((_, shown)) = self.roles.iter().find(|(known, _)| known == role) {
            out.push_str(shown);
            return Ok(());
        }
        let mut letters = role.chars();
        out.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(letters.as_str());
        Ok(())
    }

    fn write_time(&self, out: &mut String, scope: Scope<'_>) -> Result<(), String> {
        let Some(time) = first(&self.time, scope)? else { return Ok(()) };
        match read(&time) {
            Ok(moment) => self.form.write_into(out, moment),
            // A time that can't be read is shown as it is.
            Err(_) => out.push_str(&scalar_text(&time).unwrap_or_default()),
        }
        Ok(())
    }

    /// `[attachment: a.jpg, b.pdf]`.
    fn attached(&self, files: &Value) -> Option<String> {
        let files = files.as_array().filter(|files| !files.is_empty())?;
        let keys: &[&str] = match self.attachments {
            Attachments::Urls => &["url", "href", "link", "name"],
            _ => &["name", "filename", "file_name", "title", "url"],
        };
        if self.attachments == Attachments::Count {
            return Some(format!("[{} attached]", files.len()));
        }
        let names: Vec<&str> = files
            .iter()
            .map(|file| match file {
                Value::String(name) => name.as_str(),
                other => keys.iter().find_map(|key| other.get(key)?.as_str()).unwrap_or("a file"),
            })
            .collect();
        let word = if names.len() == 1 { "attachment" } else { "attachments" };
        Some(format!("[{word}: {}]", names.join(", ")))
    }

    /// Leaves whole messages out until the text, with the note, has at most `most` characters.
    fn cut(&self, all: &str, lines: &[Range<usize>], most: usize) -> String {
        // The messages that are kept are at the end of the text, unless the newest come first.
        let at_end = self.keep_latest != (self.order == Order::Newest);
        let characters = |text: &str| text.chars().count();
        let separator = characters(&self.separator);
        // The longest note that there can be decides how much room is left.
        let longest = self.noted(lines.len());
        let room =
            if longest.is_empty() { most } else { most.saturating_sub(characters(&longest) + separator) };
        let mut kept = 0;
        let mut used = 0;
        let line_from_end = |nth: usize| {
            let index = if at_end { lines.len() - 1 - nth } else { nth };
            lines.get(index).and_then(|line| all.get(line.clone())).unwrap_or_default()
        };
        while kept < lines.len() {
            let needed = characters(line_from_end(kept)) + if kept > 0 { separator } else { 0 };
            if used + needed > room {
                break;
            }
            used += needed;
            kept += 1;
        }
        let shown = if kept == 0 {
            // One message alone is too long: it is the only one that is cut.
            let start = first_characters(line_from_end(0), room.saturating_sub(1));
            kept = 1;
            Cow::Owned(format!("{start}…"))
        } else {
            let range = if at_end { lines.len() - kept..lines.len() } else { 0..kept };
            let span = lines.get(range).and_then(|part| Some(part.first()?.start..part.last()?.end));
            Cow::Borrowed(span.and_then(|span| all.get(span)).unwrap_or_default())
        };
        let note = self.noted(lines.len() - kept);
        if note.is_empty() || kept == lines.len() || characters(&note) + separator + 1 > most {
            first_characters(&shown, most).to_owned()
        } else if at_end {
            format!("{note}{}{shown}", self.separator)
        } else {
            format!("{shown}{}{note}", self.separator)
        }
    }

    fn noted(&self, count: usize) -> String {
        self.note
            .iter()
            .map(|part| match part {
                NotePart::Text(text) => Cow::Borrowed(text.as_str()),
                NotePart::Count => Cow::Owned(count.to_string()),
            })
            .collect()
    }
}

/// The first of the paths that gives something that is not null.
fn first<'m>(paths: &[Path], scope: Scope<'m>) -> Result<Option<Cow<'m, Value>>, &'static str> {
    for path in paths {
        let found = match path.find(scope)? {
            Found::One(value) => value,
            Found::Many(values) => values.first().map(|value| Cow::Borrowed(*value)),
        };
        if let Some(value) = found.filter(|value| !value.is_null()) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The text of a message: a text, or the texts of a list of parts, which may be objects with a `text`.
fn text_of(value: &Value) -> Result<Option<Cow<'_, str>>, String> {
    match value {
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .collect();
            Ok(Some(Cow::Owned(texts.join(" "))))
        }
        Value::String(text) => Ok(Some(Cow::Borrowed(text.trim()))),
        other => scalar_text(other).map(Some).ok_or_else(|| format!("a message's text is {}", kind(other))),
    }
}
