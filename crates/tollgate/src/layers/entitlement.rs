//! Requires an active subscription, and a sufficient tier if one is given.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | no plan, or a lapsed one | 403 |
//! | the plan's tier does not suffice | 403 |
//! | anonymous | 401 |
//! | no `VerifyLayer` outside | 500 |
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`, and inside `PlanLayer` if that looks plans up; around the whole service or, with a tier, around single routes.
//!
//! # Examples
//!
//! ```
//! use tollgate::EntitlementLayer;
//!
//! let layer = EntitlementLayer::new();
//! ```
//!
//! ```
//! use tollgate::EntitlementLayer;
//!
//! let layer = EntitlementLayer::at_least("pro", ["basic", "pro", "enterprise"])?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Fails closed: a tier that is not in the list does not suffice.

use std::sync::Arc;

use tollgate_core::{
    denial::{Denial, DenialKind},
    verify::Plan,
};

use crate::{
    ConfigurationError,
    engine::{Cx, Flow, Settings, impl_layer},
};

/// Requires an active subscription. See the [module](self).
///
/// ```
/// use tollgate::EntitlementLayer;
///
/// let any_tier = EntitlementLayer::new();
/// let pro = EntitlementLayer::at_least("pro", ["basic", "pro", "enterprise"])?;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EntitlementLayer {
    pub(crate) gate: EntitlementGate,
    settings: Settings,
}

impl EntitlementLayer {
    /// Requires an active plan of any tier.
    pub fn new() -> Self {
        Self::of_tiers(None)
    }

    /// Requires an active plan of `tier` or a higher one. `ascending` lists all tiers, from the lowest to the highest; a tier
    /// that is not listed does not suffice.
    ///
    /// # Errors
    /// If `tier` itself is not listed.
    pub fn at_least<T: Into<Box<str>>>(
        tier: &str,
        ascending: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigurationError> {
        let ascending = ascending.into_iter().map(Into::into);
        let sufficient: Arc<[Box<str>]> = ascending.skip_while(|name| **name != *tier).collect();
        if sufficient.is_empty() {
            return Err(ConfigurationError::new(format!(
                "EntitlementLayer requires the tier \"{tier}\", which is not in the list of tiers: add it to the list"
            )));
        }
        Ok(Self::of_tiers(Some(sufficient)))
    }

    fn of_tiers(sufficient: Option<Arc<[Box<str>]>>) -> Self {
        Self { gate: EntitlementGate { sufficient }, settings: Settings::default() }
    }
}

impl Default for EntitlementLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl_layer!(EntitlementLayer, Entitlement);

pub(crate) const LAYER: &str = "EntitlementLayer";

#[derive(Clone, Debug)]
pub(crate) struct EntitlementGate {
    // The tiers that suffice; `None` if any tier does.
    sufficient: Option<Arc<[Box<str>]>>,
}

impl EntitlementGate {
    #[inline]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        if cx.context.guarded(LAYER)?.is_none() {
            return Ok(Flow::Continue);
        }
        check_plan(cx.context.plan(), self.sufficient.as_deref()).map(|()| Flow::Continue)
    }
}

/// Whether a plan is active and of a sufficient tier.
fn check_plan(plan: Option<&Arc<Plan>>, sufficient: Option<&[Box<str>]>) -> Result<(), Denial> {
    let Some(plan) = plan.filter(|plan| plan.is_active()) else {
        return Err(Denial::new(DenialKind::EntitlementInactive));
    };
    match sufficient {
        Some(tiers) if !tiers.iter().any(|tier| **tier == *plan.tier()) => {
            Err(Denial::new(DenialKind::TierTooLow))
        }
        _ => Ok(()),
    }
}
