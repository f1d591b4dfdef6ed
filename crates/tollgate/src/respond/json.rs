//! JSON in your own format.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request};
use tollgate_core::{denial::Denial, respond::Respond};

use crate::RequestContext;

/// Answers with JSON that a function creates from the denial.
///
/// ```
/// use tollgate::{CredentialLayer, DenialKind, respond::Json};
///
/// let layer = CredentialLayer::new().with_responder(Json::new(|denial| {
///     let code = match denial.kind() {
///         DenialKind::CredentialMissing | DenialKind::CredentialEmpty => "missing_api_key",
///         _ => "invalid_api_key",
///     };
///     serde_json::json!({ "error": { "code": code, "message": code.replace('_', " ") } })
/// }));
/// ```
///
/// For an API contract that has no other status than 401 for an invalid key:
///
/// ```
/// use http::StatusCode;
/// use tollgate::{Denial, respond::Json};
///
/// let responder = Json::new(|denial| serde_json::json!({ "message": denial.detail() })).with_status(|denial| {
///     match denial.status() {
///         StatusCode::BAD_REQUEST => StatusCode::UNAUTHORIZED,
///         status => status,
///     }
/// });
/// ```
///
/// With the request's identifier, which the default responder shows as well:
///
/// ```
/// use tollgate::respond::Json;
///
/// let responder = Json::with_context(|denial, context| {
///     let request = context.request_id().map(|request_id| request_id.as_str());
///     serde_json::json!({ "error": denial.code(), "request": request })
/// });
/// ```
///
/// The function receives the exact [`kind`](Denial::kind). If the response says whether a key is unknown, revoked or expired,
/// strangers learn it too.
#[derive(Clone)]
pub struct Json {
    shape: Arc<Shape>,
    status: fn(&Denial) -> StatusCode,
}

type Shape = dyn Fn(&Denial, &RequestContext) -> serde_json::Value + Send + Sync;

impl Json {
    /// Answers with the JSON that `shape` creates from a denial.
    pub fn new(shape: impl Fn(&Denial) -> serde_json::Value + Send + Sync + 'static) -> Self {
        Self::with_context(move |denial, _context| shape(denial))
    }

    /// Answers with the JSON that `shape` creates from a denial, and from what the layers know about the request: its
    /// identifier, for example.
    pub fn with_context(
        shape: impl Fn(&Denial, &RequestContext) -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        Self { shape: Arc::new(shape), status: Denial::status }
    }

    /// Changes the status, to 400 to 599. For any other value, the denial's own status is used.
    pub fn with_status(mut self, status: fn(&Denial) -> StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl Respond for Json {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let context = RequestContext::of_refused(request);
        let mut response = Response::new(Bytes::from((self.shape)(denial, context).to_string()));
        let status = (self.status)(denial);
        let is_error = status.is_client_error() || status.is_server_error();
        *response.status_mut() = if is_error { status } else { denial.status() };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(..)")
    }
}
