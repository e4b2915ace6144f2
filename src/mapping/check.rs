//! What can be told of a mapping beside its grammar: paths that no known event has.

use serde_json::Value;

use super::context::Context;
use super::limits::Work;
use super::path::{Found, Item, Path, Scope, Step, walk};
use super::rows::{Row, Source};
use super::{Condition, Mapping};
use crate::domain::fault::{Fault, did_you_mean};

/// Items of a list that are looked at.
const ITEMS: usize = 20;
/// Keys of samples that a hint may be taken from.
const KEYS: usize = 2_000;

/// The paths of the mapping that lead nowhere in any of the samples, each with a hint where something near is there.
/// Of a list of paths, one that is a fallback is told only when none of the list is seen, or when it looks
/// misspelt. These are warnings: an event may have what no sample has. Without samples there are none. `witness` is who speaks:
/// "no sample of the event".
pub fn check_paths(mapping: &Mapping, samples: &[&Value], witness: &str) -> Vec<Fault> {
    with_scopes(samples, |scopes| {
        let mut faults = Vec::new();
        check_rows(&mapping.rows, scopes, &mut Told { witness, faults: &mut faults });
        faults
    })
}

/// The same of a filter, whose paths stand at `field`.
pub fn check_filter(filter: &Condition, field: &str, samples: &[&Value], witness: &str) -> Vec<Fault> {
    with_scopes(samples, |scopes| {
        let mut faults = Vec::new();
        let mut told = Told { witness, faults: &mut faults };
        filter.paths().into_iter().for_each(|path| check_any(&[path], scopes, &mut told));
        for fault in &mut faults {
            if fault.place.field.is_empty() {
                field.clone_into(&mut fault.place.field);
            } else if !fault.place.field.starts_with(field) {
                fault.place.field = format!("{field}.{}", fault.place.field);
            }
        }
        faults
    })
}

/// What was found, and who says so.
struct Told<'f> {
    witness: &'f str,
    faults: &'f mut Vec<Fault>,
}

