//! The kinds of connectors, in one place.

use super::Endpoint;
use super::google_sheets::Sheet;

/// What a connection delivers through.
#[derive(Debug)]
pub enum Outlet {
    /// Requests by a connector's file.
    Http(Box<Endpoint>),
    /// Rows in a Google sheet.
    GoogleSheets(Box<Sheet>),
}

impl Outlet {
    /// The endpoint of an HTTP connector.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Http(endpoint) => Some(endpoint),
            Self::GoogleSheets(_) => None,
        }
    }

    /// The sheet of a Google Sheets connector.
    pub fn sheet(&self) -> Option<&Sheet> {
        match self {
            Self::Http(_) => None,
            Self::GoogleSheets(sheet) => Some(sheet),
        }
    }

    /// Whom a person has to let in before anything arrives; `None` where credentials alone do.
    pub fn share_with(&self) -> Option<&str> {
        self.sheet().map(|sheet| sheet.account.email())
    }
}
