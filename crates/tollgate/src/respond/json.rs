//! JSON in your own format.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request};
use tollgate_core::{denial::Denial, respond::Respond};

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
/// The function receives the exact [`kind`](Denial::kind). If the response says whether a key is unknown, revoked or expired,
/// strangers learn it too.
#[derive(Clone, Copy)]
pub struct Json<F> {
    shape: F,
    status: fn(&Denial) -> StatusCode,
}

impl<F: Fn(&Denial) -> serde_json::Value + Send + Sync + 'static> Json<F> {
    /// Answers with the JSON that `shape` creates from a denial.
    pub fn new(shape: F) -> Self {
        Self { shape, status: Denial::status }
    }

    /// Changes the status, to 400 to 599. For any other value, the denial's own status is used.
    pub fn with_status(mut self, status: fn(&Denial) -> StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl<F: Fn(&Denial) -> serde_json::Value + Send + Sync + 'static> Respond for Json<F> {
    fn respond(&self, denial: &Denial, _request: &mut request::Parts) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from((self.shape)(denial).to_string()));
        let status = (self.status)(denial);
        let is_error = status.is_client_error() || status.is_server_error();
        *response.status_mut() = if is_error { status } else { denial.status() };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl<F> fmt::Debug for Json<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(..)")
    }
}
