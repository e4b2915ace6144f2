//! Reads a `[signature]` table: all that is wrong with it at once.

use http::{HeaderName, HeaderValue, header};

use super::key::{Encoding, Hash, KeyForm};
use super::spec::{Algorithm, Carrier, SignatureSpec};
use super::template::{Template, Var};
use super::verify::Slot;
use crate::domain::document::{Kind, Node, TableReader};
use crate::domain::fault::Fault;

const MAX_TOLERANCE_SECS: i64 = 86_400;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("none", Algorithm::None),
    ("shared_secret", Algorithm::SharedSecret),
    ("bearer", Algorithm::Bearer),
    ("hmac_sha1", Algorithm::Hmac(Hash::Sha1)),
    ("hmac_sha256", Algorithm::Hmac(Hash::Sha256)),
    ("hmac_sha512", Algorithm::Hmac(Hash::Sha512)),
];
const KEY_FORMS: &[(&str, KeyForm)] =
    &[("utf8", KeyForm::Utf8), ("whsec", KeyForm::Whsec), ("base64", KeyForm::Base64), ("hex", KeyForm::Hex)];
const ENCODINGS: &[(&str, Encoding)] = &[("hex", Encoding::Hex), ("base64", Encoding::Base64)];

/// What `algorithm`, `key` and `encoding` may be, for the documentation; nothing for other keys.
pub fn choices(key: &str) -> Vec<&'static str> {
    fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
        table.iter().map(|(name, _)| *name).collect()
    }
    match key {
        "algorithm" => names(ALGORITHMS),
        "key" => names(KEY_FORMS),
        "encoding" => names(ENCODINGS),
        _ => Vec::new(),
    }
}

const CONTENT_VARS: &[Var] = &[Var::Id, Var::Timestamp, Var::TimestampMs, Var::Body, Var::Url, Var::Method];
const SLOT_VARS: &[Var] =
    &[Var::Signature, Var::Secret, Var::Id, Var::Timestamp, Var::TimestampMs, Var::EventType];

/// The keys that only an HMAC has a use for.
const HMAC_KEYS: &[&str] = &["key", "content", "encoding", "format", "ed25519_format", "join"];

/// Headers that belong to HTTP itself; a signature there would break the request.
const RESERVED: &[HeaderName] = &[
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A header or field as written, and its template.
struct Written<'a> {
    slot: Slot,
    source: &'a str,
    template: Template,
    node: &'a Node,
    path: String,
}

/// The spec, or what of it can be read beside its faults.
pub(super) fn read(table: &mut TableReader<'_>) -> Option<SignatureSpec> {
    table.need("algorithm");
    let algorithm = table.choice("algorithm", ALGORITHMS);
    let key_form = table.choice("key", KEY_FORMS).unwrap_or(KeyForm::Utf8);
    let content = template(table, "content", "{body}", CONTENT_VARS);
    let encoding = table.choice("encoding", ENCODINGS).unwrap_or(Encoding::Hex);
    let format = template(table, "format", "{digest}", &[Var::Digest]);
    let ed25519_format =
        table.has("ed25519_format").then(|| template(table, "ed25519_format", "", &[Var::Digest])).flatten();
    let join = table.text("join");
    let tolerance = table.integer_within("tolerance_secs", 1, MAX_TOLERANCE_SECS);
    let before = table.faults().len();
    let mut written = slots(table, "headers");
    written.extend(slots(table, "fields"));

    let algorithm = algorithm?;
    match algorithm {
        Algorithm::Hmac(_) => {
            check_format(table, "format", format.as_ref(), join);
            check_format(table, "ed25519_format", ed25519_format.as_ref(), join);
            if ed25519_format.is_some() && (ed25519_format == format || join.is_none()) {
                let hint = "another version beside \"format\", and \"join\" between them".to_owned();
                table.fault("ed25519_format", "nobody could tell the two kinds apart", Some(hint));
            }
        }
        _ => {
            for key in HMAC_KEYS {
                if table.has(key) {
                    table.fault(key, "says nothing without an HMAC", Some(format!("leave out \"{key}\"")));
                }
            }
        }
    }
    if algorithm == Algorithm::Bearer {
        for key in ["headers", "fields"] {
            if table.has(key) {
                table.fault(
                    key,
                    "a bearer secret is always in \"Authorization\"",
                    Some(format!("leave out \"{key}\"")),
                );
            }
        }
        return Some(SignatureSpec { algorithm, carriers: vec![bearer()], ..SignatureSpec::none() });
    }
    for slot in &written {
        check_slot(table, slot, algorithm, join);
    }
    let (content, format) = (content?, format?);
    // With a fault in a header, "none carries it" would only say the same thing again.
    if table.faults().len() > before {
        return None;
    }
    check_whole(table, algorithm, &content, &written);
    let spec = match algorithm {
        Algorithm::Hmac(_) => SignatureSpec {
            key_form,
            content,
            encoding,
            format,
            ed25519_format: ed25519_format.map(|format| format.renamed(Var::Digest, Var::Ed25519)),
            join: join.map(str::to_owned),
            ..SignatureSpec::none()
        },
        _ => SignatureSpec::none(),
    };
    let tolerance_secs = tolerance.map_or(spec.tolerance_secs, i64::unsigned_abs);
    Some(compose(SignatureSpec { algorithm, tolerance_secs, ..spec }, written))
}

