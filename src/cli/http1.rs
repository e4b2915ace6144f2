//! Just enough of HTTP/1.1 for the program's own receivers and the bench's generator: messages with a stated length over
//! connections that are kept open.
//!
//! Not here, on purpose: chunked bodies, pipelining limits, TLS. Nothing of the gateway itself uses this.

use std::fmt::Write as _;
use std::ops::Range;

/// The longest head that is read.
pub const HEAD_LIMIT_BYTES: usize = 64 * 1_024;
/// The longest body that is read.
pub const BODY_LIMIT_BYTES: usize = 16 * 1_024 * 1_024;

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The head or the body is larger than its limit.
    #[error("the message is too large")]
    TooLarge,
    /// The head is no HTTP/1 head, or its length makes no sense.
    #[error("not an HTTP/1.1 message")]
    Malformed,
    /// The body's length is not stated.
    #[error("the body's length is not stated (Content-Length)")]
    LengthUnknown,
}

/// Where a message's parts lie in the buffer it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Start line and headers, without the empty line.
    pub head: Range<usize>,
    /// The body.
    pub body: Range<usize>,
}

/// The start of a buffer: a whole message, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A whole message lies at the start of the buffer.
    Whole(Frame),
    /// The head is whole and asks to be told to go on before it sends its body.
    Continue,
    /// More has to be read.
    Partial,
}

/// Looks for a message at the start of `buffer`.
pub fn find_message(buffer: &[u8]) -> Result<Progress, WireError> {
    let Some(head_end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return if buffer.len() > HEAD_LIMIT_BYTES {
            Err(WireError::TooLarge)
        } else {
            Ok(Progress::Partial)
        };
    };
    let head = &buffer[..head_end];
    if header(head, "transfer-encoding").is_some() {
        return Err(WireError::LengthUnknown);
    }
    let length: usize = match header(head, "content-length") {
        Some(text) => text.parse().map_err(|_| WireError::Malformed)?,
        None => 0,
    };
    if length > BODY_LIMIT_BYTES {
        return Err(WireError::TooLarge);
    }
    let start = head_end + 4;
    if buffer.len() >= start + length {
        return Ok(Progress::Whole(Frame { head: 0..head_end, body: start..start + length }));
    }
    let waits = buffer.len() == start && header(head, "expect").is_some();
    Ok(if waits { Progress::Continue } else { Progress::Partial })
}

/// The value of the first header `name` (in lower case) of a head.
pub fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (written, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        written
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| std::str::from_utf8(value).ok().map(str::trim))?
    })
}

/// Every header of a head, names in lower case.
pub fn headers(head: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(head)
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect()
}

/// Method and target of a request's head.
pub fn request_line(head: &[u8]) -> Result<(&str, &str), WireError> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| WireError::Malformed)?;
    let mut parts = line.split(' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0")) => Ok((method, target)),
        _ => Err(WireError::Malformed),
    }
}

/// The status of an answer's head.
pub fn status(head: &[u8]) -> Result<u16, WireError> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    std::str::from_utf8(line)
        .ok()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or(WireError::Malformed)
}

/// An answer with a JSON body.
pub fn answer(status: u16, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\n", phrase(status));
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "content-length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

/// The usual words of a status (RFC 9110 §15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_only_when_it_is_whole() {
        let text = b"POST /r/1 HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\n\r\nhelloPOST /";
        for cut in 0..text.len() - 6 {
            assert_eq!(find_message(&text[..cut]), Ok(Progress::Partial), "{cut}");
        }
        let Ok(Progress::Whole(frame)) = find_message(text) else { panic!("not found") };
        assert_eq!(&text[frame.body.clone()], b"hello");
        assert_eq!(request_line(&text[frame.head.clone()]), Ok(("POST", "/r/1")));
        assert_eq!(
            headers(&text[frame.head]),
            [("host".into(), "x".into()), ("content-length".into(), "5".into())]
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(find_message(chunked), Err(WireError::LengthUnknown));
        assert_eq!(find_message(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Err(WireError::Malformed));
        let huge = b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(find_message(huge), Err(WireError::TooLarge));
        assert_eq!(find_message(&vec![b'a'; HEAD_LIMIT_BYTES + 1]), Err(WireError::TooLarge));
        assert_eq!(request_line(b"GET /"), Err(WireError::Malformed));
    }

    #[test]
    fn a_sender_that_waits_is_told_to_go_on() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        assert_eq!(find_message(head), Ok(Progress::Continue));
    }

    #[test]
    fn an_answer_reads_back() {
        let bytes = answer(429, &[("retry-after", "3".to_owned())], "{}");
        let Ok(Progress::Whole(frame)) = find_message(&bytes) else { panic!("not found") };
        assert_eq!(status(&bytes[frame.head.clone()]), Ok(429));
        assert_eq!(header(&bytes[frame.head], "retry-after"), Some("3"));
    }
}
