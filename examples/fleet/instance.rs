//! One instance of the service. All have the same keys, and share the limits in Redis.

use std::{collections::BTreeMap, error::Error, time::Duration};

use axum::{Router, routing::get};
use serde::{Deserialize, Serialize};
use tollgate::{
    KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Policy, Principal, Quota, RateLimitLayer, Tollgate,
    limit::Window,
};
use tollgate_redis::{Redis, RedisLimiter};

use crate::counts::{Counted, Counts};

/// What secrets of keys begin with.
pub(crate) const KEY_PREFIX: &str = "fleet";

/// The tenant of the key that the load uses, and the name of this key.
pub(crate) const BUSY: &str = "busy";

/// The same for a key that only you use.
pub(crate) const QUIET: &str = "quiet";

const POLICY: &str = "key";

/// The quota of the busy key.
pub(crate) fn quota() -> Quota {
    1_000.per(Window::lasting(Duration::from_secs(5)))
}

/// What all instances must know.
#[derive(Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The URL of Redis.
    pub(crate) redis: String,
    /// The secrets of keys, by the name of their tenant.
    pub(crate) keys: BTreeMap<String, String>,
}

/// An instance: the service behind its gate.
pub(crate) struct Instance {
    pub(crate) app: Router,
    pub(crate) limiter: RedisLimiter,
    pub(crate) counts: Counts,
}

impl Instance {
    pub(crate) async fn new(number: usize, orders: &Orders) -> Result<Self, Box<dyn Error>> {
        let keys = MemoryKeys::new();
        for (tenant, secret) in &orders.keys {
            let key = Principal::new(format!("key_{tenant}")).with_tenant(tenant.as_str());
            // The quota of a key replaces that of the policy.
            let key = if *tenant == *QUIET { key.with_quota(POLICY, 20.per_minute()) } else { key };
            keys.import(secret, key);
        }
        // Subjects with more than 100 requests per second in this process are leased: it decides about most of their requests without
        // asking Redis. While Redis is down, each process counts alone.
        let limiter = RedisLimiter::new(Redis::connect(&*orders.redis).await?);
        let counts = Counts::default();
        let limits = RateLimitLayer::from_policies([Policy::new(POLICY, quota())])?;
        let tollgate = Tollgate::builder()
            .verify(KeyVerifier::new(KeyFormat::new(KEY_PREFIX)?, keys))
            .rate_limit(limits.with_limiter(Counted::new(limiter.clone(), counts.clone()))?)
            .build()?;
        let app = Router::new()
            .route("/hello", get(async move || format!("Hello from instance {number}!\n")))
            .layer(tollgate);
        Ok(Self { app, limiter, counts })
    }
}
