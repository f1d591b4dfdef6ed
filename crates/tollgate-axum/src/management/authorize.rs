//! Authorization, implemented by the application.

use std::{fmt, future::Future};

use http::request::Parts;
use tollgate::{
    Answer, Denial,
    manage::{Actor, KeyUpdate, NewKey},
};

/// Authorizes a request: determines who sends it and what they may do.
///
/// Implemented by async functions of the request's head and the action that return an [`Actor`] or a [`Grant`]. A function that
/// needs state of the application, such as its sessions, captures a clone of it:
///
/// ```
/// use axum::http::request::Parts;
/// use tollgate::{
///     Denial,
///     manage::{Actor, KeyManager},
/// };
/// use tollgate_axum::management::{Action, KeyRouter};
///
/// # #[derive(Clone)] struct Sessions;
/// # impl Sessions { async fn actor(&self, _head: &Parts) -> Result<Actor, Denial> { Ok(Actor::new("ada")) } }
/// fn routes(manager: KeyManager, sessions: Sessions) -> axum::Router {
///     let authorize = move |head: Parts, _action: Action| {
///         let sessions = sessions.clone();
///         async move { sessions.actor(&head).await }
///     };
///     KeyRouter::new(manager, authorize).into_router()
/// }
/// ```
///
/// The head is a copy of the request's own. You can run extractors on it, such as the one for your session.
pub trait Authorize: Send + Sync + 'static {
    /// Returns the grant for this action, or the denial. Use
    /// [`CredentialMissing`](tollgate::DenialKind::CredentialMissing) for a request without a session.
    fn authorize(&self, head: Parts, action: Action) -> Answer<Result<Grant, Denial>>;
}

impl<F, Granting, G> Authorize for F
where
    F: Fn(Parts, Action) -> Granting + Send + Sync + 'static,
    Granting: Future<Output = Result<G, Denial>> + Send + 'static,
    G: Into<Grant>,
{
    fn authorize(&self, head: Parts, action: Action) -> Answer<Result<Grant, Denial>> {
        let granting = self(head, action);
        Answer::later(async { granting.await.map(Into::into) })
    }
}

/// The action of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Lists keys.
    List,
    /// Issues a key.
    Create,
    /// Shows a key.
    Show {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Renames a key, or changes other details.
    Update {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Revokes a key.
    Revoke {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Rotates a key's secret.
    Rotate {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Deletes a key.
    Delete {
        /// The key's identifier.
        id: Box<str>,
    },
    /// Lists the events of a key.
    History {
        /// The key's identifier.
        id: Box<str>,
    },
}

impl Action {
    /// The key's identifier, for an action on one key. The key may not exist.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::List | Self::Create => None,
            Self::Show { id }
            | Self::Update { id }
            | Self::Revoke { id }
            | Self::Rotate { id }
            | Self::Delete { id }
            | Self::History { id } => Some(id),
        }
    }

    /// Whether the action changes something.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. } | Self::History { .. })
    }
}

type Check<T> = Box<dyn FnOnce(T) -> Result<T, Denial> + Send>;

/// The permission for a request, with optional restrictions. An [`Actor`] converts to a grant without restrictions.
#[must_use = "a grant has no effect until it is returned"]
pub struct Grant {
    pub(super) actor: Actor,
    pub(super) new_key: Option<Check<NewKey>>,
    pub(super) update: Option<Check<KeyUpdate>>,
}

impl Grant {
    /// Grants the action to this actor. An actor [of a tenant](Actor::of_tenant) manages only keys of that tenant.
    pub fn to(actor: Actor) -> Self {
        Self { actor, new_key: None, update: None }
    }

    /// Sets a function that completes a new key, for example with the account's plan, or refuses it.
    ///
    /// ```
    /// use tollgate::{Denial, DenialKind, Environment, manage::Actor};
    /// use tollgate_axum::management::Grant;
    ///
    /// let grant = Grant::to(Actor::of_tenant("trainee", "acme")).with_new_key(|key| {
    ///     if key.scopes().grants("jobs:delete") {
    ///         return Err(Denial::new(DenialKind::Forbidden).with_detail("Ask an owner for a key that deletes."));
    ///     }
    ///     Ok(key.with_environment(Environment::Test))
    /// });
    /// # let _ = grant;
    /// ```
    pub fn with_new_key(
        mut self,
        complete: impl FnOnce(NewKey) -> Result<NewKey, Denial> + Send + 'static,
    ) -> Self {
        self.new_key = Some(Box::new(complete));
        self
    }

    /// Sets a function that checks or changes an update of a key, or refuses it.
    pub fn with_update(
        mut self,
        check: impl FnOnce(KeyUpdate) -> Result<KeyUpdate, Denial> + Send + 'static,
    ) -> Self {
        self.update = Some(Box::new(check));
        self
    }
}

impl From<Actor> for Grant {
    fn from(actor: Actor) -> Self {
        Self::to(actor)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("actor", &self.actor).finish_non_exhaustive()
    }
}
