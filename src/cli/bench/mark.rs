//! What an event of the bench carries through the gateway so that its receiver can tell which it is and when it was sent.

/// Which phase, which event, and when it was sent by the phase's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The phase.
    pub phase: u8,
    /// The event's number in its phase.
    pub number: usize,
    /// Microseconds since the phase's clock began.
    pub sent_us: u64,
}

const KEY: &[u8] = b"\"mark\":\"";
/// `02.00000042.000000123456`
const LENGTH: usize = 2 + 1 + 8 + 1 + 12;

impl Mark {
    /// As text, always of one length, so that a prepared request is stamped in place.
    pub fn text(self) -> String {
        format!("{:02}.{:08}.{:012}", self.phase % 100, self.number, self.sent_us)
    }

    /// Finds the mark in a delivered body, wherever the mapping has put it.
    pub fn find(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        loop {
            let quote = rest.iter().position(|byte| *byte == b'"')?;
            rest = &rest[quote..];
            if rest.starts_with(KEY) {
                break;
            }
            rest = &rest[1..];
        }
        let text = std::str::from_utf8(rest.get(KEY.len()..KEY.len() + LENGTH)?).ok()?;
        let mut parts = text.split('.');
        Some(Self {
            phase: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            sent_us: parts.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again() {
        let mark = Mark { phase: 2, number: 42, sent_us: 123_456 };
        assert_eq!(mark.text().len(), LENGTH);
        let body =
            format!(r#"{{"type":"lead.captured","data":{{"a":"\"","mark":"{}","z":1}}}}"#, mark.text());
        assert_eq!(Mark::find(body.as_bytes()), Some(mark));
        assert_eq!(Mark::find(br#"{"mark":"1.2"}"#), None);
        assert_eq!(Mark::find(b"{}"), None);
    }
}
