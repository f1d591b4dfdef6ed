//! Managed keys: how they are issued, changed, listed, and what their history holds.

mod detail;
mod event;
mod key_details;
mod metadata;
mod query;

use std::{error::Error, fmt, sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Unavailable, key::Digest, limit::Quota, scope::Scopes, verify::Plan};

pub use event::{KeyAction, KeyEvent};
pub use key_details::{KeyDetails, KeyState};
pub use metadata::{InvalidMetadata, Metadata};
pub use query::{HistoryQuery, KeyQuery, Page};

/// Keeps keys: issues, changes, lists and remembers.
///
/// Whoever implements it stores what it is given, all or nothing: a change, its [event](KeyEvent) in the history, and the
/// news of it are one. What may be stored (which scopes there are, that an expiry lies ahead) was checked before, and the
/// secret never comes here: only its digest and its display prefix.
pub trait KeyAdmin: Send + Sync + 'static {
    /// Makes a change to a key, and gives the key as it is then; as it was, if it was deleted.
    ///
    /// Revoking a key that is revoked, and whatever else changes nothing, is no error and no event.
    ///
    /// # Errors
    /// [`KeyAdminError`]. Nothing was changed then, unless it is `Unavailable`, where nobody knows.
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>>;

    /// Suspends or resumes a tenant: all its keys, those issued later included. Revoked keys stay revoked.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<(), KeyAdminError>>;

    /// The keys that a query asks for, the newest first.
    ///
    /// # Errors
    /// [`KeyAdminError::InvalidCursor`] or [`KeyAdminError::Unavailable`].
    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>>;

    /// What happened to keys and tenants, the latest first.
    ///
    /// # Errors
    /// [`KeyAdminError::InvalidCursor`] or [`KeyAdminError::Unavailable`].
    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>>;
}

impl<S: KeyAdmin + ?Sized> KeyAdmin for Arc<S> {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        (**self).change(command)
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<(), KeyAdminError>> {
        (**self).change_tenant(command)
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        (**self).list(query)
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        (**self).history(query)
    }
}

/// A change, with who orders it and when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Command<C> {
    /// What is to be changed.
    pub change: C,
    /// Who says so: named in the history.
    pub actor: Actor,
    /// When.
    pub at: SystemTime,
}

impl<C> Command<C> {
    /// A change that `actor` orders at this instant.
    pub fn new(change: C, actor: Actor, at: SystemTime) -> Self {
        Self { change, actor, at }
    }
}

/// Who manages keys: a person, a program, and whether all keys are theirs to manage, or those of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    name: Box<str>,
    tenant: Option<Box<str>>,
}

impl Actor {
    /// Somebody who manages all keys. The name stands in the history: `cli:ada`, `user_17`.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), tenant: None }
    }

    /// Somebody who manages one tenant's keys. All others do not exist for them, and they can neither suspend nor resume a
    /// tenant, their own included.
    pub fn of_tenant(name: impl Into<Box<str>>, tenant: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), tenant: Some(tenant.into()) }
    }

    /// The name that stands in the history.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The only tenant whose keys they manage; `None` if they manage all.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether they manage the keys of this tenant (`None`: of nobody's).
    pub fn manages(&self, tenant: Option<&str>) -> bool {
        self.tenant.is_none() || self.tenant.as_deref() == tenant
    }
}

/// What is to be done to a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyChange {
    /// There is a new key. Its name is no other's within its tenant, or among the keys of no tenant; its digest no other's
    /// at all. Revoked keys keep their names until they are deleted.
    Issue {
        /// The key. Its status is of no account: it is active, or suspended with its tenant.
        details: Box<KeyDetails>,
        /// The digest of its secret.
        digest: Digest,
    },
    /// A key that is not revoked gets another name, other scopes, another expiry.
    Update {
        /// Which key.
        id: Box<str>,
        /// What becomes of it.
        update: Box<KeyUpdate>,
    },
    /// A key that is not revoked gets another secret. Everything else stays as it is: the identifier, and thereby its counters,
    /// its usage, its history.
    Rotate {
        /// Which key.
        id: Box<str>,
        /// The new secret's digest.
        digest: Digest,
        /// The new secret's display prefix.
        display_prefix: Box<str>,
        /// Until when the former secret is good, too; `None`: it ends with this change. A secret that was still good from
        /// an earlier rotation ends in any case.
        former_until: Option<SystemTime>,
    },
    /// A key ends. Its record and its history are kept.
    Revoke {
        /// Which key.
        id: Box<str>,
    },
    /// A key ends and its record goes. Its history is kept.
    Delete {
        /// Which key.
        id: Box<str>,
    },
}

