//! What a request and an event are known again by: hashes of their names and of their content.

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{MAX_KEY_CHARS, Publish, PublishError};
use crate::domain::event::Event;
use crate::domain::id::TenantId;
use crate::store::Dedupe;

/// Hash of several parts, each with its length, so that none runs into the next.
pub(in crate::service) fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// What stands for a whole request under its key: its body, and every header that has a part in what it means. `realm` says
/// among which requests a key is one.
pub(in crate::service) fn named(
    key: Option<&str>,
    realm: &[&[u8]],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Dedupe>, PublishError> {
    let Some(key) = key else { return Ok(None) };
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=MAX_KEY_CHARS).contains(&key.len()) || !visible {
        return Err(PublishError::BadKey);
    }
    let mut meaning: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| *name == "content-type" || name.starts_with("ce-"))
        .collect();
    meaning.sort_unstable();
    let mut parts: Vec<&[u8]> = meaning.iter().flat_map(|(name, value)| [name.as_bytes(), *value]).collect();
    parts.push(body);
    let names: Vec<&[u8]> = realm.iter().copied().chain([key.as_bytes()]).collect();
    Ok(Some(Dedupe { key: digest(&names), content: digest(&parts) }))
}

pub(super) fn idempotency(publish: &Publish<'_>) -> Result<Option<Dedupe>, PublishError> {
    let of = |tenant: Option<&TenantId>| tenant.map_or(Vec::new(), |tenant| tenant.as_str().into());
    let owner: Vec<u8> = of(publish.key_tenant);
    // Whom the query names is part of what a request means, as its body is.
    let meant: Vec<u8> = [&of(publish.named_tenant)[..], b"\0", publish.body].concat();
    named(publish.idempotency_key, &[b"idempotency", &owner], publish.headers, &meant)
}

/// What stands for an event that the platform gave an id: its source and that id, for what is in it. `None` when what it told was
/// erased.
pub(super) fn dedupe(event: &Event) -> Option<Dedupe> {
    let source = event.source.as_deref().unwrap_or_default().as_bytes();
    let tenant = event.tenant.as_str().as_bytes();
    Some(Dedupe {
        key: digest(&[b"event", tenant, source, event.id.as_bytes()]),
        content: digest(&[event.kind.as_bytes(), &event.document.member("data")?]),
    })
}

/// The same of an event that is stored; `None` where the platform gave it no id.
pub fn dedupe_of(event: &Event) -> Option<Dedupe> {
    if event.id == event.key.to_string() { None } else { dedupe(event) }
}
