//! Looks up the caller's plan. A caller without a plan passes.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | the entitlements' backend does not answer | 503 |
//! | no `VerifyLayer` outside | 500 |
//!
//! Callers without a plan, and anonymous callers, pass.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`, outside everything that reads the plan: `RateLimitLayer`, whose quotas may depend on the
//! [tier](crate::Policy::with_tier), and `EntitlementLayer`, which requires a plan. It is only needed where the verifier does not know
//! plans. A key store does, if it stores those of [tenants](crate::manage::KeyManager::set_tenant_plan).
//!
//! # Examples
//!
//! ```
//! use tollgate::{PerWindow, Plan, PlanLayer, Policy, Principal, RateLimitLayer, verify::entitlements_sync_fn};
//!
//! let plans = PlanLayer::new(entitlements_sync_fn(|principal: &Principal| match principal.tenant() {
//!     Some("acme") => Ok(Some(Plan::active("pro"))),
//!     _ => Ok(None),
//! }));
//! let limit = RateLimitLayer::from_policies([Policy::new("key", 60.per_minute()).with_tier("pro", 600.per_minute())])?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! From a service that is asked at each request. If it does not answer, this example gives all callers the lowest limits instead of
//! refusing them:
//!
//! ```
//! use std::sync::Arc;
//!
//! use tollgate::{Plan, PlanLayer, Principal, verify::entitlements_fn};
//!
//! # async fn tier_of(_tenant: &str) -> std::io::Result<Option<String>> { Ok(None) }
//! let plans = PlanLayer::new(entitlements_fn(|principal: Arc<Principal>| async move {
//!     let Some(tenant) = principal.tenant() else { return Ok(None) };
//!     let tier = tier_of(tenant).await.unwrap_or_else(|error| {
//!         tracing::warn!(%error, "billing does not answer");
//!         None
//!     });
//!     Ok(tier.map(Plan::active))
//! }));
//! ```
//!
//! # Security
//!
//! The result of the lookup replaces the principal's plan, even if the result is no plan. Fails closed: without an answer no request
//! passes.

use std::{fmt, sync::Arc};

use tollgate_core::{denial::Denial, verify::Entitlements};

use crate::engine::{Caller, Cx, Flow, Settings, impl_layer};

/// Looks up the caller's plan. See the [module](self).
///
/// ```
/// use tollgate::{Plan, PlanLayer, Principal, verify::entitlements_sync_fn};
///
/// let plans = PlanLayer::new(entitlements_sync_fn(|_: &Principal| Ok(Some(Plan::active("free")))));
/// ```
#[derive(Clone, Debug)]
pub struct PlanLayer {
    gate: PlanGate,
    settings: Settings,
}

impl PlanLayer {
    /// Looks plans up in `entitlements`, at every request.
    pub fn new(entitlements: impl Entitlements) -> Self {
        Self { gate: PlanGate { entitlements: Arc::new(entitlements) }, settings: Settings::default() }
    }
}

impl<E: Entitlements> From<E> for PlanLayer {
    fn from(entitlements: E) -> Self {
        Self::new(entitlements)
    }
}

impl_layer!(PlanLayer, Plan);

pub(crate) const LAYER: &str = "PlanLayer";

#[derive(Clone)]
pub(crate) struct PlanGate {
    entitlements: Arc<dyn Entitlements>,
}

impl PlanGate {
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        // A guard decides whether such callers may pass.
        if matches!(context.caller, Caller::Anonymous | Caller::Waived) {
            return Ok(Flow::Continue);
        }
        let Some(principal) = context.guarded(LAYER)? else { return Ok(Flow::Continue) };
        let answer = self.entitlements.plan(principal);
        cx.when_answered(answer, |found, context| {
            context.set_plan(found?);
            Ok(())
        })
    }
}

impl fmt::Debug for PlanGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanGate").finish_non_exhaustive()
    }
}
