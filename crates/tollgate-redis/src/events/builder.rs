//! The settings of a store with events.

use std::{fmt, time::Duration};

use tollgate_core::store::KeyStore;

use super::RedisEvents;
use crate::Redis;

/// The settings of [`RedisEvents`].
///
/// ```no_run
/// use std::time::Duration;
/// use tollgate::MemoryKeys;
/// use tollgate_redis::{Redis, RedisEvents};
///
/// # async fn example(store: MemoryKeys) -> Result<(), tollgate_redis::ConnectError> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let keys = RedisEvents::builder(redis, store).with_heartbeat(Duration::from_millis(500)).build();
/// # let _ = keys;
/// # Ok(())
/// # }
/// ```
#[must_use = "it is not a store yet: call `build`"]
pub struct RedisEventsBuilder<S> {
    redis: Redis,
    store: S,
    heartbeat: Duration,
}

impl<S: KeyStore> RedisEventsBuilder<S> {
    pub(super) fn new(redis: Redis, store: S) -> Self {
        Self { redis, store, heartbeat: Duration::from_secs(1) }
    }

    /// How often this process publishes a message to itself, to notice a connection that has failed in silence: at least 100 ms, and once
    /// a second by default. [`RedisEvents::staleness_bound`] is twice this time.
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat.clamp(Duration::from_millis(100), Duration::from_secs(3_600));
        self
    }

    /// The store with events.
    pub fn build(self) -> RedisEvents<S> {
        RedisEvents::start(self.redis, self.store, self.heartbeat)
    }
}

impl<S> fmt::Debug for RedisEventsBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEventsBuilder")
            .field("redis", &self.redis)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}
