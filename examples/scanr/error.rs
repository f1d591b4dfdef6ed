//! The contract's statuses, and the body of an error. The contract leaves the body open:
//!
//! ```json
//! {"error":{"code":"invalid_credential","message":"The credential is not valid."}}
//! ```

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{
    Denial, DenialKind,
    respond::{self, Respond},
};

/// Answers a denial with its code and detail, and the contract's status: 401 for repeated or conflicting credentials, since the
/// contract has no 400 for credentials.
pub(crate) fn responder() -> impl Respond {
    respond::Json::new(|denial| body(denial.code(), denial.detail())).with_status(|denial: &Denial| {
        match denial.kind() {
            DenialKind::CredentialRepeated | DenialKind::CredentialConflicting => StatusCode::UNAUTHORIZED,
            _ => denial.status(),
        }
    })
}

pub(crate) fn not_found() -> Response {
    response(StatusCode::NOT_FOUND, "not_found", "There is nothing here.")
}

pub(crate) fn method_not_allowed() -> Response {
    let message = "This path has other methods: see the Allow header.";
    response(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// An error of the service itself.
pub(crate) fn response(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(body(code, message))).into_response()
}

fn body(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}
