//! Why a request may not go somewhere: a code for programs, a sentence for people, and what would mend it.

use std::net::IpAddr;

use super::ranges::Range;

/// The longest URL, in bytes.
pub const LONGEST_URL_BYTES: usize = 2048;

/// Why a request may not go there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than [`LONGEST_URL_BYTES`].
    #[error("the URL is {0} bytes long; {LONGEST_URL_BYTES} is the most")]
    TooLong(usize),
    /// Not an absolute URL.
    #[error("this is not a URL: {0}")]
    NotAUrl(url::ParseError),
    /// Neither https nor http.
    #[error("`{0}:` URLs cannot be called")]
    Scheme(String),
    /// http, and the policy asks for https.
    #[error("plain http is not allowed here")]
    PlainHttp,
    /// `user:password@`, which would be stored and logged in clear.
    #[error("the URL holds a user name or password")]
    UserInfo,
    /// `#...`, which is never sent.
    #[error("the URL holds a fragment (`#`), which is never sent")]
    Fragment,
    /// Nobody to call.
    #[error("the URL names no host")]
    NoHost,
    /// Port 0, which nobody listens on.
    #[error("port 0 cannot be called")]
    PortZero,
    /// A name that leads to the machine itself or its own network.
    #[error("`{0}` is a local name, not one of the public internet")]
    LocalName(String),
    /// A literal address in a forbidden range.
    #[error("{address} is not a public address: {range}")]
    Address {
        /// The address.
        address: IpAddr,
        /// The range it, or the IPv4 address inside it, lies in.
        range: &'static Range,
    },
    /// A name with a forbidden address among its addresses. Which one is not told: a tenant must not be able to read
    /// the names of the operator's network from here.
    #[error("`{host}` leads to an address that is not public: {range}")]
    Resolved {
        /// The name.
        host: String,
        /// The range.
        range: &'static Range,
    },
}

impl Refusal {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "url_too_long",
            Self::NotAUrl(_) => "url_invalid",
            Self::Scheme(_) => "url_scheme",
            Self::PlainHttp => "url_plain_http",
            Self::UserInfo => "url_user_info",
            Self::Fragment => "url_fragment",
            Self::NoHost => "url_no_host",
            Self::PortZero => "url_port",
            Self::LocalName(_) => "host_local",
            Self::Address { .. } => "address_forbidden",
            Self::Resolved { .. } => "host_forbidden",
        }
    }

    /// What would mend it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "use a shorter URL; what changes from event to event belongs in the body",
            Self::NotAUrl(_) | Self::NoHost => "write it in full, such as https://example.com/hooks/42",
            Self::Scheme(_) | Self::PlainHttp => "use https://",
            Self::UserInfo => "take them out of the URL and give them as credentials of the connection",
            Self::Fragment => "leave out the `#` and what follows it",
            Self::PortZero => "leave the port out, or name the one the endpoint listens on",
            Self::LocalName(_) | Self::Address { .. } | Self::Resolved { .. } => {
                "use an endpoint on the public internet, or ask the operator to allow its address range"
            }
        }
    }
}