fn with_scopes(samples: &[&Value], check: impl FnOnce(&[Scope<'_>]) -> Vec<Fault>) -> Vec<Fault> {
    if samples.is_empty() {
        return Vec::new();
    }
    let context = Context::empty();
    let work = Work::new();
    let scopes: Vec<Scope<'_>> =
        samples.iter().map(|root| Scope { root, context: &context, work: &work, item: None }).collect();
    check(&scopes)
}

fn check_rows(rows: &[Row], scopes: &[Scope<'_>], told: &mut Told<'_>) {
    for row in rows {
        for path in row.when.iter().flat_map(|when| when.paths()) {
            check_any(&[path], scopes, told);
        }
        match &row.source {
            Source::From { paths, .. } => check_any(&paths.iter().collect::<Vec<_>>(), scopes, told),
            Source::Template(template) => {
                template.paths().for_each(|path| check_any(&[path], scopes, told));
            }
            Source::Fields(inner) => check_rows(inner, scopes, told),
            Source::Each { paths, rows } => {
                check_any(&paths.iter().collect::<Vec<_>>(), scopes, told);
                with_items(paths, scopes, |items| check_rows(rows, items, told));
            }
            Source::Transcript(transcript) => {
                check_any(&transcript.messages.iter().collect::<Vec<_>>(), scopes, told);
                with_items(&transcript.messages, scopes, |items| {
                    transcript.message_paths().for_each(|path| check_any(&[path], items, told));
                });
            }
            Source::Value(_) => {}
        }
    }
}

/// Calls `check` with the items of the lists, when there are any.
fn with_items(paths: &[Path], scopes: &[Scope<'_>], check: impl FnOnce(&[Scope<'_>])) {
    let mut found: Vec<Item<'_>> = Vec::new();
    let mut roots: Vec<&Value> = Vec::new();
    for scope in scopes {
        let list = paths.iter().find_map(|path| match path.find(*scope) {
            Ok(Found::One(Some(std::borrow::Cow::Borrowed(Value::Array(items))))) => {
                Some(items.iter().collect())
            }
            Ok(Found::Many(items)) if !items.is_empty() => Some(items),
            _ => None,
        });
        for (index, root) in list.unwrap_or_default().into_iter().take(ITEMS).enumerate() {
            found.push(Item { index, outer: *scope });
            roots.push(root);
        }
    }
    let inner: Vec<Scope<'_>> =
        found.iter().zip(roots).map(|(item, root)| Scope { root, item: Some(item), ..item.outer }).collect();
    if !inner.is_empty() {
        check(&inner);
    }
}

/// Checks paths of which one is enough.
fn check_any(paths: &[&Path], scopes: &[Scope<'_>], told: &mut Told<'_>) {
    let unseen: Vec<&&Path> = paths.iter().filter(|path| !seen(path, scopes)).collect();
    let none_seen = unseen.len() == paths.len();
    for path in unseen {
        let hint = nearest(path, scopes);
        if none_seen || hint.is_some() {
            let message = format!("{} has {}", told.witness, path.text());
            told.faults.push(Fault { place: path.place.clone(), message, hint });
        }
    }
}

fn seen(path: &Path, scopes: &[Scope<'_>]) -> bool {
    // What stands beside the event is always known.
    if path.steps().is_none() && path.query().is_none() {
        return true;
    }
    scopes.iter().any(|scope| match path.find(*scope) {
        Ok(Found::One(value)) => value.is_some(),
        Ok(Found::Many(values)) => !values.is_empty(),
        // Too much work to be known.
        Err(_) => true,
    })
}

/// What is near: a key beside the one that is missing, or the same last key elsewhere.
fn nearest(path: &Path, scopes: &[Scope<'_>]) -> Option<String> {
    let roots = || scopes.iter().map(|scope| path.scope(*scope).root);
    let Some(steps) = path.steps() else {
        let mut keys = Vec::new();
        roots().for_each(|root| collect_keys(root, &mut keys));
        let missing = path.query()?.names().find(|name| !keys.contains(name))?;
        return did_you_mean(missing, keys);
    };
    for root in roots() {
        let there = (0..steps.len()).rev().find_map(|length| Some((length, walk(root, &steps[..length])?)));
        let Some((length, holder)) = there else { continue };
        if let (Some(Step::Name(name)), Some(entries)) = (steps.get(length), holder.as_object())
            && let Some(hint) = did_you_mean(name, entries.keys().map(String::as_str))
        {
            return Some(hint);
        }
    }
    let Some(Step::Name(last)) = steps.last() else { return None };
    let found = roots().find_map(|root| locate(root, last, 0))?;
    let prefix = path.text().rfind("$parent").map_or("$", |at| &path.text()[..at + "$parent".len()]);
    Some(format!("did you mean \"{prefix}{found}\"?"))
}

/// The way to the first place with this key, objects and first items only.
fn locate(value: &Value, key: &str, depth: usize) -> Option<String> {
    if depth > 8 {
        return None;
    }
    match value {
        Value::Object(entries) if entries.contains_key(key) => Some(step(key)),
        Value::Object(entries) => entries
            .iter()
            .find_map(|(name, inner)| Some(format!("{}{}", step(name), locate(inner, key, depth + 1)?))),
        _ => None,
    }
}

fn step(name: &str) -> String {
    let mut letters = name.chars();
    let plain = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if plain {
        format!(".{name}")
    } else {
        format!("['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

fn collect_keys<'v>(value: &'v Value, keys: &mut Vec<&'v str>) {
    if keys.len() > KEYS {
        return;
    }
    match value {
        Value::Object(entries) => {
            for (name, inner) in entries {
                keys.push(name);
                collect_keys(inner, keys);
            }
        }
        Value::Array(items) => items.iter().take(ITEMS).for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_that_no_sample_has_is_told_with_what_is_near() {
        let sample = json!({"id": "e", "data": {"lead": {"email": "a@b.c", "name": "Ada"}, "lines": [{"sku": "x", "price": 1}],
            "messages": [{"text": "hi", "author": "bot"}]}});
        let mapping = Mapping::from_toml(
            "m.toml",
            r#"
version = 1
[[fields]]
to = "ok"
from = ["$.data.lead.email", "$.data.contact.mobile", "$event.source"]
[[fields]]
to = "a"
from = "$.data.lead.emial"
[[fields]]
to = "b"
from = "$.data.email"
[[fields]]
to = "c"
template = "{{$.data.lead.name}} {{$.data.led.name}}"
when = { path = "$.kind", op = "exists" }
[[fields]]
to = "d"
from = "$.data.lins[*].sku"
[[fields]]
to = "e"
[fields.each]
from = "$.data.lines"
[[fields.each.fields]]
to = "sku"
from = "$.skuu"
[[fields.each.fields]]
to = "event"
from = "$parent.idd"
[[fields]]
to = "f"
[fields.transcript]
messages = "$.data.messages"
role = "$.auther"
line = "{{$.txt}}"
[[fields]]
to = "g"
from = ["$.data.lead.email", "$.data.lead.nmae"]
"#,
        )
        .unwrap();
        let told: Vec<String> = check_paths(&mapping, &[&sample], "no sample of the event")
            .iter()
            .map(ToString::to_string)
            .collect();
        let wanted = [
            "m.toml:8:8: fields[1].from: no sample of the event has $.data.lead.emial\n  hint: did you mean \"email\"?",
            "m.toml:11:8: fields[2].from: no sample of the event has $.data.email\n  hint: did you mean \"$.data.lead.email\"?",
            "m.toml:15:17: fields[3].when.path: no sample of the event has $.kind",
            "m.toml:14:12: fields[3].template: no sample of the event has $.data.led.name\n  hint: did you mean \"lead\"?",
            "m.toml:18:8: fields[4].from: no sample of the event has $.data.lins[*].sku\n  hint: did you mean \"lines\"?",
            "m.toml:25:8: fields[5].each.fields[0].from: no sample of the event has $.skuu\n  hint: did you mean \"sku\"?",
            "m.toml:28:8: fields[5].each.fields[1].from: no sample of the event has $parent.idd\n  hint: did you mean \"id\"?",
            "m.toml:33:8: fields[6].transcript.role: no sample of the event has $.auther\n  hint: did you mean \"author\"?",
            "m.toml:34:8: fields[6].transcript.line: no sample of the event has $.txt\n  hint: did you mean \"text\"?",
            "m.toml:37:30: fields[7].from[1]: no sample of the event has $.data.lead.nmae\n  hint: did you mean \"name\"?",
        ];
        assert_eq!(told, wanted, "{told:#?}");
        assert_eq!(check_paths(&mapping, &[], "no sample of the event"), []);
    }
}
