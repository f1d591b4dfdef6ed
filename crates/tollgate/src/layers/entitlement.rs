//! Asks for an active subscription, and for a tier that includes what is behind it.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | no plan, or one that has lapsed | 403 |
//! | a plan of a tier that does not suffice | 403 |
//! | anonymous | 401 |
//! | the entitlements' backend does not answer | 503 |
//! | no `VerifyLayer` outside | 500 |
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`; around the whole service or, with a tier, around single routes.
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
//! let layer = EntitlementLayer::new().at_least("pro", ["basic", "pro", "enterprise"]);
//! ```
//!
//! # Security
//!
//! Fails closed: a tier that nobody has ranked suffices for nothing.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::{Denial, DenialKind},
    verify::Entitlements,
};

use crate::{
    ConfigurationError, RequestContext,
    engine::{Asked, Entrant, Gate, Learned, Settings, impl_layer},
};

/// Asks for an active subscription. See the [module](self).
#[derive(Clone, Debug)]
pub struct EntitlementLayer {
    pub(crate) gate: EntitlementGate,
    settings: Settings,
}

impl EntitlementLayer {
    /// Asks for a plan that is in force, of any tier, as the principal carries it.
    pub fn new() -> Self {
        let gate = EntitlementGate { entitlements: None, sufficient: None };
        Self { gate, settings: Settings::default() }
    }

    /// Asks for `tier` or a higher one, of all tiers from the lowest to the highest. A tier that is not listed suffices for
    /// nothing. If `tier` itself is not listed, every request is answered 500, and the log says why.
    pub fn at_least<T: Into<Box<str>>>(mut self, tier: &str, ascending: impl IntoIterator<Item = T>) -> Self {
        let ascending: Vec<Box<str>> = ascending.into_iter().map(Into::into).collect();
        let sufficient = ascending.into_iter().skip_while(|name| **name != *tier);
        self.gate.sufficient = Some(sufficient.collect());
        self
    }

    /// Asks `entitlements` for the plan at every request, instead of the principal.
    pub fn with_entitlements(mut self, entitlements: impl Entitlements) -> Self {
        self.gate.entitlements = Some(Arc::new(entitlements));
        self
    }
}

impl Default for EntitlementLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl_layer!(EntitlementLayer, Entitlement);

#[derive(Clone)]
pub(crate) struct EntitlementGate {
    entitlements: Option<Arc<dyn Entitlements>>,
    // The tiers that suffice; `None` if any does.
    sufficient: Option<Arc<[Box<str>]>>,
}

impl Gate for EntitlementGate {
    fn layer(&self) -> &'static str {
        "EntitlementLayer"
    }

    fn configuration_error(&self) -> Option<ConfigurationError> {
        let nobody = self.sufficient.as_ref().is_some_and(|tiers| tiers.is_empty());
        nobody.then(|| {
            ConfigurationError::new(
                "EntitlementLayer asks for a tier that is not among those it was given: list it, too",
            )
        })
    }

    #[inline]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let Some(entitlements) = &self.entitlements else {
            return Asked::Answered(self.judge(entrant.context()));
        };
        match entrant.context().guarded(self.layer()) {
            Ok(Some(principal)) => {
                let plan = entitlements.plan(principal);
                self.take_up(entrant, plan, Learned::Plan)
            }
            Ok(None) => Asked::Answered(Ok(())),
            Err(denial) => Asked::Answered(Err(denial)),
        }
    }

    #[inline]
    fn judge(&self, context: &RequestContext) -> Result<(), Denial> {
        let Some(principal) = context.guarded(self.layer())? else { return Ok(()) };
        let plan = if self.entitlements.is_some() { context.plan() } else { principal.plan() };
        let Some(plan) = plan.filter(|plan| plan.is_active()) else {
            return Err(Denial::new(DenialKind::EntitlementInactive));
        };
        match &self.sufficient {
            Some(tiers) if !tiers.iter().any(|tier| **tier == *plan.tier()) => {
                Err(Denial::new(DenialKind::TierTooLow))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for EntitlementGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntitlementGate").field("sufficient", &self.sufficient).finish_non_exhaustive()
    }
}
