//! What was bought: how often it lets a token ask, and what it includes.

use tollgate::{ConfigurationError, EntitlementLayer, PerWindow, Plan, Policy};

pub(crate) const TINY: &str = "tiny";
pub(crate) const BASIC: &str = "basic";
pub(crate) const PRO: &str = "pro";

/// What an account has bought. `edsger` did not renew.
pub(crate) fn plan_of(account: &str) -> Plan {
    match account {
        "ada" => Plan::active(BASIC),
        "barbara" => Plan::active(TINY),
        "grace" => Plan::active(PRO),
        _ => Plan::lapsed(PRO),
    }
}

/// Each token has its own counters, held against what its account's tier allows.
///
/// The quota of `tiny` is also that of whoever has no active plan of a listed tier: a tier that somebody forgets here gets
/// too little, and says so, instead of too much.
pub(crate) fn limits() -> Policy {
    Policy::new("token", 5.per_minute().and(8.per_hour()).and(10.per_day()))
        .with_tier(BASIC, 60.per_minute().and(1_000.per_hour()).and(5_000.per_day()))
        .with_tier(PRO, 600.per_minute().and(20_000.per_hour()).and(100_000.per_day()))
}

/// Requires `tier` or a higher one.
pub(crate) fn at_least(tier: &str) -> Result<EntitlementLayer, ConfigurationError> {
    EntitlementLayer::at_least(tier, [TINY, BASIC, PRO])
}
