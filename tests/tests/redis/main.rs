//! What several processes share by real Redis and Valkey servers.
//!
//! | module | tests |
//! |---|---|
//! | `places` | places of requests in flight: the suite, processes and servers that die |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "whatever goes wrong in a test fails it, and servers have only their own clock"
)]

mod places;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tollgate_redis::RedisSettings;

/// Settings with a prefix that no other test on the same server has, and a deadline that a busy machine does not exceed.
fn fresh(settings: RedisSettings) -> RedisSettings {
    static PREFIXES: AtomicU32 = AtomicU32::new(0);
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    settings.with_deadline(Duration::from_secs(20)).with_prefix(format!("tollgate:{number}"))
}
