//! Reads the settings of a transcript.

use super::super::path::{Path, Refusal, nearest_or_list};
use super::super::template::{Piece, pieces};
use super::super::transform::time::Form;
use super::{Attachments, NotePart, Order, Slot, Transcript};
use crate::domain::document::{Kind, TableReader};

/// A setting's name and what it takes.
pub type SettingShown = (&'static str, &'static str);

/// The settings, for the documentation.
pub const SETTINGS: &[SettingShown] = &[
    ("messages", "the path to the list of messages, or of every message; needed"),
    (
        "line",
        "how a message is written, with `{{time}}`, `{{speaker}}`, `{{role}}`, `{{text}}`, `{{number}}` (from 1) and paths into the message such as `{{$.channel}}`; `{{speaker}}: {{text}}` by default",
    ),
    ("separator", "what stands between messages; a line end by default"),
    (
        "text",
        "the path or paths to a message's text; by default `$.text`, `$.content`, `$.body`, `$.message`",
    ),
    ("role", "the path or paths to who speaks; by default `$.role`, `$.sender`, `$.author`, `$.from`"),
    ("name", "the path or paths to the speaker's name, which goes before the role; `$.name` by default"),
    (
        "time",
        "the path or paths to when it was said; by default `$.time`, `$.timestamp`, `$.created_at`, `$.sent_at`",
    ),
    (
        "roles",
        "names by role, such as `{ user = \"Visitor\", assistant = \"Bot\" }`; else the role with a capital",
    ),
    ("skip_roles", "roles whose messages are left out, such as `[\"system\", \"tool\"]`"),
    ("time_format", "as the transform `time` has it; `%Y-%m-%d %H:%M` by default"),
    ("zone", "the zone of the times, by its IANA name; UTC by default"),
    ("order", "`given` (default), `oldest_first` or `newest_first`, by the messages' times"),
    (
        "attachments",
        "`names` (default), `urls`, `count` or `none`, after the text, from `$.attachments` or `$.files`",
    ),
    (
        "max_chars",
        "the most characters (Unicode code points), 100 to 1000000; without it, the text may have 1 MiB",
    ),
    ("keep", "which messages stay when there are too many characters: `latest` (default) or `earliest`"),
    ("note", "what tells of those left out, with `{{count}}`; empty for no note"),
];

const ORDERS: &[(&str, Order)] =
    &[("given", Order::Given), ("oldest_first", Order::Oldest), ("newest_first", Order::Newest)];
const ATTACHMENTS: &[(&str, Attachments)] = &[
    ("names", Attachments::Names),
    ("urls", Attachments::Urls),
    ("count", Attachments::Count),
    ("none", Attachments::None),
];
const SLOTS: &[&str] = &["time", "speaker", "role", "text", "number"];
const LINE: &str = "{{speaker}}: {{text}}";
const NOTE_EARLIER: &str = "[{{count}} earlier messages left out]";
const NOTE_LATER: &str = "[{{count}} later messages left out]";
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M";

