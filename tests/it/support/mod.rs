//! What the integration tests share: a programmable receiver and a gateway whose clock the test owns.

pub mod fleet;
pub mod gateway;
pub mod process;
pub mod receiver;
#[expect(dead_code, reason = "the store's own tests need more of it")]
#[path = "../../../src/store/redis/tests/server.rs"]
pub mod redis;

use std::future::Future;
use std::time::Duration;

/// Whether the long variants are asked for: `./tests/run --soak`.
pub fn is_soak() -> bool {
    std::env::var_os("PATCHBAY_SOAK").is_some()
}

/// Awaits what must happen; fails loudly, and says what was waited for, if it doesn't.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let secs = if is_soak() { 180 } else { 30 };
    match tokio::time::timeout(Duration::from_secs(secs), future).await {
        Ok(value) => value,
        Err(elapsed) => panic!("waited {secs} s in vain for {what}: {elapsed}"),
    }
}
