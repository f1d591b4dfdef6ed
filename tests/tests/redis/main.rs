//! What several processes share by real Redis and Valkey servers.
//!
//! | module | tests |
//! |---|---|
//! | `events` | changes of keys that reach all processes, also over links that fail |
//! | `credits` | credits that are lent: the suites, processes and servers that die, random calls with losses |
//! | `places` | places of requests in flight: the suite, processes and servers that die |
//! | `conformance` | the suite for limiters on every kind of server |
//! | `failover` | a cluster and a primary with sentinels whose primary is killed |
//! | `groups` | requests whose counters are on several servers |
//! | `leases` | quotas that limiters borrow, with exact counts |
//! | `headers` | what callers see of a shared quota that is borrowed in parts |
//! | `records` | what the script keeps: expiry, bounds, clocks that step back |
//! | `hot_key` | four processes that share the quota of one key, one of them killed |
//! | `connecting` | what a connection says that cannot be made, and what it says later |
//! | `breaker` | late answers, and when they are an outage |
//! | `outages` | servers that are killed, paused, cut off and silent, under load |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "whatever goes wrong in a test fails it, and servers have only their own clock"
)]

mod breaker;
mod conformance;
mod connecting;
mod credits;
mod events;
mod failover;
mod groups;
mod headers;
mod hot_key;
mod leases;
mod outages;
mod places;
mod records;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::sleep;
use tollgate::{
    denial::Unavailable,
    limit::{Charge, Decision, LimitRequest, Limiter, Quota},
};
use tollgate_redis::{Leases, Outage, Redis, RedisLimiter, RedisLimiterBuilder, RedisSettings};

/// What must happen happens within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with a prefix that no other test on the same server has, and a deadline that a busy machine does not exceed.
fn fresh(settings: RedisSettings) -> RedisSettings {
    static PREFIXES: AtomicU32 = AtomicU32::new(0);
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    patient(settings).with_prefix(format!("tollgate:{number}"))
}

fn patient(settings: RedisSettings) -> RedisSettings {
    settings.with_deadline(PATIENCE)
}

/// A limiter, as another process would have it. It admits nothing that Redis does not decide.
async fn builder(settings: &RedisSettings, leases: Leases) -> RedisLimiterBuilder {
    let redis = Redis::connect(settings.clone()).await.unwrap();
    RedisLimiter::builder(redis).with_leases(leases).with_outage(Outage::Refuse)
}

/// A request with one charge, by the real time.
async fn ask(limiter: &RedisLimiter, subject: &str, quota: &Quota) -> Result<Decision, Unavailable> {
    ask_for(limiter, &[Charge::new("key", subject, subject, quota)]).await
}

async fn ask_for(limiter: &RedisLimiter, charges: &[Charge<'_>]) -> Result<Decision, Unavailable> {
    limiter.acquire(&LimitRequest::new(charges, SystemTime::now())).await
}

/// What each window has counted.
fn used(decision: &Decision) -> Vec<u64> {
    decision.windows().iter().map(|window| window.used).collect()
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
