//! A key that is wanted.

use std::time::SystemTime;

use tollgate_core::{
    key::Environment,
    limit::Quota,
    manage::{KeyDetails, Metadata},
    scope::Scopes,
    verify::Plan,
};

use super::truncate;

/// A key that is wanted: its name, and what it may do.
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
#[must_use = "it is wanted, and nobody has issued it"]
pub struct NewKey(KeyDetails);

impl NewKey {
    /// A live key of this name without scopes, plan and expiry: 1 to 100 characters, none of them control characters.
    pub fn named(name: impl Into<Box<str>>) -> Self {
        Self(KeyDetails::new("", name, SystemTime::UNIX_EPOCH))
    }

    /// The organization or account that owns it.
    pub fn with_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.0.tenant = Some(tenant.into());
        self
    }

    /// What it may do.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.0.scopes = scopes;
        self
    }

    /// What was bought.
    pub fn with_plan(mut self, plan: Plan) -> Self {
        self.0.plan = Some(plan);
        self
    }

    /// Whether it acts on live or on test data.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.0.environment = environment;
        self
    }

    /// Its role within the tenant, a word of the application's own.
    pub fn with_role(mut self, role: impl Into<Box<str>>) -> Self {
        self.0.role = Some(role.into());
        self
    }

    /// The instant from which it is refused: later than now.
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.0.expires_at = Some(truncate(expires_at));
        self
    }

    /// A quota of its own, which takes the place of that of the policy with this name.
    pub fn with_quota(mut self, policy: impl Into<Box<str>>, quota: Quota) -> Self {
        let policy = policy.into();
        self.0.quotas.retain(|(name, _)| *name != policy);
        self.0.quotas.push((policy, quota));
        self
    }

    /// Data of the application's own.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The scopes that are asked for. Where there are none, the manager gives its default ones.
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// The instant from which it is refused.
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
