//! Everything about a key except its secret.

use std::time::SystemTime;

use crate::{
    key::Environment,
    limit::Quota,
    manage::Metadata,
    network::Networks,
    scope::Scopes,
    store::{EndReason, EndSignal, KeyStatus},
    verify::{Plan, Principal},
};

/// Everything about a key except its secret. Lists show it, and a principal is built from it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyDetails {
    /// The identifier of the key and of its principal. Not a secret.
    pub id: Box<str>,
    /// A name chosen by its owner.
    pub name: Box<str>,
    /// The beginning of its secret; after a rotation, of the new secret.
    pub display_prefix: Box<str>,
    /// The organization or account that owns it.
    pub tenant: Option<Box<str>>,
    /// The granted scopes.
    pub scopes: Scopes,
    /// The key's own plan. It replaces that of its tenant: see [`effective_plan`](Self::effective_plan).
    pub plan: Option<Plan>,
    /// The [plan of its tenant](crate::manage::TenantDetails::plan). Ignored when a key is issued.
    pub tenant_plan: Option<Plan>,
    /// Whether it acts on live or test data.
    pub environment: Environment,
    /// The role within the tenant, defined by the application.
    pub role: Option<Box<str>>,
    /// The key's own quotas by policy name. They replace the quotas of those policies.
    pub quotas: Vec<(Box<str>, Quota)>,
    /// The networks from which it may be used.
    pub allowed_networks: Networks,
    /// The application's own data.
    pub metadata: Metadata,
    /// Whether the key is revoked or its tenant suspended.
    pub status: KeyStatus,
    /// When it was issued.
    pub created_at: SystemTime,
    /// The instant from which it is refused. `None`: it does not expire.
    pub expires_at: Option<SystemTime>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
    /// When it was last used, according to the usage flushed so far.
    pub last_used_at: Option<SystemTime>,
    /// Until when the former secret remains valid, after a rotation with an overlap.
    pub former_until: Option<SystemTime>,
    /// The version of this record. A higher number is newer.
    pub generation: u64,
}

impl KeyDetails {
    /// A live, active key without scopes, plan and expiry. Set other fields afterwards.
    pub fn new(id: impl Into<Box<str>>, name: impl Into<Box<str>>, created_at: SystemTime) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            display_prefix: Box::default(),
            tenant: None,
            scopes: Scopes::none(),
            plan: None,
            tenant_plan: None,
            environment: Environment::Live,
            role: None,
            quotas: Vec::new(),
            allowed_networks: Networks::anywhere(),
            metadata: Metadata::none(),
            status: KeyStatus::Active,
            created_at,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            former_until: None,
            generation: 0,
        }
    }

    /// The length of its texts in bytes, which is nearly all that it takes to store it.
    pub fn text_bytes(&self) -> usize {
        let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let scopes: usize = self.scopes.iter().map(|scope| scope.as_str().len() + 1).sum();
        let quotas: usize =
            self.quotas.iter().map(|(policy, quota)| policy.len() + quota.to_string().len()).sum();
        let networks = 43 * self.allowed_networks.iter().count();
        let plan = self.effective_plan().map_or(0, |plan| plan.tier().len());
        let metadata = if self.metadata.is_empty() { 0 } else { self.metadata.to_string().len() };
        let short = self.id.len() + self.name.len() + self.display_prefix.len();
        short + length(&self.tenant) + length(&self.role) + scopes + quotas + plan + networks + metadata
    }

    /// The plan that applies to the key: its own, or else its tenant's.
    pub fn effective_plan(&self) -> Option<&Plan> {
        self.plan.as_ref().or(self.tenant_plan.as_ref())
    }

    /// Why the key is invalid at `now`, or `None` if it is valid.
    pub fn ended(&self, now: SystemTime) -> Option<EndReason> {
        let is_expired = self.expires_at.is_some_and(|expires_at| expires_at <= now);
        match self.status {
            KeyStatus::Revoked => Some(EndReason::Revoked),
            _ if is_expired => Some(EndReason::Expired),
            KeyStatus::TenantSuspended => Some(EndReason::TenantSuspended),
            KeyStatus::Active => None,
        }
    }

    /// The key's state at `now`.
    pub fn state(&self, now: SystemTime) -> KeyState {
        match self.ended(now) {
            None => KeyState::Active,
            Some(EndReason::Expired) => KeyState::Expired,
            Some(EndReason::TenantSuspended) => KeyState::Suspended,
            Some(EndReason::Revoked) => KeyState::Revoked,
        }
    }

    /// The principal of this key, with the [plan that applies](Self::effective_plan) and `signal` as its end signal. Metadata,
    /// if present, becomes an [extension](Principal::extension) of the principal.
    pub fn to_principal(&self, signal: EndSignal) -> Principal {
        let mut principal = Principal::new(self.id.clone())
            .with_scopes(self.scopes.clone())
            .with_plan(self.effective_plan().cloned())
            .with_allowed_networks(self.allowed_networks.clone())
            .with_environment(self.environment)
            .with_end_signal(signal);
        if let Some(tenant) = &self.tenant {
            principal = principal.with_tenant(tenant.clone());
        }
        if let Some(role) = &self.role {
            principal = principal.with_role(role.clone());
        }
        if let Some(expires_at) = self.expires_at {
            principal = principal.with_expiry(expires_at);
        }
        if !self.metadata.is_empty() {
            principal = principal.with_extension(self.metadata.clone());
        }
        self.quotas
            .iter()
            .fold(principal, |principal, (policy, quota)| principal.with_quota(policy.clone(), quota.clone()))
    }
}

/// The state of a key at some instant, as lists show it.
///
/// In contrast to the stored [status](KeyStatus), it depends on the time: a key can be expired.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tollgate_core::{
///     manage::{KeyDetails, KeyState},
///     store::KeyStatus,
/// };
///
/// let mut key = KeyDetails::new("key_1", "build", UNIX_EPOCH);
/// key.expires_at = Some(UNIX_EPOCH + Duration::from_secs(60));
/// assert_eq!(key.state(UNIX_EPOCH).as_str(), "active");
/// assert_eq!(key.state(UNIX_EPOCH + Duration::from_secs(60)), KeyState::Expired);
/// assert_eq!(KeyState::from_name("suspended").and_then(KeyState::status), Some(KeyStatus::TenantSuspended));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// The key is valid.
    Active,
    /// The key's expiry has passed.
    Expired,
    /// The key was revoked.
    Revoked,
    /// The key's tenant is suspended.
    Suspended,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Expired, Self::Revoked, Self::Suspended];

    /// The name of the state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
        }
    }

    /// The state with this [name](Self::as_str); `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The stored status of all keys in this state, for a query. `None` if keys of any status can be in it.
    pub const fn status(self) -> Option<KeyStatus> {
        match self {
            Self::Active => Some(KeyStatus::Active),
            Self::Revoked => Some(KeyStatus::Revoked),
            Self::Suspended => Some(KeyStatus::TenantSuspended),
            Self::Expired => None,
        }
    }
}
