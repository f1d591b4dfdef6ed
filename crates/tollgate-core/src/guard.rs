//! The backend trait for an application's own check.

use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use crate::{
    answer::Answer,
    denial::{Denial, DenialKind},
    key::Environment,
    request::RequestHead,
    verify::{Plan, Principal},
};

/// Admits or refuses a request by the application's own rule. [`guard_fn`] makes one from a closure.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline.
pub trait Guard: Send + Sync + 'static {
    /// Decides about a request whose caller is verified.
    ///
    /// # Errors
    /// The denial that the request is refused with: usually [`DenialKind::Forbidden`] with the application's own status, code and
    /// detail, or [`Denial::unavailable`] if a backend does not answer.
    fn check(&self, request: &GuardRequest<'_>) -> Answer<Result<(), Denial>>;
}

impl<G: Guard + ?Sized> Guard for Arc<G> {
    fn check(&self, request: &GuardRequest<'_>) -> Answer<Result<(), Denial>> {
        (**self).check(request)
    }
}

/// A request that a [`Guard`] decides about. An [`Answer::Later`] clones what it needs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GuardRequest<'r> {
    /// The head of the request.
    pub head: RequestHead<'r>,
    /// The caller; `None` if it is anonymous, where anonymous requests are accepted.
    pub principal: Option<&'r Arc<Principal>>,
    /// The caller's plan: the principal's own, or what an outer layer has found.
    pub plan: Option<&'r Arc<Plan>>,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> GuardRequest<'r> {
    /// A request with this head by this caller, whose plan is the principal's.
    pub fn new(head: RequestHead<'r>, principal: Option<&'r Arc<Principal>>, now: SystemTime) -> Self {
        Self { head, principal, plan: principal.and_then(|principal| principal.plan()), now }
    }

    /// The same with another plan.
    pub fn with_plan(self, plan: Option<&'r Arc<Plan>>) -> Self {
        Self { plan, ..self }
    }

    /// The caller, who must not be anonymous.
    ///
    /// # Errors
    /// [`DenialKind::CredentialMissing`], which is a 401, if the caller is anonymous.
    pub fn authenticated(&self) -> Result<&'r Arc<Principal>, Denial> {
        self.principal.ok_or_else(|| Denial::new(DenialKind::CredentialMissing))
    }
}

/// A guard made from a closure that returns a future.
///
/// The closure reads the request and moves what it needs into the future. `?` turns
/// [`Unavailable`](crate::denial::Unavailable) into a denial with the status 503.
///
/// ```
/// use tollgate_core::{
///     denial::{Denial, DenialKind, Unavailable},
///     guard::{GuardRequest, guard_fn},
/// };
///
/// async fn is_member(tenant: &str, project: &str) -> Result<bool, Unavailable> {
///     // asks a database ...
/// #   Ok(!tenant.is_empty() && !project.is_empty())
/// }
///
/// let guard = guard_fn(|request: &GuardRequest<'_>| {
///     let project = request.head.uri.path().split('/').nth(2).unwrap_or_default().to_owned();
///     let caller = request.authenticated().cloned();
///     async move {
///         if is_member(caller?.tenant().unwrap_or_default(), &project).await? {
///             return Ok(());
///         }
///         Err(Denial::new(DenialKind::Forbidden).with_code("other_project"))
///     }
/// });
/// # fn is_guard(_: impl tollgate_core::guard::Guard) {}
/// # is_guard(guard);
/// ```
pub fn guard_fn<F, Fut>(check: F) -> GuardFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Denial>> + Send + 'static,
{
    GuardFn(check)
}

/// A guard made from a closure that answers at once.
///
/// ```
/// use http::Method;
/// use tollgate_core::{
///     denial::{Denial, DenialKind},
///     guard::{GuardRequest, guard_sync_fn},
/// };
///
/// let read_only = guard_sync_fn(|request: &GuardRequest<'_>| match *request.head.method {
///     Method::GET | Method::HEAD => Ok(()),
///     _ => Err(Denial::unavailable("read-only during the migration").with_code("read_only")),
/// });
/// # fn is_guard(_: impl tollgate_core::guard::Guard) {}
/// # is_guard(read_only);
/// ```
pub fn guard_sync_fn<F>(check: F) -> GuardSyncFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Result<(), Denial> + Send + Sync + 'static,
{
    GuardSyncFn(check)
}

/// A guard for routes of one environment: a test key does not reach what is live only. Any other principal is refused with 401, also
/// one that has no environment, and gets the same response as an unknown key
/// ([`WrongEnvironment`](DenialKind::WrongEnvironment)).
///
/// ```
/// use tollgate_core::{guard::only_environment, key::Environment};
///
/// let guard = only_environment(Environment::Live);
/// # fn is_guard(_: impl tollgate_core::guard::Guard) {}
/// # is_guard(guard);
/// ```
pub fn only_environment(environment: Environment) -> impl Guard + Copy + fmt::Debug {
    guard_sync_fn(move |request: &GuardRequest<'_>| match request.authenticated()?.environment() {
        Some(own) if own == environment => Ok(()),
        _ => Err(Denial::new(DenialKind::WrongEnvironment)),
    })
}

/// What [`guard_fn`] returns.
#[derive(Clone, Copy)]
pub struct GuardFn<F>(F);

impl<F, Fut> Guard for GuardFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Denial>> + Send + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Answer<Result<(), Denial>> {
        Answer::later((self.0)(request))
    }
}

/// What [`guard_sync_fn`] returns.
#[derive(Clone, Copy)]
pub struct GuardSyncFn<F>(F);

impl<F> Guard for GuardSyncFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Result<(), Denial> + Send + Sync + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Answer<Result<(), Denial>> {
        Answer::Now((self.0)(request))
    }
}

impl<F> fmt::Debug for GuardFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFn").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for GuardSyncFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardSyncFn").finish_non_exhaustive()
    }
}
