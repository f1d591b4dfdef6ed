//! Limits: of accounts by their plan, of client addresses at the open routes, and of guesses at an account's second factor.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use tollgate::{
    ClientAddress, ConfigurationError, Denial, PerWindow as _, Plan, Policy, Principal, RateLimitLayer,
    denial::Unavailable,
    limit::{Charge, Cost, LimitRequest, Limiter as _, MemoryLimiter, Quota, Subject},
};
use tollgate_axum::peer_address;

use crate::tokens::seconds;

pub(crate) const FREE: &str = "free";
pub(crate) const PRO: &str = "pro";

/// All tokens of an account count together. The counters stay when the plan changes.
///
/// The limit of `free` also applies to a subscription that has lapsed.
pub(crate) fn of_accounts() -> Result<RateLimitLayer, ConfigurationError> {
    let account = Policy::new("account", 30.per_minute())
        .with_subject(Subject::Tenant)
        .with_tier(PRO, 300.per_minute());
    RateLimitLayer::from_policies([account])
}

/// Each client address may send 120 requests per minute to the open routes, and 60 of them may fail to authenticate.
pub(crate) fn of_addresses() -> Result<RateLimitLayer, ConfigurationError> {
    let address = || Subject::Address(client_address());
    RateLimitLayer::from_policies([
        Policy::new("open", 120.per_minute()).with_subject(address()),
        Policy::new("open-failed", 60.per_minute())
            .with_subject(address())
            .with_cost(Cost::by_response(|response| u64::from(response.status.as_u16() == 401))),
    ])
}

/// A service behind a load balancer adds `with_trusted_proxies`.
pub(crate) fn client_address() -> ClientAddress {
    ClientAddress::of_peer(peer_address)
}

/// Limits how often an account's code, or the password that disables MFA, may be tried: a code has six digits, and a stolen
/// password or token must not be enough to guess it.
#[derive(Clone)]
pub(crate) struct Guesses {
    limiter: MemoryLimiter,
    quota: Quota,
}

impl Guesses {
    pub(crate) fn new() -> Self {
        Self { limiter: MemoryLimiter::new(), quota: 10.per_minute().and(30.per_hour()) }
    }

    /// Counts one guess, or refuses it with 429.
    pub(crate) async fn count(&self, account: &str, now: SystemTime) -> Result<(), Denial> {
        let charge = Charge::new("guesses", account, account, &self.quota).hidden();
        let decision = self.limiter.acquire(&LimitRequest::new(&[charge], now)).await?;
        if decision.is_allowed() { Ok(()) } else { Err(Denial::rate_limited(decision)) }
    }
}

/// The rate-limit headers of an account, for responses outside its guard. Counts nothing.
pub(crate) async fn headers(
    limits: &RateLimitLayer,
    account: &str,
    plan: Plan,
    now: SystemTime,
) -> Result<HeaderMap, Unavailable> {
    let principal = Principal::new(account).with_tenant(account).with_plan(plan);
    let decision = limits.peek(principal, now).await?;
    let mut headers = HeaderMap::new();
    if let Some(window) = decision.tightest() {
        headers.insert("x-ratelimit-limit", HeaderValue::from(window.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(window.remaining()));
        headers.insert("x-ratelimit-reset", HeaderValue::from(seconds(window.resets_at())));
    }
    Ok(headers)
}
