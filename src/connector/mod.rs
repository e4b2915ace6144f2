//! Delivers by a connector: an event becomes a body, a body a request, an answer an outcome.
//!
//! A connector is of one of few kinds, and [`Outlet`] is the one place that knows them all: `http`, driven by data alone, and
//! `google_sheets` ([`google_sheets`]).
//!
//! The same steps for every connector that speaks HTTP, driven by its [`ConnectorSpec`](crate::spec::ConnectorSpec):
//!
//! 1. [`check_settings`] checks what a connection says of itself; [`Endpoint::compile`] makes of it all that stays the same
//!    from one event to the next.
//! 2. [`Endpoint::render`] maps the event, checks the fields against what the system knows and writes the body, once a job:
//!    every attempt sends these bytes. Of a chain of requests it writes a [`Progress`], which grows with each answer.
//! 3. [`Endpoint::call`] adds headers and credentials and signs, in each attempt anew.
//! 4. [`classify`] reads the answer, or what went wrong, and says in plain words why.
//! 5. [`attempt`] keeps what a person needs to see of it, bounded.
//!
//! All of it is pure: the time comes in, and sending is [`crate::egress`]'s.

mod answer;
mod body;
mod custom;
mod golden;
pub mod google_sheets;
mod http;
mod inbound;
mod mask;
mod oauth;
mod outlet;
mod settings;
#[cfg(test)]
mod tests;

pub use answer::{Verdict, attempt, classify, without_words};
pub use body::{Progress, render};
pub use custom::check_custom_headers;
pub use golden::{CheckedCases, check_cases};
pub(crate) use golden::{line_of, same_text};
pub use http::{Endpoint, EndpointError, Key};
pub use inbound::{Greeting, Receiver, UnderstandError};
pub use mask::{HIDDEN, Mask};
pub use oauth::{Client, Granted, Token};
pub use outlet::Outlet;
pub use settings::{Filled, Given, Settings, check_settings, check_sheet, check_source_settings};

pub use crate::spec::Names;
