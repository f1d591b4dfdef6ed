//! Who is calling.

use std::{ops::Deref, sync::Arc};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, DenialKind, Principal, RequestContext};

use crate::Rejection;

/// The caller, who has proved to be this [`Principal`].
///
/// | condition | status |
/// |---|---|
/// | anonymous, which optional mode and CORS preflights are | 401 |
/// | no `VerifyLayer` outside | 500 |
///
/// ```
/// use tollgate_axum::Authenticated;
///
/// async fn whoami(caller: Authenticated) -> String {
///     caller.id().to_owned()
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(whoami));
/// ```
///
/// `Option<Authenticated>` is `None` for the anonymous, and still answers 500 where no layer has asked who is calling:
///
/// ```
/// use tollgate_axum::Authenticated;
///
/// async fn greet(caller: Option<Authenticated>) -> String {
///     format!("Hello, {}!", caller.as_ref().map_or("stranger", |caller| caller.id()))
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(greet));
/// ```
///
/// Behind layers in report-only mode, whoever would have been refused is anonymous: handlers there should take the option.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Arc<Principal>);

impl Deref for Authenticated {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

/// The caller; `None` if anonymous; a denial if nobody has asked.
fn caller(head: &Parts) -> Result<Option<Authenticated>, Denial> {
    match RequestContext::of(&head.extensions) {
        Some(context) if context.is_identified() => Ok(context.principal().cloned().map(Authenticated)),
        _ => Err(Denial::misconfigured(
            "Authenticated was extracted where no VerifyLayer had run: \
             put a CredentialLayer and a VerifyLayer, or a Tollgate, around the route",
        )),
    }
}

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        let caller = caller(head).and_then(|caller| caller.ok_or(DenialKind::CredentialMissing.into()));
        caller.map_err(|denial| Rejection::new("Authenticated", denial, head))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Authenticated {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Rejection> {
        caller(head).map_err(|denial| Rejection::new("Authenticated", denial, head))
    }
}
