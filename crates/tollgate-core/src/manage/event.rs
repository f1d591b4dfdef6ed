//! What happened to keys and tenants.

use std::{fmt, time::SystemTime};

/// One thing that happened to a key or a tenant: who, when, what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyEvent {
    /// The generation that it made: rises from event to event of one key.
    pub generation: u64,
    /// When.
    pub at: SystemTime,
    /// Who: an [actor](crate::manage::Actor)'s name.
    pub actor: Box<str>,
    /// What.
    pub action: KeyAction,
    /// The key's identifier, if it happened to a key.
    pub key: Option<Box<str>>,
    /// The tenant, or the key's tenant.
    pub tenant: Option<Box<str>>,
    /// What the action [does not tell](KeyAction::detail): `name: build -> deploy`. Never a secret.
    pub detail: Box<str>,
}

impl KeyEvent {
    /// An event of a key or a tenant, which are put in afterwards.
    pub fn new(generation: u64, at: SystemTime, actor: impl Into<Box<str>>, action: KeyAction) -> Self {
        Self { generation, at, actor: actor.into(), action, key: None, tenant: None, detail: Box::default() }
    }
}

/// What can happen to a key or a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyAction {
    /// A key was issued.
    Issued,
    /// A key was changed.
    Updated,
    /// A key got another secret.
    Rotated,
    /// A key was revoked.
    Revoked,
    /// A key was deleted.
    Deleted,
    /// A tenant was suspended.
    TenantSuspended,
    /// A tenant was resumed.
    TenantResumed,
}

impl KeyAction {
    const ALL: [Self; 7] = [
        Self::Issued,
        Self::Updated,
        Self::Rotated,
        Self::Revoked,
        Self::Deleted,
        Self::TenantSuspended,
        Self::TenantResumed,
    ];

    /// The word by which it is stored and shown: `issued`, `tenant_suspended`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantResumed => "tenant_resumed",
        }
    }

    /// The action that [`as_str`](Self::as_str) writes so; `None` for another word.
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
    fn every_action_reads_its_own_name() {
        for action in KeyAction::ALL {
            assert_eq!(KeyAction::from_name(action.as_str()), Some(action));
        }
        assert_eq!(KeyAction::from_name("ISSUED"), None);
    }
}