/// What is to become of a key: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeyUpdate {
    /// Its name.
    pub name: Option<Box<str>>,
    /// Its scopes.
    pub scopes: Option<Scopes>,
    /// Its plan; `Some(None)`: none.
    pub plan: Option<Option<Plan>>,
    /// Its expiry; `Some(None)`: never.
    pub expires_at: Option<Option<SystemTime>>,
    /// Its own quotas, by policy, in place of all it had.
    pub quotas: Option<Vec<(Box<str>, Quota)>>,
    /// Its metadata.
    pub metadata: Option<Metadata>,
}

impl KeyUpdate {
    /// Nothing changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another name.
    pub fn with_name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Other scopes.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// Another plan, or none.
    pub fn with_plan(mut self, plan: Option<Plan>) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Another expiry, or none. What is being streamed under a key goes on until the expiry that it began with.
    pub fn with_expiry(mut self, expires_at: Option<SystemTime>) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Other quotas of its own, by policy, in place of all it had.
    pub fn with_quotas(mut self, quotas: Vec<(Box<str>, Quota)>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Other metadata.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Makes the change.
    pub fn apply(self, details: &mut KeyDetails) {
        fn replace<T>(own: &mut T, new: Option<T>) {
            if let Some(new) = new {
                *own = new;
            }
        }
        replace(&mut details.name, self.name);
        replace(&mut details.scopes, self.scopes);
        replace(&mut details.plan, self.plan);
        replace(&mut details.expires_at, self.expires_at);
        replace(&mut details.quotas, self.quotas);
        replace(&mut details.metadata, self.metadata);
    }
}

/// What is to be done to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TenantChange {
    /// All its keys are refused, those issued later included. One that has no keys yet can be suspended, too.
    Suspend {
        /// The tenant.
        tenant: Box<str>,
    },
    /// Its keys are good again, but for those that were revoked.
    Resume {
        /// The tenant.
        tenant: Box<str>,
    },
}

impl TenantChange {
    /// The tenant.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Suspend { tenant } | Self::Resume { tenant } => tenant,
        }
    }

    /// Whether it is to be suspended.
    pub fn suspends(&self) -> bool {
        matches!(self, Self::Suspend { .. })
    }
}

/// Why keys could not be changed or listed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyAdminError {
    /// What was asked for makes no sense. The sentence says what to do.
    Invalid(Box<str>),
    /// There is no such key, or none that the actor manages.
    NotFound,
    /// Another key of the tenant has this name.
    NameTaken,
    /// Another key has this identifier or this secret.
    KeyTaken,
    /// The key is revoked, and cannot be changed any more.
    Revoked,
    /// The actor may not do this.
    NotPermitted,
    /// The list cannot go on there: what the page before said was not passed on as it was.
    InvalidCursor,
    /// The store did not answer. Whether it made the change is not known: look before trying again.
    Unavailable(Unavailable),
}

impl fmt::Display for KeyAdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => f.write_str(reason),
            Self::NotFound => f.write_str("there is no such key"),
            Self::NameTaken => {
                f.write_str("there is a key of this name already: choose another, or delete that one")
            }
            Self::KeyTaken => f.write_str("another key has this identifier or this secret"),
            Self::Revoked => {
                f.write_str("the key is revoked and cannot be changed any more: issue a new one")
            }
            Self::NotPermitted => f.write_str("whoever manages one tenant's keys may not do this"),
            Self::InvalidCursor => {
                f.write_str("the list cannot go on there: pass on `next` as the page before gave it")
            }
            Self::Unavailable(error) => write!(f, "the key store does not answer: {error}"),
        }
    }
}

impl Error for KeyAdminError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Unavailable> for KeyAdminError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_of_one_tenant_manages_nobody_elses_keys() {
        let (all, acme) = (Actor::new("cli"), Actor::of_tenant("ada", "acme"));
        for tenant in [None, Some("acme"), Some("umbrella")] {
            assert!(all.manages(tenant));
            assert_eq!(acme.manages(tenant), tenant == Some("acme"));
        }
    }
}
