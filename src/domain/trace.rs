//! Where in a distributed trace something belongs: the `traceparent` header (W3C Trace Context, Level 1, §3.2).
//!
//! An event that belongs to a trace says so in its document's `traceparent`, which is what `CloudEvents` calls the
//! attribute (Distributed Tracing extension); so it lies in every store and moves with the event, and an event without one
//! is not a byte longer.

use std::fmt;
use std::str::FromStr;

/// The header's name, and the attribute's.
pub const TRACEPARENT: &str = "traceparent";

/// `00-<trace>-<span>-<flags>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// A span as others name it: its trace, itself, and whether it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not 0.
    pub trace: u128,
    /// The span; not 0.
    pub span: u64,
    /// Whether whoever began the trace records it.
    pub sampled: bool,
}

/// A text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent: expected such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTraceparent;

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    /// Reads what this version knows; of a later version (§3.2.2) its first four fields.
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let read = || {
            let (fields, rest) = (text.get(..LENGTH)?, text.get(LENGTH..)?);
            let parts: Vec<&str> = fields.split('-').collect();
            let [version, trace, span, flags] = parts[..] else { return None };
            let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
            if !lengths || ![version, trace, span, flags].into_iter().all(is_hex) || version == "ff" {
                return None;
            }
            let ends =
                if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
            let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0 && ends)?;
            let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
            let flags = u8::from_str_radix(flags, 16).ok()?;
            Some(Self { trace, span, sampled: flags & SAMPLED != 0 })
        };
        read().ok_or(InvalidTraceparent)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        let unsampled: TraceContext = text.replace("-01", "-00").parse().unwrap();
        assert_eq!(unsampled, TraceContext { sampled: false, ..context });
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds";
        assert_eq!(later.parse(), Ok(context));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "äääääääääääääääääääääääääääääääääääääääääääääääääääääää",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceparent), "{text}");
        }
    }
}
