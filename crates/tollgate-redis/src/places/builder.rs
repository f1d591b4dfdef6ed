//! The settings of places.

use std::time::Duration;

use super::{RedisPlaces, script::Scripts};
use crate::{Outage, Redis};

/// The settings of [`RedisPlaces`].
///
/// ```no_run
/// use std::time::Duration;
/// use tollgate_redis::{Outage, Redis, RedisPlaces};
///
/// # async fn example() -> Result<(), tollgate_redis::ConnectError> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let places = RedisPlaces::builder(redis)
///     .with_ttl(Duration::from_secs(10))
///     .with_outage(Outage::Refuse)
///     .build();
/// # let _ = places;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it counts no places yet: call `build`"]
pub struct RedisPlacesBuilder {
    redis: Redis,
    ttl: Duration,
    outage: Outage,
}

impl RedisPlacesBuilder {
    /// After what time a place expires, unless [`with_ttl`](Self::with_ttl) changes it: 30 seconds.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, ttl: Self::DEFAULT_TTL, outage: Outage::default() }
    }

    /// After what time a place expires that is not renewed, from one second to one day. A shorter time frees the places of a dead process
    /// earlier. A longer one keeps those of a process that is stopped, or cut off from Redis, for longer.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.clamp(Duration::from_secs(1), Duration::from_secs(86_400));
        self
    }

    /// What happens while Redis is down: [`Outage::CountLocally`] by default.
    pub fn with_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// The places.
    pub fn build(self) -> RedisPlaces {
        RedisPlaces::start(self.redis, Scripts::new(self.ttl), self.outage)
    }
}
