//! Gives every request an identifier, and every response a header that carries it.
//!
//! # What is refused
//!
//! Nothing. A caller's `x-request-id` is kept if it is well formed (`[A-Za-z0-9._-]{1,128}`); a missing, malformed or
//! repeated one is replaced by a new UUID version 7.
//!
//! # Where it stands
//!
//! Outermost, so that refusals and 404s carry the identifier too. What is inside runs in a tracing span `request` with the
//! field `request_id`, and finds the identifier in the [`RequestContext`](crate::RequestContext).
//!
//! # Examples
//!
//! ```
//! use tollgate::RequestIdLayer;
//! use tower::ServiceBuilder;
//!
//! let service = ServiceBuilder::new().layer(RequestIdLayer::new()).service_fn(handle);
//! # async fn handle(_: http::Request<String>) -> Result<http::Response<String>, std::convert::Infallible> { Ok(http::Response::default()) }
//! # let _ = service;
//! ```
//!
//! A contract that promises UUIDs, under a header of its own, before a proxied upstream that shall see it:
//!
//! ```
//! use http::HeaderName;
//! use tollgate::RequestIdLayer;
//!
//! let layer = RequestIdLayer::new()
//!     .with_header(HeaderName::from_static("x-correlation-id"))
//!     .with_uuids_only()
//!     .with_propagation();
//! ```
//!
//! # Security
//!
//! A caller chooses its own identifier, within the alphabet above: good for finding a request again, useless as proof of
//! anything. A malformed value is taken out of the request, so that nothing inside logs it.

use http::{HeaderName, HeaderValue};

use crate::{
    engine::{Cx, Settings, X_REQUEST_ID, impl_layer, set_header, single},
    request::RequestId,
};

/// Gives every request an identifier and every response a header that carries it. See the [module](self).
///
/// ```
/// use tollgate::RequestIdLayer;
/// use tower::ServiceBuilder;
///
/// let service = ServiceBuilder::new().layer(RequestIdLayer::new().with_uuids_only()).service_fn(handle);
/// # async fn handle(_: http::Request<String>) -> Result<http::Response<String>, std::convert::Infallible> { Ok(http::Response::default()) }
/// # let _ = service;
/// ```
#[derive(Clone, Debug)]
pub struct RequestIdLayer {
    pub(crate) gate: RequestIdGate,
    settings: Settings,
}

impl RequestIdLayer {
    /// Reads and writes `x-request-id`.
    pub fn new() -> Self {
        let gate = RequestIdGate { other_header: None, accept: RequestId::from_caller, is_propagated: false };
        Self { gate, settings: Settings::default() }
    }

    /// Reads and writes another header.
    pub fn with_header(mut self, header: HeaderName) -> Self {
        self.gate.other_header = Some(header).filter(|header| *header != X_REQUEST_ID);
        self
    }

    /// Keeps a caller's identifier only if it is a UUID, of any version, in its usual form of 36 characters.
    pub fn with_uuids_only(mut self) -> Self {
        self.gate.accept = RequestId::uuid_from_caller;
        self
    }

    /// Writes the identifier into the request as well, for a service that passes the request on.
    pub fn with_propagation(mut self) -> Self {
        self.gate.is_propagated = true;
        self
    }
}

impl Default for RequestIdLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl_layer!(RequestIdLayer, RequestId);

pub(crate) const LAYER: &str = "RequestIdLayer";

#[derive(Clone, Debug)]
pub(crate) struct RequestIdGate {
    // Instead of `x-request-id`.
    other_header: Option<HeaderName>,
    accept: fn(&HeaderValue) -> Option<RequestId>,
    is_propagated: bool,
}

impl RequestIdGate {
    #[inline]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) {
        let header = self.header();
        let sent = single(cx.head().headers, header).ok().flatten().and_then(self.accept);
        if sent.is_none() {
            cx.headers_mut().remove(header);
        }
        let context = &mut *cx.context;
        // A request has one identifier: an outer stack's is kept if this layer accepts it.
        let outer =
            context.request_id.take().filter(|outer| (self.accept)(&outer.to_header_value()).is_some());
        let request_id = outer.or(sent).unwrap_or_else(|| RequestId::generate(context.instant()));
        let propagated = self.is_propagated.then(|| request_id.to_header_value());
        context.parts.request_id = Some(request_id.to_header_value());
        if let Some(header) = &self.other_header {
            context.parts.set_request_id_header(header.clone());
        }
        context.request_id = Some(request_id);
        if let Some(value) = propagated {
            set_header(cx.headers_mut(), header, value);
        }
    }

    fn header(&self) -> &HeaderName {
        self.other_header.as_ref().unwrap_or(&X_REQUEST_ID)
    }
}

/// The span in which everything behind a `RequestIdLayer` runs.
pub(crate) fn span(request_id: &RequestId) -> tracing::Span {
    tracing::info_span!(target: "tollgate", "request", %request_id)
}
