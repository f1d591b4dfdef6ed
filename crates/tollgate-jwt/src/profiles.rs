//! The backend trait that looks up what a token does not say.

use std::{fmt, future::Future, sync::Arc};

use tollgate_core::{answer::Answer, denial::Denial, verify::Principal};

use crate::claims::Claims;

/// Makes a principal from a verified token and from what is stored about its subject: tenant, role, plan, and whether the tenant is
/// suspended. [`profiles_fn`] makes one from a closure.
///
/// It is called in a task of its own, which is dropped after the [deadline](crate::JwtVerifier::with_profile_deadline). Requests with one
/// token share a task that is at most 1 second old. After the lookups of five different tokens in a row have ended with 503, requests are
/// refused with 503 at once for 1 second; then one request a second asks, until a lookup succeeds.
pub trait Profiles: Send + Sync + 'static {
    /// The principal, or why there is none: for example [`DenialKind::TenantSuspended`](tollgate_core::denial::DenialKind::TenantSuspended).
    ///
    /// That denial reaches callers outside the principal's allowed networks, too. If principals have networks, return one whose
    /// [signal](tollgate_core::store::EndSignal) has ended with `TenantSuspended` instead: `VerifyLayer` checks the networks first.
    ///
    /// # Errors
    /// The denial that the request is refused with. It is not cached.
    fn find(&self, claims: &Arc<Claims>) -> Answer<Result<Principal, Denial>>;
}

impl<P: Profiles + ?Sized> Profiles for Arc<P> {
    fn find(&self, claims: &Arc<Claims>) -> Answer<Result<Principal, Denial>> {
        (**self).find(claims)
    }
}

/// Looks profiles up by an asynchronous closure.
///
/// ```
/// use std::sync::Arc;
/// use tollgate_core::{
///     denial::{Denial, DenialKind, Unavailable},
///     verify::Plan,
/// };
/// use tollgate_jwt::{Claims, profiles_fn};
///
/// # struct Profile { tenant: String, role: String, plan: String, is_suspended: bool }
/// async fn user_profile(user: &str) -> Result<Option<Profile>, Unavailable> {
///     // asks the database ...
/// #   Ok(None)
/// }
///
/// let profiles = profiles_fn(|claims: Arc<Claims>| async move {
///     let principal = claims.to_principal()?;
///     let Some(profile) = user_profile(claims.require_text("sub")?).await? else {
///         return Err(Denial::new(DenialKind::TokenInvalid).with_log_detail("the user has no profile"));
///     };
///     if profile.is_suspended {
///         return Err(Denial::new(DenialKind::TenantSuspended));
///     }
///     Ok(principal.with_tenant(profile.tenant).with_role(profile.role).with_plan(Plan::active(profile.plan)))
/// });
/// # fn are_profiles(_: impl tollgate_jwt::Profiles) {}
/// # are_profiles(profiles);
/// ```
pub fn profiles_fn<F, Fut>(find: F) -> ProfilesFn<F>
where
    F: Fn(Arc<Claims>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, Denial>> + Send + 'static,
{
    ProfilesFn(find)
}

/// What [`profiles_fn`] returns.
#[derive(Clone, Copy)]
pub struct ProfilesFn<F>(F);

impl<F, Fut> Profiles for ProfilesFn<F>
where
    F: Fn(Arc<Claims>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, Denial>> + Send + 'static,
{
    fn find(&self, claims: &Arc<Claims>) -> Answer<Result<Principal, Denial>> {
        Answer::later((self.0)(Arc::clone(claims)))
    }
}

impl<F> fmt::Debug for ProfilesFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfilesFn").finish_non_exhaustive()
    }
}
