//! What there is to know of a key, but for its secret.

use std::time::SystemTime;

use crate::{
    key::Environment,
    limit::Quota,
    manage::Metadata,
    scope::Scopes,
    store::{EndReason, EndSignal, KeyStatus},
    verify::{Plan, Principal},
};

/// Everything about a key but its secret: what lists show, and what a principal is made of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyDetails {
    /// Its identifier, which its principal has, too. No secret.
    pub id: Box<str>,
    /// What its owner calls it.
    pub name: Box<str>,
    /// How its secret begins; of the new one, after a rotation.
    pub display_prefix: Box<str>,
    /// The organization or account that owns it.
    pub tenant: Option<Box<str>>,
    /// What it may do.
    pub scopes: Scopes,
    /// What was bought.
    pub plan: Option<Plan>,
    /// Whether it acts on live or on test data.
    pub environment: Environment,
    /// Its role within the tenant, a word of the application's own.
    pub role: Option<Box<str>>,
    /// Quotas of its own, which take the place of the quotas of the policies with these names.
    pub quotas: Vec<(Box<str>, Quota)>,
    /// Data of the application's own.
    pub metadata: Metadata,
    /// Whether it was revoked, or its tenant is suspended.
    pub status: KeyStatus,
    /// When it was issued.
    pub created_at: SystemTime,
    /// The instant from which it is refused.
    pub expires_at: Option<SystemTime>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
    /// When it was last used, as far as that was flushed.
    pub last_used_at: Option<SystemTime>,
    /// Until when its former secret is good, too, after a rotation with an overlap.
    pub former_until: Option<SystemTime>,
    /// Which state of the key this is: higher is newer.
    pub generation: u64,
}

impl KeyDetails {
    /// A live key without scopes, plan and expiry. What else there is to it is put in afterwards.
    pub fn new(id: impl Into<Box<str>>, name: impl Into<Box<str>>, created_at: SystemTime) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            display_prefix: Box::default(),
            tenant: None,
            scopes: Scopes::none(),
            plan: None,
            environment: Environment::Live,
            role: None,
            quotas: Vec::new(),
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

    /// Why it has ended as of `now`, or `None` while it is good.
    pub fn ended(&self, now: SystemTime) -> Option<EndReason> {
        let is_expired = self.expires_at.is_some_and(|expires_at| expires_at <= now);
        match self.status {
            KeyStatus::Revoked => Some(EndReason::Revoked),
            _ if is_expired => Some(EndReason::Expired),
            KeyStatus::TenantSuspended => Some(EndReason::TenantSuspended),
            KeyStatus::Active => None,
        }
    }

    /// Whether it is good as of `now`, in one word.
    pub fn state(&self, now: SystemTime) -> KeyState {
        match self.ended(now) {
            None => KeyState::Active,
            Some(EndReason::Expired) => KeyState::Expired,
            Some(EndReason::TenantSuspended) => KeyState::Suspended,
            Some(EndReason::Revoked) => KeyState::Revoked,
        }
    }

    /// Whom the key proves, to be ended by this signal. Metadata, if there is any, is the principal's
    /// [extension](Principal::extension).
    pub fn to_principal(&self, signal: EndSignal) -> Principal {
        let mut principal = Principal::new(self.id.clone())
            .with_scopes(self.scopes.clone())
            .with_environment(self.environment)
            .with_end_signal(signal);
        if let Some(tenant) = &self.tenant {
            principal = principal.with_tenant(tenant.clone());
        }
        if let Some(plan) = &self.plan {
            principal = principal.with_plan(plan.clone());
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

/// Whether a key is good at some instant, in the one word that lists show.
///
/// A store knows a key's [status](KeyStatus); whether it has expired is a matter of the moment.
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
    /// It is good.
    Active,
    /// Its expiry has passed.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its tenant is suspended.
    Suspended,
}

impl KeyState {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Active, Self::Expired, Self::Revoked, Self::Suspended];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
        }
    }

    /// The standing that [`as_str`](Self::as_str) writes so; `None` for another word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The status under which a store lists all keys of this standing, among others; `None` if that may be any.
    pub const fn status(self) -> Option<KeyStatus> {
        match self {
            Self::Active => Some(KeyStatus::Active),
            Self::Revoked => Some(KeyStatus::Revoked),
            Self::Suspended => Some(KeyStatus::TenantSuspended),
            Self::Expired => None,
        }
    }
}
