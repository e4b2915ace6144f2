//! Identifiers: 128 bits that sort by time, shown as a prefix and a ULID.
//!
//! The prefix says what a thing is (`job_01J…`), so that an id in a log or a support ticket explains itself and
//! an id of the wrong kind is refused where it is read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::time::Timestamp;

/// A text is no identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id such as {prefix}01J8ZQ5V3N8Z9Y4W2X1T0S7R6Q")]
pub struct InvalidId {
    /// What it should begin with.
    pub prefix: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// From its 128 bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits; big-endian bytes of them sort by time.
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// From its text form without the prefix; `None` when it is none.
            pub fn of_ulid(text: &str) -> Option<Self> {
                ulid::Ulid::from_string(text).ok().map(|ulid| Self(ulid.0))
            }

            /// When it was made.
            pub fn time(self) -> Timestamp {
                Timestamp::from_millis(i64::try_from(self.0 >> 80).unwrap_or(i64::MAX))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // In one piece, so that whoever collects it makes room once.
                let mut text = [0; $prefix.len() + ulid::ULID_LEN];
                let (prefix, rest) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                if let Ok(rest) = rest.try_into() {
                    ulid::Ulid(self.0).array_to_str(rest);
                }
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .and_then(Self::of_ulid)
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// A request to the API.
    RequestId, "req_"
);
identifier!(
    /// An event as the gateway keeps it; also its public id where the platform gave none.
    EventKey, "evt_"
);
identifier!(
    /// One event for one connection; the `webhook-id` of every attempt.
    JobId, "job_"
);
identifier!(
    /// A tenant's use of a connector, and its lane.
    ConnectionId, "con_"
);
identifier!(
    /// An API key; not secret, unlike the token it belongs to.
    KeyId, "key_"
);
identifier!(
    /// A tenant's way in for another system's webhooks; the end of the path that they come to.
    SourceId, "src_"
);
identifier!(
    /// Long work that someone asked for: a replay, an erasure.
    ChoreId, "cho_"
);
identifier!(
    /// A mapping's version: the first 128 bits of its SHA-256, so equal mappings are one version.
    MappingVersion, "map_"
);

/// A tenant's name as the platform knows it: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// A text is no tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id is 1 to 64 letters, digits, dots, underscores or hyphens")]
pub struct InvalidTenantId;

impl TenantId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(text: &str) -> Result<Self, InvalidTenantId> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits { Ok(Self(Arc::from(text))) } else { Err(InvalidTenantId) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_tells_its_kind() {
        let id = JobId::from_bits((1_777_777_777_777_u128 << 80) + 42);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.time(), Timestamp::from_millis(1_777_777_777_777));
        assert_eq!(id.to_string().parse::<EventKey>(), Err(InvalidId { prefix: "evt_" }));
        assert!("job_".parse::<JobId>().is_err());
        assert!(!id.to_string().contains('.'), "Standard Webhooks forbids dots in webhook-id");
    }

    #[test]
    fn tenant_ids_are_bounded() {
        for good in ["acme", "cus_a1b2c3", "a.b-C_9"] {
            assert_eq!(good.parse::<TenantId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<TenantId>(), Err(InvalidTenantId), "{bad}");
        }
    }
}
