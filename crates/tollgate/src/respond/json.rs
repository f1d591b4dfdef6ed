//! A JSON shape of your own.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request};
use tollgate_core::{denial::Denial, respond::Respond};

/// Answers with whatever JSON a function makes of a denial.
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
/// A contract that knows no other status for a bad key than 401:
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
/// The function sees the precise [`kind`](Denial::kind). Telling callers whether a key is unknown, revoked or expired tells
/// strangers as well.
#[derive(Clone, Copy)]
pub struct Json<F> {
    shape: F,
    status: fn(&Denial) -> StatusCode,
}

impl<F: Fn(&Denial) -> serde_json::Value + Send + Sync + 'static> Json<F> {
    /// Answers with what `shape` makes of a denial.
    pub fn new(shape: F) -> Self {
        Self { shape, status: Denial::status }
    }

    /// Answers under another status than the denial's: 400 to 599; for any other, the denial's own counts.
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
