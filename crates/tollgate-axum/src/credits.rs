//! By what a handler reports the actual cost of its request.

use std::{convert::Infallible, ops::Deref};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, RequestContext, credits::CreditMeter};

use crate::Rejection;

/// The [`CreditMeter`] of the request, to which the handler reports what the request has cost.
///
/// Without an outer `CreditsLayer`, the response is 500, and `Option<Credits>` is `None`. On a route that is free, reports are ignored.
///
/// ```
/// use tollgate_axum::Credits;
///
/// async fn scan(credits: Credits) -> String {
///     let pages = 3;
///     credits.set(pages);
///     format!("{pages} pages, of {} that were reserved", credits.reserved())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(scan));
/// ```
#[derive(Clone, Debug)]
pub struct Credits(pub CreditMeter);

impl Deref for Credits {
    type Target = CreditMeter;

    fn deref(&self) -> &CreditMeter {
        &self.0
    }
}

fn credits(head: &Parts) -> Option<Credits> {
    RequestContext::of(&head.extensions).and_then(RequestContext::credits).cloned().map(Credits)
}

impl<S: Sync> FromRequestParts<S> for Credits {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        credits(head).ok_or_else(|| {
            let denial = Denial::misconfigured(
                "the Credits extractor requires a CreditsLayer: put a CreditsLayer around the route, or extract Option<Credits>",
            );
            Rejection::new("Credits", denial, head)
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Credits {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(credits(head))
    }
}
