//! Delivers by a connector: an event becomes a body, a body a request, an answer an outcome.
//!
//! The same steps for every connector that speaks HTTP, driven by its [`ConnectorSpec`](crate::spec::ConnectorSpec):
//!
//! 1. [`render`] maps the event and writes the body, once a job: every attempt sends these bytes.
//! 2. [`Endpoint::request`] adds headers and signs, in each attempt anew. An [`Endpoint`] is compiled once a
//!    connection; nothing of it is parsed per event.
//! 3. [`classify`] reads the answer, or what went wrong, and says in plain words why.
//! 4. [`attempt`] keeps what a person needs to see of it, bounded.
//!
//! All of it is pure: the time comes in, and sending is [`crate::egress`]'s.

mod answer;
mod custom;
#[cfg(test)]
mod golden;
mod http;

pub use answer::{Verdict, attempt, classify};
pub use custom::check_custom_headers;
pub use http::{Endpoint, EndpointError, Key, render};

pub use crate::spec::Names;
