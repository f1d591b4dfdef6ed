//! Managed keys: issuing, changing and listing them, and their history.

mod check;
mod detail;
mod event;
mod key_details;
mod metadata;
mod query;
mod tenant;

use std::{error::Error, fmt, sync::Arc, time::SystemTime};

use crate::{
    answer::Answer, denial::Unavailable, key::Digest, limit::Quota, network::Networks, scope::Scopes,
    verify::Plan,
};

pub use event::{KeyAction, KeyEvent};
pub use key_details::{KeyDetails, KeyState};
pub use metadata::{InvalidMetadata, Metadata};
pub use query::{HistoryQuery, KeyQuery, Page};
pub use tenant::{TenantChange, TenantDetails};

/// A store that can be managed: issues, changes and lists keys, and keeps their history.
///
/// Each change is atomic: the change itself, its [event](KeyEvent) in the history and the notification of listeners happen
/// together or not at all. The caller has validated the request (known scopes, an expiry in the future, the
/// [bounds](Command::check)). The store never receives a secret, only its digest and its display prefix.
///
/// # Tenants are kept apart
///
/// An [actor of a tenant](Actor::of_tenant) must neither see nor change what belongs to others. A store keeps these rules:
///
/// | of | the store |
/// |---|---|
/// | a change of a key that the actor does not [manage](Actor::manages) | changes nothing, and answers [`NotFound`](KeyAdminError::NotFound), as for a key that does not exist |
/// | a new key of a tenant that the actor does not manage | stores nothing, and answers [`NotPermitted`](KeyAdminError::NotPermitted) |
/// | a change of a tenant by an actor of a tenant | changes nothing, and answers [`NotPermitted`](KeyAdminError::NotPermitted) |
/// | a query with a [tenant](KeyQuery::tenant) | returns only keys, or events, of this tenant, also together with an identifier |
///
/// The rule for a change needs the key's tenant *in the statement that makes the change*: `UPDATE .. WHERE id = $1 AND tenant = $2`.
/// A `KeyManager` checks all of this again before and after it calls a store, and the suite in `tollgate-testing` tests it.
pub trait KeyAdmin: Send + Sync + 'static {
    /// Changes a key. Returns the key after the change, or before it if the key was deleted.
    ///
    /// A change without effect, such as revoking a revoked key, is not an error and adds no event.
    ///
    /// # Errors
    /// [`KeyAdminError`]. Nothing was changed, except for `Unavailable`: then the outcome is unknown.
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>>;

    /// Suspends or resumes a tenant, or sets its plan. Affects all its keys, including those issued later. Returns the tenant after
    /// the change.
    ///
    /// # Errors
    /// Like [`change`](Self::change).
    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>>;

    /// Returns the tenant with this name. A tenant that was never changed has no plan and is not suspended.
    ///
    /// # Errors
    /// [`KeyAdminError::Unavailable`].
    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>>;

    /// The keys that match a query, newest first.
    ///
    /// # Errors
    /// [`KeyAdminError::InvalidCursor`] or [`KeyAdminError::Unavailable`].
    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>>;

    /// The events of keys and tenants, latest first.
    ///
    /// # Errors
    /// [`KeyAdminError::InvalidCursor`] or [`KeyAdminError::Unavailable`].
    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>>;
}

impl<S: KeyAdmin + ?Sized> KeyAdmin for Arc<S> {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        (**self).change(command)
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        (**self).change_tenant(command)
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        (**self).tenant(tenant)
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        (**self).list(query)
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        (**self).history(query)
    }
}

/// A change, with its actor and its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Command<C> {
    /// The change.
    pub change: C,
    /// Who makes the change. Recorded in the history.
    pub actor: Actor,
    /// When the change is made.
    pub at: SystemTime,
}

impl<C> Command<C> {
    /// A change that `actor` makes at this instant.
    pub fn new(change: C, actor: Actor, at: SystemTime) -> Self {
        Self { change, actor, at }
    }
}

/// A person or a program that manages keys: either all keys, or those of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    name: Box<str>,
    tenant: Option<Box<str>>,
}

impl Actor {
    /// An actor that manages all keys. The name is recorded in the history: `cli:ada`, `user_17`.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), tenant: None }
    }

    /// An actor that manages the keys of one tenant. It cannot see other keys, and it cannot change a tenant, including its own.
    pub fn of_tenant(name: impl Into<Box<str>>, tenant: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), tenant: Some(tenant.into()) }
    }

    /// The name recorded in the history.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The only tenant whose keys the actor manages; `None` if it manages all keys.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether the actor manages the keys of this tenant. `None`: keys without a tenant.
    pub fn manages(&self, tenant: Option<&str>) -> bool {
        self.tenant.is_none() || self.tenant.as_deref() == tenant
    }
}