impl Transcript {
    /// Reads the settings; `paths` reads a path or a list of them.
    pub fn read(
        table: &mut TableReader<'_>,
        depth: usize,
        mut paths: impl FnMut(&mut TableReader<'_>, &'static str, usize) -> Option<Vec<Path>>,
    ) -> Option<Self> {
        table.need("messages");
        let messages = if table.has("messages") { paths(table, "messages", depth) } else { None };
        let mut written = Vec::new();
        let mut own = |table: &mut TableReader<'_>, name: &'static str, known: &[&str]| {
            if table.has(name) {
                written.push(name);
                return paths(table, name, depth + 1);
            }
            Some(known.iter().filter_map(|path| Path::parse(path, depth + 1).ok()).collect())
        };
        let text = own(table, "text", &["$.text", "$.content", "$.body", "$.message"]);
        let role = own(table, "role", &["$.role", "$.sender", "$.author", "$.from"]);
        let name = own(table, "name", &["$.name"]);
        let time = own(table, "time", &["$.time", "$.timestamp", "$.created_at", "$.sent_at"]);
        let files = ["$.attachments", "$.files"]
            .iter()
            .filter_map(|path| Path::parse(path, depth + 1).ok())
            .collect();
        let line = if table.has("line") { table.text("line") } else { Some(LINE) };
        let line = line.and_then(|line| read_line(line, depth + 1, table));
        let separator = if table.has("separator") { table.text("separator") } else { Some("\n") };
        let roles = read_roles(table);
        let skip_roles =
            table.texts("skip_roles").unwrap_or_default().into_iter().map(str::to_owned).collect();
        let chosen = table.has("time_format");
        let form = Form::read(table, "time_format", "zone");
        let form = form.map(|form| if chosen { form } else { form.with_pattern(TIME_FORMAT) });
        let order = table.choice("order", ORDERS).unwrap_or(Order::Given);
        let attachments = table.choice("attachments", ATTACHMENTS).unwrap_or(Attachments::Names);
        let most =
            table.integer_within("max_chars", 100, 1_000_000).and_then(|most| usize::try_from(most).ok());
        let keep_latest = table.choice("keep", &[("latest", true), ("earliest", false)]).unwrap_or(true);
        let note = if keep_latest { NOTE_EARLIER } else { NOTE_LATER };
        let note = if table.has("note") { table.text("note")? } else { note };
        let note = read_note(note, table);
        Some(Self {
            messages: messages?,
            text: text?,
            role: role?,
            name: name?,
            time: time?,
            files,
            written,
            line: line?,
            separator: separator?.to_owned(),
            roles: roles?,
            skip_roles,
            form: form?,
            order,
            attachments,
            most,
            keep_latest,
            note: note?,
        })
    }
}

fn told(table: &mut TableReader<'_>, key: &'static str, refusal: Refusal) {
    table.fault(key, refusal.message, refusal.hint);
}

fn read_line(line: &str, depth: usize, table: &mut TableReader<'_>) -> Option<Vec<Slot>> {
    let pieces = pieces(line).map_err(|refusal| told(table, "line", refusal)).ok()?;
    let place = table.node("line").map(|node| node.mark.place(table.path("line"))).unwrap_or_default();
    let mut slots = Vec::with_capacity(pieces.len());
    let mut sound = true;
    for piece in pieces {
        slots.push(match piece {
            Piece::Text(text) => Slot::Text(text),
            Piece::Slot("time") => Slot::Time,
            Piece::Slot("speaker") => Slot::Speaker,
            Piece::Slot("role") => Slot::Role,
            Piece::Slot("text") => Slot::Message,
            Piece::Slot("number") => Slot::Number,
            Piece::Slot(path) => {
                let refusal = if path.starts_with('$') {
                    match Path::parse(path, depth) {
                        Ok(path) => {
                            slots.push(Slot::Path(path.at(place.clone())));
                            continue;
                        }
                        Err(refusal) => refusal,
                    }
                } else {
                    let hint = nearest_or_list(path, SLOTS.iter().copied());
                    Refusal::new(format!("a message has no \"{{{{{path}}}}}\""), hint)
                };
                told(table, "line", refusal);
                sound = false;
                continue;
            }
        });
    }
    sound.then_some(slots)
}

fn read_note(note: &str, table: &mut TableReader<'_>) -> Option<Vec<NotePart>> {
    let pieces = pieces(note).map_err(|refusal| told(table, "note", refusal)).ok()?;
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        parts.push(match piece {
            Piece::Text(text) => NotePart::Text(text),
            Piece::Slot("count") => NotePart::Count,
            Piece::Slot(other) => {
                let message = format!("a note has no \"{{{{{other}}}}}\"");
                table.fault("note", message, Some("the only one is \"{{count}}\"".to_owned()));
                return None;
            }
        });
    }
    Some(parts)
}

fn read_roles(table: &mut TableReader<'_>) -> Option<Vec<(String, String)>> {
    let Some(node) = table.node("roles") else { return Some(Vec::new()) };
    let Kind::Table(entries) = &node.kind else {
        let hint = "{ user = \"Visitor\", assistant = \"Bot\" }";
        table.fault("roles", format!("expected a table, found {}", node.kind.name()), Some(hint.to_owned()));
        return None;
    };
    let mut roles = Vec::with_capacity(entries.len());
    for (key, shown) in entries {
        let Kind::Text(text) = &shown.kind else {
            let field = format!("{}.{}", table.path("roles"), key.name);
            let message = format!("expected a text, found {}", shown.kind.name());
            table.faults().push(shown.fault(&field, message, None));
            return None;
        };
        roles.push((key.name.clone(), text.clone()));
    }
    Some(roles)
}
