//! The error envelope: every refusal in the contract's words.

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{
    Denial, DenialKind,
    respond::{ByRequest, Json, Respond},
};
use tollgate_axum::{WebSocketClose, is_websocket};

/// Refuses in the envelope; a handshake is accepted and closed, with 4401 or 4403, so that browsers can tell why.
pub(crate) fn responder() -> impl Respond {
    let in_envelope = Json::new(|denial| envelope(words(denial).1)).with_status(|denial| words(denial).0);
    let close = WebSocketClose::otherwise(in_envelope).with_codes(|denial| {
        let (status, code) = words(denial);
        (4000 + status.as_u16(), code.to_owned().into())
    });
    ByRequest::otherwise(in_envelope)
        .when(|request| is_websocket(request) && request.uri.path() == crate::socket::PATH, close)
}

/// What the contract says of a denial. It knows 401 for all bad keys, and tells strangers nothing about which are known.
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
        // Every route is in the map of scopes, so that what is not in it does not exist.
        DenialKind::RouteUnlisted => (StatusCode::NOT_FOUND, NOT_FOUND),
        _ => (denial.status(), denial.code()),
    }
}

pub(crate) const INVALID_API_KEY: &str = "invalid_api_key";
pub(crate) const MISSING_SCOPE: &str = "missing_scope";
const NOT_FOUND: &str = "not_found";

/// `{"error":{"code":"missing_scope","message":"missing scope"}}`
pub(crate) fn envelope(code: &str) -> Value {
    json!({ "error": describe(code) })
}

pub(crate) fn describe(code: &str) -> Value {
    json!({ "code": code, "message": code.replace('_', " ") })
}

/// An error of the routes' own.
pub(crate) fn response(status: StatusCode, code: &str) -> axum::response::Response {
    (status, axum::Json(envelope(code))).into_response()
}

pub(crate) fn not_found() -> axum::response::Response {
    response(StatusCode::NOT_FOUND, NOT_FOUND)
}