/// A change to a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyChange {
    /// Issues a new key. Its name must be unique within its tenant, or among the keys without a tenant. Its digest must be
    /// unique among all keys. Revoked keys keep their names until they are deleted.
    Issue {
        /// The key. Its `status` is ignored: the key is active, or suspended if its tenant is.
        details: Box<KeyDetails>,
        /// The digest of its secret.
        digest: Digest,
    },
    /// Changes the name, scopes, expiry or other details of a key that is not revoked.
    Update {
        /// The key's identifier.
        id: Box<str>,
        /// The new details.
        update: Box<KeyUpdate>,
    },
    /// Gives a new secret to a key that is not revoked. Everything else stays: the identifier, and with it counters, usage and
    /// history.
    Rotate {
        /// The key's identifier.
        id: Box<str>,
        /// The new secret's digest.
        digest: Digest,
        /// The new secret's display prefix.
        display_prefix: Box<str>,
        /// Until when the former secret remains valid. `None`: it ends with this change. A secret that is still valid from an
        /// earlier rotation ends in any case.
        former_until: Option<SystemTime>,
    },
    /// Revokes a key. Its record and its history are kept.
    Revoke {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Deletes a key and its record. Its history is kept.
    Delete {
        /// The key's identifier.
        id: Box<str>,
    },
}

impl KeyChange {
    /// The identifier of the key.
    pub fn id(&self) -> &str {
        match self {
            Self::Issue { details, .. } => &details.id,
            Self::Update { id, .. } | Self::Rotate { id, .. } | Self::Revoke { id } | Self::Delete { id } => {
                id
            }
        }
    }
}

/// New details for a key. A field that is `None` does not change.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeyUpdate {
    /// The name.
    pub name: Option<Box<str>>,
    /// The scopes.
    pub scopes: Option<Scopes>,
    /// The key's own plan; `Some(None)` removes it, so that the tenant's applies.
    pub plan: Option<Option<Plan>>,
    /// The expiry; `Some(None)` removes it.
    pub expires_at: Option<Option<SystemTime>>,
    /// The key's own quotas by policy. They replace all previous ones.
    pub quotas: Option<Vec<(Box<str>, Quota)>>,
    /// The networks from which the key may be used. They replace all previous ones.
    pub allowed_networks: Option<Networks>,
    /// The metadata.
    pub metadata: Option<Metadata>,
}

impl KeyUpdate {
    /// An update without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the name.
    pub fn with_name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Changes the scopes.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// Changes or removes the key's own plan. Without one, its tenant's applies.
    pub fn with_plan(mut self, plan: Option<Plan>) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Changes or removes the expiry. A response body that is already streaming keeps the expiry it started with.
    pub fn with_expiry(mut self, expires_at: Option<SystemTime>) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Changes the key's own quotas by policy. They replace all previous ones.
    pub fn with_quotas(mut self, quotas: Vec<(Box<str>, Quota)>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Changes the networks from which the key may be used. They replace all previous ones. A request or a stream that was
    /// admitted already goes on.
    pub fn with_allowed_networks(mut self, networks: Networks) -> Self {
        self.allowed_networks = Some(networks);
        self
    }

    /// Changes the metadata.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Applies the update.
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
        replace(&mut details.allowed_networks, self.allowed_networks);
        replace(&mut details.metadata, self.metadata);
    }
}

/// The reason why keys could not be changed or listed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyAdminError {
    /// The request is invalid. The message says how to correct it.
    Invalid(Box<str>),
    /// The key does not exist, or the actor does not manage it.
    NotFound,
    /// Another key of the tenant has this name.
    NameTaken,
    /// Another key has this identifier or this secret.
    KeyTaken,
    /// The key is revoked and cannot be changed.
    Revoked,
    /// The actor may not do this.
    NotPermitted,
    /// The cursor is not the `next` of a previous page.
    InvalidCursor,
    /// The store did not answer. Whether the change was made is unknown: check before you try again.
    Unavailable(Unavailable),
}

impl fmt::Display for KeyAdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => f.write_str(reason),
            Self::NotFound => f.write_str("key not found"),
            Self::NameTaken => {
                f.write_str("another key has this name: choose another name, or delete that key")
            }
            Self::KeyTaken => f.write_str("another key has this identifier or this secret"),
            Self::Revoked => f.write_str("the key is revoked and cannot be changed: issue a new one"),
            Self::NotPermitted => f.write_str("an actor of one tenant is not permitted to do this"),
            Self::InvalidCursor => f.write_str("invalid cursor: pass `next` of the previous page unchanged"),
            Self::Unavailable(error) => write!(f, "the key store does not answer: {error}"),
        }
    }
}

impl Error for KeyAdminError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // `Display` has the error itself already.
            Self::Unavailable(error) => error.source(),
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
    fn an_actor_of_one_tenant_manages_only_its_keys() {
        let (all, acme) = (Actor::new("cli"), Actor::of_tenant("ada", "acme"));
        for tenant in [None, Some("acme"), Some("umbrella")] {
            assert!(all.manages(tenant));
            assert_eq!(acme.manages(tenant), tenant == Some("acme"));
        }
    }
}
