//! The history of keys and tenants.

use std::{fmt, time::SystemTime};

/// One event of a key or a tenant: who did what, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyEvent {
    /// The generation that the event produced. Increases with every event of a key.
    pub generation: u64,
    /// When it happened.
    pub at: SystemTime,
    /// The name of the [actor](crate::manage::Actor).
    pub actor: Box<str>,
    /// What happened.
    pub action: KeyAction,
    /// The key's identifier, for an event of a key.
    pub key: Option<Box<str>>,
    /// The tenant, or the key's tenant.
    pub tenant: Option<Box<str>>,
    /// [More about the action](KeyAction::detail): `name: build -> deploy`. Never contains a secret.
    pub detail: Box<str>,
}

impl KeyEvent {
    /// An event without key, tenant and detail. Set them afterwards.
    pub fn new(generation: u64, at: SystemTime, actor: impl Into<Box<str>>, action: KeyAction) -> Self {
        Self { generation, at, actor: actor.into(), action, key: None, tenant: None, detail: Box::default() }
    }
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyAction {
    /// A key was issued.
    Issued,
    /// A key was changed.
    Updated,
    /// A key got a new secret.
    Rotated,
    /// A key was revoked.
    Revoked,
    /// A key was deleted.
    Deleted,
    /// A tenant was suspended.
    TenantSuspended,
    /// A tenant was resumed.
    TenantResumed,
    /// The plan of a tenant was changed.
    TenantUpdated,
}

impl KeyAction {
    const ALL: [Self; 8] = [
        Self::Issued,
        Self::Updated,
        Self::Rotated,
        Self::Revoked,
        Self::Deleted,
        Self::TenantSuspended,
        Self::TenantResumed,
        Self::TenantUpdated,
    ];

    /// The name in storage and in output: `issued`, `tenant_suspended`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantResumed => "tenant_resumed",
            Self::TenantUpdated => "tenant_updated",
        }
    }

    /// The action with this [name](Self::as_str); `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

impl fmt::Display for KeyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_parses_its_own_name() {
        for action in KeyAction::ALL {
            assert_eq!(KeyAction::from_name(action.as_str()), Some(action));
        }
        assert_eq!(KeyAction::from_name("ISSUED"), None);
    }
}