fn template(
    table: &mut TableReader<'_>,
    key: &'static str,
    default: &str,
    known: &[Var],
) -> Option<Template> {
    let source = if table.has(key) { table.text(key)? } else { default };
    match Template::parse(source, known) {
        Ok(template) => Some(template),
        Err(mistake) => {
            table.fault(key, mistake.message, mistake.hint);
            None
        }
    }
}

fn slots<'a>(table: &mut TableReader<'a>, key: &'static str) -> Vec<Written<'a>> {
    let mut written: Vec<Written<'a>> = Vec::new();
    let entries = match table.node(key).map(|node| (node, &node.kind)) {
        None => return written,
        Some((_, Kind::Table(entries))) => entries,
        Some((_, other)) => {
            table.fault(key, format!("expected a table, found {}", other.name()), None);
            return written;
        }
    };
    for (name, node) in entries {
        let path = format!("{}.{}", table.path(key), name.name);
        let slot =
            if key == "headers" { header_slot(&name.name) } else { Ok(Slot::Field(name.name.clone())) };
        let slot = match slot {
            Ok(slot) if written.iter().any(|other| other.slot == slot) => {
                Err(format!("{slot} is already written"))
            }
            other => other,
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(message) => {
                let place = name.mark.place(&path);
                table.faults().push(Fault { place, message, hint: None });
                continue;
            }
        };
        let Kind::Text(source) = &node.kind else {
            let message = format!("expected a text, found {}", node.kind.name());
            table.faults().push(node.fault(&path, message, None));
            continue;
        };
        match Template::parse(source, SLOT_VARS) {
            Ok(template) => written.push(Written { slot, source, template, node, path }),
            Err(mistake) => table.faults().push(node.fault(&path, mistake.message, mistake.hint)),
        }
    }
    written
}

fn header_slot(name: &str) -> Result<Slot, String> {
    let name = HeaderName::try_from(name).map_err(|_| format!("\"{name}\" is no header name"))?;
    if RESERVED.contains(&name) {
        return Err(format!("\"{name}\" is set by HTTP itself"));
    }
    Ok(Slot::Header(name))
}

/// One signature's format and what joins several.
fn check_format(
    table: &mut TableReader<'_>,
    key: &'static str,
    format: Option<&Template>,
    join: Option<&str>,
) {
    if let Some(format) = format {
        if format.count(Var::Digest) != 1 {
            table.fault(key, "must hold {digest} once", Some("such as \"sha256={digest}\"".to_owned()));
        }
        if let Some(join) = join
            && format.literals().any(|text| text.contains(separator(join)))
        {
            table.fault("join", format!("also occurs in \"{key}\", so nobody could tell them apart"), None);
        }
        let source = table.text(key).unwrap_or_default();
        if !format.literals().all(fits_header) || source.trim_ascii() != source {
            let hint = "use ASCII in one line, without a space at either end".to_owned();
            table.fault(key, "no header can hold this", Some(hint));
        }
    }
    if key != "format" {
        return;
    }
    // A joiner of a digest's own characters would cut digests; one with braces would cut placeholders.
    let joins = |letter: char| letter == ' ' || (letter.is_ascii_punctuation() && !"+/={}_".contains(letter));
    if join.is_some_and(|join| join.is_empty() || !join.chars().all(joins)) {
        let hint = "a space, a comma, a semicolon, or one of these and a space".to_owned();
        table.fault("join", "can't stand between signatures", Some(hint));
    }
}

/// Where a reader cuts what `join` joined: spaces around the items say nothing.
fn separator(join: &str) -> &str {
    let trimmed = join.trim_ascii();
    if trimmed.is_empty() { " " } else { trimmed }
}

fn fits_header(text: &str) -> bool {
    text.is_ascii() && HeaderValue::from_str(text).is_ok() && !text.contains('\t')
}

