//! The tiers: their limits, and what they include.

use tollgate::{ConfigurationError, EntitlementLayer, PerWindow, Plan, Policy};

pub(crate) const TINY: &str = "tiny";
pub(crate) const BASIC: &str = "basic";
pub(crate) const PRO: &str = "pro";

/// The plan of an account. The plan of `edsger` has lapsed.
pub(crate) fn plan_of(account: &str) -> Plan {
    match account {
        "ada" => Plan::active(BASIC),
        "barbara" => Plan::active(TINY),
        "grace" => Plan::active(PRO),
        _ => Plan::lapsed(PRO),
    }
}

/// Each token has its own counters, with the limits of its account's tier.
///
/// The limits of `tiny` also apply to a plan that is not active and to a tier that is missing here: a forgotten tier gets the
/// smallest quota, not an unlimited one.
pub(crate) fn limits() -> Policy {
    Policy::new("token", 5.per_minute().and(8.per_hour()).and(10.per_day()))
        .with_tier(BASIC, 60.per_minute().and(1_000.per_hour()).and(5_000.per_day()))
        .with_tier(PRO, 600.per_minute().and(20_000.per_hour()).and(100_000.per_day()))
}

/// Requires `tier` or a higher one.
pub(crate) fn at_least(tier: &str) -> Result<EntitlementLayer, ConfigurationError> {
    EntitlementLayer::at_least(tier, [TINY, BASIC, PRO])
}
