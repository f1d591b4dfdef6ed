//! What several processes share by real Redis and Valkey servers.
//!
//! | module | tests |
//! |---|---|
//! | `events` | changes of keys that reach all processes, also over links that fail |
//! | `places` | places of requests in flight: the suite, processes and servers that die |
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "whatever goes wrong in a test fails it, and servers have only their own clock"
)]

mod events;
mod places;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tollgate_redis::RedisSettings;

/// What must happen happens within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with a prefix that no other test on the same server has, and a deadline that a busy machine does not exceed.
fn fresh(settings: RedisSettings) -> RedisSettings {
    static PREFIXES: AtomicU32 = AtomicU32::new(0);
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    settings.with_deadline(PATIENCE).with_prefix(format!("tollgate:{number}"))
}

/// Tries until it succeeds.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
