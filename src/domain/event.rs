//! An event: what happened, where and when, as the platform told it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::id::{EventKey, TenantId};
use super::json::Object;
use super::time::Timestamp;
use super::trace::{TRACEPARENT, TraceContext};

/// What an erased event's document has.
const ERASED_MARK: &str = "_erased";

/// One event, immutable once accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The gateway's own key; sorts by arrival.
    pub key: EventKey,
    /// The id that the platform gave, else [`EventKey`] as text. With `source` it is the key for dedupe.
    pub id: String,
    /// The event's type, such as `lead.captured`.
    pub kind: String,
    /// Whose event it is.
    pub tenant: TenantId,
    /// The agent or bot that it comes from.
    pub source: Option<String>,
    /// When it was accepted.
    pub received: Timestamp,
    /// The whole event as mappings see it: `{"id","type","time","tenant","source","data",…}`.
    pub document: Object,
}

impl Event {
    /// Whether what it told was erased. No sender can write the mark: an attribute's name has no underscore at its beginning.
    pub fn is_erased(&self) -> bool {
        self.document.has(ERASED_MARK)
    }

    /// What is kept of its document when it is erased.
    pub fn erased_document(&self) -> Value {
        json!({ "id": self.id, "type": self.kind, "tenant": self.tenant, ERASED_MARK: true })
    }

    /// When it happened, RFC 3339 as sent, else as accepted.
    pub fn time(&self) -> &str {
        self.document.plain_text("time").unwrap_or_default()
    }

    /// The span that it comes out of, where it belongs to a trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.document.plain_text(TRACEPARENT)?.parse().ok()
    }
}

/// What the types of the gateway's own events begin with.
pub const RESERVED: &str = "gateway.";

/// Whether a type is the gateway's own, which nobody else may send.
pub fn is_reserved(kind: &str) -> bool {
    kind.starts_with(RESERVED)
}

/// Which events a connection wants: one type exactly, a family (`lead.*`), or all (`*`) but for
/// the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventPattern {
    /// `lead.captured`
    Exact(String),
    /// `lead.*`: every type that begins with `lead.`; holds the text with its dot.
    Family(String),
    /// `*`
    All,
}

/// A text is no event type or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event type is 1 to 128 letters, digits, dots, underscores, hyphens, colons or slashes; a pattern is a type, \"lead.*\" or \"*\""
)]
pub struct InvalidEventType;

/// Whether `text` may be an event's type.
pub fn is_event_type(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte))
}

impl EventPattern {
    /// Whether an event of this type is wanted.
    pub fn matches(&self, kind: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == kind,
            Self::Family(family) => kind.starts_with(family.as_str()),
            Self::All => !is_reserved(kind),
        }
    }
}

impl FromStr for EventPattern {
    type Err = InvalidEventType;

    fn from_str(text: &str) -> Result<Self, InvalidEventType> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix(".*") {
            Some(family) if is_event_type(family) => Ok(Self::Family(format!("{family}."))),
            None if is_event_type(text) => Ok(Self::Exact(text.to_owned())),
            _ => Err(InvalidEventType),
        }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Family(family) => write!(f, "{family}*"),
            Self::All => f.write_str("*"),
        }
    }
}

impl Serialize for EventPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_exactly_by_family_or_all() {
        let cases = [
            ("lead.captured", "lead.captured", true),
            ("lead.captured", "lead.captured.again", false),
            ("lead.*", "lead.captured", true),
            ("lead.*", "lead", false),
            ("lead.*", "leader.captured", false),
            ("*", "anything", true),
            ("*", "gatewayed", true),
            ("*", "gateway.dead_letter", false),
            ("gateway.*", "gateway.dead_letter", true),
            ("gateway.dead_letter", "gateway.dead_letter", true),
        ];
        for (pattern, kind, wanted) in cases {
            let parsed: EventPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(kind), wanted, "{pattern} {kind}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for bad in ["", ".*.*", "lead*", "a b", "*.*"] {
            assert!(bad.parse::<EventPattern>().is_err(), "{bad}");
        }
    }
}