fn check_slot(table: &mut TableReader<'_>, slot: &Written<'_>, algorithm: Algorithm, join: Option<&str>) {
    let mut wrong = |message: &str, hint: Option<&str>| {
        table.faults().push(slot.node.fault(&slot.path, message, hint.map(str::to_owned)));
    };
    let template = &slot.template;
    let signature = template.has(Var::Signature);
    if !template.literals().all(fits_header)
        || slot.source.trim_ascii() != slot.source
        || slot.source.is_empty()
    {
        wrong("no header can hold this", Some("use ASCII in one line, without a space at either end"));
    }
    if signature && !matches!(algorithm, Algorithm::Hmac(_)) {
        wrong("{signature} needs an HMAC", Some("with algorithm \"shared_secret\" it is {secret}"));
    }
    if template.has(Var::Secret) {
        if matches!(algorithm, Algorithm::Hmac(_)) {
            wrong("this would give the HMAC's key away", Some("did you mean {signature}?"));
        } else if algorithm == Algorithm::None {
            wrong("{secret} needs algorithm \"shared_secret\"", None);
        } else if !slot.source.ends_with("{secret}") || template.count(Var::Secret) > 1 {
            wrong("{secret} must stand once, at the end", None);
        }
    }
    if template.runs_together() {
        wrong("two placeholders touch, so nobody could tell them apart", None);
    }
    if template.has(Var::EventType) && template.vars().any(|var| var != Var::EventType) {
        wrong("{event_type} needs a header of its own", None);
    }
    if signature
        && let Some(join) = join.filter(|join| !join.is_empty())
        && slot
            .source
            .split(separator(join))
            .map(str::trim_ascii)
            .filter(|item| item.contains("{signature}"))
            .any(|item| item != "{signature}")
    {
        wrong(
            "with \"join\", nothing but the joiner may stand beside {signature}",
            Some("move it to \"format\""),
        );
    }
}

/// What only shows when all is read.
fn check_whole(
    table: &mut TableReader<'_>,
    algorithm: Algorithm,
    content: &Template,
    written: &[Written<'_>],
) {
    let carried = |var: Var| written.iter().any(|slot| slot.template.has(var));
    let needed = match algorithm {
        Algorithm::Hmac(_) => Some(("{signature}", carried(Var::Signature))),
        Algorithm::SharedSecret => Some(("{secret}", carried(Var::Secret))),
        Algorithm::None | Algorithm::Bearer => None,
    };
    if let Some((name, false)) = needed {
        let hint = format!("such as \"X-Signature\" = \"{name}\" under headers");
        table.fault("headers", format!("none carries {name}"), Some(hint));
    }
    if matches!(algorithm, Algorithm::Hmac(_)) {
        for var in [Var::Id, Var::Timestamp, Var::TimestampMs] {
            if content.has(var) && !carried(var) {
                let message = format!(
                    "{{{0}}} is signed but no header carries it, so nobody could check it",
                    var.name()
                );
                table.fault("content", message, None);
            }
        }
    }
    if table.has("tolerance_secs") && !carried(Var::Timestamp) && !carried(Var::TimestampMs) {
        table.fault("tolerance_secs", "says nothing, because no header carries {timestamp}", None);
    }
}

fn bearer() -> Carrier {
    let template = Template::parse("Bearer {secret}", &[Var::Secret]).unwrap_or_default();
    Carrier {
        slot: Slot::Header(header::AUTHORIZATION),
        shape: template.shape(""),
        items: vec![template.clone()],
        template,
        separator: None,
        required: true,
    }
}

/// Puts what was written into the form in which it is used.
fn compose(mut spec: SignatureSpec, written: Vec<Written<'_>>) -> SignatureSpec {
    let digest = format!("{} digest", spec.encoding.name());
    let mut stops: Vec<char> = spec.content.stops_after(Var::Id).collect();
    for Written { slot, source, template, .. } in written {
        stops.extend(template.stops_after(Var::Id));
        let separator = spec.join.as_deref().filter(|_| template.has(Var::Signature)).map(separator);
        let sources: Vec<&str> = match separator {
            Some(separator) => source.split(separator).map(str::trim_ascii).collect(),
            None => vec![source],
        };
        if template.has(Var::Id) {
            stops.extend(separator.and_then(|text| text.chars().next()));
        }
        let separator = separator.map(str::to_owned);
        let items: Vec<Template> = sources
            .into_iter()
            .filter_map(|item| Template::parse(item, SLOT_VARS).ok())
            .flat_map(|item| {
                let signature = item.has(Var::Signature);
                let other = spec.ed25519_format.as_ref().filter(|_| signature);
                let other = other.map(|format| item.with(Var::Signature, format));
                [Some(item.with(Var::Signature, &spec.format)), other]
            })
            .flatten()
            .collect();
        let required = [Var::Signature, Var::Secret, Var::Timestamp, Var::TimestampMs]
            .into_iter()
            .any(|var| template.has(var))
            || (template.has(Var::Id) && spec.content.has(Var::Id));
        let shape = template.with(Var::Signature, &spec.format).shape(&digest);
        spec.carriers.push(Carrier { slot, template, items, separator, required, shape });
    }
    spec.id_stops = stops.into_iter().collect();
    spec
}
