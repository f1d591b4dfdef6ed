//! Admits or refuses requests by the application's own check.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | the [guard](Guard) refuses | the denial's; 403 for [`DenialKind::Forbidden`](crate::DenialKind::Forbidden) |
//! | the guard's backend does not answer | 503 |
//! | no `VerifyLayer` outside | 500 |
//!
//! Requests for public routes and CORS preflights pass without a check. A guard decides about anonymous requests, too, where these are accepted.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`; in a built stack inside `ScopeLayer` and outside `UsageLayer`. A stack may have several: they run in the
//! order in which they were added.
//!
//! # Examples
//!
//! ```
//! use tollgate::{
//!     Denial, DenialKind, GuardLayer,
//!     guard::{GuardRequest, guard_sync_fn},
//! };
//!
//! let layer = GuardLayer::new(guard_sync_fn(|request: &GuardRequest<'_>| {
//!     match request.authenticated()?.tenant() {
//!         Some("acme") => Ok(()),
//!         _ => Err(Denial::new(DenialKind::Forbidden)),
//!     }
//! }));
//! ```
//!
//! A check that asks a database, with a name for the log, and a denial with a status and a code of its own:
//!
//! ```
//! use http::StatusCode;
//! use tollgate::{
//!     Denial, DenialKind, GuardLayer,
//!     denial::Unavailable,
//!     guard::{GuardRequest, guard_fn},
//! };
//!
//! async fn has_accepted_terms(tenant: &str) -> Result<bool, Unavailable> {
//!     // asks a database ...
//! #   Ok(!tenant.is_empty())
//! }
//!
//! let terms = guard_fn(|request: &GuardRequest<'_>| {
//!     let caller = request.authenticated().cloned();
//!     async move {
//!         if has_accepted_terms(caller?.tenant().unwrap_or_default()).await? {
//!             return Ok(());
//!         }
//!         Err(Denial::new(DenialKind::Forbidden)
//!             .with_status(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS)
//!             .with_code("terms_not_accepted")
//!             .with_detail("Accept the new terms of use first."))
//!     }
//! });
//! let layer = GuardLayer::new(terms).with_name("TermsGuard");
//! ```
//!
//! # Security
//!
//! A guard sees each request once, before the body has arrived. After a wait, a principal that has ended meanwhile is refused
//! whatever the guard answers. If an outer layer in report-only mode has waived the refusal of a credential, the caller is refused
//! here with 401, and the guard is not asked.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::Denial,
    guard::{Guard, GuardRequest},
};

use crate::engine::{Caller, Cx, Flow, Settings, impl_layer};

/// Admits or refuses requests by the application's own check. See the [module](self).
///
/// ```
/// use tollgate::{
///     Denial, DenialKind, GuardLayer,
///     guard::{GuardRequest, guard_sync_fn},
/// };
///
/// let layer = GuardLayer::new(guard_sync_fn(|request: &GuardRequest<'_>| {
///     match request.authenticated()?.role() {
///         Some("admin") => Ok(()),
///         _ => Err(Denial::new(DenialKind::Forbidden)),
///     }
/// }))
/// .with_name("AdminGuard");
/// ```
#[derive(Clone, Debug)]
pub struct GuardLayer {
    gate: GuardGate,
    settings: Settings,
}

impl GuardLayer {
    /// Asks `guard` about each request.
    pub fn new(guard: impl Guard) -> Self {
        let gate = GuardGate { guard: Arc::new(guard), name: "GuardLayer" };
        Self { gate, settings: Settings::default() }
    }

    /// The value of the field `layer` in the log of its refusals. Default: `GuardLayer`.
    pub fn with_name(mut self, name: &'static str) -> Self {
        self.gate.name = name;
        self
    }
}

impl<G: Guard> From<G> for GuardLayer {
    fn from(guard: G) -> Self {
        Self::new(guard)
    }
}

impl_layer!(GuardLayer, Guard);

#[derive(Clone)]
pub(crate) struct GuardGate {
    guard: Arc<dyn Guard>,
    name: &'static str,
}

impl GuardGate {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        let principal = match context.caller {
            Caller::Anonymous => None,
            _ => match context.guarded(self.name)? {
                Some(principal) => Some(principal),
                // An exempt request.
                None => return Ok(Flow::Continue),
            },
        };
        let request = GuardRequest::new(cx.head(), principal, context.instant()).with_plan(context.plan());
        let answer = self.guard.check(&request);
        cx.when_answered(answer, |decided, _| decided)
    }
}

impl fmt::Debug for GuardGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardGate").field("name", &self.name).finish_non_exhaustive()
    }
}
