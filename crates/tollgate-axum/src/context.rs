//! Everything the layers know about the request.

use std::{convert::Infallible, ops::Deref};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, RequestContext};

use crate::Rejection;

/// Everything the layers know about the request: the [`RequestContext`], for handlers that need several of its parts, or one that has no
/// extractor of its own.
///
/// If no layer of Tollgate has seen the request, the response is 500, and `Option<Context>` is `None`.
///
/// ```
/// use tollgate_axum::Context;
///
/// async fn describe(context: Context) -> String {
///     let tenant = context.principal().and_then(|principal| principal.tenant());
///     let plan = context.plan().map(|plan| plan.tier());
///     format!("{} with {}", tenant.unwrap_or("no tenant"), plan.unwrap_or("no plan"))
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(describe));
/// ```
#[derive(Clone, Debug)]
pub struct Context(pub RequestContext);

impl Deref for Context {
    type Target = RequestContext;

    fn deref(&self) -> &RequestContext {
        &self.0
    }
}

fn context(head: &Parts) -> Option<Context> {
    RequestContext::of(&head.extensions).cloned().map(Context)
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        context(head).ok_or_else(|| {
            let denial = Denial::misconfigured(
                "the Context extractor requires a layer of Tollgate: put one, or a Tollgate, around the route",
            );
            Rejection::new("Context", denial, head)
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(context(head))
    }
}
