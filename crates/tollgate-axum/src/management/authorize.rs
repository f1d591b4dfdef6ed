//! Who may do what: the application says so.

use std::{fmt, future::Future};

use http::request::Parts;
use tollgate::{
    Answer, Denial,
    manage::{Actor, KeyUpdate, NewKey},
};

/// Says who sends a request, and whether they may do what it is for.
///
/// A function does, of the request's head and the action, that gives an [`Actor`] or a [`Grant`]. One that needs something of the
/// application's, such as its sessions, holds a clone of it:
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
/// The head is the request's own, a copy: also extractors can be run on it, such as the application's for its session.
pub trait Authorize: Send + Sync + 'static {
    /// Who may do this, and how; or why not, in the same words as all refusals: a
    /// [`CredentialMissing`](tollgate::DenialKind::CredentialMissing) for whoever has no session.
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

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Keys are to be listed.
    List,
    /// A key is to be issued.
    Create,
    /// A key is to be shown.
    Show {
        /// Which.
        id: Box<str>,
    },
    /// A key is to be renamed, or changed otherwise.
    Update {
        /// Which.
        id: Box<str>,
    },
    /// A key is to be revoked.
    Revoke {
        /// Which.
        id: Box<str>,
    },
    /// A key is to get another secret.
    Rotate {
        /// Which.
        id: Box<str>,
    },
    /// A key is to be deleted.
    Delete {
        /// Which.
        id: Box<str>,
    },
    /// What happened to a key is to be listed.
    History {
        /// To which.
        id: Box<str>,
    },
}

impl Action {
    /// The key that it is about, if it is about one. That there is such a key is not known yet.
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

    /// Whether something is different afterwards.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::List | Self::Show { .. } | Self::History { .. })
    }
}

type Check<T> = Box<dyn FnOnce(T) -> Result<T, Denial> + Send>;

/// Who may do what they ask for, and within which bounds. An [`Actor`] alone is a grant without bounds of its own.
#[must_use = "it permits nothing until it is returned"]
pub struct Grant {
    pub(super) actor: Actor,
    pub(super) new_key: Option<Check<NewKey>>,
    pub(super) update: Option<Check<KeyUpdate>>,
}

impl Grant {
    /// To this actor. One [of a tenant](Actor::of_tenant) manages that tenant's keys only.
    pub fn to(actor: Actor) -> Self {
        Self { actor, new_key: None, update: None }
    }

    /// Completes the key that is about to be issued, such as by the account's plan, or refuses it.
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

    /// Looks at the change that is about to be made to a key, or refuses it.
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
