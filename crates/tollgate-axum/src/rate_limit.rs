//! The state of the caller's limits.

use std::{convert::Infallible, ops::Deref};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, RequestContext, limit::Decision};

use crate::Rejection;

/// The state of the caller's limits after this request was counted, including all stacked limit layers.
///
/// If no limit has counted the request, the response is 500, and `Option<RateLimit>` is `None`. This is the case without an outer
/// `RateLimitLayer`, and if none of its policies applies to the request.
///
/// ```
/// use tollgate_axum::RateLimit;
///
/// async fn usage(limits: RateLimit) -> String {
///     limits.tightest().map(|window| format!("{} remaining", window.remaining())).unwrap_or_default()
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(usage));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit(pub Decision);

impl Deref for RateLimit {
    type Target = Decision;

    fn deref(&self) -> &Decision {
        &self.0
    }
}

fn decision(head: &Parts) -> Option<RateLimit> {
    RequestContext::of(&head.extensions).and_then(RequestContext::decision).cloned().map(RateLimit)
}

impl<S: Sync> FromRequestParts<S> for RateLimit {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        decision(head).ok_or_else(|| {
            let denial = Denial::misconfigured(
                "the RateLimit extractor requires a RateLimitLayer that counts the request: \
                 put a RateLimitLayer with a policy that applies to the route around it, or extract Option<RateLimit>",
            );
            Rejection::new("RateLimit", denial, head)
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for RateLimit {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(decision(head))
    }
}
