//! The authenticated caller.

use std::{ops::Deref, sync::Arc};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, DenialKind, Principal, RequestContext};

use crate::Rejection;

/// The authenticated caller, as a [`Principal`].
///
/// | condition | status |
/// |---|---|
/// | anonymous request, in optional mode, for a public route, or as a CORS preflight | 401 |
/// | no outer `VerifyLayer` | 500 |
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
/// `Option<Authenticated>` is `None` for an anonymous request. Without a `VerifyLayer` the response is still 500:
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
/// In report-only mode, a request that would have been refused is anonymous: extract the `Option` there.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Arc<Principal>);

impl Deref for Authenticated {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

/// The caller; `None` for an anonymous request; a denial if no layer has verified the request.
fn caller(head: &Parts) -> Result<Option<Authenticated>, Denial> {
    match RequestContext::of(&head.extensions) {
        Some(context) if context.is_identified() => Ok(context.principal().cloned().map(Authenticated)),
        _ => Err(Denial::misconfigured(
            "the Authenticated extractor requires a VerifyLayer: \
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
