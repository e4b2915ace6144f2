//! What holds for those who subscribe by themselves: `[subscription]`.
//!
//! ```toml
//! [subscription]
//! again = "another"          # or "same": what a second subscription of one event for one URL is
//! farewell = "DELETE"        # the method that tells the URL when the gateway ends it; else nobody is told
//! ```
//!
//! A connector without the table can't be subscribed to: its connections are made by people.

use http::Method;

use crate::domain::document::TableReader;

pub(super) const AGAINS: &[(&str, Again)] = &[("another", Again::Another), ("same", Again::Same)];
pub(super) const FAREWELLS: &[(&str, &Method)] = &[("DELETE", &Method::DELETE), ("POST", &Method::POST)];

/// What a second subscription of one event for one URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Another hook: the event is sent twice.
    Another,
    /// The same hook, which delivers again if it had stopped.
    Same,
}

/// How subscriptions of a connector behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// What a second one is.
    pub again: Again,
    /// What tells the URL when the gateway ends it by itself.
    pub farewell: Option<Method>,
}

/// Reads `[subscription]`.
pub(super) fn parse(mut table: TableReader<'_>) -> SubscriptionSpec {
    table.need("again");
    let again = table.choice("again", AGAINS).unwrap_or(Again::Another);
    let farewell = table.choice("farewell", FAREWELLS).cloned();
    table.finish();
    SubscriptionSpec { again, farewell }
}
