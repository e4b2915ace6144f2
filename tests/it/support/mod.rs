//! What the integration tests share: a programmable receiver and a gateway whose clock the test owns.

pub mod gateway;
pub mod process;
pub mod receiver;

use std::future::Future;
use std::time::Duration;

/// Awaits what must happen; fails loudly, and says what was waited for, if it doesn't.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(elapsed) => panic!("waited 30 s in vain for {what}: {elapsed}"),
    }
}
