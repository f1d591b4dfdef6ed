//! The principal of a request: the caller that a credential belongs to.

use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use http::Extensions;

use crate::{
    key::Environment,
    limit::{CounterPlace, Quota},
    network::Networks,
    scope::Scopes,
    store::{EndReason, EndSignal},
};

/// The caller that a credential belongs to, and what the owner of the API knows about it.
///
/// ```
/// use tollgate_core::{
///     key::Environment, limit::PerWindow, scope::Scopes,
///     verify::{Plan, Principal},
/// };
///
/// #[derive(Clone)]
/// struct Region(&'static str); // the application's own data
///
/// let principal = Principal::new("key_8f3a")
///     .with_tenant("acme")
///     .with_scopes(Scopes::new(["jobs:read", "results:read"])?)
///     .with_plan(Plan::active("pro"))
///     .with_environment(Environment::Live)
///     .with_quota("default", 600.per_minute())
///     .with_extension(Region("eu"));
///
/// assert!(principal.scopes().grants("jobs:read"));
/// assert_eq!(principal.extension::<Region>().map(|region| region.0), Some("eu"));
/// # Ok::<(), tollgate_core::scope::InvalidScope>(())
/// ```
#[derive(Clone)]
pub struct Principal {
    id: Box<str>,
    tenant: Option<Box<str>>,
    scopes: Scopes,
    plan: Option<Arc<Plan>>,
    environment: Option<Environment>,
    role: Option<Box<str>>,
    quotas: Vec<(Box<str>, Quota)>,
    allowed_networks: Networks,
    expires_at: Option<SystemTime>,
    end: EndSignal,
    extensions: Extensions,
    // Depends on the identifier and the tenant.
    counter_place: CounterPlace,
}

impl Principal {
    /// A principal without scopes, plan or expiry. `id` is the identifier of its key, or of its session or subject.
    ///
    /// The identifier must not be a secret, since it appears in logs. It must be unique, since requests are counted by it.
    pub fn new(id: impl Into<Box<str>>) -> Self {
        Self {
            id: id.into(),
            tenant: None,
            scopes: Scopes::none(),
            plan: None,
            environment: None,
            role: None,
            quotas: Vec::new(),
            allowed_networks: Networks::anywhere(),
            expires_at: None,
            end: EndSignal::new(),
            extensions: Extensions::new(),
            counter_place: CounterPlace::new(),
        }
    }

