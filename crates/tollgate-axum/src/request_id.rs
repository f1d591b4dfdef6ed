//! The request's identifier.

use std::{convert::Infallible, ops::Deref};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, RequestContext};

use crate::Rejection;

/// The request's identifier. Without an outer `RequestIdLayer` the response is 500; `Option<RequestId>` is then `None`.
///
/// ```
/// use tollgate_axum::RequestId;
///
/// async fn create_job(RequestId(request): RequestId) -> String {
///     format!("created by request {request}")
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(create_job));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub tollgate::request::RequestId);

impl Deref for RequestId {
    type Target = tollgate::request::RequestId;

    fn deref(&self) -> &tollgate::request::RequestId {
        &self.0
    }
}

fn request_id(head: &Parts) -> Option<RequestId> {
    RequestContext::of(&head.extensions).and_then(RequestContext::request_id).cloned().map(RequestId)
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        request_id(head).ok_or_else(|| {
            let denial = Denial::misconfigured(
                "the RequestId extractor requires a RequestIdLayer: \
                 put a RequestIdLayer, or a Tollgate, around the route",
            );
            Rejection::new("RequestId", denial, head)
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(request_id(head))
    }
}
