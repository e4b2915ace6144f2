//! The only HTTP client of the gateway: one guarded, bounded request at a time, over pooled connections.
//!
//! **Where a request may go.** [`AddressPolicy`] judges three times. At save, [`AddressPolicy::check_url`] reads what
//! a person typed, so that a mistake shows at once. At each send the URL is judged again, for literal addresses never
//! reach a resolver. And when a connection is opened, the resolver judges every address of the answer and hands on
//! exactly those it judged: there is no second lookup between the check and the connect, so a name that changes its
//! mind (DNS rebinding) gains nothing. A pooled connection was judged when it was opened.
//!
//! **What a request may cost.** One deadline spans lookup, connect, TLS, request, headers and body. At most
//! [`BODY_LIMIT_BYTES`] of an answer are read. Lookups of one name are shared and the number under way is bounded, for
//! a lookup blocks a thread that nothing can interrupt.
//!
//! **What is known when it fails.** [`SendError::may_have_arrived`] is false only if the request provably never left.
//! Nothing is sent twice: no redirect is followed and no answer or error leads to another try. (A request that was
//! still waiting for a pooled connection when that closed, not a byte of it written, takes another connection.)
//!
//! The one request that no tenant can steer, the gateway's own traces to its operator's collector, has a client apart
//! (`collector`).
//!
//! Not here: retries, classification of statuses, signing. No proxy, cookies, referer or decompression.

mod client;
mod collector;
mod connect;
mod destination;
mod error;
mod guard;
mod library;
mod ranges;
mod refusal;
mod resolve;
#[cfg(test)]
mod tests;

pub use client::{Answer, BODY_LIMIT_BYTES, Egress, EgressError, EgressSettings, LONGEST_TIMEOUT, Request};
pub use collector::{Collector, PostError};
pub use connect::GuardedConnector;
pub use destination::Destination;
pub use error::SendError;
pub use guard::AddressPolicy;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
pub use library::{LIBRARY_ANSWER_BYTES, LibraryClient};
pub use ranges::{Ground, Range};
pub use refusal::{LONGEST_URL_BYTES, Refusal};
pub use url::Url;
