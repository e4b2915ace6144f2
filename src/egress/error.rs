//! How an exchange fails, in words for a delivery log, and whether the request may have arrived all the same.
//!
//! The words name host and port, never the path or the query, which may hold a secret.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::refusal::Refusal;
use super::resolve::LookupFault;

/// The longest detail taken over from below, in characters: some of it was written by the other side.
const LONGEST_DETAIL: usize = 160;

/// What is wrong with every certificate on a machine without roots.
const NO_ROOTS: &str = "this machine has no root certificates to judge it by";

/// Why there is no answer. `peer` is host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The policy forbids it.
    #[error("refused to send: {0}")]
    Refused(Refusal),
    /// The request cannot be written down as HTTP.
    #[error("the request is not valid: {0}")]
    InvalidRequest(String),
    /// The name gave no address.
    #[error("could not look up the name in {peer}: {detail}")]
    Dns {
        /// Whom.
        peer: String,
        /// Why.
        detail: String,
    },
    /// No connection.
    #[error("could not connect to {peer}: {detail}")]
    Connect {
        /// Whom.
        peer: String,
        /// Why.
        detail: String,
    },
    /// A connection, but not a safe one.
    #[error("could not make a safe connection to {peer}: {detail}")]
    Tls {
        /// Whom.
        peer: String,
        /// Why.
        detail: String,
    },
    /// The connection was not up in time: lookup, TCP and TLS together.
    #[error("could not connect to {peer} within {}", span(*.limit))]
    ConnectTimeout {
        /// Whom.
        peer: String,
        /// The connect timeout.
        limit: Duration,
    },
    /// No status within the request's timeout.
    #[error("no answer from {peer} within {}{}", span(*.limit), if *.after_sending { "" } else { "; the request had not been sent yet" })]
    Timeout {
        /// Whom.
        peer: String,
        /// The request's timeout.
        limit: Duration,
        /// Whether any of the request may have been written.
        after_sending: bool,
    },
    /// The connection broke, or what came back was not HTTP.
    #[error("the connection to {peer} broke {}: {detail}", if *.after_sending { "before the answer came" } else { "before the request was sent" })]
    Dropped {
        /// Whom.
        peer: String,
        /// How.
        detail: String,
        /// Whether any of the request may have been written.
        after_sending: bool,
    },
}

impl SendError {
    /// Whether the other side may have taken the request in; false only if it provably has not.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Timeout { after_sending, .. } | Self::Dropped { after_sending, .. } => *after_sending,
            Self::Refused(_)
            | Self::InvalidRequest(_)
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::ConnectTimeout { .. } => false,
        }
    }

    /// What happened, in plain words for a delivery log.
    pub fn reason(&self) -> String {
        self.to_string()
    }
}

fn span(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}

/// What the client knows when a request fails.
pub(super) struct Circumstances {
    /// Host and port.
    pub peer: String,
    /// Whether writing had begun, or might have.
    pub after_sending: bool,
    /// The client's connect timeout.
    pub connect_timeout: Duration,
    /// Whether there are root certificates to judge a certificate by.
    pub has_roots: bool,
}

impl Circumstances {
    /// Tells an error of the client library.
    pub fn explain(self, error: &hyper_util::client::legacy::Error) -> SendError {
        let Self { peer, after_sending, connect_timeout, has_roots } = self;
        if !error.is_connect() {
            return SendError::Dropped { peer, detail: detail_of(error), after_sending };
        }
        if let Some(fault) = find::<LookupFault>(error) {
            return match fault {
                LookupFault::Refused(refusal) => SendError::Refused(refusal.clone()),
                LookupFault::Failed(detail) => SendError::Dns { peer, detail: detail.to_string() },
            };
        }
        if let Some(fault) = find::<rustls::Error>(error) {
            let detail = match fault {
                rustls::Error::InvalidCertificate(_) if !has_roots => NO_ROOTS.to_owned(),
                fault => tls_in_words(fault),
            };
            return SendError::Tls { peer, detail };
        }
        if all::<io::Error>(error).any(|error| error.kind() == io::ErrorKind::TimedOut) {
            return SendError::ConnectTimeout { peer, limit: connect_timeout };
        }
        SendError::Connect { peer, detail: detail_of(error) }
    }
}

/// The error below an error: an `io::Error` names the source of what it wraps, and passes over what it wraps.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// An error and those below it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| below(*error))
}

fn all<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a T> {
    chain(error).filter_map(|error| error.downcast_ref())
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    all(error).next()
}

/// The words for what the system says, else the text of the lowest error. The upper ones may hold the URL.
pub(super) fn detail_of(error: &(dyn Error + 'static)) -> String {
    if let Some(words) = all(error).find_map(io_in_words) {
        return words.to_owned();
    }
    let lowest = chain(error).skip(1).last();
    lowest.map_or_else(
        || "the client gave no reason".to_owned(),
        |lowest| lowest.to_string().chars().take(LONGEST_DETAIL).collect(),
    )
}

fn io_in_words(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    Some(match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset => "connection reset by the other side",
        Kind::ConnectionAborted => "connection aborted",
        Kind::BrokenPipe | Kind::UnexpectedEof => "the other side closed the connection",
        Kind::NetworkUnreachable => "no route to its network",
        Kind::HostUnreachable => "no route to the host",
        Kind::AddrNotAvailable => "this machine has no free port or no address of that kind",
        Kind::TimedOut => "the other side stopped answering",
        _ => return None,
    })
}

fn tls_in_words(error: &rustls::Error) -> String {
    use rustls::{CertificateError as Bad, Error as Tls};
    match error {
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => "its certificate has expired".to_owned(),
        Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet".to_owned()
        }
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name".to_owned()
        }
        Tls::InvalidCertificate(Bad::UnknownIssuer) => {
            "its certificate comes from an issuer this machine does not trust (self-signed, or the chain is incomplete)"
                .to_owned()
        }
        Tls::InvalidMessage(_) => "it does not speak TLS on this port".to_owned(),
        other => other.to_string().chars().take(LONGEST_DETAIL).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_faults_are_told_in_words() {
        use rustls::{CertificateError as Bad, Error as Tls, InvalidMessage};
        for (fault, words) in [
            (Tls::InvalidCertificate(Bad::Expired), "expired"),
            (Tls::InvalidCertificate(Bad::NotValidForName), "another name"),
            (Tls::InvalidCertificate(Bad::UnknownIssuer), "does not trust"),
            (Tls::InvalidMessage(InvalidMessage::InvalidContentType), "does not speak TLS"),
        ] {
            assert!(tls_in_words(&fault).contains(words), "{fault:?}");
        }
    }

    #[test]
    fn what_an_io_error_wraps_is_found() {
        let error = io::Error::other(io::Error::other(rustls::Error::DecryptError));
        assert_eq!(find::<rustls::Error>(&error), Some(&rustls::Error::DecryptError));
        assert_eq!(find::<LookupFault>(&error), None);
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        assert_eq!(span(Duration::from_secs(15)), "15 s");
        assert_eq!(span(Duration::from_millis(1_500)), "1500 ms");
    }
}
