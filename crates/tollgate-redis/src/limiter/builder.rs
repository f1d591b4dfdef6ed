//! The settings of a limiter.

use tollgate_core::limit::PolicyName;

use super::{ClockOf, DecideScript, Outage, RedisLimiter, outage::Outages};
use crate::{Leases, Redis};

/// The settings of a [`RedisLimiter`].
///
/// ```no_run
/// use tollgate_redis::{Leases, Outage, Redis, RedisLimiter};
///
/// # async fn example() -> Result<(), tollgate_redis::ConnectError> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let limiter = RedisLimiter::builder(redis)
///     .with_leases(Leases::Off)
///     .with_outage(Outage::CountLocally)
///     .with_outage_of("exports", Outage::Refuse)
///     .build();
/// # let _ = limiter;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it is not a limiter yet: call `build`"]
pub struct RedisLimiterBuilder {
    redis: Redis,
    script: DecideScript,
    outages: Outages,
    leases: Leases,
}

impl RedisLimiterBuilder {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, script: DecideScript::new(), outages: Outages::default(), leases: Leases::default() }
    }

    /// Which subjects are leased: [`Leases::Auto`] by default.
    pub fn with_leases(mut self, leases: Leases) -> Self {
        self.leases = leases;
        self
    }

    /// What happens while Redis is down: [`Outage::CountLocally`] by default.
    pub fn with_outage(mut self, outage: Outage) -> Self {
        self.outages.usual = outage;
        self
    }

    /// The same for one policy. A request with several policies is refused if one of them refuses.
    pub fn with_outage_of(mut self, policy: impl Into<PolicyName>, outage: Outage) -> Self {
        self.outages.by_policy.push((policy.into(), outage));
        self
    }

    /// Decides by the instants of the requests, not by the server's clock. For tests with a `ManualClock`: in production, machines
    /// whose clocks differ would count in different windows.
    pub fn with_request_time(mut self) -> Self {
        self.script.clock = ClockOf::Request;
        self
    }

    /// The limiter.
    pub fn build(self) -> RedisLimiter {
        RedisLimiter::start(self.redis, self.script, self.outages, self.leases)
    }
}
