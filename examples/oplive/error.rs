//! The contract's statuses, codes and bodies. The contract has three codes, and leaves the body open:
//!
//! ```json
//! {"error":"INVALID_API_KEY","message":"Send one valid key: Authorization: Bearer op_live_..."}
//! {"error":"MISSING_PERMISSION","message":"This key lacks the permission scan:create.","permission":"scan:create"}
//! {"error":"INSUFFICIENT_CREDITS","message":"The organization has too few credits.","balance":3,"needed":20}
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

/// Refusals of the API.
pub(crate) fn responder() -> impl Respond {
    respond::Json::new(describe).with_status(status)
}

/// The contract has one answer to every request without one valid key: 401 `INVALID_API_KEY`. So callers cannot learn which keys
/// exist, and a repeated header is no valid key.
fn status(denial: &Denial) -> StatusCode {
    match denial.kind() {
        DenialKind::CredentialRepeated => StatusCode::UNAUTHORIZED,
        _ => denial.status(),
    }
}

fn describe(denial: &Denial) -> Value {
    match denial.kind() {
        DenialKind::TenantSuspended => body("ORGANIZATION_SUSPENDED", denial.detail()),
        DenialKind::ScopeMissing => {
            let permission = denial.scope().unwrap_or_default();
            let message = format!("This key lacks the permission {permission}.");
            json!({ "error": "MISSING_PERMISSION", "message": message, "permission": permission })
        }
        DenialKind::CreditsExhausted => {
            let (balance, needed) = denial.shortage().map(|lack| (lack.available, lack.needed)).unzip();
            let message = "The organization has too few credits.";
            json!({ "error": "INSUFFICIENT_CREDITS", "message": message, "balance": balance, "needed": needed })
        }
        _ if status(denial) == StatusCode::UNAUTHORIZED => {
            body("INVALID_API_KEY", "Send one valid key: Authorization: Bearer op_live_...")
        }
        _ => describe_plainly(denial),
    }
}

/// Refusals of the dashboard, whose callers have sessions instead of keys.
pub(crate) fn dashboard_responder() -> impl Respond {
    respond::Json::new(describe_plainly)
}

/// `rate_limited` becomes `RATE_LIMITED`.
fn describe_plainly(denial: &Denial) -> Value {
    body(&denial.code().to_ascii_uppercase(), denial.detail())
}

pub(crate) fn not_found() -> Response {
    response(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing here.")
}

pub(crate) fn method_not_allowed() -> Response {
    let message = "This path has other methods: see the Allow header.";
    response(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
}

/// An error of the service itself.
pub(crate) fn response(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(body(code, message))).into_response()
}

fn body(code: &str, message: &str) -> Value {
    json!({ "error": code, "message": message })
}
