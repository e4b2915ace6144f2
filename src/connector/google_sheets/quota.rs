//! Google's quota as buckets of tokens that all processes share.
//!
//! Google counts by the minute: 60 reads and 60 writes for a service account, 300 of each for its project. A bucket that holds
//! a burst and gets its rate back gives at most rate and burst in any minute, so the two together are the quota.

use std::time::Duration;

use super::Account;

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads values or the sheet's own data.
    Read,
    /// Changes something.
    Write,
}

/// A bucket: its name, what comes back in each minute, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name, inside the scope.
    pub name: String,
    /// Tokens a minute.
    pub rate: u32,
    /// Tokens at once.
    pub burst: u32,
}

/// The minute that Google counts by.
pub const PER: Duration = Duration::from_mins(1);

/// Where an account's buckets lie: those of a project together.
pub fn scope(account: &Account) -> String {
    format!("google_sheets:{}", account.project())
}

/// The buckets of one request.
pub fn buckets(account: &Account, kind: Kind) -> [Bucket; 2] {
    let what = match kind {
        Kind::Read => "reads",
        Kind::Write => "writes",
    };
    [
        Bucket { name: format!("{what}:{}", account.email()), rate: 54, burst: 6 },
        Bucket { name: what.to_owned(), rate: 270, burst: 30 },
    ]
}
