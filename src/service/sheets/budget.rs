//! Takes a request's tokens out of the buckets that all processes share.

use std::time::Duration;

use tokio::time::Instant;

use super::api::left;
use crate::connector::google_sheets::Account;
use crate::connector::google_sheets::quota::{self, Kind};
use crate::service::Gateway;
use crate::store::{Spend, Spent, StoreError};

/// The longest that a batch waits here; a longer wait is the lane's, where more rows can join meanwhile.
const LONGEST: Duration = Duration::from_secs(2);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Short {
    /// Not before this much time.
    Wait(Duration),
    /// The store could not tell.
    Store(StoreError),
}

/// Takes tokens for one request, waiting a little where that helps.
pub(super) async fn take(
    gateway: &Gateway,
    account: &Account,
    kind: Kind,
    deadline: Instant,
) -> Result<(), Short> {
    let spends = quota::buckets(account, kind).map(|bucket| Spend {
        bucket: bucket.name,
        cost: 1,
        rate: bucket.rate,
        per: quota::PER,
        burst: bucket.burst,
    });
    let scope = quota::scope(account);
    let mut waited = Duration::ZERO;
    loop {
        match gateway.store.spend(&scope, &spends).await {
            Ok(Spent::Granted) => return Ok(()),
            Ok(Spent::Wait(wait)) => {
                waited += wait;
                if waited > LONGEST || wait >= left(deadline) {
                    return Err(Short::Wait(wait));
                }
                gateway.clock.sleep(wait.max(Duration::from_millis(1))).await;
            }
            Err(error) => return Err(Short::Store(error)),
        }
    }
}
