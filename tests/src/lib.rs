//! What the tests share.

pub mod guides;
pub mod hosts;
pub mod postgres;
pub mod redis;
pub mod relay;
mod server;
pub mod suite;

use std::time::Duration;

use tollgate_sql::{SqlKeys, SqlKeysBuilder};

/// How many cases a test runs that is worth more with more of them: `long` if `TOLLGATE_LONG` is set, as `./test --long`
/// does.
pub fn cases(short: u32, long: u32) -> u32 {
    if std::env::var_os("TOLLGATE_LONG").is_some() { long } else { short }
}

/// A store that takes its time, as tests share a machine: what its deadlines do is tested where they are set.
pub fn patient_store() -> SqlKeysBuilder {
    const PATIENCE: Duration = Duration::from_secs(20);
    let builder = SqlKeys::builder().with_deadline(PATIENCE).with_credit_deadline(PATIENCE);
    builder.with_admin_deadline(PATIENCE).with_heartbeat(PATIENCE)
}

/// The same, but on a SQLite file it does not notice what other processes change.
pub fn silent_store() -> SqlKeysBuilder {
    patient_store().with_poll_interval(Duration::from_hours(1))
}

/// The examples of the READMEs and the guides are tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../crates/tollgate/README.md")]
    struct TollgateReadme;

    #[doc = include_str!("../../crates/tollgate-axum/README.md")]
    struct TollgateAxumReadme;

    #[doc = include_str!("../../crates/tollgate-sql/README.md")]
    struct TollgateSqlReadme;

    #[doc = include_str!("../../crates/tollgate-redis/README.md")]
    struct TollgateRedisReadme;

    #[doc = include_str!("../../crates/tollgate-tonic/README.md")]
    struct TollgateTonicReadme;

    #[doc = include_str!("../../docs/guides/axum-router.md")]
    struct AxumRouterGuide;

    #[doc = include_str!("../../docs/guides/tonic.md")]
    struct TonicGuide;

    #[doc = include_str!("../../docs/guides/redis.md")]
    struct RedisGuide;

    #[doc = include_str!("../../docs/guides/testing.md")]
    struct TestingGuide;

    #[doc = include_str!("../../docs/guides/jwt.md")]
    struct JwtGuide;

    #[doc = include_str!("../../docs/guides/own-key-store.md")]
    struct OwnKeyStoreGuide;
}
