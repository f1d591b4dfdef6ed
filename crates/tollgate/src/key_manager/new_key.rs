//! A request for a new key.

use std::time::SystemTime;

use tollgate_core::{
    key::Environment,
    limit::Quota,
    manage::{KeyDetails, Metadata},
    network::Networks,
    scope::Scopes,
    verify::Plan,
};

use super::truncate;

/// A request for a new key: its name and what it may do.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate::{Environment, PerWindow, Plan, Scopes, manage::NewKey};
///
/// let in_a_month = SystemTime::now() + Duration::from_secs(30 * 24 * 60 * 60);
/// let key = NewKey::named("nightly build")
///     .with_tenant("acme")
///     .with_scopes(Scopes::new(["jobs:read"])?)
///     .with_plan(Plan::active("pro"))
///     .with_environment(Environment::Test)
///     .with_expiry(in_a_month)
///     .with_quota("default", 600.per_minute());
/// # let _ = key;
/// # Ok::<(), tollgate::scope::InvalidScope>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "this does not issue a key: pass it to `KeyManager::issue`"]
pub struct NewKey(KeyDetails);

impl NewKey {
    /// A live key with this name, without scopes, plan and expiry. A name has 1 to 100 characters without control characters.
    pub fn named(name: impl Into<Box<str>>) -> Self {
        Self(KeyDetails::new("", name, SystemTime::UNIX_EPOCH))
    }

    /// Sets the organization or account that owns the key.
    pub fn with_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.0.tenant = Some(tenant.into());
        self
    }

    /// Sets the scopes.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.0.scopes = scopes;
        self
    }

    /// Sets a plan of the key's own, which replaces that of its tenant.
    pub fn with_plan(mut self, plan: Plan) -> Self {
        self.0.plan = Some(plan);
        self
    }

    /// Sets the environment: live or test. Default: live.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.0.environment = environment;
        self
    }

    /// Sets the role within the tenant, defined by the application.
    pub fn with_role(mut self, role: impl Into<Box<str>>) -> Self {
        self.0.role = Some(role.into());
        self
    }

    /// Sets the expiry: the instant from which the key is refused. Must be in the future.
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.0.expires_at = Some(truncate(expires_at));
        self
    }

    /// Sets the key's own quota for a policy, which replaces the policy's quota.
    pub fn with_quota(mut self, policy: impl Into<Box<str>>, quota: Quota) -> Self {
        let policy = policy.into();
        self.0.quotas.retain(|(name, _)| *name != policy);
        self.0.quotas.push((policy, quota));
        self
    }

    /// Sets the networks from which the key may be used. Default: anywhere.
    pub fn with_allowed_networks(mut self, networks: Networks) -> Self {
        self.0.allowed_networks = networks;
        self
    }

    /// Sets the application's own data.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The requested scopes. If there are none, the manager uses its default scopes.
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// The networks from which the key may be used.
    pub fn allowed_networks(&self) -> &Networks {
        &self.0.allowed_networks
    }

    /// The expiry.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at
    }

    pub(super) fn into_details(self, id: String, now: SystemTime) -> KeyDetails {
        let mut details = self.0;
        details.id = id.into();
        details.created_at = now;
        details
    }
}
