//! The error envelope: every refusal with the contract's codes.

use std::borrow::Cow;

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{
    Denial, DenialKind,
    respond::{ByRequest, Json, Respond},
};
use tollgate_axum::{WebSocketClose, is_websocket};

/// Refuses with the envelope. A WebSocket handshake is accepted and closed with 4401 or 4403, because browsers show scripts only
/// the close code.
pub(crate) fn responder() -> impl Respond {
    let in_envelope = Json::new(|denial| envelope(words(denial).1)).with_status(|denial| words(denial).0);
    let closing = WebSocketClose::otherwise(in_envelope.clone()).with_codes(close);
    ByRequest::otherwise(in_envelope)
        .when(|request| is_websocket(request) && request.uri.path() == crate::socket::PATH, closing)
}

/// The contract's close code and its reason, for a handshake that is refused and for a connection whose key ends.
pub(crate) fn close(denial: &Denial) -> (u16, Cow<'static, str>) {
    let (status, code) = words(denial);
    (4000 + status.as_u16(), code.to_owned().into())
}

/// The contract's status and code for a denial. Every invalid key gets the same 401, so that callers cannot learn which keys exist.
fn words(denial: &Denial) -> (StatusCode, &str) {
    match denial.kind() {
        DenialKind::CredentialMissing | DenialKind::CredentialEmpty => {
            (StatusCode::UNAUTHORIZED, "missing_api_key")
        }
        DenialKind::CredentialMalformed
        | DenialKind::CredentialRepeated
        | DenialKind::CredentialConflicting
        | DenialKind::KeyUnknown
        | DenialKind::KeyRevoked
        | DenialKind::KeyExpired => (StatusCode::UNAUTHORIZED, INVALID_API_KEY),
        DenialKind::EntitlementInactive => (StatusCode::FORBIDDEN, "inactive_entitlement"),
        DenialKind::ScopeMissing => (StatusCode::FORBIDDEN, MISSING_SCOPE),
        _ => (denial.status(), denial.code()),
    }
}

const INVALID_API_KEY: &str = "invalid_api_key";
pub(crate) const MISSING_SCOPE: &str = "missing_scope";
const NOT_FOUND: &str = "not_found";

/// `{"error":{"code":"missing_scope","message":"missing scope"}}`
pub(crate) fn envelope(code: &str) -> Value {
    json!({ "error": describe(code) })
}

pub(crate) fn describe(code: &str) -> Value {
    json!({ "code": code, "message": code.replace('_', " ") })
}

/// An error of the routes.
pub(crate) fn response(status: StatusCode, code: &str) -> axum::response::Response {
    (status, axum::Json(envelope(code))).into_response()
}

pub(crate) fn not_found() -> axum::response::Response {
    response(StatusCode::NOT_FOUND, NOT_FOUND)
}
