//! The backend trait that knows what a tenant has bought.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    answer::Answer,
    denial::Unavailable,
    verify::{Plan, Principal},
};

/// Knows a principal's current plan, where the verifier does not. [`entitlements_fn`] makes one from a closure.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline.
pub trait Entitlements: Send + Sync + 'static {
    /// The principal's plan; `None` if it has none.
    ///
    /// # Errors
    /// [`Unavailable`] if the backend does not answer: the request is refused with 503.
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>>;
}

impl<E: Entitlements + ?Sized> Entitlements for Arc<E> {
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        (**self).plan(principal)
    }
}

/// Entitlements made from an asynchronous closure.
///
/// The closure owns the principal and may move it into its future. It returns a [`Plan`] or an `Arc<Plan>`, if any.
///
/// ```
/// use std::sync::Arc;
/// use tollgate_core::{
///     denial::Unavailable,
///     verify::{Plan, Principal, entitlements_fn},
/// };
///
/// async fn tier_of(tenant: &str) -> Result<Option<String>, Unavailable> {
///     // asks the billing service ...
/// #   Ok(None)
/// }
///
/// let entitlements = entitlements_fn(|principal: Arc<Principal>| async move {
///     let Some(tenant) = principal.tenant() else { return Ok(None) };
///     Ok(tier_of(tenant).await?.map(Plan::active))
/// });
/// # fn are_entitlements(_: impl tollgate_core::verify::Entitlements) {}
/// # are_entitlements(entitlements);
/// ```
pub fn entitlements_fn<F, Fut, P>(plan: F) -> EntitlementsFn<F>
where
    F: Fn(Arc<Principal>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<P>, Unavailable>> + Send + 'static,
    P: Into<Arc<Plan>> + 'static,
{
    EntitlementsFn(plan)
}

/// Entitlements made from a closure that answers at once.
///
/// ```
/// use tollgate_core::verify::{Plan, Principal, entitlements_sync_fn};
///
/// let entitlements = entitlements_sync_fn(|principal: &Principal| match principal.tenant() {
///     Some("acme") => Ok(Some(Plan::active("pro"))),
///     _ => Ok(None),
/// });
/// # fn are_entitlements(_: impl tollgate_core::verify::Entitlements) {}
/// # are_entitlements(entitlements);
/// ```
pub fn entitlements_sync_fn<F, P>(plan: F) -> EntitlementsSyncFn<F>
where
    F: Fn(&Principal) -> Result<Option<P>, Unavailable> + Send + Sync + 'static,
    P: Into<Arc<Plan>>,
{
    EntitlementsSyncFn(plan)
}

/// What [`entitlements_fn`] returns.
#[derive(Clone, Copy)]
pub struct EntitlementsFn<F>(F);

impl<F, Fut, P> Entitlements for EntitlementsFn<F>
where
    F: Fn(Arc<Principal>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<P>, Unavailable>> + Send + 'static,
    P: Into<Arc<Plan>> + 'static,
{
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        let plan = (self.0)(Arc::clone(principal));
        Answer::later(async move { Ok(plan.await?.map(Into::into)) })
    }
}

/// What [`entitlements_sync_fn`] returns.
#[derive(Clone, Copy)]
pub struct EntitlementsSyncFn<F>(F);

impl<F, P> Entitlements for EntitlementsSyncFn<F>
where
    F: Fn(&Principal) -> Result<Option<P>, Unavailable> + Send + Sync + 'static,
    P: Into<Arc<Plan>>,
{
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        Answer::Now((self.0)(principal).map(|plan| plan.map(Into::into)))
    }
}

impl<F> fmt::Debug for EntitlementsFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntitlementsFn").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for EntitlementsSyncFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntitlementsSyncFn").finish_non_exhaustive()
    }
}