    /// The organization or account that owns the key.
    pub fn with_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self.counter_place = CounterPlace::new();
        self
    }

    /// What it may do.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// The plan that its tenant has bought, or one of its key's own. `None` removes it. A plan with an empty name is no plan.
    pub fn with_plan(mut self, plan: impl Into<Option<Plan>>) -> Self {
        self.plan = plan.into().filter(|plan| !plan.is_unnamed()).map(Arc::new);
        self
    }

    /// Whether it acts on live or on test data.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Its role within the tenant: any word of the application's.
    pub fn with_role(mut self, role: impl Into<Box<str>>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// A quota of its own, which replaces that of the policy with this name.
    pub fn with_quota(mut self, policy: impl Into<Box<str>>, quota: Quota) -> Self {
        self.quotas.push((policy.into(), quota));
        self
    }

    /// The networks from which it may be used. Default: anywhere.
    ///
    /// `VerifyLayer` refuses it elsewhere, and needs the client's address for that. A principal that an application has
    /// authenticated itself is not checked.
    pub fn with_allowed_networks(mut self, networks: Networks) -> Self {
        self.allowed_networks = networks;
        self
    }

    /// The instant from which it is refused.
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Replaces the signal by which its store ends it.
    pub fn with_end_signal(mut self, signal: EndSignal) -> Self {
        self.end = signal;
        self
    }

    /// Adds a value of the application's, one for each type.
    pub fn with_extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// Adds the application's values of another principal.
    pub fn with_extensions_of(mut self, other: &Self) -> Self {
        self.extensions.extend(other.extensions.clone());
        self
    }

    /// The identifier of its key, session or subject.
    #[inline]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The organization or account that owns the key.
    #[inline]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// What it may do.
    #[inline]
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// The plan that its tenant has bought, or one of its key's own, if the verifier knows it.
    #[inline]
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// Whether it acts on live or on test data.
    #[inline]
    pub fn environment(&self) -> Option<Environment> {
        self.environment
    }

    /// Its role within the tenant.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// Its own quota for a policy, if it has one.
    #[inline]
    pub fn quota(&self, policy: &str) -> Option<&Quota> {
        self.quotas.iter().rev().find(|(name, _)| **name == *policy).map(|(_, quota)| quota)
    }

    /// Its own quotas by policy, in the order in which they were added.
    pub fn quotas(&self) -> &[(Box<str>, Quota)] {
        &self.quotas
    }

    /// The networks from which it may be used.
    #[inline]
    pub fn allowed_networks(&self) -> &Networks {
        &self.allowed_networks
    }

    /// The instant from which it is refused.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// The application's value of this type.
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// Why it has ended as of `now`; `None` if it has not. It has expired from the instant of its expiry on.
    #[inline]
    pub fn ended(&self, now: SystemTime) -> Option<EndReason> {
        let is_expired = self.expires_at.is_some_and(|expires_at| expires_at <= now);
        match self.end.reason() {
            // Only the owner of a valid key may learn that its tenant is suspended.
            None | Some(EndReason::TenantSuspended) if is_expired => Some(EndReason::Expired),
            reason => reason,
        }
    }

    /// Waits until its store ends it, on any runtime: streams are closed by this. An expiry sends no signal, so use a timer on
    /// [`expires_at`](Self::expires_at) as well.
    pub fn wait_until_ended(&self) -> impl Future<Output = EndReason> + Send + Sync + use<> {
        self.end.wait()
    }

    /// The place of the counters that count by this principal's identifier, in the group of its tenant.
    #[inline]
    pub fn counter_place(&self) -> &CounterPlace {
        &self.counter_place
    }

    /// The signal by which its store ends it.
    pub fn end_signal(&self) -> &EndSignal {
        &self.end
    }
}

impl fmt::Debug for Principal {
    /// Hides the extensions, since the application's values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .field("plan", &self.plan)
            .field("environment", &self.environment)
            .field("role", &self.role)
            .field("quotas", &self.quotas)
            .field("allowed_networks", &self.allowed_networks)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The plan that a tenant has bought, and whether it is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    tier: Box<str>,
    is_active: bool,
}

impl Plan {
    /// An active plan of this tier. An empty name, or one of spaces, is no plan: it is never active.
    pub fn active(tier: impl Into<Box<str>>) -> Self {
        let mut plan = Self::lapsed(tier);
        plan.is_active = !plan.is_unnamed();
        plan
    }

    /// A plan of this tier that has lapsed or was cancelled.
    pub fn lapsed(tier: impl Into<Box<str>>) -> Self {
        Self { tier: tier.into(), is_active: false }
    }

    /// The tier's name.
    #[inline]
    pub fn tier(&self) -> &str {
        &self.tier
    }

    /// Whether the plan is active.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    fn is_unnamed(&self) -> bool {
        self.tier.trim().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn ends_at_its_expiry_and_not_before() {
        let expires_at = UNIX_EPOCH + Duration::from_secs(100);
        let principal = Principal::new("key").with_expiry(expires_at);
        assert_eq!(principal.ended(expires_at - Duration::from_nanos(1)), None);
        assert_eq!(principal.ended(expires_at), Some(EndReason::Expired));
    }

    #[test]
    fn an_expiry_precedes_a_suspension_and_a_revocation_precedes_both() {
        for (signal, expected) in
            [(EndReason::TenantSuspended, EndReason::Expired), (EndReason::Revoked, EndReason::Revoked)]
        {
            let principal = Principal::new("key").with_expiry(UNIX_EPOCH);
            principal.end_signal().end(signal);
            assert_eq!(principal.ended(UNIX_EPOCH), Some(expected));
        }
    }

    #[test]
    fn debug_hides_the_values_of_the_application() {
        #[derive(Clone, Debug)]
        #[expect(dead_code, reason = "only its Debug matters")]
        struct Secret(&'static str);
        let principal = Principal::new("key").with_extension(Secret("hunter2"));
        assert!(!format!("{principal:?}").contains("hunter2"));
    }
}
